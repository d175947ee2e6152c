"""Write a foreign model: a U-Net of segmentation-models-pytorch as an ONNX file, with its model file.

    python bench/performance/foreign.py unet
    segcore best --model unet/unet.yaml --size 256

Its weights are random, as those of ImageNet would have to be downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import click
import segmentation_models_pytorch
import torch

CLASSES = 21
SPEC = """\
name: unet
source: {onnx: unet.onnx}
labels:
  names: [%s]
  background: null
input: {resize: shorter, multiple_of: 32}
"""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def main(directory: Path) -> None:
    """Write unet.onnx and unet.yaml to DIRECTORY."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=CLASSES).eval()
    free = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, 256, 320),),
            dynamo=True,
            dynamic_shapes=({0: free, 2: free, 3: free},),
            input_names=["photo"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None  # None is what the old exporter returns
    program.save(directory / "unet.onnx", external_data=False)
    names = ", ".join(f"class {index}" for index in range(CLASSES))
    (directory / "unet.yaml").write_text(SPEC % names, encoding="utf-8")
    click.echo(f"{directory / 'unet.yaml'}")


if __name__ == "__main__":
    main()
