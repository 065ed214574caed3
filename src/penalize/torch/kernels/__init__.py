"""How penalties are computed fast: a plain reference, and paths that pass over memory once.

============ =====================================================================
path         what takes it
============ =====================================================================
``compiled`` on the CPU, from a million penalized weights on, where llvmlite is installed: one
             kernel for all weights of one form, generated from its formulas; two or three for
             a half-space step
``foreach``  L2: one call for all tensors of one strength
``triton``   the same as compiled on a GPU, where Triton is installed
``chunked``  a large weight, on the CPU, part by part while a part is in the cache
``packed``   small weights, on the CPU, copied side by side and treated as one
``whole``    a group lasso along other axes than the leading ones, on the CPU
``together`` half-space steps of sharded weights with groups: what is summed over the ranks
             is summed for all of them at once
``plain``    everything else, by the regularizer's own functions
============ =====================================================================

Each kind of job in :mod:`~penalize.torch.kernels.jobs` says itself which weights it takes;
``attachment.explain()`` tells which one did, and why none that is compiled.
"""

from penalize.torch.kernels.compiled import at_any_size
from penalize.torch.kernels.halfspace import CompiledHalves
from penalize.torch.kernels.halfsteps import Begun, HalfSteps, Kept
from penalize.torch.kernels.router import Router, reference
from penalize.torch.kernels.together import Together
from penalize.torch.kernels.triton import interpreted
from penalize.torch.kernels.work import Additions, Halvings, Shrinkings

__all__ = [
    "Additions",
    "Begun",
    "CompiledHalves",
    "HalfSteps",
    "Halvings",
    "Kept",
    "Router",
    "Shrinkings",
    "Together",
    "at_any_size",
    "interpreted",
    "reference",
]
