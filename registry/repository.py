"""Where an image's repository is: an image's name as people write it, and the registry's address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from serving.spelling import InputError

# A name without a host is Docker Hub's, whose API and whose credentials have addresses of their own.
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"


@dataclass(frozen=True)
class Repository:
    """A repository at a registry: `origin` is scheme, host and port, `path` what follows /v2/, `name` what people read."""

    origin: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """`docker.io/vllm/vllm-openai`."""
        return f"{_DOCKER_HUB if self.host == _DOCKER_HUB_API else self.host}/{self.path}"

    @property
    def credentials_key(self) -> str:
        """The key under which Docker's configuration has the registry's credentials."""
        return "https://index.docker.io/v1/" if self.host == _DOCKER_HUB_API else self.host


def repository(image: str, registry: str | None = None) -> Repository:
    """Return where an image such as `nvcr.io/nvidia/k8s-device-plugin` is, or where a mirror at a URL has it.

    A path in the URL goes before the image's, as pull-through caches have it. Raises `InputError` for a URL that is none.
    """
    first, _, rest = image.partition("/")
    if not ("." in first or ":" in first or first == "localhost"):
        first, rest = _DOCKER_HUB_API, image if "/" in image else f"library/{image}"
    if registry is None:
        return Repository(f"https://{first}", first, rest)
    url = _url(registry)
    prefix = url.path.strip("/")
    return Repository(f"{url.scheme}://{url.netloc}", url.netloc, f"{prefix}/{rest}" if prefix else rest)


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
