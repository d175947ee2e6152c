from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from segcore.cli import load as cli_load
from segcore.inference.models import load as load_model
from segcore.inference.pipeline import Segmenter
from segcore.measurement.load.driver import SystemClock
from segcore.measurement.load.search import MAX_RUNS
from tests.support.fakes import FakeClock

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = ["--model", "embedded", "--device", "cpu", "--size", "32"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["load", *map(str, arguments)], catch_exceptions=False)


def spoken(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, *FAST, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_offline() -> None:
    found = spoken("--scenario", "offline", "--queries", 5, "--batch", 2)
    (only,) = found["runs"]
    assert only["samples"] == [2, 2, 1]
    assert only["latency_s"] == sorted(only["latency_s"])
    assert found["result"]["samples_per_s"] == pytest.approx(5 / only["latency_s"][-1])
    assert "percentiles_s" not in found["result"]


def test_single_stream_with_everything_that_tells_what_ran_and_where() -> None:
    found = spoken("--scenario", "single-stream", "--queries", 64, "--seed", 3)
    (only,) = found["runs"]
    assert len(only["latency_s"]) == 64
    assert found["result"]["percentiles_s"]["p90"] == max(only["latency_s"])
    assert found["result"]["percentiles_s"]["p99"] is None
    assert found["result"]["queries_missing"] == {"p50": 0, "p90": 0, "p99": 598}
    assert found["weights"] == vars(load_model("embedded").weights)
    identity = ("model", "runtime", "precision", "device", "size", "seed", "photos")
    assert [found[key] for key in identity] == ["embedded", "torch", "fp32", "cpu", 32, 3, ["skimage:chelsea.png"]]
    assert found["runtime_options"]["threads"] == "1"
    assert found["machine"]["intra_op_threads"] == 1
    assert only["plan"]["least"] == 64


def test_multi_stream() -> None:
    found = spoken("--scenario", "multi-stream", "--streams", 2, "--queries", 3, "skimage:coffee.png", cli_load.PHOTO)
    assert found["runs"][0]["samples"] == [2] * 3
    assert len(found["photos"]) == 2
    assert found["result"]["queries_missing"]["p99"] == 659


def test_server_queries_are_due_when_the_seed_says() -> None:
    arguments = ("--scenario", "server", "--rate", 200, "--queries", 12)
    first, again, other = (spoken(*arguments, "--seed", seed)["runs"][0] for seed in (1, 1, 2))
    assert first["scheduled_s"] == again["scheduled_s"] != other["scheduled_s"]
    assert all(a >= b for a, b in zip(first["started_s"], first["scheduled_s"], strict=True))
    assert first["verdict"] is None


@pytest.fixture
def tenth(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A machine that takes a tenth of a second a photo, by a clock that goes on for nothing else."""
    clock = FakeClock()
    monkeypatch.setattr(SystemClock, "now", staticmethod(clock.now))
    monkeypatch.setattr(SystemClock, "sleep", staticmethod(clock.sleep))

    def take_time(self: Segmenter, photos: list[str], timer: object = None) -> None:
        clock.time += 0.1 * len(photos)

    monkeypatch.setattr(Segmenter, "run", take_time)
    return clock


SERVER = ("--scenario", "server", *FAST)


@pytest.mark.usefixtures("tenth")
@pytest.mark.parametrize(
    ("arguments", "code", "verdict"),
    [
        (("--rate", 1, "--max-p99-ms", 1000), 0, "valid"),
        (("--rate", 1, "--max-p99-ms", 1000, "--queries", 458), 3, "undecided"),
        (("--rate", 5, "--max-p99-ms", 110), 1, "invalid"),
        (("--rate", 11, "--max-p99-ms", 1e9), 1, "invalid"),  # more than the machine can do
        (("--rate", 11), 0, None),
        (("--max-p99-ms", 1000), 0, "valid"),
        (("--max-p99-ms", 99), 1, "invalid"),
        (("--max-p99-ms", 1000, "--duration", 0.1), 0, "valid"),
    ],
)
def test_the_limit_decides_the_exit_code(arguments: tuple[object, ...], code: int, verdict: str | None) -> None:
    result = run(*SERVER, *arguments, "--json")
    assert json.loads(result.stdout)["result"].get("verdict") == verdict
    assert result.exit_code == code


def test_a_search_shows_every_rate_and_what_it_found(tenth: FakeClock) -> None:
    result = run(*SERVER, "--max-p99-ms", 500)
    tenth.time = 0.0  # or differences of later times are rounded differently
    found = json.loads(run(*SERVER, "--max-p99-ms", 500, "--json").stdout)
    highest, failed = (found["result"][key] for key in ("highest_valid_rate", "lowest_failed_rate"))
    assert f"Highest rate shown to keep the limit: {highest:.3g} queries/s; {failed:.3g} was not" in result.stdout
    probe, *tried = found["runs"]
    assert probe["plan"]["scenario"] == "single-stream"
    assert 2 <= len(tried) <= MAX_RUNS
    assert all(f"{each['plan']['rate']:.3g} " in result.stdout for each in tried)
    told = [line.split(" queries/s: ") for line in result.stderr.splitlines()]
    assert [rate for rate, _ in told] == [f"{each['plan']['rate']:.3g}" for each in tried]
    assert [text.split(",")[0] for _, text in told] == [each["verdict"] for each in tried]
    assert {each["verdict"] for each in tried if each["plan"]["rate"] > highest}.isdisjoint({"valid"})
    (best,) = (each for each in tried if each["plan"]["rate"] == highest)
    assert found["result"]["percentiles_s"]["p99"] <= 0.5
    assert found["result"]["samples_per_s"] == pytest.approx(highest, rel=0.1)
    assert len(best["latency_s"]) >= 662


@pytest.mark.usefixtures("tenth")
def test_percentiles_that_are_not_proven_are_not_printed() -> None:
    shown = run("--scenario", "single-stream", "--queries", 64, *FAST).stdout
    assert "64 queries, 64 photos in 6.4 s: 10.0 photos/s" in shown
    assert "p90  at most 100 ms" in shown
    assert "p99  needs 598 more queries" in shown
    assert "p99" not in run("--scenario", "offline", "--queries", 64, *FAST).stdout


@pytest.mark.usefixtures("tenth")
def test_an_undecided_run_says_what_it_would_take() -> None:
    shown = run(*SERVER, "--rate", 1, "--max-p99-ms", 1000, "--queries", 458).stdout
    assert "1 more query in time would show that the limit is kept." in shown


@pytest.mark.usefixtures("tenth")
def test_everything_can_be_read_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run(*SERVER, "--max-p99-ms", 500).stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert not any("…" in line for line in lines)


@pytest.mark.usefixtures("tenth")
def test_a_bar_comes_on_a_terminal_and_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--scenario", "single-stream", "--queries", 5, *FAST)
    monkeypatch.setattr(cli_load, "QUIET_SECONDS", 0.0)
    assert run(*arguments).stderr == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "single-stream" in run(*arguments).stderr
    monkeypatch.setattr(cli_load, "QUIET_SECONDS", 3600.0)
    assert "single-stream" not in run(*arguments).stderr


def test_an_interrupt_keeps_what_was_measured(
    tenth: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Segmenter.run

    def interrupted(self: Segmenter, photos: list[str], timer: object = None) -> object:
        if tenth.time > 5:
            raise KeyboardInterrupt
        return whole(self, photos)

    monkeypatch.setattr(Segmenter, "run", interrupted)
    out = tmp_path / "new" / "load.json"
    result = run("--scenario", "single-stream", *FAST, "--out", out)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "segcore: interrupted"
    (only,) = json.loads(out.read_text())["runs"]
    assert only["complete"] is False
    assert f"{len(only['latency_s'])} queries" in result.stdout
    tenth.time = 0.0
    searching = run(*SERVER, "--max-p99-ms", 500)
    assert searching.exit_code == 130
    assert "Highest" not in searching.stdout


@pytest.mark.usefixtures("tenth")
def test_random_weights_are_marked() -> None:
    assert "weights are random" in run("--scenario", "offline", "--queries", 1, "--weights", "random", *FAST).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--scenario'"),
        (("--scenario", "sever"), "is not one of"),
        (("--scenario", "server"), "--scenario server wants --rate"),
        (("--scenario", "offline", "--rate", 2), "--rate is for --scenario server, not offline"),
        (
            ("--scenario", "single-stream", "--streams", 2),
            "--streams is for --scenario multi-stream, not single-stream",
        ),
        (("--scenario", "server", "--rate", 1, "--batch", 2), "--batch is for --scenario offline, not server"),
        (("--scenario", "server", "--max-p99-ms", 9, "--queries", 458), "it takes 459"),
        (("--scenario", "server", "--rate", 1, "--max-p99-ms", "nan"), "--max-p99-ms nan: wanted a finite number"),
        (("--scenario", "offline", "--duration", "inf"), "--duration inf: wanted a finite number"),
        (("--scenario", "server", "--rate", 1e9), "a run of 10,000,000,000 queries"),
        (("--scenario", "server", "--rate", 0), "0.0 is not in the range"),
        (("--scenario", "offline", "--queries", 2, "--duration", 3), "choose one"),
        (("--scenario", "offline", "no.jpg", *FAST), "no.jpg: there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[object, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_cannot_be_written_is_said_after_the_result(tmp_path: Path, tenth: FakeClock) -> None:
    (tmp_path / "file").touch()
    result = run("--scenario", "offline", "--queries", 1, *FAST, "--out", tmp_path / "file" / "load.json")
    assert result.exit_code == 2
    assert "1 query, 1 photo in" in result.stdout
    assert "cannot be written" in result.stderr
