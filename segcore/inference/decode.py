"""From logits to class maps and colours: argmax, margins, the photo's own resolution, palette and overlay.

A model may return a class map, integers, in place of logits: then there is no argmax and no margin, and it is enlarged
to the nearest pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from segcore.core.errors import ModelError
from segcore.core.labels import VOC, ClassMap, LabelSet, class_map_dtype
from segcore.inference.strips import in_strips

RgbImage = npt.NDArray[np.uint8]

_DENSE_SHARE = 0.25
"""Share of mixed cells above which plain interpolation is faster than selecting them."""


def check_logits(
    output: object, batch: Sequence[int], *, at_scale: bool = True, labels: LabelSet = VOC
) -> torch.Tensor:
    """Return what a network returned, if it is logits of the classes of a label set.

    Args:
        output: of the network.
        batch: shape of its input, (B, 3, H, W).
        at_scale: the logits must be (B, classes, H, W); else they may have any height and width.
        labels: its classes.

    Raises:
        ModelError: it is something else, has another shape, or holds NaN or infinity.
    """
    logits = check_planes(output, batch, labels)
    wanted = (batch[0], len(labels), *(batch[-2:] if at_scale else logits.shape[-2:]))
    if tuple(logits.shape) != wanted or not logits.numel():
        raise _not_logits(output, batch, labels)
    # The sum of finite numbers may overflow, but one that is finite has no other terms; it takes half the time.
    if not math.isfinite(_sum(logits)) and not logits.isfinite().all():
        share = float((~logits.isfinite()).float().mean())
        raise ModelError(
            f"{share:.1%} of the network's logits {tuple(logits.shape)} are NaN or infinite, wanted finite numbers: "
            "try precision fp32 and runtime torch; if they fail too, train the network again"
        )
    return logits


def _sum(logits: torch.Tensor) -> float:
    """Return the sum of all logits, infinity or NaN if it has no finite value.

    On the CPU it is numpy's, in this thread: those of torch would wait for a runtime's, which spin after a pass.
    """
    if logits.device.type != "cpu" or logits.dtype != torch.float32:
        return float(logits.sum())
    with np.errstate(over="ignore", invalid="ignore"):
        return float(logits.detach().numpy().sum())


def check_planes(output: object, batch: Sequence[int], labels: LabelSet | None = None) -> torch.Tensor:
    """Return what a network returned, if it is a dense floating-point tensor (B, C, h, w).

    Raises:
        ModelError: it is not.
    """
    if (
        isinstance(output, torch.Tensor)
        and output.layout == torch.strided
        and output.device.type != "meta"
        and output.is_floating_point()
        and output.dim() == 4
    ):
        return output
    raise _not_logits(output, batch, labels)


def _not_logits(output: object, batch: Sequence[int], labels: LabelSet | None) -> ModelError:
    found = type(output).__name__
    if isinstance(output, torch.Tensor):
        layout = "" if output.layout == torch.strided else f" {output.layout}"
        found = f"{tuple(output.shape)} {output.dtype}{layout}".replace("torch.", "")
    elif isinstance(output, dict):
        found = f"a dict with the keys {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        found = f"a {found} of {len(output)}"
    shape = f"({batch[0]}, {len(labels) if labels else 'CLASSES'}, {batch[-2]}, {batch[-1]})"
    classes = f"class of the label set {labels.name}; if its classes are others, pass labels=" if labels else "class"
    return ModelError(
        f"the network returned {found} for an input of {tuple(batch)}, wanted logits {shape}, floating point, "
        f"alone or under 'out': one channel for each {classes}"
    )


def argmax_classes(logits: torch.Tensor) -> torch.Tensor:
    """Return the class of each pixel: logits float (B, C, H, W) to `class_map_dtype` (B, H, W), on the same device.

    Equal to ``logits.argmax(dim=1)``, with ties resolved to the lower class and NaN as the largest. A class map
    (B, H, W) is returned as it is.
    """
    if not logits.is_floating_point():
        return logits
    dtype = class_map_dtype(logits.shape[1])
    narrow = torch.uint8 if dtype == np.uint8 else torch.uint16
    if logits.device.type != "cpu" or logits.dtype != torch.float32:
        return logits.argmax(dim=1).to(narrow)
    classes = _largest(logits.numpy(), np.arange(logits.shape[1], dtype=dtype))
    return logits.argmax(dim=1).to(narrow) if classes is None else torch.from_numpy(classes)


def _largest(logits: npt.NDArray[np.float32], names: ClassMap) -> ClassMap | None:
    """Return the name of the largest logit of each pixel, (B, H, W), from (B, C, H, W); None if one is NaN.

    torch reads the classes of one pixel at a time, a stride of H * W; plane by plane is 7 times as fast.
    """
    batch, _, height, width = logits.shape
    classes = np.full((batch, height, width), names[0])
    undefined: list[int] = []

    def work(top: int, bottom: int) -> None:
        found, planes = classes[:, top:bottom], logits[:, :, top:bottom].swapaxes(0, 1)
        best = planes[0].copy()
        for name, plane in zip(names[1:], planes[1:], strict=True):
            np.putmask(found, plane > best, name)
            np.maximum(best, plane, out=best)
        if np.isnan(best).any():
            undefined.append(top)

    in_strips(work, height, classes.size)
    return None if undefined else classes


def enlarge(logits: torch.Tensor, height: int, width: int, *, align_corners: bool = False) -> torch.Tensor:
    """Return logits (B, C, height, width) from (B, C, h, w) by bilinear interpolation.

    A class map (..., h, w) becomes one (..., height, width), to the nearest pixel.
    """
    if logits.shape[-2:] == (height, width):
        return logits
    if not logits.is_floating_point():
        return nearest(logits, height, width)
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=align_corners)


def nearest(classes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return a class map (..., height, width) from (..., h, w): each pixel has the class of the one at its centre."""
    positions = (
        torch.from_numpy((2 * np.arange(target) + 1) * source // (2 * target)).to(classes.device)
        for target, source in zip((height, width), classes.shape[-2:], strict=True)
    )
    rows, columns = positions
    return classes.index_select(-2, rows).index_select(-1, columns)


def enlarged_classes(logits: torch.Tensor, height: int, width: int, *, align_corners: bool = False) -> torch.Tensor:
    """Return ``argmax_classes(enlarge(logits, height, width))`` to the bit: logits float (B, C, h, w).

    Planes of classes that cannot win anywhere in the photo are not enlarged: usually 2 to 6 remain. One
    exception: torch rounds the last few pixels of each thread's share differently, so that a tie to the last bit may
    be resolved either way there, as in the plain recipe with another number of threads.
    """
    if logits.device.type != "cpu" or logits.dtype != torch.float32 or logits.shape[-2:] == (height, width):
        return argmax_classes(enlarge(logits, height, width, align_corners=align_corners))
    possible = _possible_classes(logits.numpy())
    large = enlarge(logits[:, torch.from_numpy(possible)], height, width, align_corners=align_corners)
    classes = _largest(large.numpy(), possible.astype(class_map_dtype(logits.shape[1])))
    return argmax_classes(large) if classes is None else torch.from_numpy(classes)


def _possible_classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return, ascending, the classes that can be the largest somewhere after enlargement, from (B, C, h, w).

    An enlarged logit is a convex combination of the four corners of its cell. A class whose highest corner is below
    another's lowest loses in that cell, and a class that loses in every cell is excluded, with a tolerance for
    rounding. If a logit is not finite, all classes are possible.
    """
    tolerance = 1e-5 * np.abs(logits).max()
    if not np.isfinite(tolerance):
        return np.arange(logits.shape[1])
    highest = _over_cells(np.maximum, logits)
    lowest = _over_cells(np.minimum, logits)
    lost = highest < lowest.max(axis=1, keepdims=True) - tolerance
    return np.flatnonzero(~lost.all(axis=(0, 2, 3)))


def _over_cells(extreme: np.ufunc, planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Reduce each cell's four corners: (..., h, w) to (..., h - 1, w - 1); a side of one pixel stays as it is."""
    if planes.shape[-2] > 1:
        planes = extreme(planes[..., :-1, :], planes[..., 1:, :])
    return extreme(planes[..., :-1], planes[..., 1:]) if planes.shape[-1] > 1 else planes


def margin_map(logits: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the largest minus the second largest logit per pixel: float (C, H, W) to float32 (H, W).

    Where it is small, rounding alone may change the class; of a single class it is infinite.
    """
    if logits.shape[0] == 1:
        return np.full(logits.shape[1:], np.inf, dtype=np.float32)
    top = logits.topk(2, dim=0).values
    return np.asarray((top[0] - top[1]).float().cpu().numpy(), dtype=np.float32)


def upsample_class_map(logits: torch.Tensor, height: int, width: int, *, align_corners: bool = False) -> ClassMap:
    """Return the class map at another resolution: float (C, h, w) to `class_map_dtype` (height, width).

    Equal to bilinear interpolation of all logits followed by argmax, up to ties within
    rounding, but most pixels need no arithmetic: where the four surrounding pixels have one class, any convex
    combination of their logits has it too, so only the cells with mixed corners are interpolated. A class map (h, w)
    becomes one (height, width), to the nearest pixel.
    """
    if not logits.is_floating_point():
        return np.asarray(enlarge(logits, height, width).cpu().numpy())
    if logits.device.type == "cpu" and not align_corners:
        classes = argmax_classes(logits[None])[0].numpy()
        if classes.shape == (height, width):
            return np.asarray(classes)
        mixed_cells = _mixed_cells(classes)
        if mixed_cells.mean() <= _DENSE_SHARE:
            return _upsample_mixed(logits, classes, mixed_cells, height, width)
    full = enlarge(logits[None].float(), height, width, align_corners=align_corners)
    return np.asarray(argmax_classes(full)[0].cpu().numpy())


def _upsample_mixed(
    logits: torch.Tensor, classes: ClassMap, mixed_cells: npt.NDArray[np.bool_], height: int, width: int
) -> ClassMap:
    """Return the class map, interpolating the mixed cells alone."""
    top, bottom, down = _source_positions(height, classes.shape[0])
    left, right, across = _source_positions(width, classes.shape[1])
    result = classes[top][:, left]
    rows, columns = np.nonzero(mixed_cells[top][:, left])
    # (n, C) rows are contiguous in a channels-last copy, so each corner is one gather.
    pixels = logits.permute(1, 2, 0).contiguous().numpy()
    y0, y1, x0, x1 = top[rows], bottom[rows], left[columns], right[columns]
    wy, wx = down[rows, None], across[columns, None]
    upper = pixels[y0, x0] * (1 - wx) + pixels[y0, x1] * wx
    lower = pixels[y1, x0] * (1 - wx) + pixels[y1, x1] * wx
    result[rows, columns] = (upper * (1 - wy) + lower * wy).argmax(axis=1)
    return result


def _source_positions(
    target: int, source: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the neighbours before and after each target pixel, and the weight of the one after, as torch has them."""
    scale = np.float32(source) / np.float32(target)
    position = np.maximum(scale * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    before = np.minimum(position.astype(np.intp), source - 1)
    after = np.minimum(before + 1, source - 1)
    return before, after, np.minimum(position - before, 1).astype(np.float32)


def _mixed_cells(classes: ClassMap) -> npt.NDArray[np.bool_]:
    """Return which cells (corners (y..y+1, x..x+1), clamped at the border) have corners of different classes."""
    padded = np.pad(classes, ((0, 1), (0, 1)), mode="edge")
    corner = padded[:-1, :-1]
    return np.asarray(
        (padded[:-1, 1:] != corner) | (padded[1:, :-1] != corner) | (padded[1:, 1:] != corner), dtype=np.bool_
    )


def decode_segmap(class_map: npt.ArrayLike | torch.Tensor, labels: LabelSet = VOC) -> RgbImage:
    """Return the colours of a class map: integers (H, W) to uint8 RGB (H, W, 3).

    Args:
        class_map: indices of `labels`, and its `ignore`.
        labels: whose colours to use.

    Raises:
        ValueError: the map is not two-dimensional, or holds another value.
    """
    indices = class_map.detach().cpu().numpy() if isinstance(class_map, torch.Tensor) else np.asarray(class_map)
    if indices.ndim != 2 or indices.dtype.kind not in "iu":
        raise ValueError(f"a class map is integer (H, W), found {indices.dtype} {indices.shape}")
    valid = (indices >= 0) & (indices < len(labels))
    if labels.ignore is not None:
        valid |= indices == labels.ignore
    if not valid.all():
        found = np.unique(indices[~valid])[:5].tolist()
        ignore = "" if labels.ignore is None else f" or {labels.ignore}"
        raise ValueError(f"a class map holds 0 to {len(labels) - 1}{ignore}, found {found}")
    return palette_lookup(indices.astype(np.uint16 if len(labels.lookup) > 256 else np.uint8, copy=False), labels)


def palette_lookup(class_map: ClassMap, labels: LabelSet = VOC) -> RgbImage:
    """Return the colours of a valid class map: uint8 or uint16 (H, W) to uint8 RGB (H, W, 3)."""
    colors = np.empty((*class_map.shape, 3), dtype=np.uint8)
    palette = labels.lookup[:256].tobytes()

    def paint(top: int, bottom: int) -> None:
        strip = class_map[top:bottom]
        if strip.dtype == np.uint8 and strip.size:  # of which Pillow paints a pixel three times as fast as numpy
            image = Image.frombuffer("P", strip.shape[::-1], np.ascontiguousarray(strip), "raw", "P", 0, 1)
            image.putpalette(palette)
            colors[top:bottom] = np.asarray(image.convert("RGB"))
        else:
            # All indices have a colour; "clip" lets numpy write to `out` without a copy.
            labels.lookup.take(strip, axis=0, out=colors[top:bottom], mode="clip")

    in_strips(paint, len(class_map), class_map.size)
    return colors


def blend(photo: RgbImage, class_map: ClassMap, alpha: float = 0.5, labels: LabelSet = VOC) -> RgbImage:
    """Return the photo with its classes painted over it; background stays as it is.

    Args:
        photo: uint8 RGB (H, W, 3).
        class_map: uint8 or uint16 (H, W) of the same size.
        alpha: opacity of the colours, 0 to 1.
        labels: of the class map.

    Raises:
        ValueError: the sizes differ or alpha is out of range.
    """
    if photo.shape[:2] != class_map.shape:
        raise ValueError(f"photo is {photo.shape[:2]}, class map {class_map.shape}: they must be of one size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is an opacity from 0 to 1, found {alpha}")
    painted = photo.copy()
    seen = np.ones(class_map.shape, dtype=bool) if labels.background is None else class_map != labels.background
    mixed = photo[seen] * (1 - alpha) + palette_lookup(class_map, labels)[seen] * alpha
    painted[seen] = np.rint(mixed).astype(np.uint8)
    return painted


_ALIKE = 48
"""Most that a painted class may differ from the photo, in levels of a channel, to need an outline."""


def outlined(overlay: RgbImage, photo: RgbImage, class_map: ClassMap, labels: LabelSet = VOC) -> RgbImage:
    """Return an overlay with a black or white line inside each class that could be taken for the photo itself.

    Args:
        overlay: of the photo, see `blend`.
        photo: uint8 RGB (H, W, 3).
        class_map: uint8 or uint16 (H, W).
        labels: of the class map.
    """
    edge = np.zeros(class_map.shape, dtype=bool)
    for line, one, other in (
        (class_map[:, 1:] != class_map[:, :-1], edge[:, 1:], edge[:, :-1]),
        (class_map[1:] != class_map[:-1], edge[1:], edge[:-1]),
    ):
        one |= line
        other |= line
    width = 2 * (min(class_map.shape) // 400) + 1
    wide = edge
    if width > 1:  # with a width of 1, some releases of Pillow divide by zero and end the process
        wide = np.asarray(Image.fromarray(edge).convert("L").filter(ImageFilter.MaxFilter(width))) > 0
    drawn = overlay.copy()
    for index in np.unique(class_map[edge]):
        if index == labels.background:
            continue
        along = wide & (class_map == index)
        near = np.abs(overlay[along].astype(np.int16) - photo[along]).max(axis=1)
        if np.median(near) < _ALIKE:
            drawn[along] = 255 if np.median(photo[along]) < 128 else 0
    return drawn
