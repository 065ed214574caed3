"""Data of the command ``penalize path``: sets that scikit-learn ships, or a file of arrays."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from penalize.errors import PathError

CLASSES = 1_000_000
"""The largest class number: each is an output of the model."""

EMBEDDED = ("breast_cancer", "diabetes", "digits")


class Data(NamedTuple):
    """Inputs and targets."""

    x: Tensor
    y: Tensor
    """Class numbers; or real numbers, (samples, 1)."""

    @property
    def inputs(self) -> int:
        """The number of features."""
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        """The number of classes; 0 where the targets are real numbers."""
        return 0 if self.y.is_floating_point() else int(self.y.max()) + 1

    @property
    def outputs(self) -> int:
        """The number of outputs that a model needs."""
        return self.classes or self.y.shape[1]


def read(name: str) -> Data:
    """An embedded data set by its name, or the arrays ``x`` and ``y`` of an ``.npz`` file.

    Raises:
        PathError: there is no such data set or file, or it has other arrays.
    """
    if name in EMBEDDED:
        return _embedded(name)
    if not os.path.isfile(name):
        raise PathError(
            f"there is no data set or file {name!r}",
            f"expected one of {', '.join(EMBEDDED)}, or an .npz file with the arrays x and y",
        )
    try:
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except Exception as error:  # noqa: BLE001 - NumPy, zipfile and zlib have many for damaged files
        raise PathError(
            f"{name!r} cannot be read ({type(error).__name__}: {error})",
            "expected an .npz file with the arrays x and y",
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
    if x.ndim < 2 or not y.ndim or len(x) != len(y) or not x.size or not y.size:
        raise PathError(
            f"{name!r} has an x of shape {x.shape} and a y of {y.shape}",
            "expected x of (samples, features) and as many targets",
        )
    for word, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise PathError(f"{name!r} has a {word} of {array.dtype}", "expected finite numbers")
    inputs = _single(name, "x", x)
    if y.dtype.kind == "f":
        return Data(inputs, _single(name, "y", y).reshape(len(y), -1))
    least, most = int(y.min()), int(y.max())
    if y.ndim != 1 or least < 0 or most > CLASSES:
        raise PathError(
            f"{name!r} has whole numbers of shape {y.shape} from {least} to {most} as targets",
            f"expected one class number, from 0 to {CLASSES:,}, for each sample",
        )
    return Data(inputs, torch.from_numpy(y.astype(np.int64)))


def _single(name: str, word: str, array: np.ndarray) -> Tensor:
    """The array in float32, whatever its type and the order of its bytes."""
    with np.errstate(over="ignore"):
        found = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(found).all():
        raise PathError(
            f"{name!r} has {word} with numbers up to {np.abs(array).max():.3g}",
            "scale them: the largest float32 is 3.4e38",
        )
    return torch.from_numpy(found)
