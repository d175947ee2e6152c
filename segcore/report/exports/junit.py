"""JUnit XML of verdicts: a suite for each item, and a test for each aspect that was judged.

Undecided verdicts are skipped tests with their reason: JUnit knows no other outcome that is neither pass nor failure.
Only what the schema of Jenkins has is written (junit-10.xsd of its xUnit plugin), so figures of a test are its output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from segcore.report.escape import plain_text
from segcore.report.exports.verdicts import Judged, Outcome, Verdicts

_TAGS: dict[Outcome, str] = {"failed": "failure", "error": "error", "skipped": "skipped"}


def junit(verdicts: Verdicts) -> str:
    """Return the verdicts as JUnit XML."""
    root = ET.Element("testsuites", {"name": plain_text(verdicts.title), **_counts(verdicts.rows)})
    for item, rows in verdicts.by_item().items():
        counts = {**_counts(rows), "skipped": str(sum(row.outcome == "skipped" for row in rows))}
        suite = ET.SubElement(root, "testsuite", {"name": plain_text(item), **counts})
        for row in rows:
            _add_test(suite, row)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(rows: Sequence[Judged]) -> dict[str, str]:
    outcomes = Counter(row.outcome for row in rows)
    return {"tests": str(len(rows)), "failures": str(outcomes["failed"]), "errors": str(outcomes["error"])}


def _add_test(suite: ET.Element, row: Judged) -> None:
    test = ET.SubElement(suite, "testcase", {"classname": plain_text(row.item), "name": plain_text(row.aspect)})
    if tag := _TAGS.get(row.outcome):
        figures = "".join(f" ({name} {text})" for name, text in row.figures if name in ("change", "limit"))
        ET.SubElement(test, tag, {"type": row.verdict, "message": plain_text(f"{row.verdict}{figures}: {row.reason}")})
    lines = [("verdict", row.verdict), *row.figures, ("reason", row.reason), ("case", _written(row))]
    text = "\n".join(f"{name}: {plain_text(value)}" for name, value in lines if value)
    ET.SubElement(test, "system-out").text = text


def _written(row: Judged) -> str:
    return f"{row.place.file}:{row.place.line}"
