"""Reading a vLLM command: every form that vLLM's parser takes, what it refuses, and what nobody can know.

The forms are also put to vLLM's own parser (tests/serving/test_vllm_parser.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import argv, catalogue
from serving.argv import UnknownArgumentError, read
from serving.launch import serve_words
from serving.spelling import InputError
from serving.unknowns import Shape, Unknowns
from tests.fixtures.command_forms import FORMS, MODEL, SERVE, Form


@pytest.mark.parametrize("form", [pytest.param(form, id=form.id) for form in FORMS if form.flags is not None])
def test_form(form: Form) -> None:
    found = read(form.command)
    # vLLM stores auto as -1.
    flags = {name: "-1" if value == "auto" else value for name, value in found.flags.items()}
    assert (found.positional, flags, found.doubt) == (form.model, form.flags, None)
    assert found.model == MODEL or form.id == "no-model"


@pytest.mark.parametrize("form", [pytest.param(form, id=form.id) for form in FORMS if form.flags is None])
def test_refused_form(form: Form) -> None:
    with pytest.raises(InputError, match=r"vLLM would not read the command: |asks for vLLM's help"):
        read(form.command)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-model-len", "--max-model-len lacks its value"),
        ("--max-num=hunter2", "--max-num is the beginning of several flags"),
        ("--headless=hunter2", "--headless takes no value"),
        ("hunter2", "it has words that belong to no flag"),
        ("--model", "--model lacks its value"),
        ("--speculative-config.method", "--speculative-config.method lacks its value"),
        (f"--additional-config.a {'9' * 5000}k", "a value of it is too large"),
        (f"--additional-config.a {'[' * 100_000}", "a value of it is too large"),
    ],
)
def test_a_refusal_names_the_flag_and_no_value(words: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read((*SERVE, *words.split()))
    assert str(refusal.value) == f"vLLM would not read the command: {message}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("vllm", "serve", "m"), ["serve", "m"]),
        (("/usr/local/bin/vllm", "serve", "m"), ["serve", "m"]),
        (("python3", "-m", "vllm.entrypoints.cli.main", "serve", "m"), ["serve", "m"]),
        (("/opt/venv/bin/python3.12", "-um", "vllm.entrypoints.cli.main", "serve", "m"), ["serve", "m"]),
        (("python", "-X", "dev", "-Wignore", "-mvllm.entrypoints.cli.main", "serve"), ["serve"]),
        (("python", "--check-hash-based-pycs", "always", "/usr/bin/vllm", "serve", "m"), ["serve", "m"]),
        (("python", "-m", "vllm.entrypoints.openai.api_server", "--port", "1"), ["--port", "1"]),
        (("python", "-m", "vllm.entrypoints.launchers.api_server.entry", "serve"), ["serve"]),
        (("python", "-c", "import vllm", "vllm", "serve"), None),
        (("python", "-", "vllm", "serve"), None),
        (("python",), None),
        (("python", "-m"), None),
        (("pythonista", "-m", "vllm.entrypoints.openai.api_server"), None),
        (("vllm", "bench", "serve"), None),
        (("vllm",), None),
        (("nvidia-smi", "serve"), None),
        ((), None),
    ],
)
def test_which_command_serves(command: tuple[str, ...], words: list[str] | None) -> None:
    assert serve_words(command) == words
    if words is None:
        with pytest.raises(InputError, match=r"^the command is not `vllm serve`$"):
            read(command)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("131072", 131_072),
        ("128k", 128_000),
        ("128K", 131_072),
        ("1T", 2**40),
        ("25.6k", 25_600),
        (" 8 ", 8),
        ("-1", -1),
    ],
)
def test_numbers(text: str, number: int) -> None:
    assert argv.whole_number(text) == number


@pytest.mark.parametrize("text", ["", "auto", "1.5", "1.5K", "1KB", "0x8"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        argv.whole_number(text)


# --- what nobody can know ------------------------------------------------------------------------------------------


def test_an_unknown_value_leaves_the_other_flags_known() -> None:
    unknowns = Unknowns()
    value = unknowns.mark("PORT comes from Secret keys")
    found = read((*SERVE, "--port", value, f"--host=a{value}", "-tp", "8", "--api-key", value), unknowns)
    assert found.get("tensor-parallel-size") == "8"
    assert found.get("revision") is None
    assert found.model == MODEL
    for flag in ("port", "host", "api-key"):
        with pytest.raises(UnknownArgumentError, match=r"^PORT comes from Secret keys$"):
            found.get(flag)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("{}",), id="a-word-of-its-own"),
        pytest.param(("--headless", "{}"), id="behind-a-switch"),
        pytest.param(("--served-model-name", "a", "{}"), id="in-a-list"),
        pytest.param(("--max-{}=8",), id="in-a-flag"),
        pytest.param(("-{}", "8"), id="in-a-short-flag"),
    ],
)
def test_where_a_flag_could_stand_an_unknown_word_makes_all_unknown(words: tuple[str, ...]) -> None:
    unknowns = Unknowns()
    mark = unknowns.mark("nobody knows")
    found = read((*SERVE, "-tp", "8", *(word.format(mark) for word in words)), unknowns)
    for ask in (lambda: found.model, lambda: found.get("tensor-parallel-size"), lambda: found.get("port")):
        with pytest.raises(UnknownArgumentError, match=r"^nobody knows$"):
            ask()


def test_an_unknown_that_may_be_several_words_makes_all_unknown() -> None:
    unknowns = Unknowns()
    mark = unknowns.mark("$PORT is not quoted", Shape.WORDS)
    found = read((*SERVE, "--port", mark, "-tp", "8"), unknowns)
    with pytest.raises(UnknownArgumentError, match=r"^\$PORT is not quoted$"):
        found.get("tensor-parallel-size")


def test_an_unknown_model_is_unknown() -> None:
    unknowns = Unknowns()
    found = read(("vllm", "serve", unknowns.mark("nobody knows"), "-tp", "8"), unknowns)
    assert found.get("tensor-parallel-size") == "8"
    with pytest.raises(UnknownArgumentError, match=r"^nobody knows$"):
        assert found.model


@pytest.mark.parametrize(
    "config", [("--config", "a.yaml"), ("--config=a.yaml",), ("--config", "a.yaml", "--port", "1")]
)
def test_a_config_file_may_say_whatever_the_command_does_not(config: tuple[str, ...]) -> None:
    found = read((*SERVE, *config, "-tp", "8"))
    assert (found.model, found.get("tensor-parallel-size")) == (MODEL, "8")
    with pytest.raises(UnknownArgumentError, match=r"^it may stand in the file that --config names$"):
        found.get("revision")


def test_flags_of_another_release_are_passed_over() -> None:
    assert read((*SERVE, "--swap-space", "16", "-tp", "8")).get("tensor-parallel-size") == "8"
    before = read(("vllm", "serve", "--swap-space", "16", MODEL, "-tp", "8"))
    release = catalogue.serve_flags().release
    with pytest.raises(UnknownArgumentError, match=f"flags that vLLM {release} does not have"):
        assert before.model


def test_another_program_behind_a_flag() -> None:
    with pytest.raises(UnknownArgumentError, match="vLLM-Omni"):
        assert read((*SERVE, "--omni")).model


def test_a_private_use_character_is_no_known_value() -> None:
    with pytest.raises(UnknownArgumentError, match="private-use character"):
        assert read(("vllm", "serve", "\U000f0000")).model


@given(st.lists(st.text(max_size=20) | st.sampled_from(["--model", "--", "-tp", "--config", "-sc.a", "--a.b", "-O"])))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        found = read(("vllm", "serve", *words))
    except InputError:
        return
    assert all(isinstance(value, str) for value in found.flags.values())
