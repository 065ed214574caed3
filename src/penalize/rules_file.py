"""Rules in a TOML file: what stands in it is what would be written in Python.

::

    [[rules]]
    select = "kernels"
    penalty = "L2(0.0001)"

    [[rules]]
    select = 'named("encoder") & ~biases'
    penalty = "L1(1e-05) * warmup(1000)"

    [[rules]]
    select = 'named("head.weight")'
    penalty = "None"

The expressions are parsed, never executed: they are made of the names of this package, numbers,
strings, lists and ``+ * & | ~``, which act on regularizers, selectors and numbers alone. Their
length and depth are bounded, and so is the file. Only ``of_type(package.module.Class)`` reaches
beyond: it imports the module that it names.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import reprlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penalize import regularizers, schedules, selectors
from penalize.errors import RulesError
from penalize.imports import imported
from penalize.ranges import Search, search
from penalize.regularizers.base import Regularizer
from penalize.rules import Rules, parse
from penalize.schedules import Schedule
from penalize.selectors import And, Not, OfType, Or, Selector

SIZE = 16_000_000
"""Bytes of the largest file."""

LENGTH = 100_000
"""Characters of the longest expression."""

DEPTH = 100
"""How deep an expression may be nested; each sign of a sum is a level."""

_EXPECTED = "[[rules]] tables, each with select and penalty"

Pairs = list[tuple[Selector, Regularizer | None]]


def read_rules(path: str | Path) -> Pairs:
    """The rules of a TOML file, as ``regularize`` takes them.

    Raises:
        RulesError: the file cannot be read, or says something else; with the number of the rule.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(SIZE + 1)
        if len(data) > SIZE:
            raise ValueError(f"it has more than {SIZE:,} bytes")
        found = tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise RulesError(f"{path} is nested too deep", _LIKE, _EXPECTED) from None
    except (OSError, ValueError) as error:
        raise RulesError(f"{path} cannot be read: {error}", _LIKE, _EXPECTED) from None
    rows = found.get("rules")
    if found.keys() - {"rules"} or not isinstance(rows, list):
        raise RulesError(f"{path} has {_shown(sorted(found))}", _LIKE, _EXPECTED)
    return [_read_row(row, f"rule {i} of {path}") for i, row in enumerate(rows, 1)]


def write_rules(rules: Rules, path: str | Path) -> None:
    """Write rules into a TOML file, from which :func:`read_rules` reads the same.

    The file is replaced as a whole, or not at all.

    Raises:
        RulesError: a rule cannot be written: what holds a function (``where``, ``Custom``, a
            schedule of one's own) or arrays. Or the file cannot be.
    """
    pairs = [(rule.selector, rule.regularizer) for rule in parse(rules, "rule", "").rules]
    rows = [_row(selector, regularizer) for selector, regularizer in pairs]
    text = "\n".join(rows or ["rules = []\n"])
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        reason = "Name a file in a folder that can be written to."
        raise RulesError(f"{path} cannot be written: {error}", reason, "a file") from None


# --- reading ------------------------------------------------------------------------------------

_LIKE = 'Write [[rules]], and below it select = "kernels" and penalty = "L2(0.0001)".'

_NAMES: dict[str, Any] = {
    **{name: getattr(regularizers, name) for name in regularizers.__all__},
    **{
        name: getattr(selectors, name)
        for name in ("biases", "embeddings", "everything", "kernels", "named", "norms")
    },
    **{name: getattr(schedules, name) for name in ("cosine", "linear", "piecewise", "step")},
    "warmup": schedules.warmup,
    "search": search,
    "inf": float("inf"),
}

_OURS = (Regularizer, Selector, Schedule, Search)

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Invert: operator.invert,
    ast.USub: operator.neg,
}


def _read_row(row: Any, where: str) -> tuple[Selector, Regularizer | None]:
    if not isinstance(row, Mapping) or row.keys() != {"select", "penalty"}:
        raise RulesError(f"{where} is {_shown(row)}", _LIKE, "select and penalty")
    selector = _evaluated(row["select"], f"select in {where}")
    if isinstance(selector, str):
        selector = selectors.named(selector)
    if not isinstance(selector, Selector):
        raise RulesError(
            f"select in {where} is {_shown(row['select'])}",
            "Write kernels, or 'named(\"encoder\")'.",
            "a selector",
        )  # fmt: skip
    penalty = _evaluated(row["penalty"], f"penalty in {where}")
    if penalty is not None and not isinstance(penalty, Regularizer):
        raise RulesError(
            f"penalty in {where} is {_shown(row['penalty'])}", 'Write "L2(0.0001)", or "None".',
            "a regularizer or None",
        )  # fmt: skip
    return selector, penalty


def _evaluated(text: Any, where: str) -> Any:
    if not isinstance(text, str):
        raise RulesError(
            f"{where} is {_shown(text)}", "Put it in quotes.", "an expression as a string"
        )
    try:
        return _value(_parsed(text))
    except Exception as error:  # noqa: BLE001 - whatever a class makes of such arguments
        reason = str(error) or type(error).__name__
        raise RulesError(f"{where} is {_shown(text)}: {reason}", _LIKE, "an expression") from None


def _parsed(text: str) -> ast.expr:
    """The tree of an expression.

    Raises:
        SyntaxError: it is none.
        ValueError: it is too long or too deep.
    """
    if len(text) > LENGTH:
        raise ValueError(f"it has {len(text):,} characters, and {LENGTH:,} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (RecursionError, MemoryError):  # Python's parser, at some thousands
        raise ValueError(_TOO_DEEP) from None
    except SyntaxError as error:
        if "too many nested" in str(error):  # brackets, at 200
            raise ValueError(_TOO_DEEP) from None
        raise
    level: list[ast.AST] = [tree]
    for _ in range(DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"it is nested deeper than {DEPTH} levels"


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in _NAMES:
            raise ValueError(f"{node.id} is none of {', '.join(sorted(_NAMES))}")
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        keys = [key for key in node.keys if key is not None]
        return {_value(k): _value(v) for k, v in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in _OPERATORS:
        parts = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        operands = [_value(part) for part in parts]
        if not (any(isinstance(each, _OURS) for each in operands) or all(map(_number, operands))):
            raise ValueError(f"{ast.unparse(node)} is of no regularizer, selector or number")
        return _OPERATORS[type(node.op)](*operands)
    if isinstance(node, ast.Call):
        return _called(node)
    raise ValueError(f"{ast.unparse(node)} cannot stand here")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _called(node: ast.Call) -> Any:
    function: Any = node.func
    if isinstance(function, ast.Name) and function.id == "of_type":
        return selectors.of_type(*(_class(ast.unparse(each)) for each in node.args))
    if isinstance(function, ast.Attribute) and function.attr.startswith("from_"):
        owner = _value(function.value)
        if not (isinstance(owner, type) and issubclass(owner, Regularizer)):
            raise ValueError(f"{ast.unparse(function)} is of no regularizer")
        called = getattr(owner, function.attr)
    elif isinstance(function, ast.Name):
        called = _value(function)
    else:
        raise ValueError(f"{ast.unparse(function)} cannot stand here")
    if not callable(called) or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"{ast.unparse(node)} cannot be called")
    named = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    return called(*map(_value, node.args), **named)


def _class(name: str) -> type:
    """A class by its full name."""
    module, _, rest = name.rpartition(".")
    try:
        found = getattr(imported(module), rest)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"of_type({name}): {error}") from None
    if not isinstance(found, type):
        raise ValueError(f"of_type({name}): it is no class")
    return found


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200
_shown = _short.repr


# --- writing ------------------------------------------------------------------------------------


def _row(selector: Selector, regularizer: Regularizer | None) -> str:
    select, penalty = _text(selector), repr(regularizer)
    for value, text in ((selector, select), (regularizer, penalty)):
        reason = _why_not_written(value, text)
        if reason:
            raise RulesError(
                f"{_shown(value)} cannot be written into a file: {reason}",
                "Keep this rule in Python.",
                "rules of names, numbers and strings",
            )
    return f"[[rules]]\nselect = {json.dumps(select)}\npenalty = {json.dumps(penalty)}\n"


def _why_not_written(value: Any, text: str) -> str:
    """Why a text is not read as this value; empty where it is."""
    try:
        _parsed(text)
        if _evaluated(text, "") == value:
            return ""
    except (SyntaxError, RulesError):
        pass
    except ValueError as error:
        return str(error)
    return "it holds a function or an array"


def _text(selector: Selector) -> str:
    """A selector as an expression: its classes by their full names, its parts in brackets."""
    if isinstance(selector, OfType):
        return f"of_type({', '.join(f'{t.__module__}.{t.__qualname__}' for t in selector.types)})"
    if isinstance(selector, And):
        return f"({_text(selector.left)}) & ({_text(selector.right)})"
    if isinstance(selector, Or):
        return f"({_text(selector.left)}) | ({_text(selector.right)})"
    if isinstance(selector, Not):
        return f"~({_text(selector.inner)})"
    return repr(selector)
