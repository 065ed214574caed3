"""Real architectures: what a person would call a kernel, and no parameter lost or counted twice.

The plan of each small model stands in ``golden/<name>.txt``, to be read by a reviewer. Rewrite them
with ``PENALIZE_REGEN=1 pytest tests/test_architectures.py``. What the goldens say is also checked
against oracles that know nothing of penalize: module types, and the few names of bare parameters.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2Model,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaModel,
    ResNetConfig,
    ResNetForImageClassification,
    RwkvConfig,
    RwkvModel,
    SamVisionConfig,
    SamVisionModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2Model,
    XLNetConfig,
    XLNetModel,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm
from transformers.pytorch_utils import Conv1D

from penalize import (
    L1,
    L2,
    ConflictError,
    GroupLasso,
    GroupsError,
    biases,
    embeddings,
    kernels,
    named,
    norms,
)
from penalize.torch import Plan, regularize

GOLDEN = Path(__file__).parent / "golden"

NORMS = (nn.LayerNorm, nn.BatchNorm2d, LlamaRMSNorm, T5LayerNorm)
KERNEL_HOLDERS = (nn.Linear, nn.Conv2d, Conv1D)


@dataclass(frozen=True)
class Architecture:
    """A small model, and what no module type can tell of it."""

    build: Callable[[], nn.Module]
    bare: dict[str, str] = field(default_factory=dict)
    """Role of parameters that stand in a module of no known type, by the parameter's own name."""

    tied: tuple[tuple[str, ...], ...] = ()
    """The names of every parameter that has several."""


def _bert(**config: object) -> nn.Module:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=12,
            **config,
        )
    )


def _gpt2() -> nn.Module:
    config = GPT2Config(
        vocab_size=20,
        n_positions=12,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _llama(*, tied: bool) -> nn.Module:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=12,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def _t5() -> nn.Module:
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return T5ForConditionalGeneration(config)


def _vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return ViTForImageClassification(config)


def _resnet() -> nn.Module:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return ResNetForImageClassification(config)


def _convnext() -> nn.Module:
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
    return ConvNextForImageClassification(config)


ARCHITECTURES = {
    "resnet": Architecture(_resnet),
    "convnext": Architecture(_convnext, bare={"layer_scale_parameter": "other"}),
    "vit": Architecture(_vit, bare={"cls_token": "embedding", "position_embeddings": "embedding"}),
    "bert": Architecture(
        _bert,
        bare={"bias": "bias"},
        tied=(
            ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
            ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        ),
    ),
    "gpt2": Architecture(_gpt2, tied=(("transformer.wte.weight", "lm_head.weight"),)),
    "t5": Architecture(
        _t5,
        tied=(
            (
                "shared.weight",
                "encoder.embed_tokens.weight",
                "decoder.embed_tokens.weight",
                "lm_head.weight",
            ),
        ),
    ),
    "llama": Architecture(
        lambda: _llama(tied=True), tied=(("model.embed_tokens.weight", "lm_head.weight"),)
    ),
    "llama_untied": Architecture(lambda: _llama(tied=False)),
}

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """Each small model once. No test here changes one."""
    torch.manual_seed(0)
    return {name: architecture.build() for name, architecture in ARCHITECTURES.items()}


@pytest.fixture
def model(name: str, models: dict[str, nn.Module]) -> nn.Module:
    return models[name]


# --- the goldens --------------------------------------------------------------------------------


def stable(text: str) -> str:
    """A plan's table without what changes: the penalties, and where the rule was written."""
    header, dashes, *rows, total = text.splitlines()
    spans = [match.span() for match in re.finditer("-+", dashes)]
    table = [[line[start:stop].rstrip() for start, stop in spans] for line in (header, *rows)]
    kept = [i for i, title in enumerate(table[0]) if title != "penalty now"]
    cells = [[re.sub(r" \([^()]*\.py:\d+\)", "", line[i]) for i in kept] for line in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, total.partition(", penalty")[0]]) + "\n"


@every_architecture
def test_the_plan_is_the_one_that_was_reviewed(name: str, model: nn.Module) -> None:
    found = stable(str(regularize(model, {kernels: L2(1e-4)})))
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("PENALIZE_REGEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def test_the_stable_rendering_drops_penalties_and_places_only() -> None:
    text = """\
parameter  role    shape  regularizer  penalty now  declared at               note
---------  ------  -----  -----------  -----------  ------------------------  ----
weight     kernel  2×3    L2(0.1)      0.333        rule kernels (some.py:7)
bias       bias    2                                                          hm
1 of 2 parameters penalized, penalty 0.333"""
    assert (
        stable(text)
        == """\
parameter  role    shape  regularizer  declared at   note
---------  ------  -----  -----------  ------------  ----
weight     kernel  2×3    L2(0.1)      rule kernels
bias       bias    2                                 hm
1 of 2 parameters penalized
"""
    )


# --- oracles that know nothing of penalize ------------------------------------------------------


def names_by_parameter(model: nn.Module) -> list[tuple[str, ...]]:
    """Every name of each distinct parameter, in the model's order."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tuple(several) for several in names.values()]


def expected_roles(model: nn.Module, architecture: Architecture) -> dict[str, str]:
    """First name of each parameter → its role, by module types; an embedding's tie stays one."""
    owners = dict(model.named_modules(remove_duplicate=False))
    roles = {}
    for names in names_by_parameter(model):
        found = set()
        for name in names:
            path, _, own_name = name.rpartition(".")
            owner = owners[path]
            if isinstance(owner, NORMS):
                found.add("norm")
            elif isinstance(owner, nn.Embedding):
                found.add("embedding")
            elif isinstance(owner, KERNEL_HOLDERS):
                found.add({"weight": "kernel", "bias": "bias"}[own_name])
            else:
                found.add(architecture.bare[own_name])
        roles[names[0]] = found.pop() if len(found) == 1 else "embedding"
    return roles


def array(model: nn.Module, name: str) -> np.ndarray:
    return model.get_parameter(name).detach().double().numpy()


@every_architecture
def test_every_parameter_has_exactly_one_row_with_all_its_names(
    name: str, model: nn.Module
) -> None:
    rows = regularize(model, {kernels: L2(1e-4)}).rows
    assert [(row.name, *row.aliases) for row in rows] == names_by_parameter(model)
    assert len(rows) == len(list(model.parameters()))
    assert [row.shape for row in rows] == [tuple(p.shape) for p in model.parameters()]
    several = tuple((row.name, *row.aliases) for row in rows if row.aliases)
    assert several == ARCHITECTURES[name].tied


@every_architecture
def test_every_role_is_the_one_that_the_module_types_say(name: str, model: nn.Module) -> None:
    rows = regularize(model, {kernels: L2(1e-4)}).rows
    expected = expected_roles(model, ARCHITECTURES[name])
    assert {row.name: row.role.value for row in rows} == expected


@every_architecture
def test_exactly_the_kernels_are_penalized(name: str, model: nn.Module) -> None:
    plan = regularize(model, {kernels: L2(1e-4)})
    expected = expected_roles(model, ARCHITECTURES[name])
    wanted = {n for n, role in expected.items() if role == "kernel"}
    assert {row.name for row in plan.rows if row.regularizer is not None} == wanted
    assert {row.regularizer for row in plan.rows} == {None, L2(1e-4)}
    penalties = {n: 1e-4 * (array(model, n) ** 2).sum() for n in wanted}
    assert plan.breakdown() == pytest.approx(penalties, rel=1e-5)
    assert plan.penalty().item() == pytest.approx(sum(penalties.values()), rel=1e-5)


@every_architecture
def test_the_roles_partition_the_model(name: str, model: nn.Module) -> None:
    rows = regularize(model, {kernels: L2(1e-4)}).rows
    present = {row.role.value for row in rows}
    for selector, role in ((biases, "bias"), (norms, "norm"), (embeddings, "embedding")):
        chosen = regularize(model, {selector: L1(1.0)}).rows
        expected = {role} & present
        assert {r.role.value for r in chosen if r.regularizer is not None} == expected


# --- ties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "llama"])
def test_a_tied_embedding_is_penalized_once_by_any_of_its_names(
    name: str, model: nn.Module
) -> None:
    names = ARCHITECTURES[name].tied[0]
    penalty = 1e-3 * (array(model, names[0]) ** 2).sum()
    for each in names:
        plan = regularize(model, {each: L2(1e-3)})
        assert plan.breakdown() == pytest.approx({names[0]: penalty}, rel=1e-5)
        (gradient,) = torch.autograd.grad(plan.penalty(), [model.get_parameter(each)])
        assert np.allclose(gradient.numpy(), 2e-3 * array(model, each), rtol=1e-6)
        with pytest.raises(ConflictError, match="one tied parameter"):
            regularize(model, {each: L2(1e-3), names[each == names[0]]: L1(1e-3)})


def test_the_weight_of_an_untied_head_is_a_kernel(models: dict[str, nn.Module]) -> None:
    rows = {row.name: row for row in regularize(models["llama_untied"], L2(1e-4)).rows}
    assert rows["lm_head.weight"].role == "kernel"
    assert rows["model.embed_tokens.weight"].role == "embedding"
    assert rows["model.embed_tokens.weight"].regularizer is None


# --- axes ---------------------------------------------------------------------------------------


def group_lasso(w: np.ndarray, axis: int) -> float:
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    return float(np.sqrt(rows.shape[1]) * np.linalg.norm(rows, axis=1).sum())


@pytest.mark.parametrize(("word", "axis"), [("outputs", 1), ("inputs", 0)])
def test_the_words_find_the_axes_of_gpt2s_input_first_kernels(
    word: str, axis: int, models: dict[str, nn.Module]
) -> None:
    model = models["gpt2"]
    plan = regularize(model, GroupLasso(0.01, groups=word))
    wanted = [n for n, m in model.named_modules() if isinstance(m, Conv1D)]
    assert len(wanted) == 2 * 4
    penalties = {
        f"{n}.weight": 0.01 * group_lasso(array(model, f"{n}.weight"), axis) for n in wanted
    }
    assert plan.breakdown() == pytest.approx(penalties, rel=1e-5)
    assert plan.penalty().item() == pytest.approx(sum(penalties.values()), rel=1e-5)
    declared = {row.regularizer for row in plan.rows if row.regularizer is not None}
    assert declared == {GroupLasso(0.01, groups=word)}


def test_a_group_of_gpt2s_outputs_is_what_one_output_is_computed_from(
    models: dict[str, nn.Module],
) -> None:
    """Zeros in one output's group make that output constant: the axis, without a convention."""
    conv = models["gpt2"].get_submodule("transformer.h.0.mlp.c_fc")
    x = torch.randn(5, 8)
    w = conv.weight.detach().clone()
    w[:, 3] = 0.0
    out = torch.func.functional_call(conv, {"weight": w}, (x,))
    assert bool((out[:, 3] == conv.bias[3]).all())
    plan = regularize(models["gpt2"], {"transformer.h.0.mlp.c_fc": GroupLasso(1.0)})
    (gradient,) = torch.autograd.grad(plan.penalty(), [conv.weight])
    norms = gradient.norm(dim=0)  # of each unit group: √|g|
    assert torch.allclose(norms, torch.full((32,), 8**0.5))


@pytest.mark.parametrize(("word", "axis"), [("outputs", 0), ("inputs", 1)])
def test_the_words_find_the_axes_of_llamas_output_first_kernels(
    word: str, axis: int, models: dict[str, nn.Module]
) -> None:
    model = models["llama"]
    plan = regularize(model, {"model.layers": GroupLasso(0.01, groups=word)})
    penalties = {
        f"{n}.weight": 0.01 * group_lasso(array(model, f"{n}.weight"), axis)
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and n != "lm_head"
    }
    assert plan.breakdown() == pytest.approx(penalties, rel=1e-5)


def test_a_depthwise_kernel_has_outputs_and_no_inputs(models: dict[str, nn.Module]) -> None:
    model = models["convnext"]
    plan = regularize(model, {"**.dwconv": GroupLasso(0.01)})
    penalties = {
        f"{n}.weight": 0.01 * group_lasso(array(model, f"{n}.weight"), 0)
        for n, _ in model.named_modules()
        if n.endswith("dwconv")
    }
    assert plan.breakdown() == pytest.approx(penalties, rel=1e-5)
    with pytest.raises(GroupsError, match=r"convnext\.encoder\.stages\.0\.layers\.0\.dwconv"):
        regularize(model, GroupLasso(0.01, groups="inputs"))


def test_a_tied_embedding_has_no_single_axis_of_outputs(models: dict[str, nn.Module]) -> None:
    # Rows are inputs of the embedding and outputs of the head.
    with pytest.raises(GroupsError, match=r"transformer\.wte\.weight"):
        regularize(models["gpt2"], {embeddings & named("**.wte"): GroupLasso(0.01)})


def test_experts_in_one_array_have_no_single_axis_of_outputs() -> None:
    """GPT-OSS stacks its experts, input-first: axis 0 counts experts, not outputs."""
    config = GptOssConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        num_local_experts=3,
        num_experts_per_tok=2,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = GptOssForCausalLM(config)
    assert model.model.layers[0].mlp.experts.down_proj.shape == (3, 16, 8)
    for word in ("outputs", "inputs"):
        with pytest.raises(GroupsError, match="down_proj"):
            regularize(model, {"**.down_proj": GroupLasso(0.01, groups=word)})


# --- on the meta device -------------------------------------------------------------------------


def described(plan: Plan) -> list[tuple[object, ...]]:
    return [(r.name, r.aliases, r.role, r.shape, r.regularizer, r.note) for r in plan.rows]


@every_architecture
def test_the_meta_model_has_the_same_plan(name: str, model: nn.Module) -> None:
    with torch.device("meta"):
        twin = ARCHITECTURES[name].build()
    assert all(p.is_meta for p in twin.parameters())
    plan = regularize(twin, {kernels: L2(1e-4)})
    assert described(plan) == described(regularize(model, {kernels: L2(1e-4)}))
    assert "penalty" not in str(plan).splitlines()[0]
    assert stable(str(plan)) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


class _Recorder(TorchDispatchMode):
    """Every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ran.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("build", "parameters", "penalized"),
    [
        # 12 layers of 6 dense kernels, and the head's transform.
        pytest.param(lambda: BertForMaskedLM(BertConfig()), 109_514_298, 73, id="BERT-base"),
        pytest.param(lambda: GPT2LMHeadModel(GPT2Config()), 124_439_808, 48, id="GPT-2"),
        # 32 layers of 7 kernels, and an untied head.
        pytest.param(lambda: LlamaForCausalLM(LlamaConfig()), 6_738_415_616, 225, id="Llama-7B"),
    ],
)
def test_a_full_size_model_is_planned_without_touching_an_array(
    build: Callable[[], nn.Module], parameters: int, penalized: int
) -> None:
    with torch.device("meta"):
        model = build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    with _Recorder() as recorder:
        plan = regularize(model, {kernels: L2(1e-4)})
        rows, text = plan.rows, str(plan)
    assert recorder.ran == []
    assert len(rows) == len(list(model.parameters()))
    assert sum(row.regularizer is not None for row in rows) == penalized
    assert text.splitlines()[-1] == f"{penalized} of {len(rows)} parameters penalized"
    assert plan.penalty().is_meta


# --- parameters that no module type explains ----------------------------------------------------


def _sam() -> nn.Module:
    config = SamVisionConfig(
        hidden_size=8,
        output_channels=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=16,
        image_size=8,
        patch_size=4,
        window_size=0,
        global_attn_indexes=[0],
    )
    return SamVisionModel(config)


def _mamba() -> nn.Module:
    config = MambaConfig(vocab_size=20, hidden_size=8, state_size=4, num_hidden_layers=1)
    return MambaModel(config)


@pytest.mark.parametrize(
    ("build", "suffix", "role"),
    [
        # (1, 1, 1, C): the scale of a global response normalization, a vector in four axes.
        pytest.param(
            lambda: ConvNextV2Model(
                ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
            ),
            "grn.weight",
            "other",
            id="ConvNeXt V2, grn.weight",
        ),
        # (1, 1, C): factors that mix two time steps, per channel.
        pytest.param(
            lambda: RwkvModel(RwkvConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1)),
            "time_mix_key",
            "other",
            id="RWKV, time_mix_key",
        ),
        # (inner, states): logarithms of decay rates; Mamba itself marks them _no_weight_decay.
        pytest.param(_mamba, "A_log", "other", id="Mamba, A_log"),
        pytest.param(_mamba, "mixer.D", "other", id="Mamba, D"),
        pytest.param(
            lambda: XLNetModel(
                XLNetConfig(vocab_size=20, d_model=8, n_layer=1, n_head=2, d_inner=16)
            ),
            "mask_emb",
            "embedding",
            id="XLNet, mask_emb",
        ),
        pytest.param(
            lambda: XLNetModel(
                XLNetConfig(vocab_size=20, d_model=8, n_layer=1, n_head=2, d_inner=16)
            ),
            "rel_attn.q",
            "kernel",
            id="XLNet, q",
        ),
        pytest.param(_sam, "rel_pos_h", "embedding", id="SAM, rel_pos_h"),
        pytest.param(_sam, "pos_embed", "embedding", id="SAM, pos_embed"),
    ],
)
def test_the_role_of_a_bare_parameter(
    build: Callable[[], nn.Module], suffix: str, role: str
) -> None:
    with torch.device("meta"):
        model = build()
    rows = regularize(model, {kernels: L2(1e-4)}).rows
    found = {row.role.value for row in rows if row.name.endswith(suffix)}
    assert found == {role}


def test_wav2vec2s_weight_normed_convolution_is_one_kernel() -> None:
    config = Wav2Vec2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    model = Wav2Vec2Model(config)
    path = "encoder.pos_conv_embed.conv"
    plan = regularize(model, {path: L2(0.1)})
    rows = [row for row in plan.rows if row.name.startswith(f"{path}.")]
    assert [(row.name, row.role.value) for row in rows] == [
        (f"{path}.weight", "kernel"),
        (f"{path}.bias", "bias"),
    ]
    # One row stands for two parameters, the magnitude and the direction.
    assert len(plan.rows) == len(list(model.parameters())) - 1
    g = array(model, f"{path}.parametrizations.weight.original0")
    v = array(model, f"{path}.parametrizations.weight.original1")
    # transformers norms over all axes but the last (dim=2).
    effective = g * v / np.sqrt((v**2).sum((0, 1), keepdims=True))
    assert plan.penalty().item() == pytest.approx(0.1 * (effective**2).sum(), rel=1e-5)
