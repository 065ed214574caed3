"""Folds: which samples train, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from penalize.errors import PathError

SEEDS = 2**64 - 1
"""The largest seed: torch takes no larger one."""

ALL = "all"
"""The name of the fold that trains on every sample, and holds out none."""


class Fold(NamedTuple):
    """One split of the samples, by number."""

    name: str
    """``"0"``, ``"1"``, …, or ``"all"``."""

    train: Any
    valid: Any
    """The samples held out; of the fold ``"all"`` the samples that it trains on."""

    @property
    def held_out(self) -> bool:
        """True if its loss is one on samples that it has not seen."""
        return self.name != ALL


Shuffled = Callable[[int, int], np.ndarray]
"""(count, seed) → the numbers below the count in an order at random."""


def shuffled(count: int, seed: int) -> np.ndarray:
    """The numbers below a count in an order at random, by NumPy."""
    return np.random.default_rng(seed).permutation(count)


def folds_of(
    folds: Any, samples: int | None, seed: int, *, refit: bool, order: Shuffled = shuffled
) -> list[Fold]:
    """The folds that the argument ``folds`` of a path means.

    Args:
        folds: a number, for folds at random; pairs (train, valid) of sample numbers, as
            scikit-learn's splitters give them; or None for no folds.
        samples: how many samples there are, if that is known.
        seed: of the folds at random.
        refit: whether a fold of every sample stands at the end.
        order: gives the order in which samples come into folds at random.

    Raises:
        PathError: there are none, one is empty, or the samples are not known.
    """
    splits = _splits(folds, samples, seed, order)
    found = [Fold(str(i), *_checked(i, split, samples)) for i, split in enumerate(splits)]
    if refit or not found:
        rows = [fold.train for fold in found] + [fold.valid for fold in found]
        every = np.unique(np.concatenate(rows)) if rows else np.arange(_known(samples, folds))
        if samples is not None:
            every = np.arange(samples)
        found.append(Fold(ALL, every, every))
    return found


def check_whole(what: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise :class:`PathError` for what is no whole number within these bounds."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and least <= value
        and (most is None or value <= most)
    ):
        return
    bounds = f">= {least}" if most is None else f"from {least} to {most}"
    raise PathError(f"{what}={value!r}", f"expected a whole number {bounds}")


def digest(folds: Iterable[Fold]) -> str:
    """A text that tells whether folds are the same."""
    hashed = hashlib.sha256()
    for fold in folds:
        for rows in (fold.train, fold.valid):
            hashed.update(f"{fold.name} {len(rows)} ".encode() + rows.tobytes())
    return hashed.hexdigest()


def _splits(folds: Any, samples: int | None, seed: int, order: Shuffled) -> list[Any]:
    if folds is None:
        return []
    if isinstance(folds, int) and not isinstance(folds, bool):
        count = _known(samples, folds)
        if not 2 <= folds <= count:
            raise PathError(
                f"folds={folds} for {count} samples",
                "expected a number from 2 to that of the samples, or None for no folds",
            )
        parts = np.array_split(order(count, seed), folds)
        return [(np.concatenate([*parts[:i], *parts[i + 1 :]]), parts[i]) for i in range(folds)]
    if isinstance(folds, str) or not isinstance(folds, Iterable):
        raise PathError(f"folds={folds!r}", _EXPECTED)
    splits = list(folds)
    if not splits:
        raise PathError("folds is empty", f"{_EXPECTED}, or None for no folds")
    return splits


def _known(samples: int | None, folds: Any) -> int:
    if samples is None:
        raise PathError(
            f"folds={folds!r}, and how many samples there are is not known, as fit is a function",
            "pass the splits, such as folds=KFold(5).split(x)",
        )
    return samples


_EXPECTED = "expected a number of folds, or pairs (train, valid) of sample numbers"


def _checked(number: int, split: Any, samples: int | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        train, valid = map(_numbers, split)
    except (TypeError, ValueError, RuntimeError):
        raise PathError(f"fold {number} is {split!r}", _EXPECTED) from None
    for rows, word in ((train, "trains on"), (valid, "holds out")):
        if rows.size and (rows.ndim != 1 or rows.dtype.kind not in "iu"):
            raise PathError(
                f"fold {number} {word} {rows.dtype} numbers of shape {rows.shape}", _EXPECTED
            )
        if not rows.size:
            raise PathError(f"fold {number} {word} no samples", "give each fold some of both")
        if int(rows.min()) < 0 or (samples is not None and int(rows.max()) >= samples):
            raise PathError(
                f"fold {number} {word} samples from {int(rows.min())} to {int(rows.max())}",
                "they are numbered from 0" + (f" to {samples - 1}" if samples else ""),
            )
    if np.isin(valid, train).any():
        raise PathError(
            f"fold {number} trains on samples that it holds out", "give each sample to one of them"
        )
    return train.astype(np.int64), valid.astype(np.int64)


def _numbers(rows: Any) -> np.ndarray:
    # A tensor of PyTorch may be on another device.
    return np.asarray(rows.cpu() if hasattr(rows, "cpu") else rows)
