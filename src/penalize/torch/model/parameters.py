"""Reading a PyTorch model into parameter records, each with its binding to the live tensor."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from torch import nn
from torch.fx import GraphModule
from torch.jit import ScriptModule
from torch.nn.parameter import UninitializedParameter

from penalize.errors import ModelError
from penalize.parameters import Parameter, Role, Site
from penalize.roles import role_by_name, role_of_ties
from penalize.torch.model.bindings import Binding, bindings_of, shape_of
from penalize.torch.model.roles import axes_of, role_of
from penalize.torch.model.scope import declared_on, scopes_of

# Names that only a wrapper gives to what it wraps.
_WRAPPED_ATTRIBUTES = {
    "_orig_mod",
    "_forward_module",
    "_original_module",
    "_checkpoint_wrapped_module",
}
# Classes whose attribute ``module`` is what they wrap; elsewhere ``module`` is a name like others.
_WRAPPERS = {
    "DataParallel",
    "DistributedDataParallel",
    "AveragedModel",
    "DeepSpeedEngine",
}


@dataclass
class _Found:
    binding: Binding
    note: str
    parameters: tuple[nn.Parameter, ...]
    shape: tuple[int, ...] | None
    sites: dict[str, Site] = field(default_factory=dict)
    roles: set[Role] = field(default_factory=set)
    axes: set[tuple[int | None, int | None]] = field(default_factory=set)


def read(model: nn.Module) -> list[tuple[Parameter, Binding]]:
    """One record per distinct weight, in the model's order, with every name it has.

    Raises:
        ModelError: this is no module, it has no parameters, or one that cannot be planned yet.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"regularize got a {type(model).__name__} as the model",
            "pass the torch.nn.Module itself",
        )
    found: dict[Hashable, _Found] = {}
    for path, enclosing, module in walk(model, (), ()):
        _check_is_readable(module, enclosing)
        for name, binding, note in bindings_of(module):
            parameters = binding.parameters()
            key = (id(module), name) if binding.effective else id(parameters[0])
            entry = found.get(key)
            if entry is None:
                shape = binding.shape() if binding.effective else shape_of(parameters[0])
                entry = found[key] = _Found(binding, note, parameters, shape)
            full = ".".join((*path, name))
            site = Site(full, enclosing, scopes_of(module, name), declared_on(module, name))
            entry.sites.setdefault(full, site)
            ndim = None if entry.shape is None else len(entry.shape)
            entry.roles.add(_role(module, path, name, entry.shape))
            entry.axes.add(axes_of(module, ndim))
    if not found:
        raise ModelError(
            f"this {type(model).__name__} has no parameters", "pass a model that has some"
        )
    return [(_record(entry), entry.binding) for entry in found.values()]


def _role(
    module: nn.Module, path: tuple[str, ...], name: str, shape: tuple[int, ...] | None
) -> Role:
    if "/" in name:  # the name is a path itself, in place of modules
        owner, own = name.rsplit("/", 1)
        return role_by_name(own, shape, owner.rpartition("/")[2])
    role = role_of(type(module), name, shape)
    if role is Role.KERNEL and path and isinstance(module, nn.ParameterList | nn.ParameterDict):
        # Its items have numbers or keys for names; what they are, the name of the list may say.
        return role_of(type(module), f"{path[-1]}_{name}", shape)
    return role


def _check_is_readable(module: nn.Module, enclosing: tuple[type, ...]) -> None:
    """Scripting, tracing and exporting replace the modules, so roles and declarations are gone;
    flattening replaces the parameters, so their shapes are.
    """
    if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
        raise ModelError(
            "this model is sharded by FullyShardedDataParallel, which flattens the parameters",
            "shard it with torch.distributed.fsdp.fully_shard instead, which keeps them",
        )
    exported = type(module) is nn.Module and any(issubclass(t, GraphModule) for t in enclosing)
    if not (exported or isinstance(module, ScriptModule)):
        return
    if any(p.requires_grad for p in module.parameters(recurse=False)):
        raise ModelError(
            "this model was scripted, traced or exported, so its modules have lost their types",
            "plan the model that it was made from",
        )


def walk(
    module: nn.Module, path: tuple[str, ...], enclosing: tuple[type, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[type, ...], nn.Module]]:
    """Every module at every place, with its path less the wrappers."""
    enclosing = (*enclosing, type(module))
    yield path, enclosing, module
    for name, child in module._modules.items():
        if child is None or (name == "parametrizations" and isinstance(child, nn.ModuleDict)):
            continue
        below = path if is_wrapped(module, name) else (*path, name)
        yield from walk(child, below, enclosing)


def is_wrapped(module: nn.Module, name: str) -> bool:
    """Whether this child is what the module wraps."""
    if name in _WRAPPED_ATTRIBUTES:
        return True
    return name == "module" and any(c.__name__ in _WRAPPERS for c in type(module).__mro__)


def _record(entry: _Found) -> Parameter:
    outputs, inputs = next(iter(entry.axes)) if len(entry.axes) == 1 else (None, None)
    # A plain weight that is lazy has no shape already.
    lazy = entry.binding.effective and any(
        isinstance(p, UninitializedParameter) for p in entry.parameters
    )
    return Parameter(
        sites=tuple(entry.sites.values()),
        role=role_of_ties(entry.roles),
        shape=None if lazy else entry.shape,
        trainable=any(p.requires_grad for p in entry.parameters),
        outputs_axis=outputs,
        inputs_axis=inputs,
        note=entry.note,
    )
