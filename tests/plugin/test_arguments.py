from __future__ import annotations

from pathlib import Path

import pytest

from segcore.core.bench_options import WAIT_S
from segcore.plugin.arguments import NAMELESS, replace_aliases, separate_paths
from segcore.plugin.options import read_choices

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["bench/", "--benchmark-save"], ["bench/", "--benchmark-save"]),
        (["--benchmark-save", "bench/"], ["bench/", "--benchmark-save"]),
        (["--benchmark-save", "a/b", "c"], ["a/b", "c", "--benchmark-save"]),
        (["--benchmark-save", "b.py::test_x"], ["b.py::test_x", "--benchmark-save"]),
        (["--benchmark-save", "-v", "b"], ["--benchmark-save", "-v", "b"]),
        (["--benchmark-save", "nightly", "bench/"], ["--benchmark-save", "nightly", "bench/"]),
        (["--benchmark-save", "here", "bench/"], ["--benchmark-save", "here", "bench/"]),  # a directory, and a name
        (["--benchmark-save=here", "bench/"], ["--benchmark-save=here", "bench/"]),
        (["--benchmark-save-data", "bench/"], ["--benchmark-save-data", "bench/"]),
        (["bench/"], ["bench/"]),
        ([], []),
    ],
)
def test_a_path_is_not_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], meant: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert separate_paths(typed) == meant


@pytest.mark.parametrize(
    ("undeclared", "meant"),
    [
        (["--cases=a", "--offline"], ["x", "--segcore-cases=a", "--segcore-cases", "b", "--segcore-offline"]),
        (["--cases=a", "--cases"], ["x", "--segcore-cases=a", "--segcore-cases", "b", "--offline"]),
        (["--offline", "--other"], ["x", "--cases=a", "--cases", "b", "--segcore-offline"]),
        ([], ["x", "--cases=a", "--cases", "b", "--offline"]),
    ],
)
def test_an_alias_stands_for_our_option_unless_declared_by_another(undeclared: list[str], meant: list[str]) -> None:
    assert replace_aliases(["x", "--cases=a", "--cases", "b", "--offline"], undeclared) == meant


@pytest.mark.parametrize("option", ["--offline", "--cases"])
@pytest.mark.parametrize("where", [".", "suite"])
@pytest.mark.parametrize("arguments", [[], ["suite"]])
def test_another_conftest_can_declare_an_alias(
    pytester: pytest.Pytester, option: str, where: str, arguments: list[str]
) -> None:
    (pytester.path / "suite").mkdir()
    (pytester.path / where / "conftest.py").write_text(
        f"def pytest_addoption(parser):\n    parser.addoption({option!r}, action='store_true', help='mine')\n"
    )
    (pytester.path / "suite" / "test_it.py").write_text(
        f"def test_it(pytestconfig): assert pytestconfig.getoption({option!r}, False) is {bool(arguments)}\n"
    )
    options = [option] if arguments else []
    pytester.runpytest_inprocess("-p", "no:cacheprovider", *options, *arguments).assert_outcomes(passed=1)


def test_another_plugin_can_declare_an_alias(pytester: pytest.Pytester) -> None:
    pytester.syspathinsert()
    pytester.makepyfile(mine="def pytest_addoption(parser): parser.addoption('--offline', type=int)")
    pytester.makepyfile("def test_it(pytestconfig): assert pytestconfig.getoption('--offline') == 7")
    pytester.runpytest_inprocess("-p", "mine", "--offline", "7").assert_outcomes(passed=1)


def test_zero_seconds_of_waiting_are_no_default(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfig("--segcore-wait=0")
    assert read_choices(config).wait == 0
    assert read_choices(pytester.parseconfig()).wait == WAIT_S


def test_the_options_of_other_suites_can_be_handed_to_the_process_of_looponfail(pytester: pytest.Pytester) -> None:
    execnet = pytest.importorskip("execnet")
    execnet.dumps(vars(pytester.parseconfig("-f").option))


@pytest.mark.parametrize("nameless", [["--benchmark-save"], ["--benchmark-save", "-v"], ["--benchmark-save", "./"]])
@pytest.mark.parametrize("addopts", [False, True])
def test_without_items_of_ours_the_option_stays_that_of_pytest_benchmark(
    pytester: pytest.Pytester, nameless: list[str], addopts: bool
) -> None:
    pytester.makepyfile("def test_item(benchmark): benchmark(len, 'a')")
    site = pytester.mkpydir("site-packages") / "bench.py"
    site.write_text("def test_it(latency_item): pass")
    if addopts:
        pytester.makeini(f"[pytest]\naddopts = {' '.join(nameless)}")
    ours = pytester.runpytest_inprocess(*([] if addopts else nameless))
    alone = pytester.runpytest_inprocess("-p", "no:segcore", *([] if addopts else nameless))
    assert ours.ret == alone.ret == pytest.ExitCode.USAGE_ERROR
    assert ours.stderr.lines == alone.stderr.lines
    pytester.runpytest_inprocess("-o", "addopts=", "--benchmark-save", "mine").assert_outcomes(passed=1)
    assert [path.name for path in pytester.path.rglob("*.json")] == ["0001_mine.json"]


@pytest.mark.parametrize("where", [[], ["bench"], ["bench/test_it.py::test_it"]])
@pytest.mark.parametrize("fixture", ["accuracy_item", "latency_item", "throughput_item", "load_item"])
def test_with_a_bench_of_ours_the_name_is_optional(pytester: pytest.Pytester, where: list[str], fixture: str) -> None:
    (pytester.mkdir("bench") / "test_it.py").write_text(f"def test_it({fixture}): pass")
    assert pytester.parseconfig(*where, "--benchmark-save").option.benchmark_save is NAMELESS
    assert pytester.parseconfig("--benchmark-save", "./bench").option.benchmark_save is NAMELESS
    assert pytester.parseconfig("-k", "x" * 300, "--benchmark-save").option.benchmark_save is NAMELESS


def test_a_bench_of_ours_that_is_not_asked_for_does_not_count(pytester: pytest.Pytester) -> None:
    for name, fixture in (("bench", "latency_item"), ("tests", "benchmark")):
        (pytester.mkdir(name) / f"test_{name}.py").write_text(f"def test_it({fixture}): pass")
    with pytest.raises(pytest.UsageError, match="expected one argument"):
        pytester.parseconfig("tests", "--benchmark-save")
