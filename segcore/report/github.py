"""GitHub Actions: annotations in the log and the step summary."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segcore.judgement.gate.verdict import GateResult
from segcore.report import gate


def annotate(result: GateResult, *, err: bool = False) -> None:
    """In GitHub Actions, print annotations (to stderr if `err`) and append to the step summary."""
    if os.environ.get("GITHUB_ACTIONS"):
        print(gate.workflow_commands(result), end="", file=sys.stderr if err else sys.stdout, flush=True)
    append_summary(gate.markdown(result))


def append_summary(markdown: str) -> None:
    """Append to the step summary, if there is one; if it cannot be written, print one line to stderr and go on."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(markdown + "\n")
        except OSError as error:
            sys.stderr.write(f"segcore: GITHUB_STEP_SUMMARY {path}: cannot be written: {error.strerror}\n")
