# The public names; penalize.lazy loads them from here.

from penalize.compacting.report import Compacted as Compacted
from penalize.jax.compacting.compacted import compact as compact
from penalize.jax.plan import Plan as Plan
from penalize.jax.regularize import regularize as regularize
from penalize.jax.selection.path import path as path
from penalize.jax.selection.training import Training as Training
from penalize.selection.grids import geometric as geometric
from penalize.selection.result import Path as Path
