"""The report in a terminal: 80 columns, colours only where there are any, no control characters of others."""

from __future__ import annotations

import io
import re
from typing import Literal

import pytest
from rich.console import Console

from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.report.console import print_story
from segcore.report.model import ReportModel, build_report
from tests.support.factories import make_hostile, make_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    return base, make_run(directory, "head", models=("embedded",), slower=1.5, shift=9, seed=1)


def printed(story: ReportModel, colours: Literal["truecolor"] | None = None, *, quiet: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=colours, force_terminal=colours is not None, highlight=False)
    print_story(story, console, quiet=quiet)
    return out.getvalue()


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_it_fits_into_80_columns(pair: tuple[Run, Run], colours: Literal["truecolor"] | None) -> None:
    base, head = pair
    text = bare(printed(build_report([head], base, judge([base], [head], Limits())), colours))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.startswith("Failed: ")
    for part in ("latency[chelsea-embedded-torch-cpu-320] median", "base cpu", "Latency", "Accuracy"):
        assert part in text


def test_pictures_are_drawn_where_there_are_colours(pair: tuple[Run, Run]) -> None:
    story = build_report([pair[1]], pair[0])
    assert "▀" not in printed(story)
    coloured = printed(story, "truecolor")
    assert coloured.count("▀") > 1000
    assert "38;2;64;0;0" in coloured  # the cat's colour of the VOC palette
    assert "of the pixels changed class" in coloured


def test_plain_output_has_no_escape_sequences(pair: tuple[Run, Run]) -> None:
    assert "\x1b" not in printed(build_report(pair))


def test_quiet_is_one_line(pair: tuple[Run, Run]) -> None:
    assert printed(build_report([pair[0]]), quiet=True) == "Passed: all 9 items\n"


def test_names_cannot_control_the_terminal(pair: tuple[Run, Run]) -> None:
    hostile = make_hostile(pair[1])
    assert "\x1b" not in printed(build_report([hostile]))
    assert "\x1b[2J" not in printed(
        build_report([hostile], hostile, judge([hostile], [hostile], Limits())), "truecolor"
    )
