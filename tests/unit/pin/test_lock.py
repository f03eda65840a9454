"""The lock's text: whatever is pinned in whatever order, it reads as one written by hand, and what was there stays."""

from __future__ import annotations

import re
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from registry.lock import with_pin
from serving import catalogue
from serving.catalogue import Pin

LOCK = (catalogue.FOLDER / "pins.toml").read_text(encoding="utf-8")

PINS = st.builds(
    Pin,
    digest=st.integers(0, 2**256 - 1).map(lambda number: f"sha256:{number:064x}"),
    date=st.dates().map(str),
    source=st.text(min_size=1),
)
ENTRIES = st.tuples(
    st.sampled_from(["vllm", "device-plugin", "haproxy", "lws"]),
    st.from_regex(r"[\w][\w.-]{0,9}", fullmatch=True),
    PINS,
)


@given(st.lists(ENTRIES, max_size=6))
def test_any_pins_in_any_order(entries: list[tuple[str, str, Pin]]) -> None:
    text = LOCK
    expected = tomllib.loads(LOCK)
    for image, tag, pin in entries:
        text = with_pin(text, image, tag, pin)
        expected.setdefault(image, {})[tag] = pin.model_dump()
    assert tomllib.loads(text) == expected
    # One blank line before every table and no other after the comment; an image's tags stand together.
    assert re.fullmatch(r"(#.*\n)+(\n\[.*\]\ndigest = .*\ndate = .*\nsource = .*\n)+", text)
    images = [line.removeprefix("[").partition(".")[0] for line in text.splitlines() if line.startswith("[")]
    assert images == sorted(images, key=list(dict.fromkeys(images)).index)


def test_a_comment_and_the_other_pins_stay() -> None:
    remark = LOCK.replace('[vllm."v0.30.0"]', '# Not inspected.\n[vllm."v0.30.0"]')
    zeros = "0" * 64
    pin = Pin(digest=f"sha256:{zeros}", date="2026-12-01", source="a test")
    changed = with_pin(remark, "vllm", "v0.30.0", pin).splitlines()
    before = remark.splitlines()
    assert len(changed) == len(before)
    assert [(old, new) for old, new in zip(before, changed, strict=True) if old != new] == [
        (
            'digest = "sha256:8a69ffad015f138d7170c4ddc429e230a3bc1c1719f67e14324749df200a4b90"',
            f'digest = "sha256:{zeros}"',
        ),
        ('date = "2026-11-23"', 'date = "2026-12-01"'),
        ('source = "several public repositories"', 'source = "a test"'),
    ]
