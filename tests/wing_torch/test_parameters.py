"""A model read into records: roles, axes, ties, wrappers, effective weights, lazy modules."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

from penalize import (
    L1,
    L2,
    ArrayError,
    ConflictError,
    GroupLasso,
    GroupsError,
    ModelError,
    NoMatchError,
    Role,
    RoleError,
    SelectorError,
    biases,
    everything,
    kernels,
    named,
    norms,
    of_type,
    where,
)
from penalize.torch import Plan, regularize


def roles_of(model: nn.Module, **options: Any) -> dict[str, str]:
    return {row.name: row.role.value for row in regularize(model, **options).rows}


def names_of(plan: Plan) -> list[tuple[str, ...]]:
    return [(row.name, *row.aliases) for row in plan.rows]


def numpy_of(w: Tensor) -> np.ndarray:
    return w.detach().double().numpy()


# --- roles of torch.nn --------------------------------------------------------------------------

AFFINE = {"weight": "kernel", "bias": "bias"}
NORM = {"weight": "norm", "bias": "norm"}
ATTENTION = {
    "in_proj_weight": "kernel",
    "in_proj_bias": "bias",
    "out_proj.weight": "kernel",
    "out_proj.bias": "bias",
}


def recurrent(*suffixes: str) -> dict[str, str]:
    kinds = {"weight_ih": "kernel", "weight_hh": "kernel", "bias_ih": "bias", "bias_hh": "bias"}
    return {f"{name}{suffix}": role for suffix in suffixes for name, role in kinds.items()}


def projected(suffix: str) -> dict[str, str]:
    return {**recurrent(suffix), f"weight_hr{suffix}": "kernel"}


MODULES: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "Linear": (lambda: nn.Linear(3, 2), AFFINE),
    "Linear, one output": (lambda: nn.Linear(3, 1), AFFINE),
    "Linear, no bias": (lambda: nn.Linear(3, 2, bias=False), {"weight": "kernel"}),
    "Bilinear": (lambda: nn.Bilinear(3, 4, 2), AFFINE),
    "Conv1d": (lambda: nn.Conv1d(3, 2, 1), AFFINE),
    "Conv2d": (lambda: nn.Conv2d(3, 2, 1), AFFINE),
    "Conv3d": (lambda: nn.Conv3d(3, 2, 1), AFFINE),
    "Conv2d, depthwise": (lambda: nn.Conv2d(3, 3, 3, groups=3), AFFINE),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 2, 1), AFFINE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 2, 1), AFFINE),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(3, 2, 1), AFFINE),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), NORM),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), NORM),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), NORM),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(3), NORM),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3, affine=True), NORM),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True), NORM),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(3, affine=True), NORM),
    "GroupNorm": (lambda: nn.GroupNorm(1, 3), NORM),
    "LayerNorm": (lambda: nn.LayerNorm(3), NORM),
    "LayerNorm, two axes": (lambda: nn.LayerNorm((3, 4)), NORM),
    "RMSNorm": (lambda: nn.RMSNorm(3), {"weight": "norm"}),
    "Embedding": (lambda: nn.Embedding(5, 3), {"weight": "embedding"}),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(5, 3), {"weight": "embedding"}),
    "PReLU": (lambda: nn.PReLU(3), {"weight": "other"}),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), ATTENTION),
    "MultiheadAttention, no bias": (
        lambda: nn.MultiheadAttention(4, 2, bias=False),
        {"in_proj_weight": "kernel", "out_proj.weight": "kernel"},
    ),
    "MultiheadAttention, add_bias_kv": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {**ATTENTION, "bias_k": "bias", "bias_v": "bias"},
    ),
    "MultiheadAttention, kdim": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        {
            "q_proj_weight": "kernel",
            "k_proj_weight": "kernel",
            "v_proj_weight": "kernel",
            "in_proj_bias": "bias",
            "out_proj.weight": "kernel",
            "out_proj.bias": "bias",
        },
    ),
    "RNN": (lambda: nn.RNN(3, 2), recurrent("_l0")),
    "GRU": (lambda: nn.GRU(3, 2, num_layers=2), recurrent("_l0", "_l1")),
    "LSTM": (lambda: nn.LSTM(3, 2, bidirectional=True), recurrent("_l0", "_l0_reverse")),
    "LSTM, proj_size": (lambda: nn.LSTM(3, 4, proj_size=2), projected("_l0")),
    "LSTM, no bias": (
        lambda: nn.LSTM(3, 2, bias=False),
        {"weight_ih_l0": "kernel", "weight_hh_l0": "kernel"},
    ),
    "RNNCell": (lambda: nn.RNNCell(3, 2), recurrent("")),
    "GRUCell": (lambda: nn.GRUCell(3, 2), recurrent("")),
    "LSTMCell": (lambda: nn.LSTMCell(3, 2), recurrent("")),
    "AdaptiveLogSoftmaxWithLoss": (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2]),
        {"head.weight": "kernel", "tail.0.0.weight": "kernel", "tail.0.1.weight": "kernel"},
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_roles_of_torch_nn(name: str) -> None:
    build, expected = MODULES[name]
    assert roles_of(build()) == expected


@pytest.mark.parametrize("name", MODULES)
def test_roles_do_not_depend_on_the_device(name: str) -> None:
    build, expected = MODULES[name]
    with torch.device("meta"):
        assert roles_of(build()) == expected


@pytest.mark.parametrize(
    "module",
    [
        nn.LocalResponseNorm(2),
        nn.LayerNorm(3, elementwise_affine=False),
        nn.ReLU(),
        nn.Sequential(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_model_without_parameters(module: nn.Module) -> None:
    with pytest.raises(ModelError, match=f"This {type(module).__name__} has no parameters"):
        regularize(module, L2(0.1))


@pytest.mark.parametrize(
    "model", [None, "net", nn.Linear, [nn.Linear(2, 2)], nn.Linear(2, 2).weight]
)
def test_what_is_no_module(model: Any) -> None:
    found = f"Regularize got a {type(model).__name__} as the model; pass the torch.nn.Module itself"
    with pytest.raises(ModelError, match=found):
        regularize(model, L2(0.1))


def test_roles_of_a_transformer() -> None:
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    holders = {name: type(module) for name, module in model.named_modules()}
    for name, role in roles_of(model).items():
        path, _, own = name.rpartition(".")
        if issubclass(holders[path], nn.LayerNorm):
            assert role == "norm"
        else:
            assert role == ("bias" if own.endswith("bias") else "kernel")
    assert len(roles_of(model)) == len(list(model.parameters()))


def test_a_subclass_is_what_its_base_is() -> None:
    class Dense(nn.Linear):
        pass

    class Norm(nn.Linear):  # the type decides before the name
        pass

    class Words(nn.Embedding):
        pass

    class Scale(nn.LayerNorm):
        pass

    assert roles_of(Dense(2, 2)) == AFFINE
    assert roles_of(Norm(2, 2)) == AFFINE
    assert roles_of(Words(2, 2)) == {"weight": "embedding"}
    assert roles_of(Scale(2)) == NORM


# --- bare parameters ----------------------------------------------------------------------------


def holder(class_name: str, **shapes: tuple[int, ...]) -> nn.Module:
    """A module of a class of that name, which holds parameters of these shapes."""
    module: nn.Module = type(class_name, (nn.Module,), {})()
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.ones(shape)))
    return module


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("weight", (2, 3), "kernel"),
        ("W", (2, 3), "kernel"),
        ("w1", (2, 3), "kernel"),
        ("lora_A", (2, 3), "kernel"),
        ("lora_B", (2, 3), "kernel"),
        ("qkv", (4, 2, 3), "kernel"),
        ("weight", (3,), "other"),
        ("alpha", (), "other"),
        ("bias", (3,), "bias"),
        ("bias", (4, 3), "bias"),  # stacked for a scan or a vmap
        ("b", (3,), "bias"),
        ("dt_bias", (4, 3), "bias"),
        ("relative_position_bias_table", (9, 2), "bias"),
        ("biases", (3,), "bias"),
        ("scale", (1, 3, 1, 1), "other"),
        ("layer_scale_1", (4, 3), "other"),
        ("logit_scale", (), "other"),
        ("gamma", (4, 3), "other"),
        ("beta", (4, 3), "other"),
        ("temperature", (2, 1, 1), "other"),
        ("cls_token", (1, 1, 3), "embedding"),
        ("mask_token", (1, 3), "embedding"),
        ("pos_embed", (1, 4, 3), "embedding"),
        ("position_embeddings", (1, 4, 3), "embedding"),
        ("embedding", (4, 3), "embedding"),
        ("query_tokens", (4, 3), "embedding"),
        ("pos_emb", (1, 4, 3), "embedding"),
        ("rel_pos_h", (7, 3), "embedding"),
        ("A_log", (4, 3), "other"),
        ("log_scale", (4, 3), "other"),
        ("time_mix", (1, 1, 3), "other"),  # a vector, whatever the number of its axes
        ("weight", (1, 1, 1, 3), "other"),
        ("embedder_kernel", (4, 3), "kernel"),  # whole words only
        ("unbiased", (4, 3), "kernel"),
    ],
)
def test_role_of_a_bare_parameter(name: str, shape: tuple[int, ...], role: str) -> None:
    assert roles_of(holder("Custom", **{name: shape})) == {name: role}


@pytest.mark.parametrize(
    ("class_name", "role"),
    [
        ("LlamaRMSNorm", "norm"),
        ("T5LayerNorm", "norm"),
        ("FrozenBatchNorm2d", "norm"),
        ("LayerNormalization", "norm"),
        ("layernorm", "norm"),
        ("ScaleNorm", "norm"),
        ("AdaNormZero", "norm"),
        ("NormalizedDense", "kernel"),
        ("NormalLinear", "kernel"),
        ("Dense", "kernel"),
        ("VocabParallelEmbedding", "embedding"),
        ("PerceiverEmbeddings", "embedding"),
    ],
)
def test_a_custom_norm_or_embedding_is_told_by_its_class_name(class_name: str, role: str) -> None:
    assert roles_of(holder(class_name, weight=(2, 3))) == {"weight": role}


def test_a_stacked_norm_is_no_kernel() -> None:
    # A norm's scale with an axis for the layers, as under scan or vmap.
    assert roles_of(holder("StackedRMSNorm", weight=(12, 8))) == {"weight": "norm"}


def test_lists_and_dictionaries_of_parameters() -> None:
    model = nn.Module()
    model.several = nn.ParameterList([torch.ones(2, 3), torch.ones(3)])
    model.keyed = nn.ParameterDict({"bias": torch.ones(2, 2), "kernel": torch.ones(2, 2)})
    assert roles_of(model) == {
        "several.0": "kernel",
        "several.1": "other",
        "keyed.bias": "bias",
        "keyed.kernel": "kernel",
    }


def test_a_parameter_registered_as_none_and_a_buffer_have_no_row() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.register_buffer("kernel", torch.ones(2, 2))
    model.register_module("nothing", None)
    assert model.bias is None
    assert roles_of(model) == {"weight": "kernel"}


# --- roles= -------------------------------------------------------------------------------------


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 2))
        self.dense = nn.Linear(2, 2)


def test_roles_can_be_corrected() -> None:
    model = Gate()
    assert roles_of(model)["table"] == "kernel"
    for selector in ("table", named("table"), where(lambda p: p.shape == (3, 2))):
        assert roles_of(model, roles={selector: "embedding"})["table"] == "embedding"
    assert roles_of(model, roles={"table": Role.NORM})["table"] == "norm"
    plan = regularize(model, L2(0.5), roles={"table": "norm"})
    assert {r.name for r in plan.rows if r.regularizer} == {"dense.weight"}
    plan = regularize(model, {norms: L2(0.5)}, roles={"table": "norm"})
    assert plan.breakdown() == {"table": pytest.approx(0.5 * 6)}


def test_a_corrected_kernel_is_penalized() -> None:
    model = holder("Custom", scale=(2, 2), bias=(2,))
    assert str(regularize(model, L2(0.5))).endswith("kernels: no parameter has such a role")
    plan = regularize(model, L2(0.5), roles={"scale": "kernel"})
    assert plan.breakdown() == {"scale": pytest.approx(0.5 * 4)}


def test_roles_reach_everything_below_a_type_and_later_ones_win() -> None:
    found = roles_of(Gate(), roles={of_type(Gate): "other", "dense.weight": "kernel"})
    assert found == {"table": "other", "dense.weight": "kernel", "dense.bias": "other"}


def test_a_later_correction_sees_the_earlier_one() -> None:
    found = roles_of(Gate(), roles={"table": "norm", norms: "embedding"})
    assert found["table"] == "embedding"


@pytest.mark.parametrize("role", ["kernle", None, "Kernel", ["norm"], 3])
def test_a_role_that_does_not_exist(role: Any) -> None:
    with pytest.raises(RoleError, match="to one of kernel, bias, norm, embedding, other"):
        regularize(Gate(), roles={"table": role})


def test_corrections_that_are_no_mapping() -> None:
    with pytest.raises(RoleError, match=r"roles is \[1\], a list; expected a mapping"):
        regularize(Gate(), roles=[1])


def test_a_correction_that_matches_nothing() -> None:
    with pytest.raises(NoMatchError, match=r"roles \(test_parameters\.py:\d+\).*'table'"):
        regularize(Gate(), roles={"tabel": "norm"})
    with pytest.raises(NoMatchError, match="The modules that hold parameters are Gate, Linear"):
        regularize(Gate(), roles={of_type(nn.Conv2d): "norm"})
    with pytest.raises(SelectorError, match=r"write of_type\(Gate\)"):
        regularize(Gate(), roles={Gate: "norm"})


# --- axes ---------------------------------------------------------------------------------------


def group_lasso(w: np.ndarray, axis: int) -> float:
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    return float(np.sqrt(rows.shape[1]) * np.linalg.norm(rows, axis=1).sum())


@pytest.mark.parametrize(
    ("build", "name", "outputs", "inputs"),
    [
        (lambda: nn.Linear(3, 2), "weight", 0, 1),
        (lambda: nn.Bilinear(3, 4, 2), "weight", 0, None),
        (lambda: nn.Conv1d(3, 2, 5), "weight", 0, 1),
        (lambda: nn.Conv2d(3, 2, 5), "weight", 0, 1),
        (lambda: nn.Conv3d(3, 2, 2), "weight", 0, 1),
        (lambda: nn.Conv2d(4, 6, 3, groups=2), "weight", 0, None),
        (lambda: nn.ConvTranspose1d(3, 2, 5), "weight", 1, 0),
        (lambda: nn.ConvTranspose2d(3, 2, 5), "weight", 1, 0),
        (lambda: nn.ConvTranspose3d(3, 2, 2), "weight", 1, 0),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), "weight", None, 0),
        (lambda: nn.LSTM(3, 2), "weight_ih_l0", 0, 1),
        (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", 0, 1),
        (lambda: nn.Embedding(5, 3), "weight", 1, 0),
        (lambda: holder("Custom", weight=(2, 3)), "weight", 0, 1),
        # Which axis of three is which, nobody can tell: experts × outputs × inputs, say.
        (lambda: holder("Experts", weight=(4, 2, 3)), "weight", None, None),
    ],
    ids=lambda value: type(value()).__name__ if callable(value) else str(value),
)
def test_axes_of_outputs_and_inputs(
    build: Callable[[], nn.Module], name: str, outputs: int | None, inputs: int | None
) -> None:
    model = build()
    w = numpy_of(model.get_parameter(name))
    for word, axis in (("outputs", outputs), ("inputs", inputs)):
        regularizer = GroupLasso(0.1, groups=word)
        if axis is None:
            with pytest.raises(GroupsError, match=f"on {name!r}: no single axis holds the {word}"):
                regularize(model, {name: regularizer})
            continue
        plan = regularize(model, {name: regularizer})
        assert plan.penalty().item() == pytest.approx(0.1 * group_lasso(w, axis), rel=1e-5)
        (row,) = [row for row in plan.rows if row.regularizer is not None]
        assert row.regularizer == regularizer


# --- ties ---------------------------------------------------------------------------------------


def test_a_shared_module_and_a_shared_parameter_have_one_row() -> None:
    model = nn.Module()
    model.a = nn.Linear(3, 3)
    model.b = model.a
    model.c = nn.Linear(3, 3)
    model.c.weight = model.a.weight
    plan = regularize(model, L2(0.5))
    assert names_of(plan) == [
        ("a.weight", "b.weight", "c.weight"),
        ("a.bias", "b.bias"),
        ("c.bias",),
    ]
    penalty = 0.5 * (numpy_of(model.a.weight) ** 2).sum()
    assert plan.penalty().item() == pytest.approx(penalty, rel=1e-6)
    assert "a.weight = b.weight = c.weight  kernel" in str(plan)
    for name in ("a.weight", "b.weight", "c.weight", "b"):
        assert regularize(model, {name: L2(0.5)}).penalty().item() == pytest.approx(penalty)


def test_a_parameter_with_two_names_in_one_module() -> None:
    model = nn.Linear(3, 3)
    model.register_parameter("tied", model.weight)
    assert names_of(regularize(model, L2(0.5))) == [("weight", "tied"), ("bias",)]


def test_a_shared_container_in_two_places() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Linear(2, 2), nn.ReLU())] * 3)
    plan = regularize(model, L2(0.5))
    assert names_of(plan) == [tuple(f"{i}.0.{end}" for i in range(3)) for end in ("weight", "bias")]


def test_the_role_of_a_tie_is_the_one_that_is_penalized_least() -> None:
    model = nn.Module()
    model.head = nn.Linear(3, 5, bias=False)
    model.words = nn.Embedding(5, 3)
    model.words.weight = model.head.weight
    (row,) = regularize(model).rows
    assert (row.name, row.aliases, row.role) == ("head.weight", ("words.weight",), "embedding")
    assert regularize(model, L2(0.5)).rows[0].regularizer is None
    with pytest.raises(GroupsError, match="no single axis holds the outputs"):
        regularize(model, {"head.weight": GroupLasso(0.5)})
    assert regularize(model, {"head.weight": GroupLasso(0.5, groups=0)}).rows[0].regularizer


def test_types_above_any_site_of_a_tie_count() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1] = type("Head", (nn.Linear,), {})(2, 2)
    model[1].weight = model[0].weight
    plan = regularize(model, {of_type(type(model[1])): L1(0.5)})
    assert [row.regularizer for row in plan.rows] == [L1(0.5), None, None]


def test_disagreeing_names_of_a_tie() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    with pytest.raises(ConflictError, match=r"'0\.weight' and '1\.weight' are one tied parameter"):
        regularize(model, {"0": L2(0.5), "1": L1(0.5)})
    agreeing = regularize(model, {"0": L2(0.5), "1": L2(0.5)})
    assert agreeing.breakdown() == {"0.weight": pytest.approx(agreeing.penalty().item())}


# --- wrappers -----------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))


RULES = {kernels: L2(0.1), "2.0.weight": L1(0.1), named("0") & biases: L1(0.2)}


def reading(model: nn.Module) -> list[tuple[Any, ...]]:
    rows = regularize(model, RULES).rows
    return [(r.name, r.aliases, r.role, r.shape, r.regularizer, r.note) for r in rows]


def compiled(model: nn.Module) -> nn.Module:
    wrapped: nn.Module = torch.compile(model, backend="eager")
    return wrapped


def with_inner(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def replace(model: nn.Module) -> nn.Module:
        assert isinstance(model, nn.Sequential)
        model[2] = wrap(model[2])
        model[0] = wrap(model[0])
        return model

    return replace


def attribute_wrapper(class_name: str, attribute: str) -> Callable[[nn.Module], nn.Module]:
    """A wrapper as a library that is not installed here has it."""

    def wrap(model: nn.Module) -> nn.Module:
        wrapper: nn.Module = type(class_name, (nn.Module,), {})()
        wrapper.add_module(attribute, model)
        return wrapper

    return wrap


WRAPPERS = {
    "torch.compile": compiled,
    "a compiled submodule": with_inner(compiled),
    "compiled twice": lambda model: compiled(with_inner(compiled)(model)),
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "AveragedModel of a compiled one": lambda model: AveragedModel(compiled(model)),
    "checkpoint_wrapper": with_inner(checkpoint_wrapper),
    "Fabric": attribute_wrapper("_FabricModule", "_forward_module"),
    "DeepSpeed": attribute_wrapper("DeepSpeedEngine", "module"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_model_has_the_same_plan(name: str) -> None:
    assert reading(WRAPPERS[name](network())) == reading(network())


def test_flattened_parameters_are_refused() -> None:
    """The shards of FullyShardedDataParallel have one axis, and would all look like biases."""
    wrap = attribute_wrapper("FullyShardedDataParallel", "_fsdp_wrapped_module")
    expected = "sharded by FullyShardedDataParallel, .* shard it with .*fully_shard instead"
    with pytest.raises(ModelError, match=expected):
        regularize(with_inner(wrap)(network()), RULES)


def test_a_wrapper_of_the_users_own_class_is_no_wrapper() -> None:
    wrapped = attribute_wrapper("Mine", "module")(network())
    assert regularize(wrapped).rows[0].name == "module.0.weight"
    wrapped = compiled(wrapped)
    assert regularize(wrapped).rows[0].name == "module.0.weight"


def test_a_module_called_module_inside_a_wrapper_keeps_its_name() -> None:
    model = nn.DataParallel(attribute_wrapper("Mine", "module")(network()))
    assert regularize(model).rows[0].name == "module.0.weight"


def test_a_subclass_of_a_wrapper_is_one() -> None:
    class Parallel(nn.DataParallel):
        pass

    assert reading(Parallel(network())) == reading(network())


def test_a_model_beside_its_compiled_self_has_each_weight_once() -> None:
    model = nn.Module()
    model.net = network()
    model.fast = compiled(model.net)
    plan = regularize(model, L2(0.1))
    assert names_of(plan)[0] == ("net.0.weight", "fast.0.weight")
    assert len(plan.rows) == len(list(model.parameters()))


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_a_distributed_model_has_the_same_plan(process_group: None) -> None:
    model = nn.parallel.DistributedDataParallel(network())
    assert reading(model) == reading(network())
    assert reading(compiled(model)) == reading(network())
    plan = regularize(model, L2(0.1))
    (model(torch.zeros(2, 3)).sum() + plan.penalty()).backward()
    weight = model.module[0].weight
    assert torch.allclose(weight.grad, 0.2 * weight)


# --- models that have lost their types ----------------------------------------------------------


def words() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Linear(3, 2))


TYPELESS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "scripted": lambda model, x: torch.jit.script(model),
    "traced": lambda model, x: torch.jit.trace(model, x),
    "exported": lambda model, x: torch.export.export(model, (x,)).module(),
    "a scripted part": lambda model, x: nn.ModuleDict({"part": torch.jit.script(model)}),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
@pytest.mark.parametrize("kind", TYPELESS)
def test_a_model_that_lost_its_types_is_refused(kind: str) -> None:
    """Its embedding would be called a kernel, and what was declared on it is lost."""
    model = TYPELESS[kind](words(), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ModelError, match="scripted, traced or exported"):
        regularize(model, L2(0.1))


def test_a_traced_graph_that_kept_its_types_is_read() -> None:
    assert reading(torch.fx.symbolic_trace(network())) == reading(network())


# --- frozen, and other dtypes -------------------------------------------------------------------


def test_a_frozen_parameter_is_shown_and_skipped() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    plan = regularize(model, L2(0.1))
    rows = {row.name: row for row in plan.rows}
    assert rows["0.weight"].regularizer is None
    assert rows["0.weight"].note == "skipped: frozen (L2(0.1) when trainable)"
    assert rows["1.weight"].note == "skipped: frozen"
    assert set(plan.breakdown()) == {"2.0.weight"}
    penalty = 0.1 * (numpy_of(model[2][0].weight) ** 2).sum()
    assert plan.penalty().item() == pytest.approx(penalty, rel=1e-6)
    model[0].weight.requires_grad_(True)
    assert plan.rows[0].regularizer == L2(0.1)
    assert set(plan.breakdown()) == {"0.weight", "2.0.weight"}


def test_a_wholly_frozen_model_has_penalty_zero() -> None:
    plan = regularize(network().requires_grad_(False), L2(0.1))
    assert plan.penalty().item() == 0.0
    assert not plan.penalty().requires_grad
    assert all(row.regularizer is None for row in plan.rows)


def test_integer_parameters_are_skipped_and_complex_ones_refused() -> None:
    model = nn.Module()
    model.codes = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    model.phases = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    plan = regularize(model, {everything: L2(0.1), "phases": None})
    assert [row.regularizer for row in plan.rows] == [None, None]
    with pytest.raises(ArrayError, match=r"'phases' of dtype torch\.complex64"):
        regularize(model, {everything: L2(0.1)})


# --- effective weights --------------------------------------------------------------------------


class LowRank(nn.Module):
    """A LoRA-like parametrization: a frozen base plus a product of two trainable factors."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(outputs, rank))
        self.down = nn.Parameter(torch.randn(rank, inputs))

    def forward(self, base: Tensor) -> Tensor:
        return base + self.up @ self.down


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def low_rank(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(layer, "weight", LowRank(4, 3, 2))
    layer.parametrizations.weight.original.requires_grad_(False)
    return layer


def chained(layer: nn.Linear) -> nn.Linear:
    parametrize.register_parametrization(weight_norm(layer), "weight", Doubled())
    return layer


def old_weight_norm(layer: nn.Linear) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*weight_norm.*deprecated", category=FutureWarning
        )
        return nn.utils.weight_norm(layer)


def effective_weight_norm(layer: nn.Linear) -> np.ndarray:
    chain = layer.parametrizations.weight
    g, v = numpy_of(chain.original0), numpy_of(chain.original1)
    return g * v / np.linalg.norm(v, axis=1, keepdims=True)


def effective_old_weight_norm(layer: nn.Linear) -> np.ndarray:
    g, v = numpy_of(layer.weight_g), numpy_of(layer.weight_v)
    return g * v / np.linalg.norm(v, axis=1, keepdims=True)


def effective_spectral_norm(layer: nn.Linear) -> np.ndarray:
    chain = layer.parametrizations.weight
    w, u, v = numpy_of(chain.original), numpy_of(chain[0]._u), numpy_of(chain[0]._v)
    return w / (u @ w @ v)


def effective_old_spectral_norm(layer: nn.Linear) -> np.ndarray:
    w, u, v = map(numpy_of, (layer.weight_orig, layer.weight_u, layer.weight_v))
    return w / (u @ w @ v)


def effective_low_rank(layer: nn.Linear) -> np.ndarray:
    chain = layer.parametrizations.weight
    return numpy_of(chain.original) + numpy_of(chain[0].up) @ numpy_of(chain[0].down)


def effective_by_torch(layer: nn.Linear) -> np.ndarray:
    return numpy_of(layer.weight)


# name: how to reparametrize, the effective weight, the note, the parameters behind it
EFFECTIVE: dict[str, tuple[Callable[[nn.Linear], nn.Linear], Any, str, set[str]]] = {
    "weight_norm": (
        weight_norm,
        effective_weight_norm,
        "effective weight (WeightNorm)",
        {"parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "spectral_norm": (
        spectral_norm,
        effective_spectral_norm,
        "effective weight (SpectralNorm)",
        {"parametrizations.weight.original"},
    ),
    "orthogonal": (
        lambda layer: orthogonal(layer, orthogonal_map="matrix_exp"),  # the one that is smooth
        effective_by_torch,
        "effective weight (Orthogonal)",
        {"parametrizations.weight.original"},
    ),
    "low rank": (
        low_rank,
        effective_low_rank,
        "effective weight (LowRank)",
        {"parametrizations.weight.0.up", "parametrizations.weight.0.down"},
    ),
    "chained": (
        chained,
        lambda layer: 2 * effective_weight_norm(layer),
        "effective weight (Doubled of WeightNorm)",
        {"parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "old weight_norm": (
        old_weight_norm,
        effective_old_weight_norm,
        "computed from weight_g, weight_v",
        {"weight_g", "weight_v"},
    ),
    "old spectral_norm": (
        nn.utils.spectral_norm,
        effective_old_spectral_norm,
        "computed from weight_orig",
        {"weight_orig"},
    ),
}

every_reparametrization = pytest.mark.parametrize("kind", EFFECTIVE)


def reparametrized(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4).double()
    return nn.Sequential(EFFECTIVE[kind][0](layer).double(), nn.Linear(4, 2).double())


@every_reparametrization
def test_an_effective_weight_is_one_row(kind: str) -> None:
    model = reparametrized(kind)
    _, effective, note, _ = EFFECTIVE[kind]
    plan = regularize(model, {"0.weight": L2(0.5)})
    rows = {row.name: row for row in plan.rows}
    assert set(rows) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    row = rows["0.weight"]
    assert (row.role, row.shape, row.regularizer) == ("kernel", (4, 3), L2(0.5))
    assert row.note.startswith(note)
    expected = 0.5 * (effective(model[0]) ** 2).sum()
    assert plan.penalty().item() == pytest.approx(expected, rel=1e-10)
    assert plan.breakdown() == {"0.weight": pytest.approx(expected, rel=1e-10)}


@every_reparametrization
def test_an_effective_weight_has_the_axes_of_its_module(kind: str) -> None:
    model = reparametrized(kind)
    plan = regularize(model, {"0": GroupLasso(0.5, groups="inputs")})
    expected = 0.5 * group_lasso(EFFECTIVE[kind][1](model[0]), 1)
    assert plan.penalty().item() == pytest.approx(expected, rel=1e-10)


@every_reparametrization
def test_the_gradient_reaches_what_the_optimizer_steps(kind: str) -> None:
    model = reparametrized(kind).eval()
    sources = EFFECTIVE[kind][3]
    # L1: the L2 of an orthogonal matrix is constant.
    plan = regularize(model, {"0.weight": L1(0.5)})
    plan.penalty().backward()
    layer = model[0]
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == sources
    for name in sources:
        parameter = layer.get_parameter(name)
        numeric = torch.zeros_like(parameter)
        at = parameter.detach().clone()
        for i in range(parameter.numel()):
            for sign in (1, -1):
                moved = at.clone()
                moved.view(-1)[i] += sign * 1e-6
                with torch.no_grad():
                    parameter.copy_(moved)
                numeric.view(-1)[i] += sign * plan.penalty().item() / 2e-6
        with torch.no_grad():
            parameter.copy_(at)
        assert torch.allclose(parameter.grad, numeric, atol=1e-6)


@every_reparametrization
def test_the_plan_reads_what_the_next_forward_computes_with(kind: str) -> None:
    """Also after a step, when an old-style hook's ``weight`` is stale."""
    model = reparametrized(kind).eval()
    plan = regularize(model, {"0.weight": L2(0.5)})
    with torch.no_grad():
        for name in EFFECTIVE[kind][3]:
            model[0].get_parameter(name).mul_(1.5).add_(0.1)
    penalty = plan.penalty().item()
    out = model[0](torch.eye(3).double()) - model[0].bias
    assert penalty == pytest.approx(0.5 * out.pow(2).sum().item(), rel=1e-10)


@every_reparametrization
def test_reading_a_plan_changes_nothing(kind: str) -> None:
    model = reparametrized(kind).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    plan = regularize(model, {"0.weight": L2(0.5)})
    for _ in range(3):
        str(plan), plan.rows, plan.breakdown(), plan.penalty().backward()
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [module.training for module in model.modules()] == modes


def test_a_failed_reading_leaves_the_training_mode() -> None:
    class Fails(nn.Module):
        broken = False

        def forward(self, w: Tensor) -> Tensor:
            if self.broken:
                raise ZeroDivisionError
            return w

    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Fails())
    plan = regularize(layer, L2(0.5))
    layer.parametrizations.weight[0].broken = True
    with pytest.raises(ZeroDivisionError):
        plan.penalty()
    assert all(module.training for module in layer.modules())


def test_reading_under_a_cache_does_not_cut_the_gradient_off() -> None:
    """``parametrize.cached`` keeps what is read first; a plan must not fill it without a graph."""
    layer = weight_norm(nn.Linear(3, 3))
    plan = regularize(layer, L2(0.5))
    with parametrize.cached():
        str(plan), plan.rows, plan.breakdown()
        layer(torch.ones(1, 3)).sum().backward()
    assert layer.parametrizations.weight.original1.grad is not None


def test_a_cached_forward_still_trains_spectral_norm() -> None:
    layer = spectral_norm(nn.Linear(3, 3)).train()
    plan = regularize(layer, L2(0.5))
    before = layer.parametrizations.weight[0]._u.clone()
    with parametrize.cached():
        plan.penalty()
        layer(torch.ones(1, 3))
    assert not torch.equal(layer.parametrizations.weight[0]._u, before)


@every_reparametrization
def test_a_rule_names_the_effective_weight_only(kind: str) -> None:
    source = sorted(EFFECTIVE[kind][3])[0]
    with pytest.raises(NoMatchError, match="matches no parameter"):
        regularize(reparametrized(kind), {f"0.{source}": L2(0.5)})


def test_a_shared_reparametrized_module_is_one_row() -> None:
    layer = weight_norm(nn.Linear(3, 3))
    plan = regularize(nn.Sequential(layer, layer), L2(0.5))
    assert names_of(plan) == [("0.weight", "1.weight"), ("0.bias", "1.bias")]


@every_reparametrization
def test_frozen_effective_weights_are_skipped(kind: str) -> None:
    model = reparametrized(kind).requires_grad_(False)
    (row, *_) = regularize(model, {"0.weight": L2(0.5)}).rows
    assert row.regularizer is None
    assert "skipped: frozen (L2(0.5) when trainable)" in row.note


def test_a_parametrized_bias_norm_and_embedding_keep_their_roles() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(3, 3))
    model.append(holder("MyRMSNorm", weight=(3,)))
    parametrize.register_parametrization(model[0], "bias", Doubled())
    for layer in model[1:]:
        parametrize.register_parametrization(layer, "weight", Doubled())
    assert roles_of(model) == {
        "0.bias": "bias",
        "0.weight": "kernel",
        "1.weight": "norm",
        "1.bias": "norm",
        "2.weight": "embedding",
        "3.weight": "norm",
    }


def test_a_reparametrized_recurrent_kernel() -> None:
    model = weight_norm(nn.LSTM(3, 2), "weight_hh_l0")
    assert roles_of(model) == recurrent("_l0")
    plan = regularize(model, {"weight_hh_l0": L2(0.5)})
    expected = 0.5 * (numpy_of(model.weight_hh_l0) ** 2).sum()
    assert plan.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_a_removed_parametrization_leaves_a_plain_weight() -> None:
    layer = weight_norm(nn.Linear(3, 3))
    parametrize.remove_parametrizations(layer, "weight")
    assert roles_of(layer) == AFFINE
    assert all(not row.note for row in regularize(layer).rows)


def test_a_pruned_weight_is_an_effective_weight() -> None:
    """Pruning keeps a dense ``weight_orig``; what the model computes with is its masked self."""
    model = nn.Sequential(nn.Linear(4, 2))
    prune.l1_unstructured(model[0], "weight", 0.5)
    plan = regularize(model, {"0.weight": L1(0.5)})
    assert {row.name for row in plan.rows} == {"0.weight", "0.bias"}
    masked = numpy_of(model[0].weight_orig) * numpy_of(model[0].weight_mask)
    assert plan.penalty().item() == pytest.approx(0.5 * np.abs(masked).sum(), rel=1e-6)
    plan.penalty().backward()
    assert torch.equal(model[0].weight_orig.grad != 0, model[0].weight_mask != 0)


# --- lazy modules -------------------------------------------------------------------------------


def lazy_network() -> nn.Sequential:
    return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("module", "batch", "expected"),
    [
        (nn.LazyLinear(2), (5, 3), AFFINE),
        (nn.LazyConv1d(2, 1), (5, 3, 4), AFFINE),
        (nn.LazyConv2d(2, 1), (5, 3, 4, 4), AFFINE),
        (nn.LazyConv3d(2, 1), (5, 3, 4, 4, 4), AFFINE),
        (nn.LazyConvTranspose1d(2, 1), (5, 3, 4), AFFINE),
        (nn.LazyConvTranspose2d(2, 1), (5, 3, 4, 4), AFFINE),
        (nn.LazyConvTranspose3d(2, 1), (5, 3, 4, 4, 4), AFFINE),
        (nn.LazyBatchNorm1d(), (5, 3), NORM),
        (nn.LazyBatchNorm2d(), (5, 3, 4, 4), NORM),
        (nn.LazyBatchNorm3d(), (5, 3, 4, 4, 4), NORM),
        (nn.LazyInstanceNorm1d(affine=True), (5, 3, 4), NORM),
        (nn.LazyInstanceNorm2d(affine=True), (5, 3, 4, 4), NORM),
        (nn.LazyInstanceNorm3d(affine=True), (5, 3, 4, 4, 4), NORM),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_roles_of_lazy_modules(
    module: nn.Module, batch: tuple[int, ...], expected: dict[str, str]
) -> None:
    assert roles_of(module) == expected
    early = regularize(module, {"weight": GroupLasso(0.1, groups="outputs")})
    assert early.rows[0].shape is None
    assert early.breakdown() == {}
    assert "lazy" in str(early)
    module(torch.ones(batch))
    assert roles_of(module) == expected
    late = regularize(module, {"weight": GroupLasso(0.1, groups="outputs")})
    assert early.rows == tuple(
        type(row)(
            **{f: getattr(row, f) for f in row.__slots__ if f != "declared_at"},
            declared_at=was.declared_at,
        )
        for row, was in zip(late.rows, early.rows, strict=True)
    )
    assert early.penalty().item() == pytest.approx(late.penalty().item())


def test_the_penalty_of_a_lazy_parameter_needs_a_batch() -> None:
    model = lazy_network()
    plan = regularize(model, L2(0.5))
    with pytest.raises(ModelError, match="'weight' of LazyLinear is lazy and has no values yet; "):
        plan.penalty()
    assert set(plan.breakdown()) == {"2.weight"}
    assert [row.shape for row in plan.rows] == [None, None, None, None, (2, 4), (2,)]
    model(torch.ones(3, 5))
    assert [row.shape for row in plan.rows] == [(4, 5), (4,), (4,), (4,), (2, 4), (2,)]
    weights = (model[0].weight, model[2].weight)
    expected = sum(0.5 * (numpy_of(w) ** 2).sum() for w in weights)
    assert plan.penalty().item() == pytest.approx(expected, rel=1e-6)
    assert set(plan.breakdown()) == {"0.weight", "2.weight"}


def test_lazy_parameters_that_are_not_penalized_are_no_obstacle() -> None:
    model = lazy_network()
    plan = regularize(model, {"2": L2(0.5)})
    expected = 0.5 * (numpy_of(model[2].weight) ** 2).sum()
    assert plan.penalty().item() == pytest.approx(expected, rel=1e-6)


def test_a_wholly_lazy_model_without_penalties() -> None:
    plan = regularize(nn.LazyLinear(2), {everything: None})
    assert plan.penalty().item() == 0.0


def test_axes_of_a_lazy_weight_that_do_not_exist_are_found_later() -> None:
    model = nn.LazyLinear(2)
    plan = regularize(model, GroupLasso(0.5, groups=2))
    model(torch.ones(1, 3))
    with pytest.raises(GroupsError, match="has no such axis"):
        plan.penalty()
    with pytest.raises(GroupsError, match="on 'weight'"):
        regularize(model, GroupLasso(0.5, groups=2))


# --- weights that change under a plan -------------------------------------------------------


def test_a_copy_of_plan_and_model_reads_the_copy() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(3, 2)))
    copied, plan = copy.deepcopy((model, regularize(model, L2(0.5))))
    plan.penalty().backward()
    assert all(p.grad is None for p in model.parameters())
    assert copied[0].parametrizations.weight.original1.grad is not None


def test_a_parametrization_that_was_removed_is_an_error() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(3, 2)))
    plan = regularize(model, L2(0.5))
    parametrize.remove_parametrizations(model[0], "weight")
    with pytest.raises(ModelError, match="is no longer parametrized; detach"):
        plan.penalty()


def test_a_mask_that_was_made_permanent_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    prune.l1_unstructured(model[0], "weight", 0.5)
    plan = regularize(model, L2(0.5))
    prune.remove(model[0], "weight")
    with pytest.raises(ModelError, match="is no longer computed by a hook"):
        plan.penalty()


def test_a_parameter_that_was_taken_away_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    plan = regularize(model, {"0.bias": L2(0.5)})
    model[0].bias = None
    with pytest.raises(ModelError, match="'bias' of Linear is no longer a parameter"):
        plan.penalty()


# --- names that say what shapes do not ------------------------------------------------------


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W1 = nn.Parameter(torch.ones(3, 4))
        self.b1 = nn.Parameter(torch.ones(1, 4))
        self.b_out = nn.Parameter(torch.ones(1, 4))
        self.norm_weight = nn.Parameter(torch.ones(6, 4))
        self.biases = nn.ParameterList([nn.Parameter(torch.ones(1, 3)) for _ in range(2)])
        self.pos_embeddings = nn.ParameterList([nn.Parameter(torch.ones(5, 3))])
        self.weights = nn.ParameterDict({"q": torch.ones(2, 3), "b": torch.ones(2, 3)})


def test_names_of_hand_written_modules() -> None:
    roles = {row.name: row.role for row in regularize(ByHand()).rows}
    assert roles == {
        "W1": Role.KERNEL,
        "b1": Role.BIAS,
        "b_out": Role.BIAS,
        "norm_weight": Role.NORM,
        "biases.0": Role.BIAS,
        "biases.1": Role.BIAS,
        "pos_embeddings.0": Role.EMBEDDING,
        "weights.q": Role.KERNEL,
        "weights.b": Role.BIAS,
    }


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_as_it_was_after_planning(was_enabled: bool) -> None:
    assert gc.isenabled()
    try:
        if not was_enabled:
            gc.disable()
        regularize(nn.Linear(3, 2), L1(0.1))
        with pytest.raises(NoMatchError):
            regularize(nn.Linear(3, 2), {"wieght": L1(0.1)})
        assert gc.isenabled() is was_enabled
    finally:
        gc.enable()
