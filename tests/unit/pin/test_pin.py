"""`python -m serving pin IMAGE VERSION`: what is written into the lock, and what is refused before anybody is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.lock import lock_file
from registry.repository import Repository, repository
from serving import catalogue
from serving.__main__ import ACCEPTED, BAD_INPUT, REFUSED, main
from serving.spelling import listed
from tests.fixtures.catalogue import forget
from tests.fixtures.images import INDEX, MANIFEST_LIST, digest_of, index
from tests.unit.pin.fake_registry import (
    DIGEST,
    IMAGE,
    TAG,
    VLLM,
    FakeRegistry,
    index_reply,
    pin,
)

Captured = pytest.CaptureFixture[str]
TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize("media_type", [INDEX, MANIFEST_LIST])
def test_a_new_pin_is_written_behind_the_images_others(
    registry: FakeRegistry, lock: Path, capsys: Captured, media_type: str
) -> None:
    before = lock.read_text(encoding="utf-8")
    image = index("linux/amd64", "linux/arm64", media_type=media_type)
    registry.replies[TAG] = index_reply(image, media_type)
    assert pin(registry) == ACCEPTED
    where = f"{registry.host}/{VLLM}"
    platforms = "an index of linux/amd64 and linux/arm64"
    assert capsys.readouterr() == (
        f"vllm v0.33.0 is {digest_of(image)} at {where}, {platforms}; pins.toml says so\n",
        "",
    )
    entry = f'[vllm."v0.33.0"]\ndigest = "{digest_of(image)}"\ndate = "{TODAY}"\nsource = "{where}: {platforms}"\n\n'
    next_image = before.index("[device-plugin")
    assert lock.read_text(encoding="utf-8") == before[:next_image] + entry + before[next_image:]
    assert [path.name for path in lock.parent.iterdir() if path.suffix != ".toml"] == ["__init__.py", "models.py"]


def test_the_catalogue_has_the_new_pin(registry: FakeRegistry) -> None:
    registry.replies[TAG] = index_reply(IMAGE)
    assert catalogue.engine("0.33.0").digest is None
    assert pin(registry) == ACCEPTED
    forget()
    assert catalogue.engine("0.33.0").digest == DIGEST
    assert catalogue.engine_of_image(f"a.mirror/{VLLM}@{DIGEST}") == catalogue.engine("0.33.0")


def test_a_pin_that_was_only_reported_is_confirmed(registry: FakeRegistry, lock: Path, capsys: Captured) -> None:
    text = lock.read_text(encoding="utf-8")
    known = catalogue.pins()["vllm"]["v0.31.0"]
    lock.write_text(text.replace(known.digest, DIGEST), encoding="utf-8")
    forget()
    registry.replies[TAG.replace("0.33", "0.31")] = index_reply(IMAGE)
    assert pin(registry, "vllm", "0.31.0") == ACCEPTED
    assert f"; pins.toml says so, as before ({known.date}: {known.source})\n" in capsys.readouterr().out
    forget()
    confirmed = catalogue.pins()["vllm"]["v0.31.0"]
    assert (confirmed.digest, confirmed.date) == (DIGEST, TODAY)
    assert confirmed.source == f"{registry.host}/{VLLM}: an index of linux/amd64 and linux/arm64"


def test_a_tag_that_moved_is_written_and_said(registry: FakeRegistry, capsys: Captured) -> None:
    old = catalogue.pins()["vllm"]["v0.31.0"]
    registry.replies[TAG.replace("0.33", "0.31")] = index_reply(IMAGE)
    assert pin(registry, "vllm", "0.31.0") == ACCEPTED
    assert (
        f"; pins.toml says so. It said {old.digest} until now ({old.date}: {old.source}): releases keep their tags, so find "
        "out why this one moved before you deploy it\n"
    ) in capsys.readouterr().out
    forget()
    assert catalogue.engine("0.31.0").digest == DIGEST


def test_another_image_is_pinned_by_its_tag(registry: FakeRegistry, capsys: Captured) -> None:
    registry.replies["/v2/nvidia/k8s-device-plugin/manifests/v0.21.0"] = index_reply(IMAGE)
    assert pin(registry, "device-plugin", "v0.21.0") == ACCEPTED
    assert capsys.readouterr().out.endswith("says so. Stacks deploy v0.20.0 until images.toml names another\n")
    forget()
    assert catalogue.pins()["device-plugin"]["v0.21.0"].digest == DIGEST
    assert catalogue.image("device-plugin").reference.endswith(catalogue.pins()["device-plugin"]["v0.20.0"].digest)


def test_a_lock_that_cannot_be_written(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    registry.replies[TAG] = index_reply(IMAGE)
    assert pin(registry) == BAD_INPUT
    said = f"{lock_file()}: cannot be written (No space left on device); run this in a checkout of your own\n"
    assert capsys.readouterr() == ("", said)


# --- what is refused before anybody is asked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(
            ("vllm", "0.23.0"),
            REFUSED,
            "vllm 0.23.0 is not pinned: no machine of the catalogue may serve with it: parser-old: vLLM 0.23.0 loses or garbles "
            "streamed tool calls with MTP; the GLM parser came with 0.24.0 (vllm#45915); b200-garbage-023: vLLM 0.23.0 with "
            "zai-org/GLM-5.2-FP8 on 8xB200 serves garbage (about 1 % MTP acceptance) (vllm#46367)",
            id="hazard",
        ),
        pytest.param(
            ("device-plugin", "v0.19.1"),
            REFUSED,
            "device-plugin v0.19.1 is not pinned: it hands every RDMA device to GPU pods by default, which clashes with the EFA "
            "plugin (NVIDIA/k8s-device-plugin 1b826ac; amazon-eks-ami#2706)",
            id="hazard-of-another-image",
        ),
        pytest.param(
            ("vllm", "v0.31.0"),
            BAD_INPUT,
            f"unknown vLLM release 'v0.31.0'; allowed are {listed(catalogue.engines())}; did you mean 0.31.0?",
            id="unknown-release",
        ),
        pytest.param(
            ("vlm", "0.31.0"),
            BAD_INPUT,
            "unknown image 'vlm'; allowed are device-plugin, efa-plugin, lws or vllm; did you mean vllm?",
            id="unknown-image",
        ),
        pytest.param(
            ("vlm", "--check"),
            BAD_INPUT,
            "unknown image 'vlm'; allowed are device-plugin, efa-plugin, lws or vllm; did you mean vllm?",
            id="check-of-an-unknown-image",
        ),
        pytest.param(
            ("vllm", "0.33.0", "--check"),
            BAD_INPUT,
            "python -m serving pin --check: vllm 0.33.0 is not pinned; of vllm is pinned: v0.23.0, v0.24.0, v0.28.0, v0.30.0 and "
            "v0.31.0",
            id="check-of-what-is-not-pinned",
        ),
        pytest.param(
            ("device-plugin", "v0.20.0@sha256:0"),
            BAD_INPUT,
            "python -m serving pin: 'v0.20.0@sha256:0' is no tag of device-plugin; expected letters, digits, dots, dashes and "
            "underscores, at most 128",
            id="no-tag",
        ),
        pytest.param(
            ("vllm",),
            BAD_INPUT,
            "python -m serving pin: IMAGE and VERSION are needed, such as vllm 0.31.0, or --check",
            id="no-version",
        ),
    ],
)
def test_refusals_ask_nobody(
    registry: FakeRegistry, lock: Path, capsys: Captured, *, words: tuple[str, ...], code: int, said: str
) -> None:
    before = lock.read_bytes()
    assert pin(registry, *words) == code
    assert capsys.readouterr() == ("", f"{said}\n")
    assert registry.requests == []
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        (VLLM, None, Repository("https://registry-1.docker.io", "docker.io", VLLM)),
        ("docker.io/vllm/vllm-openai", None, Repository("https://registry-1.docker.io", "docker.io", VLLM)),
        ("haproxy", None, Repository("https://registry-1.docker.io", "docker.io", "library/haproxy")),
        ("nvcr.io/nvidia/plugin", None, Repository("https://nvcr.io", "nvcr.io", "nvidia/plugin")),
        ("localhost/a/b", None, Repository("https://localhost", "localhost", "a/b")),
        ("here:5000/a", None, Repository("https://here:5000", "here:5000", "a")),
        ("haproxy", "https://m.example/", Repository("https://m.example", "m.example", "library/haproxy")),
        ("nvcr.io/nvidia/p", "http://m:80/x/y/", Repository("http://m:80", "m:80", "x/y/nvidia/p")),
    ],
)
def test_where_an_image_is(image: str, registry: str | None, expected: Repository) -> None:
    assert repository(image, registry) == expected


@pytest.mark.parametrize(
    ("image", "key"), [(VLLM, "https://index.docker.io/v1/"), ("nvcr.io/nvidia/plugin", "nvcr.io")]
)
def test_where_its_credentials_are(image: str, key: str) -> None:
    assert repository(image).credentials_key == key


@pytest.mark.parametrize(
    "url",
    [
        "mirror.example.com",
        "ftp://mirror.example.com",
        "https://",
        "https://u:p@mirror.example.com",
        "https://m:x",
        "http://[::1",
    ],
)
def test_a_registry_that_is_no_url(capsys: Captured, url: str) -> None:
    assert main(["pin", "vllm", "0.33.0", "--registry", url]) == BAD_INPUT
    said = (
        f"--registry {url}: expected a URL such as https://mirror.example.com or https://mirror.example.com/docker-hub; "
        "credentials belong into Docker's configuration (docker login)\n"
    )
    assert capsys.readouterr() == ("", said)
