# The public names; penalize.lazy loads them from here.

from penalize.selection.grids import geometric as geometric
from penalize.selection.result import Path as Path
from penalize.torch.acting.attachment import Attachment as Attachment
from penalize.torch.auditing.audit import audit as audit
from penalize.torch.compacting.compacted import Compacted as Compacted
from penalize.torch.compacting.compacted import compact as compact
from penalize.torch.compacting.suggested import Suggestion as Suggestion
from penalize.torch.compacting.suggested import suggest as suggest
from penalize.torch.model.scope import declare as declare
from penalize.torch.model.scope import scope as scope
from penalize.torch.plan import Plan as Plan
from penalize.torch.regularize import regularize as regularize
from penalize.torch.selection.path import path as path
from penalize.torch.selection.strengths import strength_max as strength_max
from penalize.torch.selection.training import Training as Training
from penalize.torch.selection.tuning import tune as tune
