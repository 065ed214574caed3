"""The public names of the catalogue, and where each is from."""

from penalize.regularizers.anchored import EWC as EWC
from penalize.regularizers.anchored import Anchored as Anchored
from penalize.regularizers.anchored import toward as toward
from penalize.regularizers.base import Elementwise as Elementwise
from penalize.regularizers.base import Regularizer as Regularizer
from penalize.regularizers.constraints import Box as Box
from penalize.regularizers.constraints import Constraint as Constraint
from penalize.regularizers.constraints import NonNegative as NonNegative
from penalize.regularizers.constraints import Simplex as Simplex
from penalize.regularizers.custom import Custom as Custom
from penalize.regularizers.differences import FusedLasso as FusedLasso
from penalize.regularizers.differences import Smoothness as Smoothness
from penalize.regularizers.elementwise import L1 as L1
from penalize.regularizers.elementwise import L1L2 as L1L2
from penalize.regularizers.elementwise import L2 as L2
from penalize.regularizers.elementwise import Huber as Huber
from penalize.regularizers.group_mcp import GroupMCP as GroupMCP
from penalize.regularizers.grouping import blocks as blocks
from penalize.regularizers.groups import GroupLasso as GroupLasso
from penalize.regularizers.groups import SparseGroupLasso as SparseGroupLasso
from penalize.regularizers.matrices import Orthogonal as Orthogonal
from penalize.regularizers.matrices import SoftOrthogonal as SoftOrthogonal
from penalize.regularizers.mixed import ExclusiveLasso as ExclusiveLasso
from penalize.regularizers.mixed import LInf1 as LInf1
from penalize.regularizers.nonconvex import L0 as L0
from penalize.regularizers.nonconvex import MCP as MCP
from penalize.regularizers.nonconvex import SCAD as SCAD
from penalize.regularizers.nonconvex import LogSum as LogSum
from penalize.regularizers.norm_constraints import MaxNorm as MaxNorm
from penalize.regularizers.norm_constraints import MinMaxNorm as MinMaxNorm
from penalize.regularizers.norm_constraints import UnitNorm as UnitNorm
from penalize.regularizers.ratios import Hoyer as Hoyer
from penalize.regularizers.scheduled import Scheduled as Scheduled
from penalize.regularizers.spectral import LogDet as LogDet
from penalize.regularizers.spectral import NuclearNorm as NuclearNorm
from penalize.regularizers.spectral import SpectralNorm as SpectralNorm
from penalize.regularizers.sums import Sum as Sum

__all__: list[str]
