"""Where an image's repository is: an image's name as people write it, and the registry's address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from serving.spelling import InputError

# A name without a host is Docker Hub's, whose API and whose credentials have addresses of their own.
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "https://registry-1.docker.io"
_DOCKER_HUB_CREDENTIALS = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Repository:
    """A repository at a registry: `origin` is the URL without a path, `host` and `path` are what people read."""

    origin: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """`docker.io/vllm/vllm-openai`."""
        return f"{self.host}/{self.path}"

    @property
    def credentials_key(self) -> str:
        """The key under which Docker's configuration has the registry's credentials."""
        return _DOCKER_HUB_CREDENTIALS if self.host == _DOCKER_HUB else self.host


def repository(image: str, registry: str | None = None) -> Repository:
    """Return where an image such as `nvcr.io/nvidia/k8s-device-plugin` is, or where a mirror at a URL has it.

    A path in the URL goes before the image's, as pull-through caches have it. Raises `InputError` for a URL that is none.
    """
    host, _, path = image.partition("/")
    if not ("." in host or ":" in host or host == "localhost"):
        host, path = _DOCKER_HUB, image if "/" in image else f"library/{image}"
    if registry is None:
        return Repository(_DOCKER_HUB_API if host == _DOCKER_HUB else f"https://{host}", host, path)
    url = _url(registry)
    return Repository(f"{url.scheme}://{url.netloc}", url.netloc, f"{url.path.strip('/')}/{path}".lstrip("/"))


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        complete = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, a bracket without its partner
        complete = False
        url = urlsplit("")
    if not complete or url.query or url.fragment or "@" in url.netloc:
        raise InputError(
            f"--registry {text}: expected a URL such as https://mirror.example.com or https://mirror.example.com/docker-hub; "
            "credentials belong into Docker's configuration (docker login)"
        )
    return url
