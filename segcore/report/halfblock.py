"""Small pictures in a terminal: two pixels per character, drawn by the upper half block with two colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from segcore.report.pictures import fitted

MAX_ROWS = 14
"""Most lines of one picture."""


def half_blocks(picture: npt.NDArray[np.uint8], columns: int, smooth: bool = True) -> Text:
    """Return a picture as lines of coloured half blocks.

    Args:
        picture: uint8 RGB (H, W, 3).
        columns: characters per line at most.
        smooth: average when scaling down (photos), or take the nearest pixel (masks).
    """
    height, width = picture.shape[:2]
    scale = min(1.0, 2 * MAX_ROWS / height)
    small, tall = fitted(round(width * scale) or 1, round(height * scale) or 1, columns)
    method = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    pixels = np.asarray(Image.fromarray(picture).resize((small, tall + tall % 2), method))
    art = Text(no_wrap=True, end="")
    for y in range(0, len(pixels), 2):
        if y:
            art.append("\n")
        for top, bottom in zip(pixels[y].tolist(), pixels[y + 1].tolist(), strict=True):
            art.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
    return art
