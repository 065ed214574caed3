"""The catalogue: what is penalized. Mathematics only, no framework and no model."""

from penalize.regularizers.anchored import EWC, Anchored, toward
from penalize.regularizers.base import Elementwise, Regularizer
from penalize.regularizers.constraints import Box, Constraint, NonNegative, Simplex
from penalize.regularizers.custom import Custom
from penalize.regularizers.differences import FusedLasso, Smoothness
from penalize.regularizers.elementwise import L1, L1L2, L2, Huber
from penalize.regularizers.group_mcp import GroupMCP
from penalize.regularizers.grouping import blocks
from penalize.regularizers.groups import GroupLasso, SparseGroupLasso
from penalize.regularizers.matrices import Orthogonal, SoftOrthogonal
from penalize.regularizers.mixed import ExclusiveLasso, LInf1
from penalize.regularizers.nonconvex import L0, MCP, SCAD, LogSum
from penalize.regularizers.norm_constraints import MaxNorm, MinMaxNorm, UnitNorm
from penalize.regularizers.ratios import Hoyer
from penalize.regularizers.scheduled import Scheduled
from penalize.regularizers.spectral import LogDet, NuclearNorm, SpectralNorm
from penalize.regularizers.sums import Sum

__all__ = [
    "EWC",
    "L0",
    "L1",
    "L1L2",
    "L2",
    "MCP",
    "SCAD",
    "Anchored",
    "Box",
    "Constraint",
    "Custom",
    "Elementwise",
    "ExclusiveLasso",
    "FusedLasso",
    "GroupLasso",
    "GroupMCP",
    "Hoyer",
    "Huber",
    "LInf1",
    "LogDet",
    "LogSum",
    "MaxNorm",
    "MinMaxNorm",
    "NonNegative",
    "NuclearNorm",
    "Orthogonal",
    "Regularizer",
    "Scheduled",
    "Simplex",
    "Smoothness",
    "SoftOrthogonal",
    "SparseGroupLasso",
    "SpectralNorm",
    "Sum",
    "UnitNorm",
    "blocks",
    "toward",
]
