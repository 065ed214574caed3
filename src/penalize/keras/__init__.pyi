# The public names; penalize.lazy loads them from here.

from penalize.compacting.report import Compacted as Compacted
from penalize.keras.compacting.compacted import compact as compact
from penalize.keras.conversion import from_keras as from_keras
from penalize.keras.conversion import to_keras as to_keras
from penalize.keras.plan import Plan as Plan
from penalize.keras.plan import plan_on as plan_on
from penalize.keras.regularize import regularize as regularize
from penalize.keras.selection.path import path as path
from penalize.keras.selection.training import Training as Training
from penalize.selection.grids import geometric as geometric
from penalize.selection.result import Path as Path
