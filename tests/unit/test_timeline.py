"""What a watcher sees: lines in order, a verdict that can be copied, a picture that loads nothing."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.timeline import Timeline

LONG = "x" * 300


def timeline(width: int = 80, *, colours: bool = False) -> tuple[Timeline, io.StringIO]:
    """A timeline on a narrow console, and what is printed to it."""
    printed = io.StringIO()
    console = Console(
        file=printed,
        width=width,
        record=True,
        highlight=False,
        force_terminal=colours,
        color_system="standard" if colours else None,
        no_color=False,  # whatever the environment says
    )
    return Timeline(console), printed


def test_lines_carry_seconds_topic_and_text() -> None:
    lines, printed = timeline()
    lines.tell("nodes", "1 x p5en.48xlarge joined: h200-0")
    lines.tell("kubernetes", "[bold]no markup[/bold] :smile:")
    seconds, texts = zip(*(line.split(" s  ", 1) for line in printed.getvalue().splitlines()), strict=True)
    assert texts == (
        "nodes      1 x p5en.48xlarge joined: h200-0",
        "kubernetes [bold]no markup[/bold] :smile:",
    )
    assert all(re.fullmatch(r" *\d+\.\d", text) for text in seconds)
    assert sorted(map(float, seconds)) == list(map(float, seconds))
    assert 0 <= float(seconds[0]) <= lines.seconds


@pytest.mark.parametrize(("passed", "mark"), [(True, "✓"), (False, "✗")])
def test_a_verdict_stands_in_columns(passed: bool, mark: str) -> None:
    lines, printed = timeline()
    lines.verdict("stack dev is rehearsed", passed=passed, rows=iter([("preview", "valid"), ("workload glm", "ready")]))
    assert printed.getvalue().splitlines() == [
        "",
        f"{mark} stack dev is rehearsed",
        "  preview       valid",
        "  workload glm  ready",
    ]


def test_long_lines_are_not_folded() -> None:
    lines, printed = timeline(width=40)
    lines.tell("pods", LONG)
    lines.verdict(LONG, passed=True, rows=[("use it", f"export KUBECONFIG=/{LONG}")])
    assert printed.getvalue().count(LONG) == 3


def test_lines_of_several_threads_stay_whole() -> None:
    lines, printed = timeline()
    together = threading.Barrier(8, timeout=30)

    def tell(number: int) -> None:
        together.wait()
        for _ in range(20):
            lines.tell("pods", f"<{str(number) * 60}>")

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [line.partition("pods")[2].strip() for line in printed.getvalue().splitlines()]
    assert sorted(told) == sorted(f"<{str(number) * 60}>" for number in range(8) for _ in range(20))


def test_colours_only_in_a_terminal() -> None:
    plain, printed = timeline()
    plain.tell("aws", "EKS cluster")
    assert "\x1b" not in printed.getvalue()
    coloured, printed = timeline(colours=True)
    coloured.tell("aws", "EKS cluster")
    assert "33maws" in printed.getvalue()  # yellow


def test_the_picture(tmp_path: Path) -> None:
    lines, _ = timeline(width=110)
    lines.tell("plan", "stack prod is accepted")
    lines.verdict("stack prod is rehearsed", passed=True, rows=[("teardown", "nothing is left")])
    picture = tmp_path / "rehearsal.svg"
    lines.save_picture(picture, "make rehearse STACK=prod")
    svg = picture.read_text(encoding="utf-8").replace("&#160;", " ")
    assert svg.startswith("<svg")
    for text in ("make rehearse STACK=prod", "stack prod is accepted", "✓ stack prod is rehearsed", "nothing is left"):
        assert text in svg
    # Names of namespaces and rich's own address in a comment are no addresses that a browser asks.
    assert "@font-face" not in svg
    assert not re.search(r"(url\(|href=|src=)['\"]?https?:", svg)


def test_a_width_for_the_picture() -> None:
    assert Timeline(width=110).console.width == 110
