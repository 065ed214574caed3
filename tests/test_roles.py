"""Roles by names and shapes, without any framework: what every wing falls back to."""

from __future__ import annotations

import pytest

from penalize.roles import is_norm, role_by_name


@pytest.mark.parametrize(
    ("owner", "name", "shape", "role"),
    [
        # A class that only mentions a norm holds matrices that are none.
        ("LayerNormLSTMCell", "weight_ih", (16, 3), "kernel"),
        ("LayerNormLSTMCell", "weight_hh", (16, 4), "kernel"),
        ("LayerNormLSTMCell", "weight", (16,), "norm"),
        ("LayerNormLSTMCell", "gamma", (4, 16), "other"),
        ("CosNormClassifier", "weight", (10, 64), "kernel"),
        ("WeightNormLinear", "weight", (4, 3), "kernel"),
        ("WeightNormConv2d", "weight", (4, 3, 3, 3), "kernel"),
        ("NormGRUCell", "recurrent_kernel", (4, 12), "kernel"),
        ("layer_norm_lstm_cell", "kernel", (4, 12), "kernel"),
        ("NormAttention", "qkv", (4, 2, 3), "kernel"),
        # One that is a norm holds none, unless it is called so.
        ("ConvLayerNorm", "weight", (4, 3), "norm"),
        ("ConditionalBatchNorm2d", "weight", (10, 64), "norm"),
        ("RMSNormGated", "weight", (8,), "norm"),
        ("AdaLayerNorm", "kernel", (4, 8), "kernel"),
        ("AdaLayerNorm", "scale_kernel", (4, 8), "norm"),
        ("AdaLayerNorm", "kernel", (1, 8), "norm"),
        # An embedding of patches is a product with them.
        ("PatchEmbed", "weight", (8, 3, 4, 4), "kernel"),
        ("PatchEmbed", "proj", (8, 48), "kernel"),
        ("PatchEmbed", "pos", (16, 8), "embedding"),
        ("PatchEmbedding", "kernel", (48, 8), "kernel"),
        ("PatchEmbedding", "positions", (1, 8), "embedding"),
        ("EmbeddingClassifier", "weight", (10, 8), "kernel"),
        ("VocabParallelEmbedding", "weight", (100, 8), "embedding"),
        ("Embedding", "embedding_kernel", (100, 8), "embedding"),
        # What is learned for itself, and multiplied with nothing.
        ("Prompted", "query", (8, 4), "other"),
        ("Prompted", "object_queries", (8, 4), "other"),
        ("Prompted", "text_prompt", (1, 5, 4), "other"),
        ("Prompted", "ctx", (3, 4), "other"),
        ("Prompted", "latents", (8, 4), "other"),
        ("Prompted", "h0", (2, 1, 4), "other"),
        ("Prompted", "c_0", (2, 4), "other"),
        ("Prompted", "initial_state", (2, 4), "other"),
        ("Prompted", "no_object_pointer", (1, 256), "other"),
        ("ZambaMambaMixer", "D", (2, 16), "other"),
        ("ZambaMambaMixer", "x_proj_weight", (2, 16, 4), "kernel"),
        ("VitsElementwiseAffine", "translate", (2, 1), "other"),
        ("GATConv", "att_src", (1, 4, 8), "other"),
        ("Quantizer", "codevectors", (1, 8, 8), "other"),
        ("ImageToText", "image_positions", (1, 4, 8), "embedding"),
        # What is multiplied says so.
        ("Attention", "query_weight", (8, 8), "kernel"),
        ("Attention", "latent_proj", (8, 4), "kernel"),
        ("query", "kernel", (8, 8), "kernel"),
        ("query", "w", (8, 8), "kernel"),
        ("initial", "weight", (8, 8), "kernel"),
        ("Mixer", "W_state", (8, 8), "kernel"),
        ("Mixer", "d", (8, 8), "kernel"),
        ("Mixer", "hidden", (8, 8), "kernel"),
        ("Mixer", "stateful", (8, 8), "kernel"),  # whole words only
    ],
)
def test_role_by_name(owner: str, name: str, shape: tuple[int, ...], role: str) -> None:
    assert role_by_name(name, shape, owner).value == role


def test_what_calls_itself_a_norm() -> None:
    assert all(map(is_norm, ("LlamaRMSNorm", "BatchNorm_0", "layernorm", "LinearNorm", "norm1")))
    assert not any(map(is_norm, ("LayerNormLSTMCell", "NormedLinear", "Dense", "norm_mlp", "")))
