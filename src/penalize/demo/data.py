"""scikit-learn's bundled digits: 1,797 images of 8×8 pixels, no download."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor


class Digits(NamedTuple):
    """Images as rows of 64 pixels in [0, 1], and their digits."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits() -> Digits:
    """A stratified split, a quarter for testing. Always the same one, whatever the seed."""
    images, labels = load_digits(return_X_y=True)
    # The scanner counted 0 to 16 dots per pixel.
    parts = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    train_images, test_images = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    train_labels, test_labels = (torch.tensor(part) for part in parts[2:])
    return Digits(train_images, train_labels, test_images, test_labels)
