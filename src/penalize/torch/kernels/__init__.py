"""How penalties are computed fast: a plain reference, and paths that pass over memory once.

===========  ======================================================================
path         what takes it
===========  ======================================================================
``foreach``  L2: one call for all tensors of one strength
``chunked``  a large weight, on the CPU, part by part while a part is in the cache
``packed``   small weights, on the CPU, copied side by side and treated as one
``whole``    a group lasso along other axes than the leading ones, on the CPU
``plain``    everything else, by the regularizer's own functions
===========  ======================================================================

Each kind of job in :mod:`~penalize.torch.kernels.jobs` says itself which weights it takes;
``attachment.explain()`` tells which one did.
"""

from penalize.torch.kernels.router import Router, reference
from penalize.torch.kernels.triton import interpreted
from penalize.torch.kernels.work import Additions, Shrinkings

__all__ = ["Additions", "Router", "Shrinkings", "interpreted", "reference"]
