"""The rule table for people: plain text, and the page docs/rules.md."""

from __future__ import annotations

from serving.rules import RULES, Parameter, Rule

_LEVELS = """\
# Rules

Written by `python -m serving rules --format markdown`. `python -m serving plan` shows each rule's verdict with its numbers.

- **mandatory** refuses: output that is wrong in silence, an engine that dies or never starts, an endpoint that is open.
- **advisory** is told beside the plan and refuses nothing: slower, or reported once and not measured.
- **locked** cannot be switched off in any layer. What is not pinned may be anything at the next start, and BF16 misses one node
  by more than the memory model can err.
- What cannot be known (a value from a Secret, an image that the catalogue does not know) is not passed: every rule whose
  verdict depends on it says so.

| rule | level | what | otherwise | to do | source |
|---|---|---|---|---|---|
"""

_PARAMETERS = """
## Parameters

The policy pack's configuration may set these, stricter than here and never laxer ([policy.md](policy.md#parameters)). The program
and the API server judge by the figures here.

| rule | parameter | what | type | by default | may be |
|---|---|---|---|---|---|
"""

# Known hazards that no rule is about, each with the reason.
_NO_RULES = """
## Known hazards that are no rule

- `kv-fp8-h20`: the vLLM recipe advises against an FP8 cache on H20. No machine of the catalogue has that GPU, and a workload on
  a machine that cannot be read is refused by every rule that depends on it.
"""


def as_text() -> str:
    """Return every rule in five lines, for a terminal."""
    return "".join(
        f"{rule.id}: {rule.title}\n  level: {_level(rule)}\n  otherwise: {rule.effect}\n  to do: {rule.remedy}\n"
        f"  source: {rule.source}\n"
        for rule in RULES
    )


def as_markdown() -> str:
    """Return the page: what levels mean, a row for each rule and for each parameter, and what is no rule."""
    return _LEVELS + "".join(f"{_row(rule)}\n" for rule in RULES) + _parameters() + _NO_RULES


def _row(rule: Rule) -> str:
    cells = (f"`{rule.id}`", _level(rule), rule.title, rule.effect, rule.remedy, rule.source)
    return f"| {' | '.join(cells)} |"


def _parameters() -> str:
    rows = (_parameter_row(rule, row) for rule in RULES for row in rule.parameters)
    return _PARAMETERS + "".join(f"{row}\n" for row in rows)


def _parameter_row(rule: Rule, row: Parameter) -> str:
    default = row.schema.get("default", "not set")
    if "maximum" in row.schema:
        may_be = "lower"
    elif "minimum" in row.schema:
        may_be = "higher"
    else:
        may_be = "set"
    cells = (f"`{rule.id}`", f"`{row.name}`", row.meaning, row.schema["type"], default, may_be)
    return f"| {' | '.join(map(str, cells))} |"


def _level(rule: Rule) -> str:
    return f"{rule.level}, locked" if rule.locked else rule.level
