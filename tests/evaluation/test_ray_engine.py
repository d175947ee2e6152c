"""Tests on a real Ray cluster of this machine, with actors killed while they work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from segcore.core.errors import DeviceError, ModelError
from segcore.core.labels import VOC, LabelSet
from segcore.evaluation.datasets import ScoringOptions, evaluate
from segcore.evaluation.ray_engine import MAX_ATTEMPTS, RayEngine
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import Dataset, open_dataset
from tests.support.networks import TinyNet
from tests.support.pairs import make_voc

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install segcore[ray]")
# Ray itself leaves sockets and subprocesses open and emits warnings.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
IMAGES = 40


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("voc")
    make_voc(root, IMAGES)
    (root / "JPEGImages" / "2007_000021.jpg").write_bytes(b"")  # cannot be read
    return open_dataset("voc", root)


@pytest.fixture(autouse=True, scope="module")
def cluster() -> Iterator[None]:
    root = str(Path(__file__).parents[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}}
        )
        yield
        ray.shutdown()


def make_tiny() -> Segmenter:
    return Segmenter(TinyNet(), device="cpu", size=32)


@dataclass
class Doomed:
    """A model whose process is killed in the forward pass, `deaths` times in all; each death leaves a file."""

    graves: Path
    deaths: int
    size: int = 32
    labels: LabelSet = VOC

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


def test_a_killed_actor_does_not_change_figures(voc: Dataset, tmp_path: Path) -> None:
    protocols = ("voc-original", "per-image")
    local = evaluate(make_tiny(), voc, protocols=protocols, options=ScoringOptions(batch=2))
    options = ScoringOptions(batch=2, journal=tmp_path.parent / f"{tmp_path.name}.jsonl")
    engine = RayEngine(partial(Doomed, tmp_path, 1), actors=2)
    distributed = evaluate(make_tiny(), voc, protocols=protocols, options=options, engine=engine)
    assert len(list(tmp_path.iterdir())) == 1  # one actor was killed
    assert distributed.results == local.results
    assert distributed.fractions == local.fractions
    assert list(distributed.failed) == ["2007_000021"]
    assert options.journal is not None
    assert len(options.journal.read_text().splitlines()) == 1 + IMAGES - 1  # no image twice


def test_images_that_kill_every_actor_are_named(voc: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=rf"{MAX_ATTEMPTS} Ray actors died on the images 2007_000000 to 2007_000015"):
        evaluate(make_tiny(), voc, engine=RayEngine(partial(Doomed, tmp_path, 99), actors=1))
    assert len(list(tmp_path.iterdir())) == MAX_ATTEMPTS


class Refusing(Doomed):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        raise ModelError("no such output")


def no_model() -> Segmenter:
    raise ModelError("no such model")


@pytest.mark.parametrize(
    ("make", "message"), [(partial(Refusing, Path(), 0), "no such output"), (no_model, "no such model")]
)
def test_exceptions_are_raised_as_in_the_actor(voc: Dataset, make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=rf"^{message}$"):
        evaluate(make_tiny(), voc, engine=RayEngine(make, actors=1))


@pytest.mark.parametrize("wanted", [{"cpus": 99}, {"gpus": 8.0}])
def test_actors_that_do_not_fit_are_refused(voc: Dataset, wanted: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="the Ray cluster has 2 CPUs and 0 GPUs, an actor needs"):
        evaluate(make_tiny(), voc, engine=RayEngine(make_tiny, **wanted))
