"""Letters among pieces of others: images by the ten thousand, drawn from fonts.

The fonts come with matplotlib, so nothing is downloaded; the same numbers are drawn each time, and
make the same images.
"""

from __future__ import annotations

import math
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SIDE = 28
"""Pixels along a side of an image."""

FONTS = ("DejaVuSans*.ttf", "DejaVuSerif*.ttf", "STIXGeneral*.ttf")


class Letters(NamedTuple):
    """Images as rows, and which letters they show."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def templates() -> Tensor:
    """Each letter in each font, upright: (26, fonts, 1, SIDE, SIDE), from 0 to 1."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = [
        ImageFont.truetype(str(path), 24)
        for pattern in FONTS
        for path in sorted(folder.glob(pattern))
        if "Display" not in path.name  # these have no letters
    ]

    def drawn(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
        image = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), letter, 255, font, anchor="mm")
        return np.asarray(image, np.float32) / 255

    each = [[drawn(letter, font) for font in fonts] for letter in ascii_lowercase]
    return torch.tensor(np.array(each))[:, :, None]


def letters(train: int = 20_000, test: int = 4_000) -> Letters:
    """Letters that are turned, scaled and moved, with two others that reach in, and noise."""
    random = torch.Generator().manual_seed(0)
    known, n = templates(), train + test
    y = torch.randint(0, len(known), (n,), generator=random)

    def drawn(which: Tensor, centre: Tensor) -> Tensor:
        font = torch.randint(0, known.shape[1], (n,), generator=random)
        angle = 0.12 * torch.randn(n, generator=random)
        size = 0.9 + 0.3 * torch.rand(n, generator=random)
        turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1)
        turned = turned.reshape(-1, 2, 2) * size[:, None, None]
        where = torch.cat([turned, -centre[:, :, None]], 2)
        grid = affine_grid(where, [n, 1, SIDE, SIDE], align_corners=False)
        return grid_sample(known[which, font], grid, align_corners=False)

    images = drawn(y, 0.07 * torch.randn(n, 2, generator=random))
    for _ in range(2):
        other = torch.randint(0, len(known), (n,), generator=random)
        angle = 2 * math.pi * torch.rand(n, generator=random)
        piece = drawn(other, 1.2 * torch.stack([angle.cos(), angle.sin()], 1))
        images = torch.maximum(images, 0.8 * piece)
    images = images + 0.2 * torch.randn(images.shape, generator=random)
    x = images.flatten(1)
    return Letters(x[:train], y[:train], x[train:], y[train:])
