"""Where a model's files come from: Hugging Face, or a copy of them in an S3 bucket."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from .download import RefusedError, read

HUB = "https://huggingface.co"
MANIFEST = "manifest.json"
_SIGNED_FOR_SECONDS = 3600


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model: its path, its size in bytes, and its hash, which names it in the cache.

    The hash is the SHA-256 of a large file (64 digits) or Git's hash of a small one (40), as the hub names them.
    """

    path: str
    size: int
    hash: str


class Source(Protocol):
    """A place that has a model's files at a revision."""

    def files(self) -> list[RemoteFile]:
        """Return every file; raise `TransferError` or `RefusedError`."""
        ...

    def url(self, file: RemoteFile) -> str:
        """Return where a file can be read now, in ranges."""
        ...


@dataclass(frozen=True)
class Hub:
    """A repository on Hugging Face at a revision."""

    repository: str
    revision: str
    endpoint: str = HUB

    def files(self) -> list[RemoteFile]:
        """Ask the hub for the revision's files with sizes and hashes."""
        answer = json.loads(read(f"{self.endpoint}/api/models/{self.repository}/revision/{self.revision}?blobs=true"))
        return [_of_sibling(row) for row in answer["siblings"]]

    def url(self, file: RemoteFile) -> str:
        """Return the file's address at the hub, which sends on to a store that knows ranges."""
        return f"{self.endpoint}/{self.repository}/resolve/{self.revision}/{quote(file.path)}"


def _of_sibling(row: dict[str, Any]) -> RemoteFile:
    large = row.get("lfs")
    return RemoteFile(row["rfilename"], row["size"], large["sha256"] if large else row["blobId"])


@dataclass(frozen=True)
class Bucket:
    """A copy in S3 below `prefix`, with a manifest that is written last: a copy that was not finished has none."""

    bucket: str
    prefix: str
    client: Any

    def files(self) -> list[RemoteFile]:
        """Read the copy's manifest."""
        rows: list[dict[str, Any]] = json.loads(read(self._signed(MANIFEST)))
        return [RemoteFile(row["path"], row["size"], row["hash"]) for row in rows]

    def url(self, file: RemoteFile) -> str:
        """Return an address that is signed for an hour."""
        return self._signed(file.path)

    def _signed(self, path: str) -> str:
        place = {"Bucket": self.bucket, "Key": f"{self.prefix}{path}"}
        signed: str = self.client.generate_presigned_url("get_object", Params=place, ExpiresIn=_SIGNED_FOR_SECONDS)
        return signed


def source_of(place: str, repository: str, revision: str) -> Source:
    """Return the source that a place names: the address of a hub, or s3://bucket/prefix with a folder for each revision."""
    if not place.startswith("s3://"):
        return Hub(repository, revision, place.rstrip("/"))
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    return Bucket(bucket, f"{folder}{repository}/{revision}/", _s3_client())


def _s3_client() -> Any:
    """Return a client with the pod's own credentials; it renews them, and threads may share it."""
    try:
        session = importlib.import_module("botocore.session").get_session()
    except ImportError:
        raise RefusedError(
            "this image has no botocore, which signs requests to S3; leave the mirror out or take an image that has boto3"
        ) from None
    # Version 4 in every region; left to itself the client signs some addresses in a way that newer regions refuse.
    config = importlib.import_module("botocore.config").Config(signature_version="s3v4")
    return session.create_client("s3", config=config)
