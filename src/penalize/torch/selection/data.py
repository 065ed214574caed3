"""Data of the command ``penalize path``: sets that scikit-learn ships, or a file of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from penalize.errors import PathError

EMBEDDED = ("breast_cancer", "diabetes", "digits")


class Data(NamedTuple):
    """Inputs and targets."""

    x: Tensor
    y: Tensor
    """Class numbers; or real numbers, (samples, 1)."""

    @property
    def inputs(self) -> int:
        """How many features there are."""
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        """How many classes there are; 0 where the targets are real numbers."""
        return 0 if self.y.is_floating_point() else int(self.y.max()) + 1

    @property
    def outputs(self) -> int:
        """How many outputs a model needs."""
        return self.classes or self.y.shape[1]


def read(name: str) -> Data:
    """An embedded data set by its name, or the arrays ``x`` and ``y`` of an ``.npz`` file.

    Raises:
        PathError: there is no such data set or file, or it has other arrays.
    """
    if name in EMBEDDED:
        return _embedded(name)
    if not Path(name).is_file():
        raise PathError(
            f"there is no data set or file {name!r}",
            f"expected one of {', '.join(EMBEDDED)}, or an .npz file with the arrays x and y",
        )
    try:
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (KeyError, ValueError, OSError, TypeError, EOFError, BadZipFile) as error:
        raise PathError(
            f"{name} cannot be read ({error})", "expected an .npz file with the arrays x and y"
        ) from None
    return _checked(name, x, y)


def _embedded(name: str) -> Data:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = x / 16 if name == "digits" else (x - x.mean(0)) / x.std(0)
    if name == "diabetes":
        y = (y - y.mean()) / y.std()
    return _checked(name, x, y)


def _checked(name: str, x: np.ndarray, y: np.ndarray) -> Data:
    if x.ndim < 2 or len(x) != len(y) or not len(x):
        raise PathError(
            f"{name} has an x of shape {x.shape} and a y of {y.shape}",
            "expected x of (samples, features) and as many targets",
        )
    for word, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise PathError(f"{name} has a {word} of {array.dtype}", "expected finite numbers")
    inputs = torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32)
    if y.dtype.kind == "f":
        targets = torch.as_tensor(np.ascontiguousarray(y), dtype=torch.float32)
        return Data(inputs, targets.reshape(len(targets), -1))
    if y.ndim != 1 or y.min() < 0:
        raise PathError(
            f"{name} has whole numbers of shape {y.shape} from {y.min()} as targets",
            "expected one class number, from 0, for each sample",
        )
    return Data(inputs, torch.as_tensor(y.astype(np.int64)))
