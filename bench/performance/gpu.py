"""What a GPU makes of the pipeline: its own clock beside ours, ways to queue work, transfers, peaks, parity.

    python bench/performance/gpu.py --model embedded --size 320
    python bench/performance/gpu.py --what forward --model fcn_resnet101 --weights random --precision bf16

`stages` times each stage with CUDA events beside the synchronised clock. Both ends of a stage wait for the GPU, which
the events do not see: some 30 microseconds, which an empty stage takes as well. Less those, the clocks agree if they
differ by at most 2 %, or in a short stage by a quarter of that wait. `forward` times the forward pass alone: operator
by operator, as a CUDA graph, compiled and both. `transfer` times photos on their way to the GPU, from pinned memory and
from any. `peaks` times matrix products and copies, of ones and of random numbers. `parity` compares logits with those
of torch in fp32 on the CPU. With `--device cpu` everything runs without a GPU, to see that it does; the figures then
mean nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import click
import torch
from torch import nn

from segcore import Segmenter
from segcore.evaluation.parity import logits_parity, photo_logits, pooled
from segcore.inference import allocator, models
from segcore.inference.devices import Device, open_device
from segcore.inference.models import LoadedModel
from segcore.inference.pipeline import StageTimer
from segcore.inference.runtimes import why_not
from segcore.inference.runtimes.eager import DTYPES
from segcore.inference.runtimes.graphs import CudaCapture, GraphedNetwork
from segcore.inference.runtimes.upsampling import without_upsampling
from segcore.inputs.images import as_rgb_array
from segcore.measurement.calibration import calibrate
from segcore.measurement.gpu import open_watch

Event: Any = torch.cuda.Event  # torch has no types for its arguments
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png")
AGREE, EMPTY = 0.02, "(empty)"
WHAT = ("stages", "forward", "transfer", "peaks", "parity")


class EventTimer(StageTimer):
    """A timer that also asks the GPU how long it was from the begin of each stage to its end."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.events_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body by both clocks."""
        begin, end = (Event(enable_timing=True) for _ in range(2))
        with super().stage(name):
            begin.record()
            yield
            end.record()
        self.events_s[name] = self.events_s.get(name, 0.0) + begin.elapsed_time(end) / 1e3


def median_s(call: Callable[[], object], device: Device, rounds: int) -> float:
    """Return the median seconds of a call, waited for, after three that are not counted."""
    seconds = []
    for turn in range(rounds + 3):
        device.synchronize()
        start = time.perf_counter()
        call()
        device.synchronize()
        if turn >= 3:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def stages(segmenter: Segmenter, batch: int, rounds: int) -> bool:
    """Print the stages by both clocks; return whether they agree."""
    photos = [as_rgb_array(f"skimage:{PHOTOS[0]}")] * batch
    on_gpu = segmenter.device.torch_device.type == "cuda"
    timers = [EventTimer(segmenter.device) if on_gpu else StageTimer(segmenter.device) for _ in range(rounds)]
    for _ in range(3):
        segmenter.run(photos)
    for timer in timers:
        segmenter.run(photos, timer)
        with timer.stage(EMPTY):
            pass
    agree = True
    for name in timers[0].seconds:
        seconds = statistics.median(timer.seconds[name] for timer in timers)
        text = f"  {name:12} {1e3 * seconds:9.3f} ms"
        if on_gpu:
            both = [timer for timer in timers if isinstance(timer, EventTimer)]
            events = statistics.median(timer.events_s[name] for timer in both)
            waits = [timer.seconds[EMPTY] - timer.events_s[EMPTY] for timer in both]
            apart = [timer.seconds[name] - timer.events_s[name] - wait for timer, wait in zip(both, waits, strict=True)]
            share = statistics.median(apart) / seconds
            short = statistics.median(waits) / 4 / seconds
            agree &= (same := name == EMPTY or abs(share) <= max(AGREE, short))
            text += f"   events {1e3 * events:9.3f} ms   {share:+7.2%} apart without the wait"
            text += "" if same else "   DO NOT AGREE"
        click.echo(text)
    return agree


def forward(
    loaded: LoadedModel, device: Device, precision: str, shape: Sequence[int], rounds: int, compiled: bool
) -> None:
    """Print the time of the forward pass by each way to queue its work."""
    dtype, layout = DTYPES[precision], torch.contiguous_format if precision == "fp32" else torch.channels_last

    def fresh() -> nn.Module:
        moved = without_upsampling(loaded.module).to(device.torch_device, dtype)
        return moved.to(memory_format=layout)

    network = fresh()
    batch = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device.torch_device, dtype)
    batch = batch.contiguous(memory_format=layout)
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"operator by operator": network}
    on_gpu = device.torch_device.type == "cuda"
    if on_gpu:
        ways["graph"] = GraphedNetwork(network, CudaCapture())
    if compiled:
        any_shape = torch.compile(network, dynamic=True)
        ways["compiled for all shapes"] = any_shape
        if on_gpu:
            ways["the same, graph"] = GraphedNetwork(any_shape, CudaCapture())
        one_shape = torch.compile(fresh(), dynamic=False)
        ways["compiled for this shape"] = one_shape
        if on_gpu:
            ways["the same, graph "] = GraphedNetwork(one_shape, CudaCapture())
            ways["reduce-overhead"] = torch.compile(fresh(), mode="reduce-overhead")
    first: float | None = None
    with torch.inference_mode():
        wanted = network(batch).float()
        for name, way in ways.items():
            start = time.perf_counter()
            try:
                way(batch)
                device.synchronize()
                build_s = time.perf_counter() - start
                seconds = median_s(partial(way, batch), device, rounds)
                found = way(batch).float()
            except Exception as error:  # a way that fails is a result
                click.echo(f"  {name:26} failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            first = first or seconds
            apart = float((found - wanted).abs().max() / wanted.abs().max())
            equal = "equal to the bit" if torch.equal(found, wanted) else f"logits off by {apart:.1e} of the largest"
            click.echo(
                f"  {name:26} {1e3 * seconds:8.3f} ms   {first / seconds:5.2f} times as fast, {equal}; "
                f"first call {build_s:.1f} s"
            )


def transfer(device: Device, shape: Sequence[int], rounds: int) -> None:
    """Print the time of a batch to the device, from any memory and from pinned."""
    batch = torch.randn(*shape)
    megabytes = batch.numel() * 4 / 1e6
    ways: dict[str, Callable[[], object]] = {"any memory": lambda: batch.to(device.torch_device)}
    if device.torch_device.type == "cuda":
        pinned = batch.pin_memory()
        ways["copied to pinned memory"] = lambda: batch.pin_memory().to(device.torch_device, non_blocking=True)
        ways["pinned before"] = lambda: pinned.to(device.torch_device, non_blocking=True)
    for name, way in ways.items():
        seconds = median_s(way, device, rounds)
        click.echo(f"  {name:26} {1e3 * seconds:8.3f} ms for {megabytes:.1f} MB, {megabytes / 1e3 / seconds:.1f} GB/s")


def peaks(device: Device, rounds: int) -> None:
    """Print the rates of products and copies, as the bench calibrates them and of other numbers and sizes."""
    for precision in (*DTYPES, "int8"):
        click.echo(f"  {calibrate(device, precision)}")
    side = 4096 if device.torch_device.type == "cuda" else 256
    for precision, dtype in DTYPES.items():
        for name, make in (("ones", torch.ones), ("random", torch.randn)):
            left, right = (make(side, side).to(device.torch_device, dtype) for _ in range(2))
            seconds = median_s(partial(torch.mm, left, right), device, rounds)
            click.echo(f"  {precision} product of {side}, {name:7} {side**3 / 1e9 / seconds:9.0f} GMAC/s")
    for mebibytes in (64, 256, 1024) if side > 256 else (1,):
        source = torch.randn(mebibytes << 18, device=device.torch_device)
        target = torch.empty_like(source)
        seconds = median_s(partial(target.copy_, source), device, rounds)
        click.echo(f"  copy of {mebibytes} MiB {2 * mebibytes * 2**20 / 1e9 / seconds:9.0f} GB/s read and written")


def parity(loaded: LoadedModel, device: Device, precisions: Sequence[str], size: int) -> None:
    """Print how far the logits are from those of torch in fp32 on the CPU."""
    photos = [as_rgb_array(f"skimage:{name}") for name in PHOTOS]
    on_cpu = Segmenter(loaded, device="cpu", size=size)
    wanted = [photo_logits(on_cpu, photo) for photo in photos]
    for runtime, precision in product(("torch", "torch-graphs", "onnxruntime", "tensorrt"), precisions):
        if reason := why_not(runtime, device, precision):
            click.echo(f"  {runtime:12} {precision} not there: {reason}")
            continue
        segmenter = Segmenter(loaded, device=device, size=size, runtime=runtime, precision=precision)
        for _ in range(2):
            segmenter(photos[0])
        pairs = zip(wanted, [photo_logits(segmenter, photo).cpu() for photo in photos], strict=True)
        found = pooled(logits_parity(*pair) for pair in pairs)
        click.echo(
            f"  {runtime:12} {precision} {found.equal_share:.4%} of the pixels equal, {found.unlike_share:.4%} unlike "
            f"where the CPU was sure, logits off by {found.relative_error:.1e} of the largest, "
            f"mIoU {1 - found.miou_drop:.4f}"
        )


@click.command()
@click.option("--what", multiple=True, type=click.Choice(WHAT), default=WHAT, show_default=True)
@click.option("--model", default="embedded", show_default=True)
@click.option("--weights", default="pretrained", show_default=True)
@click.option("--size", default=640, show_default=True)
@click.option("--batch", "batches", multiple=True, default=[1, 8], show_default=True)
@click.option("--precision", "precisions", multiple=True, default=["fp32", "bf16", "fp16"], show_default=True)
@click.option("--device", "name", default="cuda", show_default=True)
@click.option("--compiled", is_flag=True, help="With `forward`: compile, too, which takes a minute for each network.")
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(2))
def main(
    what: Sequence[str],
    model: str,
    weights: str,
    size: int,
    batches: Sequence[int],
    precisions: Sequence[str],
    name: str,
    compiled: bool,
    rounds: int,
) -> None:
    """Measure on a GPU; exit with 1 if the GPU's clock and ours do not agree."""
    allocator.keep_freed_memory()
    device = open_device(name)
    on_gpu = device.torch_device.type == "cuda"
    click.echo(f"{torch.cuda.get_device_name(device.torch_device) if on_gpu else 'CPU'}, torch {torch.__version__}")
    watch, agree = open_watch(device.name), True
    loaded = models.load(model, weights)
    if "peaks" in what:
        click.echo("peaks")
        peaks(device, rounds)
    if "parity" in what:
        click.echo(f"parity of {model} at {size} with torch in fp32 on the CPU")
        parity(loaded, device, precisions, size)
    for precision in precisions:
        if reason := why_not("torch", device, precision):
            click.echo(f"{precision} not there: {reason}")
            continue
        for batch in batches:
            title = f"{model} {precision}, {batch} of {size}x{size}"
            shape = (batch, 3, size, size)
            if "forward" in what:
                click.echo(f"forward pass of {title}")
                forward(loaded, device, precision, shape, rounds, compiled and batch == batches[0])
            if "stages" in what:
                click.echo(f"stages of {title}, per batch")
                agree &= stages(Segmenter(loaded, device=device, size=size, precision=precision), batch, rounds)
            if "transfer" in what and precision == precisions[0]:
                click.echo(f"transfer of {batch} of {size}x{size}")
                transfer(device, shape, rounds)
        if watch:
            watch.look()
    if watch:
        click.echo(f"board: {watch.conditions()} {[warning.text for warning in watch.warnings()]}")
    click.echo(f"both clocks agree: {'yes' if agree else 'NO'}")
    raise SystemExit(0 if agree else 1)


if __name__ == "__main__":
    main()
