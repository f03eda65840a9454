"""Reading another revision of the repository through git. Nothing is checked out and nothing of it is run here."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from serving.spelling import InputError, did_you_mean

_REGULAR_FILES = ("100644", "100755")  # no links: one could lead out of the folder that a revision is laid into


class Repository:
    """The git repository around a folder. Paths are relative to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if self._git("rev-parse", "--is-inside-work-tree").strip() != "true":
            raise InputError(f"{folder} is not in the work tree of a git repository; run this in a clone")

    def commit(self, option: str, ref: str) -> str:
        """Return the commit that a ref names; `option` is what the user wrote it behind."""
        found = self._try("rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
        if found is not None:
            return found.strip()
        refs = self._git("for-each-ref", "--format=%(refname:short)").split()
        raise InputError(
            f"{option} {ref}: git knows no such commit, branch or tag{did_you_mean(ref, refs)}{self._depth()}"
        )

    def merge_base(self, option: str, base: str, head: str) -> str:
        """Return the last commit that two refs have in common: what the head was made from."""
        ours = self.commit(option, base)
        found = self._try("merge-base", ours, head)
        if found is None:
            raise InputError(f"{option} {base}: it has no commit in common with {head[:12]}{self._depth()}")
        return found.strip()

    def changed(self, base: str, head: str | None) -> list[str]:
        """Return the files that differ from the base, in a commit or, without one, in the work tree."""
        differing = self._git(
            "diff", "--name-only", "-z", "--no-renames", "--relative", base, *([head] if head else [])
        )
        new = "" if head else self._git("ls-files", "-z", "--others", "--exclude-standard")
        return sorted({name for name in (differing + new).split("\0") if name})

    def lay(self, commit: str, patterns: Iterable[str], folder: Path) -> None:
        """Write the files of a commit that match one of the patterns (`Pulumi.*.yaml`, `serving/**`) into a folder.

        As they are: no filter of git's configuration or of the commit's attributes is run on them.
        """
        wanted = list(patterns)
        blobs: dict[str, str] = {}
        for entry in filter(None, self._git("ls-tree", "-r", "-z", commit).split("\0")):
            about, _, name = entry.partition("\t")
            mode, _, blob = about.split()
            if mode in _REGULAR_FILES and any(_matches(name, pattern) for pattern in wanted):
                blobs[name] = blob
        for name, content in zip(blobs, self._contents(blobs.values()), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def _contents(self, blobs: Iterable[str]) -> Iterator[bytes]:
        """Return what blobs hold, in order, from one process: `<blob> blob <size>`, a line feed, the bytes, a line feed."""
        answer = io.BytesIO(self._bytes("cat-file", "--batch", asked="".join(f"{blob}\n" for blob in blobs)))
        while line := answer.readline().decode():
            blob, size = line.split()[0], line.split()[-1]
            if not size.isdecimal():  # `<blob> missing`, and git's exit code is 0 all the same
                raise InputError(f"git cat-file in {self._folder}: {blob} is missing; get it with git fetch --refetch")
            yield answer.read(int(size))
            answer.read(1)

    def _depth(self) -> str:
        """Return what to do about a clone that lacks history."""
        shallow = self._git("rev-parse", "--is-shallow-repository").strip() == "true"
        return (
            "; this clone is shallow: get the rest with git fetch --unshallow (actions/checkout: fetch-depth: 0)"
            * shallow
        )

    def _git(self, *words: str) -> str:
        return self._bytes(*words).decode(errors="surrogateescape")

    def _try(self, *words: str) -> str | None:
        """Return git's answer, or None where it says no."""
        done = self._run(words)
        return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None

    def _bytes(self, *words: str, asked: str = "") -> bytes:
        done = self._run(words, asked)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise InputError(f"git {words[0]} in {self._folder}: {said[0]}")
        return done.stdout

    def _run(self, words: tuple[str, ...], asked: str = "") -> subprocess.CompletedProcess[bytes]:
        command = ["git", *words]
        try:
            return subprocess.run(command, cwd=self._folder, input=asked.encode(), capture_output=True, check=False)
        except FileNotFoundError:
            raise InputError("git is not on PATH; install it, a base is read through it") from None


def _matches(name: str, pattern: str) -> bool:
    folder, recursive, _ = pattern.partition("/**")
    return name.startswith(f"{folder}/") if recursive else "/" not in name and PurePosixPath(name).match(pattern)
