"""The catalogue: what is penalized. Mathematics only, no framework and no model."""

from penalize.regularizers.anchored import EWC, Anchored, toward
from penalize.regularizers.base import Elementwise, Regularizer
from penalize.regularizers.custom import Custom
from penalize.regularizers.elementwise import L1, L1L2, L2
from penalize.regularizers.grouping import blocks
from penalize.regularizers.groups import GroupLasso
from penalize.regularizers.matrices import Orthogonal
from penalize.regularizers.scheduled import Scheduled
from penalize.regularizers.sums import Sum

__all__ = [
    "EWC",
    "L1",
    "L1L2",
    "L2",
    "Anchored",
    "Custom",
    "Elementwise",
    "GroupLasso",
    "Orthogonal",
    "Regularizer",
    "Scheduled",
    "Sum",
    "blocks",
    "toward",
]
