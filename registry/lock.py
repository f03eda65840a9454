"""The lock, serving/catalogue/pins.toml: one tag's pin is written, everything else stays byte for byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tomlkit
from tomlkit.items import Table

from serving import catalogue
from serving.catalogue import Pin
from serving.spelling import InputError


def lock_file() -> Path:
    """Where the catalogue reads its pins."""
    return catalogue.FOLDER / "pins.toml"


def write(image: str, tag: str, pin: Pin) -> None:
    """Enter a tag's pin into the lock; raise `InputError` if the file cannot be written."""
    file = lock_file()
    try:
        _replace(file, with_pin(file.read_text(encoding="utf-8"), image, tag, pin))
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); run this in a checkout of your own") from None


def with_pin(text: str, image: str, tag: str, pin: Pin) -> str:
    """Return a lock's text with a tag's pin behind the image's others, or in the place of the one it had."""
    document = tomlkit.parse(text)
    tags = document.setdefault(image, tomlkit.table(is_super_table=True))
    if tag in tags:
        _fill(tags[tag], pin)
    else:
        row = _fill(tomlkit.table(), pin)
        row.add(tomlkit.nl())
        tags.append(tag, row)
    return tomlkit.dumps(document).rstrip("\n") + "\n"


def _fill(row: Table, pin: Pin) -> Table:
    for key in ("digest", "date", "source"):
        row[key] = getattr(pin, key)
    return row


def _replace(file: Path, text: str) -> None:
    """Give a file another content at once: an interrupted command must not leave half a lock."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".pins-", encoding="utf-8", delete=False) as new:
        new.write(text)
    Path(new.name).chmod(file.stat().st_mode)
    Path(new.name).replace(file)
