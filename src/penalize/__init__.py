"""Declare penalties once; have them applied exactly once.

This package imports no framework. Its wings are ``penalize.torch``, ``penalize.jax``,
``penalize.tensorflow`` and ``penalize.keras``.
"""

import sys as _sys

# The names below are loaded when they are first used (PEP 562), so that importing the package, as
# every wing and the command do, costs next to nothing. typing itself is among what that saves.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from penalize.errors import (
        ActivityError,
        AnchorError,
        AppliedTwiceError,
        ArrayError,
        AuditError,
        CheckpointError,
        ConfigError,
        ConflictError,
        GroupsError,
        IgnoredRegularizerWarning,
        LossError,
        LostAttachmentError,
        MissingPackageError,
        ModeError,
        ModelError,
        NeverAppliedWarning,
        NoGradientError,
        NoMatchError,
        NoProximalOperatorError,
        NoStepError,
        NoStrengthMaxError,
        OptimizerError,
        PathError,
        PenalizeError,
        PenaltyError,
        PenaltyOfPenaltyWarning,
        RegularizerError,
        ReplacedParameterError,
        ResultsError,
        RoleError,
        RoundedAwayWarning,
        RulesError,
        ScaleError,
        ScheduleError,
        ScopeError,
        SelectorError,
        ShapeError,
        StateError,
        StepError,
        StrengthError,
        VariableError,
    )
    from penalize.parameters import Role
    from penalize.ranges import search
    from penalize.regularizers import (
        EWC,
        L0,
        L1,
        L1L2,
        L2,
        MCP,
        SCAD,
        Anchored,
        Box,
        Constraint,
        Custom,
        Elementwise,
        ExclusiveLasso,
        FusedLasso,
        GroupLasso,
        GroupMCP,
        Hoyer,
        Huber,
        LInf1,
        LogDet,
        LogSum,
        MaxNorm,
        MinMaxNorm,
        NonNegative,
        NuclearNorm,
        Orthogonal,
        Regularizer,
        Scheduled,
        Simplex,
        Smoothness,
        SoftOrthogonal,
        SparseGroupLasso,
        SpectralNorm,
        Sum,
        UnitNorm,
        blocks,
        toward,
    )
    from penalize.rules_file import read_rules, write_rules
    from penalize.schedules import cosine, linear, piecewise, step, warmup
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
    "EWC",
    "L0",
    "L1",
    "L1L2",
    "L2",
    "MCP",
    "SCAD",
    "ActivityError",
    "AnchorError",
    "Anchored",
    "AppliedTwiceError",
    "ArrayError",
    "AuditError",
    "Box",
    "CheckpointError",
    "ConfigError",
    "ConflictError",
    "Constraint",
    "Custom",
    "Elementwise",
    "ExclusiveLasso",
    "FusedLasso",
    "GroupLasso",
    "GroupMCP",
    "GroupsError",
    "Hoyer",
    "Huber",
    "IgnoredRegularizerWarning",
    "LInf1",
    "LogDet",
    "LogSum",
    "LossError",
    "LostAttachmentError",
    "MaxNorm",
    "MinMaxNorm",
    "MissingPackageError",
    "ModeError",
    "ModelError",
    "NeverAppliedWarning",
    "NoGradientError",
    "NoMatchError",
    "NoProximalOperatorError",
    "NoStepError",
    "NoStrengthMaxError",
    "NonNegative",
    "NuclearNorm",
    "OptimizerError",
    "Orthogonal",
    "PathError",
    "PenalizeError",
    "PenaltyError",
    "PenaltyOfPenaltyWarning",
    "Regularizer",
    "RegularizerError",
    "ReplacedParameterError",
    "ResultsError",
    "Role",
    "RoleError",
    "RoundedAwayWarning",
    "RulesError",
    "ScaleError",
    "ScheduleError",
    "Scheduled",
    "ScopeError",
    "SelectorError",
    "ShapeError",
    "Simplex",
    "Smoothness",
    "SoftOrthogonal",
    "SparseGroupLasso",
    "SpectralNorm",
    "StateError",
    "StepError",
    "StrengthError",
    "Sum",
    "UnitNorm",
    "VariableError",
    "biases",
    "blocks",
    "cosine",
    "embeddings",
    "everything",
    "kernels",
    "linear",
    "named",
    "norms",
    "of_type",
    "piecewise",
    "read_rules",
    "search",
    "step",
    "toward",
    "warmup",
    "where",
    "write_rules",
]

_HOMES = (
    "regularizers",
    "selectors",
    "schedules",
    "parameters",
    "errors",
    "ranges",
    "rules_file",
)


def _define_regularizers() -> None:
    from importlib import import_module

    import_module(f"{__name__}.regularizers")


class _KerasHook:
    """An importer that finds nothing itself: it has our regularizers registered with Keras.

    A model that was saved with them must load whether or not they were used before, and whichever
    package is imported first. The hook stays, so that it also sees a Keras that is reloaded, or
    imported again after a failure: the names live in Keras. It costs an import one comparison.
    """

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != "keras":
            return None
        from penalize.keras_names import find

        return find(self, _define_regularizers, name, path, target)


if not any(type(finder).__name__ == "_KerasHook" for finder in _sys.meta_path):
    _sys.meta_path.insert(0, _KerasHook())
if _sys.modules.get("keras") is not None:
    from penalize.keras_names import register_with_loaded as _register_with_loaded

    _register_with_loaded(_sys.modules["keras"], _define_regularizers)


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
