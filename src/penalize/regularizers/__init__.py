"""The catalogue: what is penalized. Mathematics only, no framework and no model."""

from penalize.regularizers.anchored import EWC, Anchored, toward
from penalize.regularizers.base import Elementwise, Regularizer
from penalize.regularizers.constraints import Box, Constraint, NonNegative, Simplex
from penalize.regularizers.custom import Custom
from penalize.regularizers.elementwise import L1, L1L2, L2
from penalize.regularizers.group_mcp import GroupMCP
from penalize.regularizers.grouping import blocks
from penalize.regularizers.groups import GroupLasso, SparseGroupLasso
from penalize.regularizers.matrices import Orthogonal
from penalize.regularizers.mixed import ExclusiveLasso, LInf1
from penalize.regularizers.norm_constraints import MaxNorm, MinMaxNorm, UnitNorm
from penalize.regularizers.scheduled import Scheduled
from penalize.regularizers.sums import Sum

__all__ = [
    "EWC",
    "L1",
    "L1L2",
    "L2",
    "Anchored",
    "Box",
    "Constraint",
    "Custom",
    "Elementwise",
    "ExclusiveLasso",
    "GroupLasso",
    "GroupMCP",
    "LInf1",
    "MaxNorm",
    "MinMaxNorm",
    "NonNegative",
    "Orthogonal",
    "Regularizer",
    "Scheduled",
    "Simplex",
    "SparseGroupLasso",
    "Sum",
    "UnitNorm",
    "blocks",
    "toward",
]
