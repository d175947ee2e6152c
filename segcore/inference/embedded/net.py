"""The embedded network: EfficientNet-Lite2 features under a small pyramid head.

Every convolution has a bias and no normalisation layer follows it: the batch normalisation of the pretrained features
is folded into their weights (see `training.initial`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.core.labels import NUM_CLASSES

FEATURE_STAGES: Final = (
    # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
"""EfficientNet-Lite2 (width 1.1, depth 1.2; TensorFlow TPU repository, `lite/efficientnet_lite_builder.py`)."""

STEM_CHANNELS: Final = 32
SHALLOW: Final = 5
"""Stages down to stride 16; the others have stride 32."""
LARGEST: Final = 320
"""Limit in pixels of the shorter side of the features' input: they were trained on photos of 288."""
MAX_PENALTY: Final = 1.0
"""Most that `suppress_absent` subtracts from a logit."""


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a convolution with bias, padded so that stride 1 keeps the size."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups)


def relu6(x: Tensor) -> Tensor:
    """Clamp to [0, 6] in place: the input is always a temporary, and a copy would cost a quarter of the time."""
    return F.relu6(x, inplace=True)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input if shapes agree (arXiv 1801.04381, fig. 4b)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = conv(inputs, middle) if expansion > 1 else None
        self.depthwise = conv(middle, middle, kernel, stride, groups=middle)
        self.project = conv(middle, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to `[B, outputs, H/stride, W/stride]`."""
        y = x if self.expand is None else relu6(self.expand(x))
        out: Tensor = self.project(relu6(self.depthwise(y)))
        return x + out if self.residual else out


class Features(nn.Module):
    """EfficientNet-Lite2 without its classifier: maps at strides 4, 8, 16 and 32."""

    channels: Final = (24, 48, 120, 352)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for blocks, kernel, stride, expansion, outputs in FEATURE_STAGES:
            stage = nn.Sequential()
            for index in range(blocks):
                stage.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
            self.stages.append(stage)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map `[B, 3, H, W]` to four maps `[B, C, H/s, W/s]` with s = 4, 8, 16, 32 and C from `channels`."""
        at4, at8, at16 = self.shallow(x)
        return at4, at8, at16, self.deep(at16)

    def shallow(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map `[B, 3, H, W]` to the first three maps."""
        x = relu6(self.stem(x))
        maps = []
        for stage in self.stages[:SHALLOW]:
            x = stage(x)
            maps.append(x)
        return maps[1], maps[2], maps[4]

    def deep(self, at16: Tensor) -> Tensor:
        """Map the third map to the fourth."""
        for stage in self.stages[SHALLOW:]:
            at16 = stage(at16)
        return at16


class Separable(nn.Module):
    """A residual 5x5 depthwise filter and channel mixer, to smooth the sum of two maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = conv(channels, channels, 5, groups=channels)
        self.pointwise = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, channels, H, W]` to the same shape, not negative."""
        return relu6(x + self.pointwise(relu6(self.depthwise(x))))


class Context(nn.Module):
    """The surroundings of each position: three dilated depthwise filters, a cheap pyramid as in arXiv 1706.05587."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.lateral = conv(inputs, channels)
        self.near = conv(channels, channels, 3, groups=channels)
        self.middle = conv(channels, channels, 3, groups=channels, dilation=2)
        self.far = conv(channels, channels, 3, groups=channels, dilation=4)
        self.mix = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to `[B, channels, H, W]`, not negative."""
        y = relu6(self.lateral(x))
        return relu6(y + self.mix(relu6(self.near(y) + self.middle(y) + self.far(y))))


class Presence(nn.Module):
    """Which classes the photo shows, classified from the features that EfficientNet-Lite2 uses for ImageNet."""

    middle: Final = 1280

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.top = conv(inputs, self.middle)
        self.classifier = conv(self.middle, NUM_CLASSES - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to logits `[B, 20, 1, 1]` of the classes without background."""
        found: Tensor = self.classifier(self.pooled(x))
        return found

    def pooled(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to `[B, 1280, 1, 1]`: the mean over all positions."""
        return self.seen(x).mean((2, 3), keepdim=True)

    def seen(self, x: Tensor) -> Tensor:
        """Map `[B, inputs, H, W]` to `[B, 1280, H, W]`, not negative."""
        return relu6(self.top(x))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Resize to the height and width of `like`, bilinear (`align_corners=False`)."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def reduce(x: Tensor) -> Tensor:
    """Resize to a shorter side of at most `LARGEST` pixels, bilinear; without a branch, which exports cannot keep."""
    height, width = x.shape[-2:]
    shorter = torch.sym_max(torch.sym_min(height, width), LARGEST)
    size = [cast(int, side * LARGEST // shorter) for side in (height, width)]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def suppress_absent(scores: Tensor, presence: Tensor) -> Tensor:
    """Lower the logits of foreground classes that the photo as a whole probably does not show.

    The penalty is the difference between the highest log probability of presence of the twenty classes and the class's
    own, at most `MAX_PENALTY`. Background stays as it is. `[B, 21, h, w]` and `[B, 20, 1, 1]` to `[B, 21, h, w]`.
    """
    sure = F.logsigmoid(presence)
    behind = (sure - sure.amax(1, keepdim=True)).clamp(min=-MAX_PENALTY)
    return torch.cat([scores[:, :1], scores[:, 1:] + behind], 1)


class EmbeddedNet(nn.Module):
    """The network of `embedded`, with the interface of torchvision's segmentation models.

    Input `[B, 3, H, W]` float32, normalised with the ImageNet mean and standard deviation, reduced inside to a shorter
    side of `LARGEST` pixels if it is larger. `forward` returns an `OrderedDict` whose `out` is `[B, 21, H, W]`: logits
    of the PASCAL VOC classes at the size of the input.
    """

    def __init__(self, width: int = 128, fine: int = 64) -> None:
        super().__init__()
        self.features = Features()
        c4, c8, c16, c32 = Features.channels
        self.presence = Presence(c32)
        self.context = Context(c32, width)
        self.lateral16 = conv(c16, width)
        self.smooth16 = Separable(width)
        self.lateral8 = conv(c8, width)
        self.smooth8 = Separable(width)
        self.lateral4 = conv(c4, fine)
        self.reduce = conv(width, fine)
        self.smooth4 = Separable(fine)
        self.classifier = conv(fine, NUM_CLASSES)

    def logits(self, x: Tensor) -> Tensor:
        """Map `[B, 3, H, W]` to logits `[B, 21, h/4, w/4]`, before the last upsampling."""
        maps = self.features(reduce(x))
        return suppress_absent(self.head(*maps), self.presence(maps[-1]))

    def head(self, at4: Tensor, at8: Tensor, at16: Tensor, at32: Tensor) -> Tensor:
        """Merge the feature maps, from stride 32 to stride 4, into logits `[B, 21, H/4, W/4]`."""
        y = self.context(at32)
        y = self.smooth16(relu6(self.lateral16(at16) + enlarge(y, at16)))
        y = self.smooth8(relu6(self.lateral8(at8) + enlarge(y, at8)))
        y = self.smooth4(relu6(self.lateral4(at4) + enlarge(self.reduce(y), at4)))
        scores: Tensor = self.classifier(y)
        return scores

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Map `[B, 3, H, W]` to `{"out": logits [B, 21, H, W]}`."""
        return OrderedDict(out=enlarge(self.logits(x), x))
