"""The real vLLM answers as the shared table says, which its stand-in is held against too."""

from __future__ import annotations

from itertools import groupby

import pytest

from rehearsal.vllm_cpu.tiny_glm import TinyGlm
from rehearsal.vllm_cpu.tiny_glm.table import row
from tests.fixtures.stacks import glm
from tests.fixtures.vllm_behaviour import BEHAVIOURS, FLAGS, Behaviour, Seen, ask, stream
from tests.serving.launcher import Launcher

# One server answers all that is asked with the same flags.
GROUPS = {flags: list(rows) for flags, rows in groupby(BEHAVIOURS, key=lambda behaviour: behaviour.flags)}


def _expected(behaviour: Behaviour, *, streamed: bool) -> Seen:
    thoughts = row(behaviour.prompt).answer.partition("</think>")[0]
    return behaviour.expected(thoughts, streamed=streamed)


@pytest.mark.parametrize("flags", GROUPS)
def test_the_server_answers_as_the_table_says(flags: str, launcher: Launcher, good: TinyGlm) -> None:
    plan, rows = glm("dev"), GROUPS[flags]
    command = FLAGS[flags](plan.command)
    with launcher.server(command, good, kv_pool_tokens=plan.memory.kv_pool_tokens) as server:
        server.wait_until_healthy()
        whole = {behaviour.name: ask(server.url, behaviour.body()) for behaviour in rows}
        streamed = {behaviour.name: stream(server.url, behaviour.body()) for behaviour in rows}
    assert whole == {behaviour.name: _expected(behaviour, streamed=False) for behaviour in rows}
    assert streamed == {behaviour.name: _expected(behaviour, streamed=True) for behaviour in rows}
