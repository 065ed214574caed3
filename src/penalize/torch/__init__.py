"""penalize for PyTorch: declare, plan, attach; and choose the strength."""

# From now on it sees whether the process is forked.
from penalize.torch import forks as forks

# A module has the same name: once it is loaded it would stand in the function's place.
from penalize.torch.regularize import regularize as regularize

# The public names stand in __init__.pyi, and are loaded when they are first used.


def __getattr__(name: str) -> object:
    from penalize.lazy import attribute

    return attribute(__name__, name)


def __dir__() -> list[str]:
    from penalize.lazy import names

    return names(__name__)
