"""Reading a PyTorch model into parameter records, each with its binding to the live tensor."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from operator import attrgetter

from torch import nn
from torch.fx import GraphModule
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

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

_REQUIRES_GRAD = attrgetter("requires_grad")


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
    found: dict[Hashable, tuple[Parameter, Binding]] = {}
    readable: set[type] = set()
    for path, enclosing, module in walk(model, (), ()):
        if type(module) not in readable:
            _check_is_readable(module, enclosing)
            if _is_as_written(type(module)):
                readable.add(type(module))
        for name, binding, note in bindings_of(module):
            parameters = binding.parameters()
            key = (id(module), name) if binding.effective else id(parameters[0])
            scopes, declared = scopes_of(module, name), declared_on(module, name)
            site = Site(".".join((*path, name)), enclosing, scopes, declared)
            known = found.get(key)
            if known is None:
                found[key] = _record(site, path, binding, note, parameters), binding
            else:
                found[key] = _tied(known[0], site, path, binding), known[1]
    if not found:
        raise ModelError(
            f"this {type(model).__name__} has no parameters", "pass a model that has some"
        )
    return list(found.values())


def _record(
    site: Site,
    path: tuple[str, ...],
    binding: Binding,
    note: str,
    parameters: tuple[nn.Parameter, ...],
) -> Parameter:
    """What one place tells of a weight."""
    shape = binding.shape() if binding.effective else shape_of(parameters[0])
    module = binding.module
    outputs, inputs = axes_of(module, None if shape is None else len(shape))
    # A plain weight that is lazy has no shape already.
    lazy = binding.effective and any(map(is_lazy, parameters))
    return Parameter(
        sites=(site,),
        role=_role(module, path, binding.name, shape),
        shape=None if lazy else shape,
        trainable=any(map(_REQUIRES_GRAD, parameters)),
        outputs_axis=outputs,
        inputs_axis=inputs,
        note=note,
    )


def _tied(known: Parameter, site: Site, path: tuple[str, ...], binding: Binding) -> Parameter:
    """What is known of a weight, when it stands in another place as well."""
    shape = known.shape
    role = _role(binding.module, path, binding.name, shape)
    axes = known.outputs_axis, known.inputs_axis
    if axes_of(binding.module, None if shape is None else len(shape)) != axes:
        axes = None, None
    return replace(
        known,
        sites=known.sites if site.name in (s.name for s in known.sites) else (*known.sites, site),
        role=role_of_ties([known.role, role]),
        outputs_axis=axes[0],
        inputs_axis=axes[1],
    )


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


def _is_as_written(kind: type[nn.Module]) -> bool:
    """Whether what holds for one module of a class holds for all: nothing has replaced them."""
    return kind is not nn.Module and not issubclass(kind, ScriptModule)


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
