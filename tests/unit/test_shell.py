"""Following shell scripts: what a script starts, compared with what bash and dash start."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.shell import UnreadableError, started
from serving.unknowns import Shape, Unknowns

ENV = {"MODEL": "zai-org/GLM-5.2", "TP": "8", "FLAGS": "-tp 8  --port 1", "EMPTY": "", "GLOB": "a*"}
UNKNOWN = "<?>"
WORDS = "<*>"
POSIX = ("bash", "dash")


def read(script: str, env: Mapping[str, str] = ENV, arguments: Sequence[str] = ()) -> list[list[str]]:
    """Return the words of every `vllm` that we find: `<?>` is an unknown value, `<*>` any number of unknown words."""
    unknowns = Unknowns()
    env = {
        **env,
        "SECRET": unknowns.mark("SECRET comes from a Secret"),
        "POD_IP": unknowns.mark("an address", Shape.WORD),
    }
    found = started(script, env, arguments, unknowns)
    rows = [[known(word, unknowns) for word in row.words] for row in found]
    return [row[row.index("vllm") + 1 :] for row in rows if "vllm" in row and set(row[: row.index("vllm")]) <= {WORDS}]


def known(word: str, unknowns: Unknowns) -> str:
    return re.sub(
        "[\U000f0000-\U000fffff]", lambda mark: WORDS if unknowns.why(mark[0], Shape.WORDS) else UNKNOWN, word
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealShells:
    return RealShells(tmp_path_factory.mktemp("shells"))


class RealShells:
    """Runs scripts in the shells of this machine, with a `vllm` that notes its words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = folder / "seen"
        (folder / "bin").mkdir()
        stub = """#!/bin/sh
        printf 'command\\0' >> "$SEEN"
        for word; do printf ' %s\\0' "$word" >> "$SEEN"; done
        """
        (folder / "bin" / "vllm").write_text(stub, encoding="utf-8")
        (folder / "bin" / "vllm").chmod(0o755)

    def run(self, shell: str, script: str, arguments: Sequence[str] = ()) -> list[list[str]]:
        self.seen.write_bytes(b"")
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        secrets = {"SECRET": "hunter2", "POD_IP": "10.0.0.1"}
        subprocess.run(
            [shell, "-c", script, *arguments],
            env={**ENV, **secrets, "PATH": path, "SEEN": str(self.seen)},
            cwd=self.folder,
            capture_output=True,
            check=False,
        )
        rows: list[list[str]] = []
        for word in self.seen.read_text(encoding="utf-8").split("\0")[:-1]:
            if word == "command":
                rows.append([])
            else:
                rows[-1].append(word[1:])
        return rows


def matches(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> bool:
    """Whether what we read is what ran, where unknown parts may be anything."""
    return len(ours) == len(theirs) and all(
        re.fullmatch("".join(map(pattern, row)), "".join(f"{word}\0" for word in words), re.DOTALL)
        for row, words in zip(ours, theirs, strict=True)
    )


def pattern(word: str) -> str:
    text = re.escape(word).replace(re.escape(UNKNOWN), "[^\0]*").replace(re.escape(WORDS), ".*")
    return f"(?:{text}\0)?" if WORDS in word else f"{text}\0"


# Scripts whose commands all run, what we read, and the shells that know the syntax.
SCRIPTS: tuple[tuple[str, list[list[str]], tuple[str, ...]], ...] = (
    ("vllm serve m -tp 8", [["serve", "m", "-tp", "8"]], POSIX),
    ("vllm  serve\tm", [["serve", "m"]], POSIX),
    ("vllm serve \\\n  m # a model\n", [["serve", "m"]], POSIX),
    ("vllm ser\\\nve m#1", [["serve", "m#1"]], POSIX),
    ("vllm 'serve' \"m\"'n'o", [["serve", "mno"]], POSIX),
    ("vllm serve a\\ b 'c d' \"e f\"", [["serve", "a b", "c d", "e f"]], POSIX),
    ("vllm serve '' \"\" m", [["serve", "", "", "m"]], POSIX),
    (r'vllm "\$MODEL \"x\" \a \\ \`"', [['$MODEL "x" \\a \\ `']], POSIX),
    ("vllm '$MODEL' \"$ a$\"", [["$MODEL", "$ a$"]], POSIX),
    ("vllm $MODEL \"${MODEL}\" x${TP}y \"a$TP\"b", [["zai-org/GLM-5.2", "zai-org/GLM-5.2", "x8y", "a8b"]], POSIX),
    ("vllm $FLAGS", [["-tp", "8", "--port", "1"]], POSIX),
    ("vllm \"$FLAGS\"", [["-tp 8  --port 1"]], POSIX),
    ("vllm a$FLAGS'b'", [["a-tp", "8", "--port", "1b"]], POSIX),
    ("vllm $EMPTY \"$EMPTY\" a$EMPTY", [["", "a"]], POSIX),
    ("vllm ${MODEL:-x} ${TP-1} ${EMPTY:-x}", [["zai-org/GLM-5.2", "8", "<*>"]], POSIX),
    ("vllm \"${EMPTY:-none}\" \"${MISSING:-x}\"", [["<?>", "<?>"]], POSIX),
    ("vllm serve --speculative-config '{\"method\":\"mtp\"}'", [["serve", "--speculative-config", '{"method":"mtp"}']], POSIX),
    ("vllm {a} a{b", [["{a}", "a{b"]], POSIX),
    ("vllm {a,b}", [["<*>"]], POSIX),
    # Lists of commands.
    ("vllm a; vllm b\nvllm c", [["a"], ["b"], ["c"]], POSIX),
    ("cd / && vllm a &&\n vllm b", [["a"], ["b"]], POSIX),
    ("false || vllm a", [["a"]], POSIX),
    ("vllm a | cat; vllm b & wait", [["a"], ["b"]], POSIX),
    ("vllm a > /dev/null 2>&1 < /dev/null; vllm b 2>/dev/null c", [["a"], ["b", "c"]], POSIX),
    ("vllm a &> /dev/null", [["a"]], ("bash",)),
    ("exec > /dev/null; vllm a", [["a"]], POSIX),
    ("exec > >(cat) 2>&1; vllm a", [["a"]], ("bash",)),
    ("(vllm a)", [["a"]], POSIX),
    ("{ vllm a; vllm b; }", [["a"], ["b"]], POSIX),
    ("if true; then vllm a; fi && ! vllm b", [["a"], ["b"]], POSIX),
    ("until true; do sleep 1; done; vllm a", [["a"]], POSIX),
    ("set -eu; vllm a", [["a"]], POSIX),
    # Assignments.
    ("M=m; vllm serve $M", [["serve", "m"]], POSIX),
    ("M=m N=$M; vllm $M $N", [["m", "m"]], POSIX),
    ("M=$FLAGS; vllm \"$M\"", [["-tp 8  --port 1"]], POSIX),
    ("M=a; M=b vllm $M", [["a"]], POSIX),
    ("export M=m N='a b' && vllm $M \"$N\"", [["m", "a b"]], POSIX),
    ("M=a; M+=b; vllm $M", [["ab"]], ("bash",)),
    ("TP=4; vllm -tp $TP", [["-tp", "4"]], POSIX),
    ("false || TP=4; vllm \"$TP\"", [["<?>"]], POSIX),
    ("true && TP=4; vllm \"$TP\"", [["<?>"]], POSIX),
    ("true && TP=4 && vllm \"$TP\"", [["4"]], POSIX),
    ("TP=4 | cat; vllm \"$TP\"", [["<?>"]], POSIX),
    ("(TP=4); vllm \"$TP\"", [["<?>"]], POSIX),
    ("if false; then TP=4; fi; vllm \"$TP\"", [["<?>"]], POSIX),
    ("for TP in 1; do vllm \"$TP\"; done", [["<?>"]], POSIX),
    ("unset TP; vllm \"$TP\"", [["<?>"]], POSIX),
    ("read TP < /dev/null; vllm \"$TP\"", [["<?>"]], POSIX),
    # What only a shell can know.
    ("vllm \"$SECRET\" a$POD_IP", [["<?>", "a<?>"]], POSIX),
    ("vllm \"$(echo a b)\" \"`echo c`\" $((1+1))", [["<?>", "<?>", "<?>"]], POSIX),
    ("vllm \"${#MODEL}\" \"${MODEL%/*}\" $$ $?", [["<?>", "<?>", "<?>", "<?>"]], POSIX),
    ("vllm \"$(vllm inner)\"", [["inner"], ["<?>"]], POSIX),
    ("vllm ~ a=~ ~$FLAGS", [["<?>", "<?>", "<*>"]], POSIX),
)  # fmt: skip


@pytest.mark.parametrize(("script", "ours", "shells"), SCRIPTS, ids=[row[0] for row in SCRIPTS])
def test_script(script: str, ours: list[list[str]], shells: tuple[str, ...], real: RealShells) -> None:
    assert read(script) == ours
    for shell in shells:
        ran = real.run(shell, script)
        assert matches(ours, ran), (shell, ran)


@pytest.mark.parametrize(
    ("script", "ours"),
    [
        pytest.param("vllm $SECRET", [[WORDS]], id="an-unknown-value-that-is-not-quoted"),
        pytest.param("vllm $(cat words)", [[WORDS]], id="the-output-of-a-command"),
        pytest.param("vllm [ab] a* $GLOB b?", [[WORDS] * 4], id="patterns"),
    ],
)
def test_what_may_be_several_words(script: str, ours: list[list[str]]) -> None:
    assert read(script) == ours


def test_an_address_needs_no_quotes() -> None:
    unknowns = Unknowns()
    (row,) = started("vllm $POD_IP", {"POD_IP": unknowns.mark("an address", Shape.WORD)}, (), unknowns)
    assert unknowns.why_any(row.words, Shape.WORDS) is None


@pytest.mark.parametrize(
    ("script", "arguments", "ours"),
    [
        ('vllm "$@"', ("sh", "serve", "a b"), [["serve", "a b"]]),
        ("vllm $@", ("sh", "serve", "a b"), [["serve", "a", "b"]]),
        ('vllm x"$@"y', ("sh", "a", "b"), [["xa", "by"]]),
        ('vllm "$*"', ("sh", "a", "b"), [["a b"]]),
        ('vllm "$@"', (), [[]]),
        ('vllm "$1" $2 ${1} "$0"', ("sh", "a b", "c d"), [["a b", "c", "d", "a", "b", "sh"]]),
        ('vllm "$3" $3', ("sh", "a"), [[""]]),
    ],
)
def test_arguments_of_a_script(
    script: str, arguments: tuple[str, ...], ours: list[list[str]], real: RealShells
) -> None:
    assert read(script, arguments=arguments) == ours
    for shell in POSIX:
        assert real.run(shell, script, arguments) == ours


@pytest.mark.parametrize("script", ['set -- b; vllm "$@"', 'shift; vllm "$1"'])
def test_arguments_that_a_script_changes(script: str) -> None:
    assert read(script, arguments=("sh", "a", "b")) == [[WORDS]]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("vllm <<EOF\nx\nEOF", "a here-document"),
        ("vllm <<< x", "a here-document"),
        ("eval vllm serve", "eval"),
        (". ./env.sh; vllm", "another file"),
        ("source env.sh; vllm", "another file"),
        ("alias vllm=x; vllm", "an alias"),
        ("f() { vllm; }", "a function or an array"),
        ("function f { vllm; }", "a function"),
        ("a=(1 2); vllm", "a function or an array"),
        ("case $TP in 8) vllm;; esac", "a case statement"),
        ("vllm 'a", "a quote that is not closed"),
        ('vllm "a', "a quote that is not closed"),
        ("vllm $(a", "a parenthesis that is not closed"),
        ("vllm `a", "backquotes that are not followed"),
        ("vllm $'a\\tb'", "an expansion that only a shell can make"),
        ("vllm ${A:-${B}}", "an expansion that only a shell can make"),
        ("IFS=,; vllm $FLAGS", "IFS"),
        ("vllm $FLAGS$", "a dollar sign without quotes"),
    ],
)
def test_unreadable_scripts(script: str, why: str) -> None:
    with pytest.raises(UnreadableError, match=re.escape(why)):
        read(script)


def test_a_script_with_unknown_text_of_its_own_is_unreadable() -> None:
    unknowns = Unknowns()
    with pytest.raises(UnreadableError, match=r"^EXTRA comes from a ConfigMap$"):
        started(f"vllm serve {unknowns.mark('EXTRA comes from a ConfigMap')}", {}, (), unknowns)
    address = unknowns.mark("an address", Shape.WORD)
    assert [row.words for row in started(f"vllm {address}", {}, (), unknowns)] == [("vllm", address)]


def test_variables_that_a_command_sees() -> None:
    script = "export A=1; B=2 vllm x; vllm y"
    rows = [row.env for row in started(script, {"C": "3"}, (), Unknowns()) if row.words[0] == "vllm"]
    assert rows == [{"A": "1", "B": "2", "C": "3"}, {"A": "1", "C": "3"}]


FRAGMENTS = st.sampled_from(
    ["a", "b", " ", " ", "$TP", "${MODEL}", "$FLAGS", "$EMPTY", "'", '"', "\\", "x=", ";", "\n", "&&", "||", "|",
     "vllm ", "M=", "$M", "#", "{", "}", "(", ")", "'a b'", '"$FLAGS"', "true", "false", "if ", "then ", "fi", "$(",
     "`", "$", "export ", "!"]
)  # fmt: skip


@given(fragments=st.lists(FRAGMENTS, max_size=12))
def test_no_script_that_a_shell_runs_is_misread(fragments: list[str], real: RealShells) -> None:
    """Whatever runs is among what we read, unless we say that we cannot read the script."""
    script = "vllm " + "".join(fragments)
    try:
        ours = read(script)
    except UnreadableError:
        return
    ran = real.run("bash", script)
    assert all(any(matches([row], [words]) for row in ours) for words in ran), (script, ours, ran)
