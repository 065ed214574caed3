"""``penalize compact``: a model of saved weights, without its dead units."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penalize.errors import ModelError, NothingToCutWarning
from penalize.torch.compacting.compacted import compact
from penalize.torch.model.factories import made, told


def run(
    checkpoint: Path,
    *,
    model: str,
    shapes: Sequence[Sequence[int]],
    output: Path | None = None,
    onnx: Path | None = None,
    key: str | None = None,
    biases: bool = False,
) -> str:
    """Compact a model, print its table, and write the smaller one.

    Weights are read as weights alone: no code in the file is run. What is written is the module
    itself, as ``torch.save`` writes it.

    Args:
        checkpoint: a file with a ``state_dict``.
        model: ``MODULE:FACTORY``, what makes the model that these weights fit.
        shapes: of the model's inputs.
        output: where to write the module; None for nowhere.
        onnx: where to write what is exported to ONNX; None for nowhere.
        key: where the ``state_dict`` stands in the file, if that holds more.
        biases: see :func:`compact`.

    Returns:
        Why nothing was written: there is nothing to cut; else an empty string.

    Raises:
        PenalizeError: something given is wrong, or the model cannot be compacted.
    """
    found = made(model).eval()
    _load(found, _weights(checkpoint, key), f"the weights of {checkpoint} do not fit {model}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compact(found, _inputs(found, shapes), biases=biases)
    print(result)  # noqa: T201
    for warning in caught:
        if issubclass(warning.category, NothingToCutWarning):
            return str(warning.message)
    saved = None if output is None else _saved(result.model)
    if onnx is not None:
        result.to_onnx(onnx)
        print(f"wrote {onnx}, which ONNX Runtime runs with the same outputs")  # noqa: T201
    if output is not None and saved is not None:
        _write(saved, output)
        print(f"wrote {output}: torch.load({str(output)!r}, weights_only=False)")  # noqa: T201
    return ""


def _weights(file: Path, key: str | None) -> Mapping[str, Any]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror})", "check the name") from None
    except Exception:  # noqa: BLE001 - whatever PyTorch's reader raises on other files
        raise ModelError(
            f"{file} is no file of weights alone, and what else is in it might run code when it is "
            "read",
            "save model.state_dict() there, and name what makes the model by --model",
        ) from None
    if key is not None:
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping) and any(isinstance(x, Tensor) for x in found.values()):
        return found
    keys = ", ".join(map(str, found)) if isinstance(found, Mapping) else ""
    raise ModelError(
        f"{file} has no weights by name{'' if key is None else f' under {key!r}'}"
        + (f", but the keys {keys}" if keys else ""),
        "say under which key the state_dict stands: --key KEY",
    )


def _load(model: nn.Module, weights: Mapping[str, Any], misfit: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = " ".join(str(error).partition("\n")[2].split())
        raise ModelError(f"{misfit} ({lines[:300]})", "name what made the model") from None


def _inputs(model: nn.Module, shapes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """Random numbers, of the type that the model computes in."""
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    random = torch.Generator().manual_seed(0)
    found = [torch.randn(*shape, generator=random) for shape in shapes]
    return tuple(x.to(types[0]) if types else x for x in found)


def _saved(model: nn.Module) -> bytes:
    """The file as a whole, so that none is written in part."""
    held = io.BytesIO()
    try:
        torch.save(model, held)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the smaller model cannot be saved ({told(error)})",
            "a module's class, and what it holds, has to stand in a file of its own to be pickled",
        ) from None
    return held.getvalue()


def _write(content: bytes, output: Path) -> None:
    try:
        output.write_bytes(content)
    except OSError as error:
        raise ModelError(f"{output} cannot be written ({error.strerror})", "give another") from None
