"""Change every value of a run file, and read, judge and show the result: ``python -m tools.hostile_values``.

A change must be refused in one line or shown without harm, as the baseline and as the current run. Prints every change
that is not, and counts at the end; the exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from segcore.core.errors import SegcoreError
from segcore.core.records import Run
from segcore.report.escape import plain_text
from segcore.report.html import write_html
from segcore.report.model import build_report
from segcore.results.store import load_run
from tests.support.factories import make_run
from tests.support.hostile import CI_COMMAND, UNPRINTABLE, VALUES, changed, full_document, places, show_everything

MORE: tuple[object, ...] = (
    *(1, 2, 0.5, 1e-12, 1e-9, 1e15, 255, 2**31, 2**53 + 1, 2**63 - 1, False),
    *("latency", "cpu", "nan", "\0", "a" * 5000, "1970-01-01T00:00:00+00:00", "0001-01-01"),
    *("9999-12-31T23:59:59.999999+14:00", "\U0001d54f", [1, 2], [[]], {"": ""}),
)
"""Values besides those of the tests."""


def outcome(baseline: Run, path: Path, page: Path | None) -> str:
    """Return ``refused`` or ``shown``; what went wrong otherwise."""
    try:
        run = load_run(path)
        text = show_everything(baseline, run) + show_everything(run, baseline)
        if page:
            write_html(build_report([run], baseline), page)
    except SegcoreError as error:
        line = str(error)
        harmless = "\n" not in line and not UNPRINTABLE.search(line) and not CI_COMMAND.search(plain_text(line))
        return "refused" if harmless else f"refused with {line!r}"
    except Exception:
        return traceback.format_exc()
    return "harmful" if UNPRINTABLE.search(text) or CI_COMMAND.search(text) else "shown"


def main() -> None:
    """Try all changes, or one in so many of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, metavar="N", help="try one change in N")
    parser.add_argument("--page-step", type=int, default=25, metavar="N", help="write the page of one change in N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = make_run(Path(directory), "base", rounds=8, models=("embedded",))
        document: dict[str, Any] = full_document(json.loads(run.path.read_bytes()))
        run.path.write_text(json.dumps(document | {"segcore": document["segcore"] | {"started": "2020-01-01"}}))
        baseline, path, page = load_run(run.path), run.path.with_name("changed.json"), run.path.with_name("page.html")
        changes = [(at, value) for at in places(document) for value in (*VALUES, *MORE)][:: options.step]
        counts: Counter[str] = Counter()
        for number, (at, value) in enumerate(changes):
            path.write_text(json.dumps(changed(document, at, value)))
            found = outcome(baseline, path, None if number % options.page_step else page)
            counts[found if found in ("refused", "shown") else "wrong"] += 1
            if found not in ("refused", "shown"):
                print(at, repr(value)[:60], found, sep="\n", flush=True)
    print(f"{counts.total()} changes: {counts['refused']} refused, {counts['shown']} shown, {counts['wrong']} wrong")
    sys.exit(counts["wrong"] > 0)


if __name__ == "__main__":
    main()
