"""GitLab's code quality report: what did not pass, at the line where its case is written.

Format: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format. GitLab keeps one entry for each
fingerprint, and shows the entries that the target branch does not have as new; so a fingerprint names what was judged,
and neither figures nor lines.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from segcore.report.escape import plain_text
from segcore.report.exports.verdicts import Judged, Verdicts

_SEVERITIES = {"failed": "major", "error": "major", "undecided": "minor"}
_UNDECIDED = ("inconclusive", "incomparable")


def code_quality(verdicts: Verdicts) -> str:
    """Return what failed, is missing or undecided as a code quality report; skipped tests are no finding."""
    times = Counter[tuple[str, str]]()
    entries = []
    for row in verdicts.rows:
        kind = "undecided" if row.verdict in _UNDECIDED else row.outcome
        if kind in _SEVERITIES:
            times[row.item, row.aspect] += 1
            entries.append(_entry(row, _SEVERITIES[kind], times[row.item, row.aspect]))
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _entry(row: Judged, severity: str, number: int) -> dict[str, object]:
    figures = "".join(f", {name} {text}" for name, text in row.figures if name in ("change", "limit"))
    identity = json.dumps([row.item, row.aspect, number])
    return {
        "description": plain_text(f"{row.aspect} of {row.item}: {row.verdict}{figures}: {row.reason}"),
        "check_name": f"segcore {row.verdict}",
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
        "severity": severity,
        "location": {"path": plain_text(row.place.file), "lines": {"begin": row.place.line}},
    }
