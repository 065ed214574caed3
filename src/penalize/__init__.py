"""Declare penalties once; have them applied exactly once.

This package imports no framework. ``penalize.torch`` is the PyTorch wing.
"""

# The names below are loaded when they are first used (PEP 562), so that importing the package, as
# every wing and the command do, costs next to nothing. typing itself is among what that saves.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from penalize.errors import (
        AppliedTwiceError,
        ArrayError,
        ConfigError,
        ConflictError,
        GroupsError,
        ModeError,
        ModelError,
        NeverAppliedWarning,
        NoMatchError,
        NoProximalOperatorError,
        OptimizerError,
        PenalizeError,
        PenaltyError,
        RegularizerError,
        ReplacedParameterError,
        RoleError,
        RulesError,
        ScaleError,
        SelectorError,
        ShapeError,
        StepError,
        StrengthError,
    )
    from penalize.parameters import Role
    from penalize.regularizers import (
        L1,
        L1L2,
        L2,
        Elementwise,
        GroupLasso,
        Orthogonal,
        Regularizer,
        Sum,
    )
    from penalize.selectors import (
        biases,
        embeddings,
        everything,
        kernels,
        named,
        norms,
        of_type,
        where,
    )

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "AppliedTwiceError",
    "ArrayError",
    "ConfigError",
    "ConflictError",
    "Elementwise",
    "GroupLasso",
    "GroupsError",
    "ModeError",
    "ModelError",
    "NeverAppliedWarning",
    "NoMatchError",
    "NoProximalOperatorError",
    "OptimizerError",
    "Orthogonal",
    "PenalizeError",
    "PenaltyError",
    "Regularizer",
    "RegularizerError",
    "ReplacedParameterError",
    "Role",
    "RoleError",
    "RulesError",
    "ScaleError",
    "SelectorError",
    "ShapeError",
    "StepError",
    "StrengthError",
    "Sum",
    "biases",
    "embeddings",
    "everything",
    "kernels",
    "named",
    "norms",
    "of_type",
    "where",
]

_HOMES = ("regularizers", "selectors", "parameters", "errors")


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
