"""The rules table, which docs/agreement.md quotes."""

from penalize import L1, L1L2, L2, GroupLasso, biases, embeddings, kernels, named, norms

RULES = {
    kernels: L2(0.01),
    biases: L2(0.02),
    norms: L2(0.001),
    "encoder": None,
    embeddings: L2(0.005) + GroupLasso(0.01, groups="inputs"),
    "encoder.conv": GroupLasso(0.02, groups="outputs"),
    "hidden": L1(0.003) + GroupLasso(0.005, groups="inputs"),
    named("head") & biases: L1L2(l1=0.01, l2=0.03),
}
