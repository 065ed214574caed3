"""Declare penalties once; have them applied exactly once; prove it.

This package imports no framework. ``penalize.torch`` is the PyTorch wing.
"""

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
    ReplacedParameterError,
    RoleError,
    RulesError,
    SelectorError,
    StepError,
    StrengthError,
)
from penalize.parameters import Role
from penalize.regularizers import L1, L1L2, L2, Elementwise, GroupLasso, Regularizer, Sum
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
    "PenalizeError",
    "Regularizer",
    "ReplacedParameterError",
    "Role",
    "RoleError",
    "RulesError",
    "SelectorError",
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
