"""Commands on small inputs, and what must hold after they were killed or run at once."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tools.trial_process import Process

REPOSITORY = Path(__file__).parents[1]
PHOTOS = 24


class Command(ABC):
    """A command on small inputs, and what must hold after it was killed."""

    imports: ClassVar[tuple[str, ...]] = ()
    """Modules to import once, before forking."""
    environment: ClassVar[dict[str, str]] = {}
    codes: ClassVar[tuple[int, ...]] = (0,)
    """Exit codes of a complete run."""

    def __init__(self, inputs: Path, fresh: bool) -> None:
        self.inputs, self._fresh = inputs, fresh
        draw_photos(inputs)

    def start(self, directory: Path, again: bool = False) -> Process:
        """Start the command; `again` after it was killed."""
        environment = {**self.environment, "SEGCORE_CACHE": str(directory / "cache")}
        return Process(self.arguments(again), directory, environment, self._fresh)

    def prepare(self, directory: Path) -> None:  # noqa: B027  # optional
        """Fill the directory of a trial."""

    @abstractmethod
    def arguments(self, again: bool) -> list[str]:
        """Return the arguments of the interpreter; see `start`."""

    @abstractmethod
    def result(self, directory: Path) -> Any:
        """Return what a complete run has written, without what differs between runs; raise if it is incomplete."""

    @abstractmethod
    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        """Raise if something reported as done is missing, or a file is half-written."""

    def check_again(self, directory: Path, output: str) -> None:  # noqa: B027  # optional
        """Raise if the second start repeated finished work."""

    def check_at_once(self, directory: Path, codes: Sequence[int]) -> None:
        """Raise if one of several processes in one directory failed."""
        assert set(codes) <= set(self.codes), f"exit codes {codes}"


class Segment(Command):
    """Masks and overlays of photos."""

    imports = ("torch", "segcore.cli.segment", "segcore.inference.pipeline", "segcore.core.legend")

    def arguments(self, again: bool) -> list[str]:
        photos = map(str, sorted((self.inputs / "JPEGImages").iterdir()))
        return ["-m", "segcore", "segment", *photos, *EMBEDDED]

    def result(self, directory: Path) -> Any:
        found = files(directory / "segmented")
        assert len(found) == 2 * PHOTOS, f"{len(found)} of {2 * PHOTOS} pictures"
        return found

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        assert files(directory / "segmented").items() <= reference.items(), "a picture is half-written"


class Quantise(Command):
    """An int8 network in the cache, and the masks that it makes."""

    imports = (*Segment.imports, "nncf", "onnxruntime", "segcore.inference.runtimes.export")

    def arguments(self, again: bool) -> list[str]:
        photo = str(self.inputs / "JPEGImages" / "p0.jpg")
        how = ["--runtime", "onnxruntime", "--precision", "int8", "--calibration", photo]
        return ["-m", "segcore", "segment", photo, *how, *EMBEDDED]

    def result(self, directory: Path) -> Any:
        found = files(directory / "segmented")
        assert len(found) == 2, "pictures are missing"
        return found

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        import onnx

        for path in visible(directory / "cache" / "artifacts", "*.onnx"):
            onnx.checker.check_model(onnx.load(path))
        assert files(directory / "segmented").items() <= reference.items(), "a picture is half-written"


class Evaluate(Command):
    """Scores of a dataset, resumed from the journal."""

    imports = ("torch", "segcore.cli.evaluate", "segcore.evaluation.datasets", "segcore.evaluation.pictures")

    def arguments(self, again: bool) -> list[str]:
        what = ["--dataset", "voc", "--root", str(self.inputs), "--out", "out.json", *EMBEDDED[:-1]]
        return ["-m", "segcore", "evaluate", *what, *(["--resume"] if again else [])]

    def result(self, directory: Path) -> Any:
        from segcore.results.store import load_run

        (benchmark,) = load_run(directory / "out.json").benchmarks
        assert benchmark.info.dataset is not None
        return benchmark.info.dataset.model_dump()

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        names = self._scored(directory)
        assert len(names) == len(set(names)), "an image is in the journal twice"
        (directory / "scored").write_text(str(len(names)))
        if (directory / "out.json").exists():
            assert self.result(directory) == reference, "the run file is incomplete"
        else:
            assert "run file: out.json" not in output, "the run file is lost"

    def check_again(self, directory: Path, output: str) -> None:
        names, before = self._scored(directory), int((directory / "scored").read_text())
        assert len(names) == len(set(names)) == PHOTOS, f"{len(names)} lines in the journal, {len(set(names))} images"
        resumed = re.search(r"(\d+) of the images scored by an earlier run", output)
        assert int(resumed[1] if resumed else 0) == before, f"{before} images were scored, resumed: {resumed}"

    def check_at_once(self, directory: Path, codes: Sequence[int]) -> None:
        assert 0 in codes, f"exit codes {codes}"
        assert set(codes) <= {0, 2}, f"exit codes {codes}"  # 2: another one writes the journal

    @staticmethod
    def _scored(directory: Path) -> list[str]:
        journal = directory / "out.journal.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []  # the last one may be cut off
        return [json.loads(line)["name"] for line in lines[1:]]


class Bench(Command):
    """A benchmark run that is saved under a name; the second start is a run of its own."""

    imports = ("torch", "segcore.plugin.collect", "segcore.plugin.hooks", "segcore.plugin.load", "segcore.report.html")

    def prepare(self, directory: Path) -> None:
        shutil.copytree(REPOSITORY / "bench", directory / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(self.inputs / "cases", directory / "cases")

    def arguments(self, again: bool) -> list[str]:
        quick = [
            "--segcore-processes=2",
            "--segcore-wait=0",
            "--benchmark-max-time=0.02",
            "--benchmark-min-rounds=3",
            "-p",
            "no:cacheprovider",
            "-v",
        ]
        return ["-m", "pytest", "bench", "--benchmark-save=trial", "--segcore-device=cpu", "--segcore-batch=1", *quick]

    def result(self, directory: Path) -> Any:
        run = self._runs(directory)[-1]
        assert run.record.complete, "the run is incomplete"
        accuracy = {b.info.key: b.info.accuracy.fractions for b in run.benchmarks if b.info.accuracy}
        return sorted((o.key, o.outcome) for o in run.record.outcomes), accuracy, {b.info.key for b in run.benchmarks}

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        reported = set(re.findall(r"\[(\S+-cpu-\S+)\] PASSED", output))
        saved = {key for run in self._runs(directory) for key in (b.info.key for b in run.benchmarks)}
        assert reported <= {key.partition("[")[2].removesuffix("]") for key in saved}, f"{reported} are not in {saved}"

    def check_again(self, directory: Path, output: str) -> None:
        assert len(self._runs(directory)) <= 2

    def check_at_once(self, directory: Path, codes: Sequence[int]) -> None:
        super().check_at_once(directory, codes)
        runs = self._runs(directory)
        names = sorted(run.path.stem.partition("_")[0] for run in runs)
        assert names == [f"{number:04}" for number in range(1, len(codes) + 1)], f"runs {names}"
        assert all(run.record.complete for run in runs), "a run is incomplete"

    @staticmethod
    def _runs(directory: Path) -> list[Any]:
        from segcore.results.store import find_runs, load_run

        return [load_run(path) for path in find_runs(directory / "reports" / "runs")]


class Fetch(Command):
    """Photos of cases, downloaded from a slow server of this machine."""

    imports = ("segcore.cli.fetch", "segcore.inputs.download", "segcore.inputs.cases", "requests", "ruamel.yaml")

    def __init__(self, inputs: Path, fresh: bool) -> None:
        super().__init__(inputs, fresh)
        bodies = {f"/{n}.jpg": random.Random(n).randbytes(400_000) for n in range(4)}
        address = serve(bodies)
        self.environment = {"SEGCORE_ALLOW_HTTP": "127.0.0.1"}  # type: ignore[misc]  # knows the cache by then
        cases = [
            f"  - {{name: c{path[1]}, image: {{url: 'http://{address}{path}', "
            f"sha256: {hashlib.sha256(body).hexdigest()}}}, expect: {{dominant: cat}}}}"
            for path, body in bodies.items()
        ]
        (inputs / "fetched.yaml").write_text("\n".join(["cases:", *cases, ""]))

    def arguments(self, again: bool) -> list[str]:
        return ["-m", "segcore", "fetch", "--cases", str(self.inputs / "fetched.yaml")]

    def result(self, directory: Path) -> Any:
        found = files(directory / "cache", "*.jpg")
        assert len(found) == 4, f"{len(found)} of 4 photos"
        assert not visible(directory / "cache", "*.part*"), "a partial download is left"
        return {name.partition("-")[2]: digest for name, digest in found.items()}

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        found = {name.partition("-")[2]: digest for name, digest in files(directory / "cache", "*.jpg").items()}
        assert found.items() <= reference.items(), "a photo is half-written"
        for path in re.findall(r"^c\d: (\S+)$", output, re.MULTILINE):
            assert Path(path).is_file(), f"{path} is lost"


class Train(Command):
    """Weights, resumed from the checkpoint."""

    imports = ("torch", "training.train")

    def arguments(self, again: bool) -> list[str]:
        small = ["--steps", "12", "--tail", "4", "--batch", "2", "--crop", "64", "--save-every", "3"]
        how = [*small, "--held-out", "0", "--backbone-weights", "none"]
        return ["-m", "training.train", "--voc-root", str(self.inputs), "--workspace", "w", "--output", "out", *how]

    def result(self, directory: Path) -> Any:
        return files(directory, "out")

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        import torch

        checkpoint = directory / "w" / "checkpoint.pt"
        done = [int(step) for step in re.findall(r"step (\d+) loss", output)]
        step = torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0
        assert step >= max(done, default=0), f"step {max(done)} was saved, the checkpoint has {step}"
        assert files(directory, "out").items() <= reference.items(), "the weights are half-written"


class Gate(Command):
    """Two revisions of a small project, measured in turns."""

    imports = ("segcore.cli.gate", "segcore.paired.session", "segcore.paired.arms")
    environment: ClassVar[dict[str, str]] = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_benchmark.plugin",
    }
    codes = (0, 1, 3)  # any verdict

    def prepare(self, directory: Path) -> None:
        (directory / "bench").mkdir()
        (directory / "widget.py").write_text("def work():\n    return sum(range(4000))\n")
        (directory / "bench" / "test_widget.py").write_text(
            "import widget\n\ndef test_work(benchmark):\n    benchmark.pedantic(widget.work, rounds=3)\n"
        )
        (directory / "pytest.ini").write_text("[pytest]\n")
        (directory / ".gitignore").write_text("cache/\n__pycache__/\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            git(directory, *words)
        (directory / "widget.py").write_text("def work():\n    return sum(range(24000))\n")

    def arguments(self, again: bool) -> list[str]:
        return ["-m", "segcore", "gate", "--args", "bench", "--against", "HEAD", "--budget", "1", "--json"]

    def result(self, directory: Path) -> Any:
        """Return the state of the repository, which a gate must not change."""
        return git(directory, "status", "--porcelain"), git(directory, "worktree", "list").count("\n")

    def check_killed(self, directory: Path, output: str, reference: Any) -> None:
        assert git(directory, "status", "--porcelain") == reference[0], "the working tree has changed"
        assert not list(directory.glob(".git/**/*.lock")), "git is locked"

    def check_again(self, directory: Path, output: str) -> None:
        assert '"verdict"' in output, f"no verdict: {output[-300:]}"


EMBEDDED = ["--model", "embedded", "--device", "cpu", "--size", "64", "--offline", "--overlay"]
COMMANDS: dict[str, type[Command]] = {
    "bench": Bench,
    "evaluate": Evaluate,
    "gate": Gate,
    "fetch": Fetch,
    "segment": Segment,
    "quantise": Quantise,
    "train": Train,
}


def draw_photos(root: Path) -> None:
    """Write a VOC root of small photos and two cases."""
    import numpy as np
    from PIL import Image

    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "cases"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"p{index}" for index in range(PHOTOS)]
    for name in names:
        classes = np.zeros((72, 96), np.uint8)
        classes[12:50, 20:70] = 12
        pixels = rng.integers(0, 256, (72, 96, 3)).astype(np.uint8)
        pixels[classes == 12] = (200, 60, 30)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(classes).save(root / "SegmentationClass" / f"{name}.png")
    for split in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))
    shutil.copy(root / "JPEGImages" / "p0.jpg", root / "cases" / "photo.jpg")
    case = "{{name: {}, image: {{path: photo.jpg}}, models: [embedded], sizes: [64], expect: {{absent: [cow]}}}}"
    (root / "cases" / "all.yaml").write_text(f"cases:\n  - {case.format('one')}\n  - {case.format('two')}\n")


def serve(bodies: dict[str, bytes]) -> str:
    """Serve files in slow pieces, in a process that ends with this one; return host and port."""
    program = Path(__file__).with_name("slow_server.py")
    server = subprocess.Popen([sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps({path: body.hex() for path, body in bodies.items()}).encode() + b"\n")
    server.stdin.flush()  # and open until this process ends
    return server.stdout.readline().decode().strip()


def git(directory: Path, *words: str) -> str:
    """Return the output of git."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def visible(directory: Path, pattern: str = "*") -> list[Path]:
    """Return the files of a directory whose names do not begin with a dot."""
    return [path for path in sorted(directory.glob(pattern)) if path.is_file() and not path.name.startswith(".")]


def files(directory: Path, pattern: str = "*") -> dict[str, str]:
    """Return the SHA-256 of the visible files of a directory, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in visible(directory, pattern)}
