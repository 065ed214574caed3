"""A smaller module as an ONNX file, which is run before it is written."""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penalize.errors import MissingPackageError, ModelError
from penalize.torch.compacting.proof import Inputs, outputs, tensors_in, why_not_alike
from penalize.torch.compacting.tracing import unlogged

NEEDS = "onnx", "onnxscript", "onnxruntime"


def write(model: nn.Module, inputs: Sequence[Inputs], path: Path) -> None:
    """Export a module, run the file in ONNX Runtime, and then put it in its place.

    Sizes that differ between the inputs may be others in the file, as far as PyTorch's exporter
    finds that they may.

    Args:
        model: a module in evaluation mode.
        inputs: an example, and others of other sizes.
        path: where to write.

    Raises:
        MissingPackageError: a package that this needs is not installed.
        ModelError: PyTorch cannot export the module, ONNX Runtime computes something else, or the
            file cannot be written.
    """
    for package in NEEDS:
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingPackageError(package, "an export to ONNX", "onnx") from None
    program = _exported(model, inputs)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as beside:
            file = Path(beside) / path.name
            program.save(file, external_data=False)
            _check(model, inputs, file)
            os.replace(file, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror})", "give another") from None


def _exported(model: nn.Module, inputs: Sequence[Inputs]) -> Any:
    args, kwargs = inputs[-1 if len(inputs) == 1 else 1]  # not of size 1, which stays 1
    kind: Any = torch.export.AdditionalInputs
    others = kind()
    for each in inputs:
        others.add(tuple(each[0]), each[1])
    try:
        with warnings.catch_warnings(), unlogged("torch.onnx"):
            warnings.simplefilter("ignore")
            shapes = others.dynamic_shapes(model, tuple(args), kwargs)
            return torch.onnx.export(
                model,
                tuple(args),
                kwargs=kwargs,
                dynamic_shapes=pytree.tree_map(_if_it_may, shapes),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"torch.onnx cannot export a {type(model).__name__} "
            f"({type(error).__name__}: {lines[0][:200]})",
            "save the smaller module itself, by torch.save",
        ) from error


def _if_it_may(dimension: Any) -> Any:
    """A dimension that is other if the exporter finds that it may be."""
    hint = torch.export.Dim
    return hint.AUTO if dimension is hint.DYNAMIC else dimension


def _check(model: nn.Module, inputs: Sequence[Inputs], file: Path) -> None:
    """Refuse a file that computes something else."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for given in inputs:
            feed = _feed(session, given)
            if feed is not None:
                found = [torch.from_numpy(x) for x in session.run(None, feed)]
                why = why_not_alike(outputs(model, given), tensors_in(found), model)
                if why:
                    raise ModelError(
                        f"ONNX Runtime does not answer as the {type(model).__name__} does: {why}",
                        "nothing was written; save the smaller module itself, by torch.save",
                    )
    except ModelError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"ONNX Runtime cannot run the {type(model).__name__} "
            f"({type(error).__name__}: {lines[0][:200]})",
            "nothing was written; save the smaller module itself, by torch.save",
        ) from error


def _feed(session: Any, given: Inputs) -> Mapping[str, Any] | None:
    """The inputs by their names in the file; None where they have sizes that it does not take."""
    tensors = [x.cpu() for x in pytree.tree_leaves(given) if isinstance(x, Tensor)]
    places = session.get_inputs()
    for place, x in zip(places, tensors, strict=True):
        fixed = [(n, size) for n, size in zip(place.shape, x.shape, strict=True) if type(n) is int]
        if any(n != size for n, size in fixed):
            return None
    return {place.name: x.numpy() for place, x in zip(places, tensors, strict=True)}
