"""bench/performance/tables.py runs what docs/performance.md says."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SPEC = spec_from_file_location("figures", Path(__file__).parent.parent / "bench" / "performance" / "tables.py")
assert SPEC
assert SPEC.loader
tables = module_from_spec(SPEC)
SPEC.loader.exec_module(tables)

COMMANDS = [(title, line) for title, lines in tables.commands(tables.PAGE.read_text("utf-8")).items() for line in lines]


def test_commands_are_found_under_their_headings() -> None:
    lists = {"A": "python a.py --x \\\n    1\nsegcore best", "B": "b"}
    page = "".join(f"### {title}\ntext\n```bash\n{lines}\n```\n" for title, lines in lists.items())
    page = f"## Figures\n\n{page}## C\n### D\n```bash\nd\n```\n"
    found = tables.commands(page)
    assert {title: [line.split() for line in lines] for title, lines in found.items()} == {
        "A": [["python", "a.py", "--x", "1"], ["segcore", "best"]],
        "B": [["b"]],
    }
    assert len(COMMANDS) > 5


@pytest.mark.parametrize(("title", "line"), COMMANDS, ids=[line[:60] for _, line in COMMANDS])
def test_every_figure_has_a_command_that_is_there(title: str, line: str) -> None:
    program, *arguments = tables.words(line)
    assert program == sys.executable
    assert arguments[:2] == ["-m", "segcore"] or (tables.ROOT / arguments[0]).is_file()


def test_tables_are_kept_and_other_output_is_fenced(tmp_path: Path) -> None:
    script = tmp_path / "print.py"
    script.write_text("import sys; print(sys.argv[1])", encoding="utf-8")
    assert tables.output(f"python {script} '| a |'") == "| a |"
    assert tables.output(f"python {script} plain") == "```text\nplain\n```"
