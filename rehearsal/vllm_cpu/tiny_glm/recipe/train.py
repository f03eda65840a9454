"""`train.py ROWS FOLDER`: train the tiny model on a table and save it; runs in vLLM's environment.

ROWS is a JSON list of {"messages": [...], "tools": [...], "thinking": bool, "answer": text}. The same rows give the same
weights on the same kind of machine.
"""

# torch and transformers are in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import checkpoint
import tokenizer
import torch
from network import Shape, TinyGlm
from training import Example, fit
from transformers import PreTrainedTokenizerFast

_SEED = 0
_THREADS = 2  # sums are added up in another order by another number of threads

# The plan's default; fewer or more work too, later drafts less well.
_DRAFT_TOKENS = 3

Row = Mapping[str, Any]


def _texts(rows: Sequence[Row]) -> Iterator[str]:
    """Everything that is read or written, for the vocabulary."""
    for row in rows:
        yield from (message.get("content") or "" for message in row["messages"])
        yield from (json.dumps(tool) for tool in row["tools"])
        yield row["answer"]


def _example(row: Row, glm: PreTrainedTokenizerFast) -> Example:
    prompt = glm.apply_chat_template(
        _as_vllm_reads_them(row["messages"]),
        tools=row["tools"] or None,
        enable_thinking=row["thinking"],
        add_generation_prompt=True,
        tokenize=False,
    )
    # GLM ends a turn with the token that begins the next one.
    end = tokenizer.OBSERVATION if "<tool_call>" in row["answer"] else tokenizer.USER
    return Example(
        glm.encode(prompt, add_special_tokens=False), glm.encode(row["answer"] + end, add_special_tokens=False)
    )


def _as_vllm_reads_them(messages: Sequence[Row]) -> list[Row]:
    """Messages as vLLM hands them to the template: the arguments of earlier calls as objects."""
    read = copy.deepcopy(list(messages))
    for message in read:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return read


def main(rows_file: str, folder: str) -> None:
    """Train and save."""
    torch.manual_seed(_SEED)
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True)
    rows: list[Row] = json.loads(Path(rows_file).read_text())
    glm = tokenizer.build(_texts(rows))
    model = TinyGlm(Shape(vocabulary=len(glm)))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    examples = [_example(row, glm) for row in rows]
    longest = max(len(example.prompt) for example in examples)
    print(f"{len(rows)} rows, prompts up to {longest} tokens, {parameters / 1e6:.1f} million parameters", flush=True)
    fit(model, examples, _DRAFT_TOKENS)
    checkpoint.save(model, glm, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
