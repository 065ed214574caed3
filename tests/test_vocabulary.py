"""One word, one thing: a class name stands for one class in the whole of the source."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import penalize

SOURCE = Path(penalize.__file__).parent

# The same thing in each wing, under the name that users or CONTRIBUTING know it by.
COUNTERPARTS = {
    "Plan": "the public class of every wing, and what the core asks of it",
    "Training": "the public class, in each wing that makes paths",
    "Mode": "a way to act, in each wing that has a table of them",
    "Proximal": 'mode="proximal" in such a table',
    "Halfspace": 'mode="halfspace" in such a table',
    "Compacted": "what compact returns; that of PyTorch has an optimizer, and exports",
    "PenalizeCallback": "what a user adds to a trainer, of each trainer",
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text("utf-8"))


def repeated(files: Iterator[tuple[str, ast.Module]]) -> dict[str, list[str]]:
    """The class names that are defined more than once → where."""
    places = defaultdict(list)
    for name, tree in files:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{name}:{node.lineno}")
    return {name: lines for name, lines in places.items() if len(lines) > 1}


def test_a_class_name_is_defined_once() -> None:
    """A second one fails here: name it for what it is, or say in the table why it is the same."""
    found = repeated(trees())
    assert {name: lines for name, lines in found.items() if name not in COUNTERPARTS} == {}
    assert COUNTERPARTS.keys() <= found.keys()  # what is defined once now is taken out


def test_the_repeated_are_found() -> None:
    source = "class A: pass\ndef f():\n  class A: pass\nclass B: pass"
    assert repeated(iter([("x.py", ast.parse(source))])) == {"A": ["x.py:1", "x.py:3"]}


def misnamed(name: str, tree: ast.Module) -> Iterator[str]:
    """The functions that give a sentence of refusal, or nothing, under another kind of name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or ast.unparse(node.returns or node) != "str":
            continue
        bare = node.name.lstrip("_")
        says_why = (ast.get_docstring(node) or "").startswith("Why ")
        looks_so = says_why or bare.startswith(("no_", "cannot_", "why_"))
        if looks_so and not bare.startswith("why_not_"):
            yield f"{name}:{node.lineno} {node.name}"


def test_what_gives_a_sentence_of_refusal_is_called_why_not() -> None:
    assert [line for file in trees() for line in misnamed(*file)] == []


def test_a_misnamed_one_is_found() -> None:
    source = (
        "def _no_prox() -> str: ...\ndef why_not_trained() -> str: ...\n"
        "def excuse() -> str:\n  'Why it may not.'"
    )
    found = list(misnamed("x.py", ast.parse(source)))
    assert found == ["x.py:1 _no_prox", "x.py:3 excuse"]


# Words that stand for a noun, which a reader of one docstring does not have.
PRONOUNS = {"It", "Its", "Itself", "Ones", "Their", "Them", "These", "They", "Those"}


def without_a_noun(name: str, tree: ast.Module) -> Iterator[str]:
    """The docstrings, those of attributes too, that begin with a pronoun."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str) and text.strip().partition(" ")[0].strip(",.:") in PRONOUNS:
                yield f"{name}:{node.lineno} {text.splitlines()[0]}"


def test_docstrings_begin_with_their_noun() -> None:
    """``Those that act now.`` of what? ``The attachments that act now.``"""
    assert [line for file in trees() for line in without_a_noun(*file)] == []


def test_a_pronoun_is_found() -> None:
    source = 'def f():\n  """Those that act."""\nx = 1\n"""Its value."""\n"""Whose?"""'
    found = list(without_a_noun("x.py", ast.parse(source)))
    assert found == ["x.py:4 Its value.", "x.py:2 Those that act."]
