"""Breaks the rule table in every way it knows, one at a time, and runs the table of workloads on each: `make mutation`.

A mutant that no case notices is a hole in the table: a rule could change there and every test would still pass. A rule is
removed, made to pass or refuse always, and inverted; in its check's code comparisons, conditions, names and numbers are changed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import CodeType, ModuleType

from serving.facts import WorkloadFacts
from serving.rules import RULES, Outcome, Rule, apply
from tests.fixtures.parameter_cases import PARAMETER_CASES
from tests.fixtures.rule_cases import CASES, RuleCase

# What an operator turns into: its neighbour, and its opposite.
_OPERATORS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}


# Changes that change nothing, each with the reason. Any other mutant that no case notices fails the run, and so does one of
# these that a case notices.
EQUIVALENT = {
    "memory._SPARSE_SCRATCH_HEADS: 32: 31": "64 heads over a whole number of GPUs are 32 or at most 21, never 31",
    "memory._bf16_one_node: left < 0: LtE": "decides the words of a refusal with exactly 0.0 GiB left, which no settings give",
    "memory._sparse_decode_scratch: facts.checkpoint is None or context is None: without context is None": (
        "a known checkpoint has a length of its own"
    ),
}


@dataclass(frozen=True)
class Mutant:
    """One change, the rules whose verdict it may change, and how to make the rules with it."""

    name: str
    rules: frozenset[str]
    build: Callable[[], Iterable[Rule]]

    def noticed_by(self) -> str | None:
        """Return the first case that fails with this change, or None: then it survives."""
        changed = {rule.id: rule for rule in self.build()}
        return next(
            (case.id for case, facts in _cases() if case.rule in self.rules and _fails(case, facts, changed)), None
        )


@cache
def _cases() -> tuple[tuple[RuleCase, WorkloadFacts], ...]:
    return tuple((case, case.facts) for case in (*CASES, *PARAMETER_CASES))


def _fails(case: RuleCase, facts: WorkloadFacts, rules: dict[str, Rule]) -> bool:
    if case.rule not in rules:
        return True
    try:
        return apply(rules[case.rule], facts, case.parameters).outcome != Outcome(case.passes, case.message)
    except Exception:  # noqa: BLE001 (a check that raises fails its case)
        return True


# --- whole rules ---------------------------------------------------------------------------------------------------------


def rule_mutants() -> Iterator[Mutant]:
    """Yield every rule removed, passing always, refusing always, and inverted; the sentence stays as it was."""
    changes: dict[str, Callable[[bool], bool]] = {
        "passes always": lambda _: True,
        "refuses always": lambda _: False,
        "inverted": lambda passed: not passed,
    }
    for rule in RULES:
        yield Mutant(f"{rule.id}: removed", frozenset({rule.id}), lambda: ())
        for name, change in changes.items():
            changed = replace(rule, check=_with_verdict(rule, change))
            yield Mutant(f"{rule.id}: {name}", frozenset({rule.id}), lambda changed=changed: (changed,))


def _with_verdict(rule: Rule, change: Callable[[bool], bool]) -> Callable[..., Outcome]:
    def check(facts: WorkloadFacts, **values: object) -> Outcome:
        outcome = apply(replace(rule, check=partial(rule.check, **values)), facts).outcome
        return replace(outcome, passed=change(outcome.passed))

    return check


# --- the code of checks --------------------------------------------------------------------------------------------------


def code_mutants() -> Iterator[Mutant]:
    """Yield every change of every function and constant that a check uses, module by module."""
    for name in dict.fromkeys(rule.check.__module__ for rule in RULES):
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
        users = _users(tree, [rule for rule in RULES if rule.check.__module__ == name])
        parts = [_compiled(statement) for statement in tree.body]
        for at, statement in enumerate(tree.body):
            for defined in _names(statement):
                for change, part in _changes(statement):
                    changed = (*parts[:at], part, *parts[at + 1 :])
                    yield Mutant(
                        f"{name.rpartition('.')[2]}.{defined}: {change}",
                        frozenset(users.get(defined, ())),
                        lambda name=name, changed=changed: _rules_of(name, changed),
                    )


def _names(statement: ast.stmt) -> list[str]:
    """Return what a statement of a module defines, if checks may use it."""
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _users(tree: ast.Module, rules: Sequence[Rule]) -> dict[str, set[str]]:
    """Return the rules that reach each name of a module, through whichever functions."""
    loads = {
        name: {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        for statement in tree.body
        for name in _names(statement)
    }
    users: dict[str, set[str]] = {}
    for rule in rules:
        reached, open_names = set[str](), [rule.check.__name__]
        while open_names:
            name = open_names.pop()
            if name in loads and name not in reached:
                reached.add(name)
                open_names += loads[name]
        for name in reached:
            users.setdefault(name, set()).add(rule.id)
    return users


def _rules_of(name: str, parts: Iterable[CodeType]) -> Iterable[Rule]:
    """Return the rules of a changed copy of a module, which nothing imports."""
    changed = ModuleType(name)
    for part in parts:
        exec(part, vars(changed))
    return vars(changed)["RULES"]


def _compiled(statement: ast.stmt) -> CodeType:
    body = ast.fix_missing_locations(ast.Module([statement], []))
    return compile(body, "mutant", "exec", flags=annotations.compiler_flag, dont_inherit=True)


def _changes(statement: ast.stmt) -> Iterator[tuple[str, CodeType]]:
    """Yield a statement of a module with one change inside, compiled, and what the change is."""
    for node in _judging(statement):
        for description, change in _mutations(node):
            saved = dict(vars(node))
            change()
            part = _compiled(statement)
            vars(node).clear()
            vars(node).update(saved)
            yield description, part


_Place = ast.Compare | ast.BoolOp | ast.UnaryOp | ast.If | ast.IfExp | ast.Constant


def _judging(node: ast.AST) -> Iterator[_Place]:
    """Yield the places that may change a verdict: not the sentences and not the docstring."""
    if isinstance(node, ast.Expr | ast.JoinedStr):
        return
    if isinstance(node, _Place):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _judging(child)


def _mutations(node: _Place) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the changes of one place: what each is, and how to make it."""
    shown = ast.unparse(node.test if isinstance(node, ast.If | ast.IfExp) else node)
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                for other in _OPERATORS[type(operator)]:
                    ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                    yield f"{shown}: {other.__name__}", lambda ops=ops: setattr(node, "ops", ops)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{shown}: {type(other).__name__}", lambda: setattr(node, "op", other)
            for at, value in enumerate(node.values):
                left = [*node.values[:at], *node.values[at + 1 :]]
                rest = left if len(left) > 1 else left * 2  # `A or A`: the compiler wants two
                yield f"{shown}: without {ast.unparse(value)}", lambda rest=rest: setattr(node, "values", rest)
        case ast.If() | ast.IfExp():
            test = node.test
            yield f"{shown}: not", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.UnaryOp():
            if isinstance(node.op, ast.Not):
                doubled = ast.UnaryOp(ast.Not(), node.operand)
                yield f"{shown}: without not", lambda: setattr(node, "operand", doubled)
        case _:
            for value in _other_values(node.value):
                yield f"{shown}: {value!r}", lambda value=value: setattr(node, "value", value)


def _other_values(value: object) -> tuple[object, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value - 1, value + 1)
        case float():
            return (value * 0.99, value * 1.01)
        # A sentence has spaces; what is compared has none.
        case str() if " " not in value:
            return (f"{value}~",)
        case _:
            return ()


# --- the run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What came of all mutants: how many were made and noticed, by rule (some belong to several), and the names of the rest."""

    tried: int
    made: Counter[str]
    noticed: Counter[str]
    alive: tuple[str, ...]


def run() -> Run:
    """Try every mutant against the table of workloads."""
    made, noticed, alive = Counter[str](), Counter[str](), list[str]()
    mutants = (*rule_mutants(), *code_mutants())
    for mutant in mutants:
        made.update(mutant.rules)
        if mutant.noticed_by() is None:
            alive.append(mutant.name)
        else:
            noticed.update(mutant.rules)
    return Run(len(mutants), made, noticed, tuple(alive))


def report(found: Run) -> Iterator[str]:
    """Yield a line for each rule, one for each mutant that nothing notices, and the sum."""
    for rule in RULES:
        yield f"{rule.id:24} {found.noticed[rule.id]:4} of {found.made[rule.id]:4} mutants noticed"
    for name in found.alive:
        yield f"equivalent: {name} ({EQUIVALENT[name]})" if name in EQUIVALENT else f"SURVIVES: {name}"
    alive = len(set(found.alive) - set(EQUIVALENT))
    yield f"{len(RULES)} rules, {found.tried} mutants, {alive} survive"


def main() -> int:
    """Print the report; return 1 if a mutant survives that should be noticed, or the other way round."""
    found = run()
    sys.stdout.writelines(f"{line}\n" for line in report(found))
    return 0 if set(found.alive) == set(EQUIVALENT) else 1


if __name__ == "__main__":
    sys.exit(main())
