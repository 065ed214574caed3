"""Strengths in the units of other libraries: one table of their formulas.

``convert("sklearn.Ridge", alpha=1.0, n=442)`` is the regularizer with the same solution. The public
names stand in ``__init__.pyi``, and are loaded when they are first used.
"""


def __getattr__(name: str) -> object:
    from penalize.lazy import attribute

    return attribute(__name__, name)


def __dir__() -> list[str]:
    from penalize.lazy import names

    return names(__name__)
