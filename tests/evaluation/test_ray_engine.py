"""On a real Ray cluster of this machine, with a worker killed while it is at work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segcore.core.errors import DeviceError, ModelError
from segcore.evaluation.datasets import Evaluation, evaluate
from segcore.evaluation.ray_engine import MAX_ATTEMPTS, RayEngine
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import Dataset, open_dataset
from tests.support.networks import TinyNet
from tests.support.pairs import make_voc

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install segcore[ray]")
pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Ray leaves sockets and subprocesses to be collected, and complains of itself; none of it is ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
IMAGES = 40


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As an actor has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("voc")
    make_voc(root, IMAGES)
    (root / "JPEGImages" / "2007_000021.jpg").write_bytes(b"")  # one that cannot be read
    return open_dataset("voc", root)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    root = str(Path(__file__).parents[2])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    yield
    ray.shutdown()


def make_tiny() -> Segmenter:
    return Segmenter(TinyNet(), device="cpu", size=32)


@dataclass
class Doomed:
    """A model whose process is killed in the forward pass, a number of times in all: at each, a file is left behind."""

    graves: Path
    deaths: int
    size: int = 32

    def __post_init__(self) -> None:
        self._inner = make_tiny()
        self._calls = 0

    def prepare(self, photo: Any) -> torch.Tensor:
        return self._inner.prepare(photo)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls == 5 and len(list(self.graves.iterdir())) < self.deaths:
            (self.graves / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._inner.forward(batch)


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_in_mid_run_changes_no_digit(voc: Dataset, tmp_path: Path) -> None:
    protocols = ("voc-original", "per-image")
    local = evaluate(make_tiny(), voc, protocols=protocols, batch=2)
    engine = RayEngine(partial(Doomed, tmp_path, 1), actors=2)
    journal = tmp_path.parent / f"{tmp_path.name}.jsonl"
    far = evaluate(make_tiny(), voc, protocols=protocols, batch=2, engine=engine, journal=journal)
    assert len(list(tmp_path.iterdir())) == 1  # it did die
    assert far.results == local.results
    assert far.fractions == local.fractions
    assert list(far.failed) == ["2007_000021"]
    assert len(journal.read_text().splitlines()) == 1 + IMAGES - 1  # no image twice


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("wanted", [{"cpus": 99}, {"gpus": 8.0}])
def test_actors_that_fit_nowhere_are_refused(voc: Dataset, wanted: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="the Ray cluster has 2 CPUs and 0 GPUs, an actor wants"):
        evaluate(make_tiny(), voc, engine=RayEngine(make_tiny, **wanted))


class FakeRay:
    """Ray's calls in this process: an actor dies when its model raises SystemExit."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.born = 0

    def remote(self, **resources: float) -> Any:
        return self._actor_type

    def _actor_type(self, worker: type) -> Any:
        def start(*args: Any) -> Any:
            self.born += 1
            actor = worker(*args)
            return SimpleNamespace(score=SimpleNamespace(remote=lambda chunk: partial(actor.score, chunk)))

        return SimpleNamespace(remote=start)

    def put(self, value: Any) -> Any:
        return value

    def wait(self, refs: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return refs[-num_returns:], refs[:-num_returns]

    def get(self, ref: Any) -> Any:
        try:
            return ref()
        except SystemExit:
            raise ray.exceptions.ActorDiedError() from None
        except Exception as error:
            raise ray.exceptions.RayTaskError("score", "a traceback", error) from None


class Failing(Doomed):
    """The first so many that are made fail."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number = len(list(self.graves.iterdir()))
        (self.graves / str(self._number)).touch()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if self._number < self.deaths:
            raise SystemExit
        return self._inner.forward(batch)


def scores_by(engine: RayEngine, fake: FakeRay, voc: Dataset) -> Evaluation:
    return evaluate(make_tiny(), voc, engine=partial(engine._run, fake))


def test_chunks_are_handed_out_until_all_are_done(voc: Dataset, tmp_path: Path) -> None:
    fake = FakeRay()
    found = scores_by(RayEngine(partial(Failing, tmp_path, MAX_ATTEMPTS - 1), actors=1), fake, voc)
    assert found.results == evaluate(make_tiny(), voc).results
    assert fake.born == MAX_ATTEMPTS


def test_images_that_kill_every_worker_are_named(voc: Dataset, tmp_path: Path) -> None:
    message = rf"{MAX_ATTEMPTS} Ray actors died on the images 2007_000000 to 2007_000015 \(.*died unexpectedly"
    with pytest.raises(DeviceError, match=message):
        scores_by(RayEngine(partial(Failing, tmp_path, 99), actors=1), FakeRay(), voc)


class Refusing(Doomed):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        raise ModelError("no such output")


def test_errors_come_back_as_they_were_raised(voc: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no such output$"):
        scores_by(RayEngine(partial(Refusing, tmp_path, 0), actors=3), FakeRay(), voc)
