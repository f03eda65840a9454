"""Overfit the tiny model: first the main layer, then the MTP layer on what the main layer has come to say.

Training stops on the worst token, not on the mean: what is exact here is exact in vLLM only if every token of every answer
has a margin.
"""

# torch and its types are in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from network import Memory, TinyGlm
from torch import Tensor, nn
from torch.nn import functional

# Losses in nats: the least likely token of all answers has a probability of 0.99, of all drafts 0.9.
_WORST_TOKEN = 0.01
_WORST_DRAFT = 0.1

_RATE = 5e-3
_WARM_UP_STEPS = 20
_MOST_STEPS = 1500  # the gate's table takes 80
_REPORT_STEPS = 10

_BATCH = 16
_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Example:
    """A prompt and the answer to it, as token ids."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right.

    tokens: [rows, positions]. queries: [rows, answer tokens], the positions that predict `targets`. `answered` is false
    where a shorter answer is padded.
    """

    tokens: Tensor
    queries: Tensor
    targets: Tensor
    answered: Tensor

    @property
    def positions(self) -> Tensor:
        """The number of every position, as `tokens`."""
        return torch.arange(self.tokens.shape[1]).expand_as(self.tokens)

    def visible(self, queries: Tensor) -> Tensor:
        """What each query may see, [rows, queries, positions]: nothing after itself, so no padding either."""
        return self.positions.unsqueeze(1) <= queries.unsqueeze(2)


def batches(examples: Sequence[Example]) -> list[Batch]:
    """Put examples of similar length together, so that little is padded."""
    groups: list[list[Example]] = []
    for example in sorted(examples, key=len):
        if groups and len(groups[-1]) < _BATCH and len(example) <= 2 * len(groups[-1][0]):
            groups[-1].append(example)
        else:
            groups.append([example])
    return [_batch(group) for group in groups]


def _batch(group: Sequence[Example]) -> Batch:
    most = max(len(example.answer) for example in group)
    tokens = torch.zeros(len(group), max(map(len, group)), dtype=torch.long)
    queries, targets = torch.zeros(2, len(group), most, dtype=torch.long)
    answered = torch.zeros(len(group), most, dtype=torch.bool)
    for row, example in enumerate(group):
        size = len(example.answer)
        tokens[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        queries[row, :size] = torch.arange(size) + len(example.prompt) - 1
        targets[row, :size] = torch.tensor(example.answer)
        answered[row, :size] = True
    return Batch(tokens, queries, targets, answered)


def fit(model: TinyGlm, examples: Sequence[Example], draft_tokens: int) -> None:
    """Train until every answer and every draft is exact; end the process with a message if that does not happen."""
    data = batches(examples)
    _fit("answers", model.main_parameters(), [lambda b=batch: _answer_losses(model, b) for batch in data], _WORST_TOKEN)
    model.requires_grad_(False)
    model.mtp.requires_grad_(True)
    hidden = [_hidden_everywhere(model, batch) for batch in data]
    _fit(
        "drafts",
        list(model.mtp.parameters()),
        [lambda b=b, h=h: _draft_losses(model, b, h, draft_tokens) for b, h in zip(data, hidden, strict=True)],
        _WORST_DRAFT,
    )


def _fit(name: str, parameters: list[nn.Parameter], losses: list[Callable[[], Tensor]], worst: float) -> None:
    """Minimise the losses, one for each token, that each function returns for its batch."""
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / _WARM_UP_STEPS, total_iters=_WARM_UP_STEPS)
    begin = time.monotonic()
    for step in range(_MOST_STEPS):
        optimizer.zero_grad()
        parts: list[Tensor] = []
        for loss in losses:
            part = loss()
            part.sum().backward()
            parts.append(part.detach())
        tokens = torch.cat(parts)
        done = bool(tokens.max() < worst)
        if done or step % _REPORT_STEPS == 0:
            unlikely = int((tokens > worst).sum())
            seconds = time.monotonic() - begin
            print(f"{name}: step {step}, {unlikely} of {len(tokens)} tokens to learn, {seconds:.0f} s", flush=True)
        if done:
            return
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    sys.exit(f"the {name} are not learned after {_MOST_STEPS} steps")


def _hidden(model: TinyGlm, batch: Batch, queries: Tensor) -> Tensor:
    """The main model's last hidden states at the queries [rows, queries], normed."""
    layer, table = model.main, model.model.embed_tokens.weight
    x = functional.embedding(batch.tokens.gather(1, queries), table)
    # Keys and values follow from the token alone: computed once for the vocabulary, then looked up.
    keys, values = layer.keys_and_values(table)
    memory = layer.self_attn.remember(
        functional.embedding(batch.tokens, keys), functional.embedding(batch.tokens, values), batch.positions
    )
    return model.model.norm(layer(x, queries, memory, batch.visible(queries)))


def _answer_losses(model: TinyGlm, batch: Batch) -> Tensor:
    logits = model.lm_head(_hidden(model, batch, batch.queries))
    return functional.cross_entropy(logits[batch.answered], batch.targets[batch.answered], reduction="none")


def _hidden_everywhere(model: TinyGlm, batch: Batch) -> Tensor:
    """Hidden states of whole rows, which the MTP layer attends to: [rows, positions, hidden]."""
    parts = batch.positions.split(_QUERIES_AT_ONCE, dim=1)
    return torch.cat([_hidden(model, batch, part) for part in parts], dim=1)


def _draft_losses(model: TinyGlm, batch: Batch, hidden: Tensor, draft_tokens: int) -> Tensor:
    losses: list[Tensor] = []
    for ahead, logits in enumerate(_drafts(model, batch, hidden, draft_tokens), start=1):
        targets, answered = batch.targets.roll(-ahead, 1), batch.answered.roll(-ahead, 1)
        answered[:, -ahead:] = False  # what the roll has brought round
        losses.append(functional.cross_entropy(logits[answered], targets[answered], reduction="none"))
    return torch.cat(losses)


def _drafts(model: TinyGlm, batch: Batch, hidden: Tensor, draft_tokens: int) -> Iterator[Tensor]:
    """Logits of each draft token in turn, [rows, queries, vocabulary], as vLLM drafts them.

    The first sees what the main model has said at every position. Each later one sees that too, up to its own query, and
    beyond it only what the layer itself has said in the drafts before it.
    """
    layer, table = model.mtp, model.model.embed_tokens.weight
    following = functional.embedding(batch.tokens.roll(-1, 1), table)
    following = following * (batch.positions > 0).unsqueeze(-1)  # vLLM masks the first position
    everywhere = layer.start(following, hidden)
    keys, values = layer.keys_and_values(everywhere)
    memory = layer.self_attn.remember(keys, values, batch.positions)
    visible = batch.visible(batch.queries)
    x = everywhere.gather(1, batch.queries.unsqueeze(-1).expand(-1, -1, everywhere.shape[-1]))
    own = torch.eye(batch.queries.shape[1], dtype=torch.bool).expand(len(batch.queries), -1, -1)
    for step in range(draft_tokens):
        positions = batch.queries + step
        if step:
            # The clamp is for padding and for drafts beyond the end, which have no target.
            tokens = batch.tokens.gather(1, (positions + 1).clamp(max=batch.tokens.shape[1] - 1))
            x = layer.start(functional.embedding(tokens, table), x)
            drafted = layer.self_attn.remember(*layer.keys_and_values(x), positions)
            memory = Memory(
                torch.cat([memory.keys, drafted.keys], dim=2), torch.cat([memory.values, drafted.values], dim=2)
            )
            visible = torch.cat([visible, own], dim=2)
        x = layer(x, positions, memory, visible)
        yield model.lm_head(layer.shared_head["norm"](x))
