"""One segmenter, or several, used by several threads at once: each mask is the one that a single thread gets."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch

from segcore import Segmenter
from segcore.core.labels import ClassMap, LabelSet
from segcore.core.model_spec import ModelSpec, Source
from segcore.inference import models, process_state
from segcore.inference.decode import RgbImage
from segcore.inference.devices import Device
from segcore.inference.runtimes import graphs, why_not
from segcore.inference.runtimes.program import ProgramModel, ProgramSession
from segcore.inference.runtimes.session import BuildRequest
from segcore.inference.runtimes.upsampling import without_upsampling
from segcore.inputs.download import FetchSettings
from segcore.inputs.model_files import read_model_file
from tests.support.colour_models import litert_file, onnx_file, openvino_file
from tests.support.networks import TinyNet

THREADS, ROUNDS = 4, 8
CPU = Device("cpu")
Work = Callable[[int], None]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FetchSettings:
    return FetchSettings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    """Let another thread go on after every few instructions, so that a race is lost in most runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Work, threads: int = THREADS) -> None:
    """Run `work` in threads that begin together, and raise what one of them raises."""
    start = threading.Barrier(threads)

    def begin(thread: int) -> None:
        start.wait(60)
        work(thread)

    with ThreadPoolExecutor(threads) as pool:
        for running in [pool.submit(begin, thread) for thread in range(threads)]:
            running.result()


def photos(*shapes: tuple[int, int]) -> list[RgbImage]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


OF_MANY_SHAPES = photos((48, 64), (64, 48), (40, 40), (30, 70))
OF_ONE_SHAPE = photos(*[(96, 120)] * 4)


def check_masks(segmenter: Segmenter, photos: list[RgbImage], expected: list[ClassMap]) -> None:
    """Compare what each thread gets, for one photo and for a list, with what is expected."""

    def work(thread: int) -> None:
        order = random.Random(thread)
        for _ in range(ROUNDS):
            chosen = order.choices(range(len(photos)), k=3)
            results = [segmenter(photos[chosen[0]]), *segmenter([photos[index] for index in chosen])]
            for index, found in zip([chosen[0], *chosen], results, strict=True):
                np.testing.assert_array_equal(found.class_map, expected[index])

    in_threads(work)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_threads_get_the_masks_of_one(runtime: str, threads: int, settings: FetchSettings, torch_threads: None) -> None:
    if reason := why_not(runtime, CPU):
        pytest.skip(reason)
    torch.set_num_threads(threads)
    first, second = (Segmenter(TinyNet(), device=CPU, size=40, runtime=runtime, settings=settings) for _ in range(2))
    check_masks(second, OF_MANY_SHAPES, [first(photo).class_map for photo in OF_MANY_SHAPES])


def described(path: Path) -> ModelSpec:
    kind = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}[path.suffix]
    (path.parent / "colours.yaml").write_text(
        f"source: {{{kind}: {path.name}}}\ninput: {{scale: 1/255, mean: 0, std: 1}}\n"
    )
    return read_model_file(path.parent / "colours.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "onnx on openvino", "litert"])
def test_threads_get_the_masks_of_files(kind: str, tmp_path: Path) -> None:
    """Files that take one photo at a time: every list is run photo by photo."""
    if kind == "litert":
        path = litert_file(tmp_path / "a.tflite", "LOGISTIC", size=(96, 120))
    else:
        path = onnx_file(tmp_path / "a.onnx", shape=(1, 3, 96, 120))
    if kind == "openvino":
        path = openvino_file(tmp_path / "a.xml", path)
    segmenter = Segmenter(described(path), device=CPU, runtime="openvino" if "openvino" in kind else None)
    expected = [segmenter(photo).class_map for photo in OF_ONE_SHAPE]
    assert len({classes.tobytes() for classes in expected}) == len(OF_ONE_SHAPE)
    check_masks(segmenter, OF_ONE_SHAPE, expected)


@pytest.mark.slow
def test_threads_that_export_do_so_after_each_other(tmp_path: Path) -> None:
    photo = OF_MANY_SHAPES[0]
    networks = [TinyNet(seed) for seed in range(2)]  # not in the threads: they share torch's random numbers
    expected = [Segmenter(network, device=CPU, size=40)(photo).class_map for network in networks]

    def work(thread: int) -> None:
        settings = FetchSettings(tmp_path / str(thread))
        exported = Segmenter(networks[thread], device=CPU, size=40, runtime="onnxruntime", settings=settings)
        np.testing.assert_array_equal(exported(photo).class_map, expected[thread])

    in_threads(work, 2)


def test_a_network_runs_beside_threads_that_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While torch traces, it takes every network that runs in the process for a part of the traced one."""

    class Traced:
        """In the place of ``torch.compile``, which takes long: traces at the first batch of a shape, as that does."""

        def __init__(self, network: torch.nn.Module, dynamic: bool) -> None:
            self._network, self._shapes = network, set[torch.Size]()

        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            if batch.shape not in self._shapes:
                for _ in range(3):
                    torch.fx.symbolic_trace(traced)
            self._shapes.add(batch.shape)
            found: torch.Tensor = self._network(batch)
            return found

    traced = TinyNet()
    monkeypatch.setattr(torch, "compile", Traced)
    running, compiled = (
        Segmenter(TinyNet(), device=CPU, size=40, runtime=runtime, settings=FetchSettings(tmp_path))
        for runtime in ("torch", "torch-compile")
    )
    expected = [running(photo).class_map for photo in OF_MANY_SHAPES]

    def work(thread: int) -> None:
        segmenter = compiled if thread % 2 else running
        for _ in range(ROUNDS):
            for photo, classes in zip(OF_MANY_SHAPES, expected, strict=True):
                np.testing.assert_array_equal(segmenter(photo).class_map, classes)

    in_threads(work)


def test_threads_get_the_logits_of_recorded_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A recorded pass has one input and one output, which threads must not fill and read at the same time."""

    class Recorded:
        """In the place of ``CudaCapture``, which needs a GPU."""

        def __call__(self, network: graphs.Network, batch: torch.Tensor) -> graphs.Graph:
            source, output = batch.clone(), network(batch).clone()

            def replay() -> None:
                output.copy_(network(source))

            return graphs.Graph(source, output, replay)

    monkeypatch.setattr(graphs, "CudaCapture", Recorded)
    request = BuildRequest(without_upsampling(TinyNet()), CPU, "fp32", tmp_path, list)
    session = graphs.open_session(request)
    batches = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(THREADS)]
    with torch.inference_mode():
        expected = [request.network(batch) for batch in batches]

    def work(thread: int) -> None:
        for _ in range(20 * ROUNDS):
            torch.testing.assert_close(session.forward(batches[thread]), expected[thread], rtol=0, atol=0)

    in_threads(work)


def test_threads_get_the_same_random_weights() -> None:
    name = "lraspp_mobilenet_v3_large"
    expected = models.load(name, "random").weights.sha256
    found: list[str | None] = []
    in_threads(lambda thread: found.append(models.load(name, "random").weights.sha256), 2)
    assert found == [expected] * 2


@pytest.mark.skipif(os.name != "posix", reason="programs as models need process groups")
def test_each_thread_is_told_what_its_own_photos_took_a_program(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "support" / "programs" / "segment.py"
    command = ("-I", "-S", str(program), "serve", "own-time")
    source = Source("command", sys.executable, command, serve=True, photos="ppm")
    spec = ModelSpec("shipped", source, LabelSet("two", ("dark", "bright")), root=tmp_path)
    session = ProgramSession(ProgramModel(spec))
    all_have_run = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        batch = torch.from_numpy(np.stack(OF_ONE_SHAPE[: thread + 1])).permute(0, 3, 1, 2)
        for _ in range(ROUNDS):
            found = session.forward(batch).numpy()
            np.testing.assert_array_equal(found, batch[:, 0].numpy() > 127)
            all_have_run.wait(60)
            assert session.own_seconds == pytest.approx(1e-5 * len(batch))  # it says so of every photo

    try:
        in_threads(work)
    finally:
        session.close()


def test_threads_share_beside_each_other() -> None:
    both = threading.Barrier(2)

    def work(thread: int) -> None:
        with process_state.shared(), process_state.shared():
            both.wait(60)

    in_threads(work, 2)


def test_nobody_is_beside_a_thread_that_is_alone() -> None:
    inside: list[str] = []

    def work(thread: int) -> None:
        for _ in range(50):
            with process_state.alone(), process_state.alone(), process_state.shared():
                assert not inside
                inside.append("alone")
                assert inside.pop() == "alone"
            with process_state.shared():
                inside.append("shared")
                assert "alone" not in inside
                inside.remove("shared")

    in_threads(work)


@pytest.mark.parametrize("hold", [process_state.alone, process_state.shared])
def test_a_thread_that_fails_lets_the_others_in(hold: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ValueError, match="on purpose"), hold():
        raise ValueError("on purpose")

    def work(thread: int) -> None:
        with process_state.alone() if thread else process_state.shared():
            pass

    in_threads(work)


FORK = """
import os, threading, warnings
from segcore.inference.process_state import alone, shared
is_in, done = threading.Event(), threading.Event()
def hold():
    with {kind}():
        is_in.set()
        done.wait(60)
thread = threading.Thread(target=hold)
thread.start()
is_in.wait(60)
warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
child = os.fork()
if not child:
    with alone(), shared():
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(kind: str) -> None:
    command = [sys.executable, "-c", FORK.format(kind=kind)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "7\n"
