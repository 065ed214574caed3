"""Which axes of a TensorFlow variable are outputs and inputs.

A variable knows no type of layer, so its role, its name and that of its scope or module decide.
"""

from __future__ import annotations

from penalize.parameters import Role


def axes_of(name: str, owner: str, role: Role, ndim: int) -> tuple[int | None, int | None]:
    """The axes that index outputs and inputs; None where no single axis does.

    TensorFlow's kernels are output-last; those of transposed convolutions have the outputs before
    the inputs, and in an embedding the rows are the inputs. What the axes of variables with more
    than two mean is known for those that call themselves convolutions.
    """
    if ndim < 2:
        return 0 if ndim else None, None
    last, before = ndim - 1, ndim - 2
    called = f"{owner}/{name}".lower()
    if "depthwise" in called:
        return None, before
    if "transpose" in called:
        return before, last
    return (last, before) if ndim == 2 or "conv" in called else (None, None)
