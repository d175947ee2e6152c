"""The gate's verdicts for GitHub Actions: annotations in the log and the step summary."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from segcore.judgement.gate.verdict import GateResult
from segcore.report import gate_text


def annotate(result: GateResult, *, err: bool = False) -> None:
    """In GitHub Actions, print annotations (to stderr if `err`) and append to the step summary."""
    if os.environ.get("GITHUB_ACTIONS"):
        (sys.stderr if err else sys.stdout).write(gate_text.workflow_commands(result))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(gate_text.markdown(result) + "\n")
