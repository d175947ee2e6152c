"""One bench run from its first item to its run file: calibration, forecast, outcomes, and writing."""

from __future__ import annotations

import functools
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from segcore.core.bench_options import Choices
from segcore.core.errors import DeviceError, OutputError, RecordError
from segcore.core.labels import LabelSet
from segcore.core.record_int8 import Int8Record
from segcore.core.records import (
    Benchmark,
    BenchmarkRecord,
    CaseRecord,
    LabelsRecord,
    OutcomeRecord,
    Run,
    RunRecord,
    WarningRecord,
)
from segcore.inference.allocator import keep_freed_memory
from segcore.inference.devices import open_device
from segcore.inference.preprocess import calibration_photos
from segcore.inputs.download import FetchSettings
from segcore.judgement.statistics import rounds_needed
from segcore.measurement.calibration import calibrate, matmul_rate
from segcore.measurement.conditions import (
    describe,
    neighbour_warnings,
    read_state,
    reference_warnings,
    run_warnings,
)
from segcore.measurement.energy import EnergyCounter, open_counter
from segcore.measurement.gpu import BoardWatch, open_watch
from segcore.measurement.machine import fingerprint, git_commit, package_versions, repository_root
from segcore.measurement.neighbours import Neighbours
from segcore.measurement.reference import ReferenceTask
from segcore.plugin.arguments import DefaultRounds
from segcore.plugin.options import load_plan
from segcore.plugin.plan import PlanItem, estimate_seconds
from segcore.plugin.resources import Resources, gmacs_per_pixel
from segcore.plugin.selection import command_line, selected_paths, selected_values
from segcore.plugin.storage import benchmark_session, take_over_saving
from segcore.results.journal import Journal
from segcore.results.naming import UNSAVED
from segcore.results.store import benchmark_entry, parse_run, save_document

EXPECTED_EFFICIENCY = 0.4
"""Assumed rate of a network relative to the calibrated peak in fp32, for the forecast."""
OVERHEAD_S = 0.02
"""Assumed time to decode and prepare a photo, for the forecast."""
SKIP_S = 0.02
START_S = 5.0
"""Assumed time to start a further process, for the forecast."""


class RoundTimer:
    """pytest-benchmark's timer, with a call before each reading."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self.before: Callable[[], None] = lambda: None
        functools.update_wrapper(self, timer)  # its name is recorded

    def __call__(self) -> float:
        """Return the time."""
        self.before()
        return self._timer()


def _energy_counter(device: str) -> EnergyCounter | None:
    try:
        return open_counter(device)
    except DeviceError:  # there is none that can be read
        return None


class BenchSession:
    """State that the items of one run share. The constructor fetches photos and weights, calibrates, chooses the file.

    `items` are the selected ones, by node id, in order; nodes of one item (repetitions) share its key. `deselected` has
    the keys of items that were collected and that the command line then deselected.
    """

    def __init__(
        self, config: pytest.Config, choices: Choices, items: Mapping[str, PlanItem], deselected: Sequence[str]
    ) -> None:
        keep_freed_memory()
        self.config = config
        self.items = dict(items)
        self.order = {key: i for i, key in enumerate(dict.fromkeys(item.key for item in items.values()))}
        """Position of each item in the run, by key."""
        options = command_line(config)
        self._selection = selected_values(options)
        self._paths = selected_paths(config, options)
        self._deselected = tuple(dict.fromkeys(deselected))
        settings = FetchSettings.from_env()
        self.resources = Resources(
            replace(settings, offline=True) if choices.offline else settings,
            calibration_photos(choices.calibration, choices.precisions),
        )
        self.choices = choices
        self.run: Run | None = None
        """The run as it was when it was written last, or could not be written."""
        self._saved = False
        self.write_error = ""
        self.unwritten: list[str] = []
        """Why pictures and traces could not be written."""
        self.outcomes: dict[str, OutcomeRecord] = {}
        """Outcome of the last execution of each item, by key."""
        self.labels: dict[str, LabelSet] = {}
        """Label sets of the models loaded so far, by digest."""
        self.int8: list[Int8Record] = []
        self._own: dict[str, dict[str, Any]] = {}
        """Results that pytest-benchmark does not keep, in its format, by key of the item."""
        self._start = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._before = read_state()
        self.machine = fingerprint()
        self.git = git_commit(config.invocation_params.dir)
        self._calibration_change: float | None = None
        self._watches: dict[str, BoardWatch | None] = {}
        self.warm: set[tuple[object, ...]] = set()
        """Keys of the calls that have been warmed up in this process."""
        self.energy_counter = cache(_energy_counter)
        self.reference = cache(lambda device: ReferenceTask(open_device(device)))
        self._round_timers: dict[Callable[[], float], RoundTimer] = {}
        timed = not benchmark_session(config).disabled
        if timed:  # the first item of a run would load it after it was measured: all are to take the same memory
            import scipy.stats  # noqa: F401
        self.processes = choices.processes if timed else 1
        self.neighbours = Neighbours(choices.wait if timed else 0.0)
        self.file = take_over_saving(config)
        self._journal = Journal(self.file.path, self._started)
        try:
            self._prepare()
        except BaseException:  # also an interruption
            self.file.release()
            raise
        self.processes_left = self.processes - 1
        """How many have not measured yet."""

    def _prepare(self) -> None:
        self.skips = {node: error for node, item in self.items.items() if (error := self.resources.why_not(item))}
        """Why an item cannot run, by node id."""
        timed = not benchmark_session(self.config).disabled
        items = [item for node, item in self.items.items() if timed and node not in self.skips]
        used = [backend for item in items for backend in ((item.device, "fp32"), (item.device, item.precision))]
        found = (calibrate(open_device(device), precision) for device, precision in dict.fromkeys(used))
        self.calibration = tuple(record for record in found if record)
        self.estimates = {n: SKIP_S if n in self.skips else self._estimate(item) for n, item in self.items.items()}
        """Estimated seconds, by node id, and by ``process 2`` and so on."""
        further = sum(self.estimates[n] for n, item in self.items.items() if item.kind in ("latency", "throughput"))
        if not further:
            self.processes = 1
        self.estimates |= {f"process {n}": START_S + further for n in range(2, self.processes + 1)}

    def _estimate(self, item: PlanItem) -> float:
        if not self.calibration:  # benchmarks are disabled: every item is called once
            return SKIP_S
        rate = next(record.peak_gmacs_per_s for record in self.calibration if record.device == item.device)
        gmacs = gmacs_per_pixel(item.model) * item.size**2 * 4 / 3  # photos are about 4:3
        call_s = item.batch * (gmacs / (rate * EXPECTED_EFFICIENCY) + OVERHEAD_S)
        if item.scenario:
            return load_plan(self.choices, item.scenario, item.batch).expected_seconds(call_s)
        option = self.config.option
        rounds = option.benchmark_min_rounds
        rounds = math.ceil(rounds_needed(0.5) / self.processes) if isinstance(rounds, DefaultRounds) else rounds
        return estimate_seconds(item.kind, call_s, rounds, float(option.benchmark_max_time))

    def look_at_board(self, device: str) -> None:
        """Read clock, temperature, power and throttling of a CUDA device, for the conditions of the run."""
        if device not in self._watches:
            self._watches[device] = open_watch(device)
        if watch := self._watches[device]:
            watch.look()

    def round_timer(self, timer: Callable[[], float], before: Callable[[], None]) -> RoundTimer:
        """Return a timer that calls `before` first; of all items the same, as pytest-benchmark keeps its precision."""
        found = self._round_timers.setdefault(timer, RoundTimer(timer))
        found.before = before
        return found

    def release_items(self) -> None:
        """Release the models of items that have ended, before other processes need the memory."""
        for timer in self._round_timers.values():
            timer.before = lambda: None
        self.resources.release()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    @cached_property
    def pictures(self) -> Path:
        """Directory for class maps and overlays, without those of the run that this one replaces."""
        if self.file.path.stem == UNSAVED:
            shutil.rmtree(self.file.pictures, ignore_errors=True)
        return self.file.pictures

    def begin(self, node: str) -> None:
        """Discard what an earlier execution of an item has measured: the last one counts."""
        key = self.items[node].key
        if self.outcomes.pop(key, None) is not None:
            self._own.pop(key, None)
            benchmarks = benchmark_session(self.config).benchmarks
            nodes = {node for node, item in self.items.items() if item.key == key}
            benchmarks[:] = [benchmark for benchmark in benchmarks if benchmark.fullname not in nodes]

    def add(self, node: str, samples: tuple[float, ...], record: BenchmarkRecord) -> None:
        """Keep the result of an item that pytest-benchmark does not time."""
        item = self.items[node]
        self._own[item.key] = benchmark_entry(node.rpartition("::")[2], node, samples, record, item.params)

    def measured(self, node: str) -> Benchmark | None:
        """Return what an item has measured in this process, None if it has measured nothing."""
        own = self._own.get(self.items[node].key)
        if own is not None:
            samples, record = own["stats"]["data"], own["extra_info"]["segcore"]
        else:
            last = next(iter(benchmark_session(self.config).benchmarks[-1:]), None)
            if last is None or last.fullname != node or "segcore" not in last.extra_info:
                return None
            samples, record = last.stats.data, last.extra_info["segcore"]
        return Benchmark(name=node, samples=tuple(samples), info=BenchmarkRecord.model_validate(record))

    def not_written(self, error: OutputError) -> WarningRecord:
        """Keep why a picture or trace could not be written, for the end of the run; return the warning of its item."""
        self.unwritten.append(str(error))
        return WarningRecord(code="not-written", text=str(error))

    def save_item(self, node: str) -> None:
        """Save an item that has ended, so that its result survives if the process is killed.

        The first item writes the run file, and so does the first with another label set, which the file has; others are
        appended to its journal, at the same cost for each.
        """
        new_labels = self.run is not None and len(self.run.record.labels) < len(self.labels)
        if not self._saved or new_labels:
            if not self.write_error:  # else it is tried again at the end
                self.write()
            return
        key = self.items[node].key
        entries = [self._own[key]] if key in self._own else []
        last = benchmark_session(self.config).benchmarks[-1:]
        entries += [b.as_dict() for b in last if b and b.fullname == node and not b.has_error]
        try:
            self._journal.append(entries, self.outcomes[key])
        except OutputError as error:
            self.write_error = str(error)

    def finish(self) -> None:
        """Repeat the matrix product of the calibration and write the run, unless it has measured nothing."""
        self.release_items()
        if not self.outcomes and not self._own:
            self.file.release()
            return
        if self.calibration and self._complete:
            first = self.calibration[0]
            self._calibration_change = matmul_rate(open_device(first.device)) / first.matmul_gmacs_per_s - 1
        for entry in self._speed_entries():
            loads = [entry["other_load"], *(process["other_load"] for process in entry["processes"])]
            entry["warnings"] += [warning.model_dump(mode="json") for warning in neighbour_warnings(loads)]
        self.write(last=True)

    def _speed_entries(self) -> list[dict[str, Any]]:
        """Return the records of speed items, as they will be written."""
        found = [bench.extra_info.get("segcore") for bench in benchmark_session(self.config).benchmarks if bench]
        return [entry for entry in found if entry]

    def _references_s(self) -> list[float]:
        """Return the median seconds of the reference task in each process of each item."""
        entries = self._speed_entries()
        found = [times for e in entries for times in (e["reference"], *(p["reference"] for p in e["processes"]))]
        return [statistics.median(times) for times in found if times]

    @property
    def _complete(self) -> bool:
        return len(self.outcomes) == len(self.order) and not self.processes_left

    def write(self, *, last: bool = False) -> None:
        """Write the run so far; a failure is kept in `write_error`, so that measuring goes on."""
        _ = self.pictures  # deletes those of the run that this one replaces
        self.write_error = ""
        try:
            document = self._document()
            self.run = parse_run(document, self.file.path)
            save_document(self.file.path, document)
            self._journal.discard()
            self._saved = True
            for path in self.file.copies:
                save_document(path, document)
                self._copy_pictures(path.parent / self.file.pictures.name)
            for path in self.file.streams if last else ():
                save_document(path, document)
        except (OutputError, RecordError) as error:
            self.write_error = str(error)

    def _copy_pictures(self, target: Path) -> None:
        """Copy the pictures beside a copy of the run file: readers open none outside the directory of a run file."""
        if self.file.pictures.is_dir() and target != self.file.pictures:
            try:
                shutil.copytree(self.file.pictures, target, dirs_exist_ok=True)
            except OSError as error:  # shutil.Error is one
                self.unwritten.append(f"{target}: pictures were not copied: {error}")

    def _document(self) -> dict[str, Any]:
        """Return the run as pytest-benchmark's JSON, with the additions of any plugin (ours: `amend_document`)."""
        hook = self.config.hook
        benchmarks = [bench for bench in benchmark_session(self.config).benchmarks if bench]  # interrupted: empty
        machine_info, commit_info = self._infos
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=self.config,
            benchmarks=benchmarks,
            include_data=True,
            machine_info=machine_info,
            commit_info=commit_info,
        )
        hook.pytest_benchmark_update_json(config=self.config, benchmarks=benchmarks, output_json=document)
        return document

    @cached_property
    def _infos(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """pytest-benchmark's machine and commit information, which takes half a second to collect."""
        hook = self.config.hook
        commit_info = hook.pytest_benchmark_generate_commit_info(config=self.config)
        hook.pytest_benchmark_update_commit_info(config=self.config, commit_info=commit_info)
        return benchmark_session(self.config).get_machine_info(), commit_info

    def amend_document(self, document: dict[str, Any]) -> None:
        """Add our own items and the record of the run to pytest-benchmark's document."""
        positions = {node: self.order[item.key] for node, item in self.items.items()}
        document["benchmarks"] += self._own.values()
        document["benchmarks"].sort(key=lambda entry: positions.get(entry["fullname"], len(positions)))
        document["segcore"] = self._run_record().model_dump(mode="json")

    def _run_record(self) -> RunRecord:
        after = read_state()
        watches = [watch for watch in self._watches.values() if watch]
        conditions = describe(self._before, after)
        if self.reference.cache_info().currsize:
            conditions["waited"] = f"{self.neighbours.waited_s:.0f} s for other processes"
        for watch in watches:
            conditions |= watch.conditions()
        return RunRecord(
            name=self.file.name,
            started=self._started,
            duration_s=round(self.elapsed_s, 3),
            complete=self._complete,
            command=("pytest", *self.config.invocation_params.args),
            machine=self.machine,
            conditions=conditions,
            calibration=self.calibration,
            versions=package_versions(),
            git=self.git,
            selection=self._selection,
            deselected=self._deselected,
            paths=self._paths,
            outcomes=tuple(self.outcomes.values()),
            warnings=(
                *run_warnings(self._before, after, self._calibration_change),
                *reference_warnings(self._references_s()),
                *(warning for watch in watches for warning in watch.warnings()),
            ),
            labels=tuple(map(LabelsRecord.of, self.labels.values())),
            int8=tuple(self.int8),
            cases=self._cases,
        )

    @cached_property
    def _cases(self) -> tuple[CaseRecord, ...]:
        root = repository_root(self.config.invocation_params.dir).resolve()
        cases = {item.case.name: item.case for item in self.items.values()}
        files = {name: Path(os.path.relpath(case.source_file.resolve(), root)) for name, case in cases.items()}
        return tuple(CaseRecord(name=name, file=files[name].as_posix(), line=case.line) for name, case in cases.items())
