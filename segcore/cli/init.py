"""``segcore init``: the files with which a repository starts."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from segcore.core.errors import UsageError

TEMPLATES = Path(__file__).parents[1] / "start"
"""Files of the package; the wheel also has some of the repository here, such as those of ``bench/``."""
STARTER_CASES = "cases/offline.yaml"
CI_FILES = {
    "github": (".github/workflows/segcore.yml", ".github/actions/segcore/action.yml", "action.yml"),
    "gitlab": (".gitlab-ci.yml", ".gitlab/segcore.yml", "templates/segcore.yml"),
}
"""For each CI service its workflow, the part that the workflow uses, and the template of that part."""
JUDGE = ".github/workflows/segcore-judge.yml"
"""Judges pull requests from forks, without a checkout."""
WHEELS = "wheels"


@dataclass(frozen=True)
class Planned:
    """A file to write, or one that is kept."""

    path: Path
    data: bytes
    kept: str = ""
    """Why the file is left as it is."""


@click.command()
@click.option("--ci", type=click.Choice(list(CI_FILES)), help="Write the workflow of this CI service as well.")
@click.option("--dry-run", is_flag=True, help="Only print what would be written.")
def init(ci: str | None, dry_run: bool) -> None:
    """Start a bench in the current directory, after which `pytest bench/` runs.

    Writes `bench/`, `cases/` with three photos' cases, the schemas of case and model files, and the table
    [tool.segcore] of pyproject.toml. No file that exists is changed, except that the table is added to pyproject.toml.
    """
    from segcore.core.files import write_file
    from segcore.report.escape import plain_text

    root = Path.cwd()
    planned = [*_starter_files(root), _pyproject(root)]
    source, advice = _requirement()
    if ci:
        planned += _workflow(root, ci, source)
    for each in planned:
        name = each.path.relative_to(root).as_posix()
        if each.kept:
            click.echo(f"kept {name}: {plain_text(each.kept)}")
            continue
        if not dry_run:
            write_file(each.path, each.data)
        click.echo(f"{'would write' if dry_run else 'wrote'} {name}")
    if ci and advice:
        click.echo(plain_text(f"for CI: {advice}"))
    click.echo("next: pytest bench/ --benchmark-save=before")


def _new(root: Path, name: str, data: bytes) -> Planned:
    path = root / name
    return Planned(path, data, "it exists" if path.exists() or path.is_symlink() else "")


def _template(name: str) -> Path:
    """Return a file of the repository: in a checkout itself, in a wheel its copy."""
    packaged = TEMPLATES / name
    return packaged if packaged.exists() else TEMPLATES.parents[1] / name


def _starter_files(root: Path) -> Iterator[Planned]:
    from segcore.inputs import cases, model_files

    for file in sorted(_template("bench").glob("test_*.py")):
        yield _new(root, f"bench/{file.name}", file.read_bytes())
    starter = _new(root, STARTER_CASES, _template(STARTER_CASES).read_bytes())
    others = [path for pattern in ("*.yaml", "*.yml") for path in (root / "cases").rglob(pattern)]
    if others and not starter.kept:
        starter = replace(starter, kept=f"not written, there are cases: {others[0].relative_to(root)}")
    yield starter
    for name, schema in (
        ("cases/case.schema.json", cases.json_schema()),
        ("models/model.schema.json", model_files.json_schema()),
    ):
        yield _new(root, name, (json.dumps(schema, indent=2) + "\n").encode())
    yield _new(root, "reports/.gitignore", b"# Runs and reports of `pytest bench/`.\n*\n")


def _pyproject(root: Path) -> Planned:
    """Return pyproject.toml with our table at its end, or raise UsageError; the rest stays as it is, byte for byte."""
    path, section = root / "pyproject.toml", (TEMPLATES / "pyproject.toml").read_bytes()
    if not path.exists():
        return Planned(path, section)
    try:
        data = path.read_bytes()
        if "segcore" in tomllib.loads(data.decode()).get("tool", {}):
            return Planned(path, data, "it has [tool.segcore]")
        newline = b"\r\n" if b"\r\n" in data else b"\n"
        space = b"" if not data else newline if data.endswith(b"\n") else newline * 2
        longer = data + space + section.replace(b"\n", newline)
        tomllib.loads(longer.decode())
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=path.name) from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"[tool.segcore] cannot be added: {error}", where=path.name) from None
    return Planned(path, longer)


def _workflow(root: Path, ci: str, source: str) -> Iterator[Planned]:
    """Return the workflow of a CI service, which installs the repository too if it is a package, and what it needs."""
    top = next((place for place in (root, *root.parents) if (place / ".git").exists()), root)
    if top != root:
        raise UsageError(f"--ci: workflows belong to the top of the repository: run `segcore init --ci {ci}` in {top}")
    project = root / "pyproject.toml"
    is_package = project.exists() and "project" in tomllib.loads(project.read_text(encoding="utf-8"))
    words = f"-e . {source}" if is_package else source
    workflow, part, template = CI_FILES[ci]
    yield _new(root, workflow, _template_text(f"{ci}.yml").replace("REQUIREMENTS", words).encode())
    yield _new(root, part, _template(template).read_bytes())
    if ci == "github":
        yield _new(root, JUDGE, _judge(source).encode())


def _judge(source: str) -> str:
    """Return the workflow that judges requests from forks: without a checkout, it has to fetch a wheel of ours."""
    install = f"pip install {source}"
    if source.startswith(f"{WHEELS}/"):
        wheel = source.removesuffix("[report]")
        raw = f'gh api "repos/$GH_REPO/contents/{wheel}" --header "Accept: application/vnd.github.raw"'
        install = "\n          ".join((f"mkdir {WHEELS}", f"{raw} > {wheel}", install))
    return _template_text("github-judge.yml").replace("pip install REQUIREMENTS", install)


def _template_text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _requirement() -> tuple[str, str]:
    """Return what pip can install this segcore from, quoted for a shell, and what else is to be done for that.

    pip records where a package came from (PEP 610) unless that was an index.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    from segcore import __version__

    try:
        recorded = json.loads(distribution("segcore").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        recorded = {"url": TEMPLATES.parents[1].as_uri()}
    url = recorded.get("url", "")
    if not url:
        return f"segcore[report]=={__version__}", ""
    if "vcs_info" in recorded:
        vcs = recorded["vcs_info"]
        return shlex.quote(f"segcore[report] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"), ""
    if not url.startswith("file:"):
        return shlex.quote(f"segcore[report] @ {url}"), ""
    return (
        f"{WHEELS}/segcore-{__version__}-py3-none-any.whl[report]",
        f"segcore is installed from {url}, which CI does not have: commit the wheel that "
        f"`pip wheel --no-deps -w {WHEELS} {shlex.quote(url)}` puts there, or name another source in the workflow",
    )
