"""``segcore quantize``: the layers that int8 must leave in fp32 to keep a model's masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from segcore.cli.evaluate import DatasetOptions
from segcore.cli.options import FiniteFloat, ModelOptions, fetch_settings, json_option, option_group
from segcore.core.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from segcore.core.model_spec import ModelSpec
    from segcore.evaluation.mixed import Judge
    from segcore.inference.devices import Device
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import Photo

SHOWN = 20
"""Layers in int8 that the terminal shows; ``--json`` and run files have all."""


@click.command()
@option_group(ModelOptions, without=("precision",))
@option_group(DatasetOptions, "truth", optional=("layout", "root"))
@click.option(
    "--max-miou-drop", default=0.01, type=FiniteFloat(0, 1), help="Largest loss of mIoU allowed; choices aim at half."
)
@json_option
def quantize(options: ModelOptions, truth: DatasetOptions, max_miou_drop: float, as_json: bool) -> None:
    """Find which layers int8 must leave in fp32 to keep a model's masks, and use that from then on.

    Runs each layer alone in int8, then keeps as few in fp32 as the limit needs. The drop is measured on a dataset if
    one is named, else against the model's own masks in fp32 of the calibration photos. The finding is kept in the
    cache: precision int8 of the same weights and calibration photos uses it in all commands.
    """
    from segcore.cli.output import show, show_json
    from segcore.evaluation.mixed import find_mixture
    from segcore.inference.devices import open_device
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import CALIBRATION_PHOTOS, calibration_photos
    from segcore.report.run_tables import int8_table

    if (truth.layout is None) != (truth.root is None):
        raise UsageError("--dataset and --root go together: the layout of a dataset, and its directory")
    photos = calibration_photos(options.calibration)
    device, spec = open_device(options.device), options.spec()
    reference = Segmenter(
        spec,
        weights=options.weights,
        device=device,
        size=options.size,
        runtime=_runtime(options.runtime, device, spec),
        settings=fetch_settings(options.offline),
    )
    if reference.artifact:  # which is then not compiled for each shape that recurs: the memory matters more
        reference = reference.on_file(reference.artifact)
    source = reference.int8_source(photos)
    judge, about = _judge(truth, reference, photos)
    content = {"runtime": reference.runtime, "size": str(reference.size), "limit": str(max_miou_drop), "truth": about}
    with _progress() as progress:
        record = source.found(**content)
        if record is None:
            named = f"{len(photos)} photos" + (" of scikit-image" if photos is CALIBRATION_PHOTOS else "")
            said = f"{named}, sha256 {source.key['calibration'][:12]}"
            record = find_mixture(reference, source, judge, photos, max_miou_drop, said, progress)
        source.store(record, **content)
        source.artifact()
    if as_json:
        show_json(record.model_dump(mode="json"))
    else:
        show(int8_table(record, SHOWN))


def _runtime(wanted: str | None, device: Device, spec: ModelSpec) -> str:
    """Return the runtime that is wanted, or the first that runs the model in int8.

    Raises:
        DeviceError: it does not, or none does.
    """
    from segcore.inference.runtimes import why_not

    names = (wanted,) if wanted else ("openvino", "onnxruntime")
    reasons = {name: why_not(name, device, "int8", spec.source.kind) for name in names}
    for name, reason in reasons.items():
        if reason is None:
            return name
    why = "; ".join(f"runtime {name}: {reason}" for name, reason in reasons.items())
    raise DeviceError(f"{spec.name} cannot be quantised: {why}")


def _judge(truth: DatasetOptions, reference: Segmenter, photos: tuple[Photo, ...]) -> tuple[Judge, str]:
    """Return the judge, and what identifies its truth."""
    from segcore.evaluation.mixed import MaskJudge, OwnJudge
    from segcore.inputs.datasets import fit

    if truth.layout is None:
        return OwnJudge(reference, photos), "fp32"
    dataset = fit(truth.open(), reference.labels)
    about = f"{truth.root.resolve()} {dataset.name} {dataset.sha256} {dataset.masks}"
    return MaskJudge(reference, dataset), about


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback that draws a bar for each step."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from segcore.cli.output import progress_bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        task = progress.add_task("loading", total=None)

        def update(step: str, done: int, total: int) -> None:
            if progress.tasks[0].description != step:
                progress.reset(task, description=step, total=total)
            progress.update(task, completed=done, total=total)

        yield update
