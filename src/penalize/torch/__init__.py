"""penalize for PyTorch: declare, plan, attach."""

from penalize.torch.attachment import Attachment
from penalize.torch.audit import audit
from penalize.torch.plan import Plan
from penalize.torch.regularize import regularize
from penalize.torch.scope import declare, scope

__all__ = ["Attachment", "Plan", "audit", "declare", "regularize", "scope"]
