"""A picture with a legend under it: colour, name and share of each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segcore.core.labels import VOC, LabelSet

_MIN_WIDTH = 240
"""Width in pixels of the canvas of narrower pictures, so that an entry of the legend fits."""


def with_legend(picture: npt.NDArray[np.uint8], fractions: Mapping[str, float], labels: LabelSet = VOC) -> Image.Image:
    """Return a picture, uint8 RGB (H, W, 3), above a legend of its classes with their shares of all pixels (0 to 1)."""
    height, width = picture.shape[:2]
    canvas_width = max(width, _MIN_WIDTH)
    text_size = max(12, min(canvas_width, height) // 28)
    font = ImageFont.load_default(text_size)
    line, swatch, gap = round(text_size * 1.7), text_size, text_size // 2
    background = labels.background_name
    entries = [(name, f"{name} {share:.1%}") for name, share in fractions.items() if name != background]
    entries = entries or [(name, f"{name} only") for name in fractions]
    rows: list[list[tuple[str, str, float]]] = [[]]
    x = float(gap)
    for name, text in entries:
        needed = swatch + gap + font.getlength(text) + 2 * gap
        if rows[-1] and x + needed > canvas_width:
            rows.append([])
            x = float(gap)
        rows[-1].append((name, text, x))
        x += needed
    canvas = Image.new("RGB", (canvas_width, height + line * len(rows) + gap), "white")
    canvas.paste(Image.fromarray(picture), ((canvas_width - width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        y = height + gap // 2 + number * line
        for name, text, left in row:
            colour = labels.colors[labels.index(name)]
            draw.rectangle((left, y + (line - swatch) // 2, left + swatch, y + (line + swatch) // 2), colour, "black")
            draw.text((left + swatch + gap, y + line // 2), text, fill="black", font=font, anchor="lm")
    return canvas
