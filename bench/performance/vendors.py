"""Batch throughput of segcore beside the runtimes' own benchmark programs: same file, shape and threads, in turns.

    python bench/performance/vendors.py openvino --model embedded --size 320 --batch 8
    python bench/performance/vendors.py onnxruntime --model fcn_resnet101 --weights random --size 320 --batch 2

OpenVINO's is `benchmark_app`, by default with the number of streams that it chooses, on the same file of dynamic
shapes; with `--fixed-shape` on a model compiled for this shape alone, as segcore does when a shape recurs. The
programs run one pass after the other on the same values; with `--alone`, so does segcore. Without it, the other stages
of the pipeline run in between, and the caches are theirs.
onnxruntime's is `onnxruntime_test` of its package (no wheel has the C++ `onnxruntime_perf_test`), which uses as many
threads as there are cores. Ratios above 1: segcore is faster.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import onnx
import torch

from segcore import Segmenter
from segcore.inference import allocator
from segcore.inputs.images import as_rgb_array
from segcore.report.table import Table, to_markdown


def benchmark_app(file: Path, shape: tuple[int, ...], calls: int, streams: int, fixed_shape: bool) -> float:
    """Return images per second of OpenVINO's program."""
    name = onnx.load(file, load_external_data=False).graph.input[0].name
    dimensions = f"{name}[{','.join(map(str, shape))}]"
    command = ["-m", str(file), "-d", "CPU", "-data_shape", dimensions, "-niter", str(calls)]
    command += ["-layout", "[NCHW]"]  # or a batch counts as one image
    command += ["-shape", dimensions] if fixed_shape else []
    program = str(Path(sys.executable).with_name("benchmark_app"))
    threads = ["-hint", "none", "-nthreads", str(torch.get_num_threads())]  # other hints do not allow threads
    threads += ["-nstreams", str(streams)] if streams else []
    out = run([program, *command, "-infer_precision", "f32", *threads])
    return found(r"Throughput:\s+([\d.]+) FPS", out)


def onnxruntime_test(file: Path, shape: tuple[int, ...], calls: int, _streams: int, _fixed: bool) -> float:
    """Return images per second of onnxruntime's program."""
    names = [d.dim_param for d in onnx.load(file, load_external_data=False).graph.input[0].type.tensor_type.shape.dim]
    dims = ",".join(f"{name}={side}" for name, side in zip(names, shape, strict=True) if name)
    program = [sys.executable, "-m", "onnxruntime.tools.onnxruntime_test"]
    out = run([*program, "--symbolic_dims", dims, str(file), str(calls)])
    return shape[0] / found(r"avg latency: ([\d.]+) ms", out) * 1e3


def run(command: list[str]) -> str:
    """Return the output of a program.

    Raises:
        ClickException: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{command[0]} failed:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    return done.stdout


def found(pattern: str, text: str) -> float:
    """Return the number that a pattern finds in a program's output."""
    match = re.search(pattern, text)
    if match is None:
        raise click.ClickException(f"no {pattern!r} in:\n{text[-800:]}")
    return float(match[1])


PROGRAMS = {"openvino": benchmark_app, "onnxruntime": onnxruntime_test}


@click.command()
@click.argument("runtime", type=click.Choice(list(PROGRAMS)))
@click.option("--model", default="embedded", show_default=True)
@click.option("--weights", default="pretrained", show_default=True)
@click.option("--size", default=320, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--calls", default=20, show_default=True, help="Forward passes per round and program.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(2))
@click.option("--streams", default=0, show_default=True, help="Of benchmark_app; 0: its own choice.")
@click.option("--fixed-shape", is_flag=True, help="Let benchmark_app compile for this shape alone.")
@click.option("--alone", is_flag=True, help="Run segcore's forward passes without the other stages.")
def main(
    runtime: str,
    model: str,
    weights: str,
    size: int,
    batch: int,
    calls: int,
    rounds: int,
    streams: int,
    fixed_shape: bool,
    alone: bool,
) -> None:
    """Alternate segcore and the program, and print the ratio of their throughputs."""
    allocator.keep_freed_memory()
    photo = as_rgb_array("skimage:astronaut.png")
    segmenter = Segmenter(model, weights=weights, device="cpu", size=size, runtime=runtime)
    photos = [photo] * batch
    file, shape = segmenter.artifact, segmenter.run(photos)[0].input_shape
    assert file is not None  # both runtimes load one
    segmenter.settle(lambda: segmenter.run(photos))
    tensors = torch.stack([segmenter.prepare(photo) for photo in photos])

    def pass_s() -> float:
        """Return the seconds of a forward pass for each photo."""
        if not alone:
            return segmenter.run(photos)[0].timings["forward"]
        start = time.perf_counter()
        segmenter.at_own_scale(tensors)
        return (time.perf_counter() - start) / batch

    ratios, ours, theirs = [], [], []
    for _ in range(rounds):
        ours.append(1 / statistics.median(pass_s() for _ in range(calls)))
        theirs.append(PROGRAMS[runtime](file, shape, calls, streams, fixed_shape))
        ratios.append(ours[-1] / theirs[-1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    name = f"{PROGRAMS[runtime].__name__}{' of this shape' * fixed_shape}"
    columns = ("model and batch", "images/s", f"{name}, images/s", "ratio", "quartiles")
    shown = f"{model} {' x '.join(map(str, shape))}, {runtime}{', alone' * alone}"
    row = (shown, statistics.median(ours), statistics.median(theirs), middle, f"{low:.2f} to {high:.2f}")
    click.echo(to_markdown(Table(columns, (row,), formats={"ratio": "{:.3f}".format})))


if __name__ == "__main__":
    main()
