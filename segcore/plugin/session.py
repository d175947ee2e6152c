"""One bench run from its first item to its run file: calibration, forecast, outcomes, and writing after every item."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from segcore.core.errors import DeviceError, OutputError, RecordError
from segcore.core.records import BenchmarkRecord, OutcomeRecord, Run, RunRecord
from segcore.inference.allocator import keep_freed_memory
from segcore.inference.devices import open_device
from segcore.inference.preprocess import calibration_photos
from segcore.inputs.download import FetchSettings
from segcore.measurement.calibration import calibrate, matmul_rate
from segcore.measurement.conditions import describe, read_state, run_warnings
from segcore.measurement.energy import EnergyCounter, open_counter
from segcore.measurement.machine import fingerprint, git_commit, package_versions
from segcore.plugin.options import Choices
from segcore.plugin.plan import PlanItem, estimate_seconds
from segcore.plugin.resources import Resources, gmacs_per_pixel
from segcore.plugin.storage import benchmark_session, take_over_saving
from segcore.results.store import benchmark_entry, parse_run, save_document

EXPECTED_EFFICIENCY = 0.4
"""Share of the calibrated convolution rate that a network is expected to reach, for the forecast alone."""
OVERHEAD_S = 0.02
"""Decoding and preparing a photo, for the forecast alone."""
SKIP_S = 0.02
PICTURE_FIELDS = ("class_map", "margin_map", "photo", "overlay")


class BenchSession:
    """What the items of one run share. Making one looks for photos and weights, calibrates and chooses the file.

    Args:
        config: pytest's.
        choices: the command line.
        items: what was selected to run, by node id, in order.
    """

    def __init__(self, config: pytest.Config, choices: Choices, items: Mapping[str, PlanItem]) -> None:
        keep_freed_memory()
        self.config = config
        self.items = dict(items)
        self.order = {node: position for position, node in enumerate(items)}
        settings = FetchSettings.from_env()
        self.resources = Resources(
            replace(settings, offline=True) if choices.offline else settings,
            calibration_photos(choices.calibration, choices.precisions),
        )
        self.load = choices.load
        self.profiles = choices.profile
        """Where the traces of latency items go, if anywhere."""
        self.file = take_over_saving(config)
        self.run: Run | None = None
        """The run so far, as it is in the file."""
        self.write_error = ""
        self.outcomes: dict[str, OutcomeRecord] = {}
        self._start = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._before = read_state()
        self._machine = fingerprint()
        self._git = git_commit(config.invocation_params.dir)
        self._own: list[tuple[str, tuple[float, ...], BenchmarkRecord]] = []
        """What items that pytest-benchmark does not time have measured: node id, samples and record."""
        self._calibration_change: float | None = None
        self._counters: dict[str, EnergyCounter | None] = {}
        self.skips = {node: error for node, item in items.items() if (error := self.resources.why_not(item))}
        """Reasons, by node id, for not running an item."""
        timed = not benchmark_session(config).disabled
        devices = dict.fromkeys(item.device for node, item in items.items() if timed and node not in self.skips)
        self.calibration = tuple(calibrate(open_device(name)) for name in devices)
        self.estimates = {i.key: SKIP_S if node in self.skips else self._estimate(i) for node, i in items.items()}

    def _estimate(self, item: PlanItem) -> float:
        if not self.calibration:  # benchmarks are disabled: every item is called once
            return SKIP_S
        rate = next(record.conv_gmacs_per_s for record in self.calibration if record.device == item.device)
        # Photos are about 4:3.
        gmacs = gmacs_per_pixel(item.model) * item.size**2 * 4 / 3
        call_s = item.batch * (gmacs / (rate * EXPECTED_EFFICIENCY) + OVERHEAD_S)
        if item.scenario:
            return self.load.plan(item.scenario, item.batch).expected_seconds(call_s)
        option = self.config.option
        return estimate_seconds(item.kind, call_s, option.benchmark_min_rounds, float(option.benchmark_max_time))

    def energy_counter(self, device: str) -> EnergyCounter | None:
        """Return the energy counter of a device, None where there is none that may be read."""
        if device not in self._counters:
            try:
                self._counters[device] = open_counter(device)
            except DeviceError:
                self._counters[device] = None
        return self._counters[device]

    @property
    def seconds_so_far(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def add(self, node: str, samples: tuple[float, ...], record: BenchmarkRecord) -> None:
        """Keep the result of an item that pytest-benchmark does not time."""
        self._own.append((node, samples, record))

    def finish(self) -> None:
        """Look at the machine once more and write the run for the last time."""
        self.resources.release()
        if self.calibration and self._complete:
            first = self.calibration[0]
            self._calibration_change = matmul_rate(open_device(first.device)) / first.matmul_gmacs_per_s - 1
        self.write()

    @property
    def _complete(self) -> bool:
        return len(self.outcomes) == len(self.items)

    def write(self) -> None:
        """Write the run so far; a failure is kept in `write_error`, so that measuring goes on."""
        try:
            for path in reversed(self.file.paths):
                document = self._document()
                _place_pictures(document, os.path.relpath(self.file.pictures, path.parent))
                save_document(path, document)
                self.run = parse_run(document, path)
        except (OutputError, RecordError) as error:
            self.write_error = str(error)

    def _document(self) -> dict[str, Any]:
        """The whole run as pytest-benchmark's JSON, with what any plugin adds to it (see `amend_document`)."""
        benchmarks = [bench for bench in benchmark_session(self.config).benchmarks if bench]  # interrupted: empty
        machine_info, commit_info = self._infos
        document: dict[str, Any] = self.config.hook.pytest_benchmark_generate_json(
            config=self.config,
            benchmarks=benchmarks,
            include_data=True,
            machine_info=machine_info,
            commit_info=commit_info,
        )
        self.config.hook.pytest_benchmark_update_json(config=self.config, benchmarks=benchmarks, output_json=document)
        return document

    @cached_property
    def _infos(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What pytest-benchmark says of machine and commit; asking takes half a second."""
        hook = self.config.hook
        commit_info = hook.pytest_benchmark_generate_commit_info(config=self.config)
        hook.pytest_benchmark_update_commit_info(config=self.config, commit_info=commit_info)
        return benchmark_session(self.config).get_machine_info(), commit_info

    def amend_document(self, document: dict[str, Any]) -> None:
        """Add to pytest-benchmark's document the accuracy items and the record of the run."""
        for node, samples, info in self._own:
            entry = benchmark_entry(node.rpartition("::")[2], node, samples, info, self.items[node].params)
            document["benchmarks"].append(entry)
        document["benchmarks"].sort(key=lambda entry: self.order.get(entry["fullname"], len(self.order)))
        document["segcore"] = self._run_record().model_dump(mode="json")

    def _run_record(self) -> RunRecord:
        after = read_state()
        return RunRecord(
            name=self.file.name,
            started=self._started,
            duration_s=round(self.seconds_so_far, 3),
            complete=self._complete,
            command=("pytest", *self.config.invocation_params.args),
            machine=self._machine,
            conditions=describe(self._before, after),
            calibration=self.calibration,
            versions=package_versions(),
            git=self._git,
            outcomes=tuple(self.outcomes.values()),
            warnings=run_warnings(self._before, after, self._calibration_change),
        )


def _place_pictures(document: dict[str, Any], directory: str) -> None:
    """Make the pictures' names relative to the run file: until here they are names in the pictures' directory."""
    for entry in document["benchmarks"]:
        accuracy = entry["extra_info"].get("segcore", {}).get("accuracy") or {}
        for field in PICTURE_FIELDS:
            if accuracy.get(field):
                accuracy[field] = (Path(directory) / accuracy[field]).as_posix()
