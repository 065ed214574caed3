"""The catalogue: what is penalized. Mathematics only, no framework and no model."""

from penalize.regularizers.base import Elementwise, Regularizer
from penalize.regularizers.elementwise import L1, L1L2, L2
from penalize.regularizers.groups import GroupLasso
from penalize.regularizers.matrices import Orthogonal
from penalize.regularizers.sums import Sum

__all__ = ["L1", "L1L2", "L2", "Elementwise", "GroupLasso", "Orthogonal", "Regularizer", "Sum"]
