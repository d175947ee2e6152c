"""Options that several commands share, each declared once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli import completion
from segcore.cli.completion import completes
from segcore.core.errors import OutputError, UsageError, nearest_hint
from segcore.core.files import write_file
from segcore.core.limits import Limits
from segcore.results.naming import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from segcore.core.model_spec import ModelSpec
    from segcore.inference.pipeline import Segmenter
    from segcore.inputs.download import FetchSettings

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)
POSITIVE = click.IntRange(1)


class FiniteFloat(click.FloatRange):
    """A number within limits, neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or raise UsageError."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            raise UsageError(f"{param.opts[0] if param else 'option'} {value}: wanted a finite number")
        return number


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
storage_option = click.option("--storage", default=DEFAULT_DIRECTORY, type=PATH, help="Directory of saved runs.")
offline_option = click.option("--offline", is_flag=True, help="Do not use the network (also SEGCORE_OFFLINE=1).")


@dataclass(frozen=True)
class Export:
    """One file to be written: its format, and where it goes; None is standard output."""

    format: str
    path: Path | None


def export_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option of what is written for other services."""

    def convert(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[Export, ...]:
        return tuple(_export(value, formats) for value in values)

    return click.option(
        "--export",
        "exports",
        callback=convert,
        multiple=True,
        metavar="FORMAT[=PATH]",
        help=f"Write {', '.join(formats[:-1])} or {formats[-1]} (repeatable); without PATH, in place of the tables.",
    )


def _export(value: str, formats: Sequence[str]) -> Export:
    name, equals, path = value.partition("=")
    if name not in formats:
        raise UsageError(f"--export {name}: unknown format{nearest_hint(name, formats)}; known: {', '.join(formats)}")
    if equals and not path:
        raise UsageError(f"--export {value}: wanted a path after the sign, as in {name}=out/{name}")
    return Export(name, Path(path) if path else None)


def check_exports(exports: Sequence[Export], as_json: bool) -> bool:
    """Return whether standard output is taken by an export; raise UsageError if more than one wants it."""
    taken = sum(export.path is None for export in exports)
    if taken + as_json > 1:
        raise UsageError("--export: one format at most can go to standard output; give the others a path, FORMAT=PATH")
    return bool(taken)


def write_exports(exports: Sequence[Export], text_of: Callable[[str], str]) -> tuple[list[Path], list[str]]:
    """Write a text for each format; return the files that were written, and why others were not."""
    written, failed = [], []
    for export in exports:
        try:
            if export.path:
                write_file(export.path, text_of(export.format).encode())
                written.append(export.path)
            else:
                click.echo(text_of(export.format), nl=False)
        except OutputError as error:
            failed.append(str(error))
    return written, failed


def option(*, flag: str | None = None, **settings: Any) -> Any:
    """Declare a field of a dataclass to be an option, by default ``--name-of-field``; see `option_group`."""
    return dataclasses.field(default=settings.get("default"), metadata={"flag": flag, "settings": settings})


def option_group(
    group: type,
    parameter: str = "options",
    *,
    without: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    **defaults: object,
) -> Callable[[Command], Command]:
    """Return a decorator that passes a command one object of a dataclass whose fields are made by `option`.

    Args:
        group: the dataclass.
        parameter: of the command.
        without: fields that keep their default and are no options of this command.
        optional: fields that this command does not require, although others do.
        defaults: of this command, by field.
    """
    fields = [field for field in dataclasses.fields(group) if field.name not in without]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_group(**values: Any) -> Any:
            own = {field.name: values.pop(field.name) for field in fields}
            return command(**{parameter: group(**own)}, **values)

        for field in reversed(fields):
            flag, settings = field.metadata["flag"], field.metadata["settings"]
            if field.name in optional:
                settings = {**settings, "required": False}
            if field.name in defaults:
                settings = {**settings, "default": defaults[field.name]}
            click.option(flag or f"--{field.name.replace('_', '-')}", field.name, **settings)(with_group)
        return with_group

    return decorate


def fetch_settings(offline: bool) -> FetchSettings:
    """Return the download settings of the environment, without the network if ``offline``."""
    from segcore.inputs.download import FetchSettings

    settings = FetchSettings.from_env()
    return replace(settings, offline=True) if offline else settings


@dataclass(frozen=True)
class DropLimits:
    """Limits on the drop of scores, of items whose case has none."""

    max_miou_drop: float | None = option(
        type=FiniteFloat(min=0, max=1), help="Limit on the drop of mIoU and boundary IoU, 0.01 for a point [0.01]."
    )
    max_iou_drop: float | None = option(
        type=FiniteFloat(min=0, max=1), help="Limit on the drop of the IoU of each class, and of pixel accuracy [0.01]."
    )

    def limits(self, **others: object) -> Limits:
        """Return the limits that were given, and others."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return Limits.model_validate({**given, **others})


@dataclass(frozen=True)
class ModelOptions:
    """The model to run, and how to run it."""

    model: str = option(
        default="fcn_resnet101",
        shell_complete=completes(completion.models, files=True),
        help="Name of a model (see `segcore models`), or path of a model file or a model.",
    )
    models: Path = option(default=Path("models"), type=PATH, help="Directory of model files.")  # noqa: RUF009  # a field
    weights: str = option(default="pretrained", help="'pretrained', 'random' or the path of a checkpoint.")
    size: int = option(default=640, type=POSITIVE, help="Shorter side of the model's input, pixels.")
    device: str = option(
        default="auto",
        shell_complete=completes(completion.devices),
        help="auto, cpu, cuda, cuda:1 or mps; see `segcore devices`.",
    )
    runtime: str | None = option(help="Runtime; see `segcore runtimes` (default: torch, or that of the model's file).")
    precision: str = option(default="fp32", help="fp32, bf16, fp16 or int8.")
    calibration: tuple[str, ...] = option(
        multiple=True,
        metavar="PHOTOS",
        help="Photos to calibrate int8 on: file, directory or pattern (repeatable; default: photos of scikit-image).",
    )
    offline: bool = option(is_flag=True, help="Do not use the network (also SEGCORE_OFFLINE=1).")

    def spec(self) -> ModelSpec:
        """Return what is known of the model before it is loaded; raise ModelError if there is no valid one."""
        from segcore.inference.models.sources import find_model
        from segcore.inputs.model_files import open_model_files

        spec = find_model(self.model, open_model_files(self.models))
        if spec.file is None and spec.assumptions:
            assumed = "; ".join(spec.assumptions)
            hint = f"`segcore models --inspect {self.model}` prints a model file in which to correct it"
            click.echo(f"segcore: {self.model}: assumed: {assumed}; {hint}", err=True)
        return spec

    def segmenter_factory(self) -> Callable[[], Segmenter]:
        """Return a function that loads the model; it can be pickled.

        Raises:
            UsageError: calibration photos are given, but the precision is not int8.
            ImageError: there is no photo at a path given for calibration.
            ModelError: there is no such model, or its file is invalid.
        """
        from segcore.inference.pipeline import Segmenter
        from segcore.inference.preprocess import calibration_photos

        return partial(
            Segmenter,
            self.spec(),
            weights=self.weights,
            device=self.device,
            size=self.size,
            runtime=self.runtime,
            precision=self.precision,
            calibration=calibration_photos(self.calibration, [self.precision]),
            settings=fetch_settings(self.offline),
        )
