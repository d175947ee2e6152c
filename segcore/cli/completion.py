"""What the shell completes: names of models, devices, cases and runs, found without torch; see docs/getting-started.md.

The files that they come from are searched rather than read: reading them would take longer than a user waits.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from segcore.results.naming import DEFAULT_DIRECTORY, UNSAVED, pulled_from, saved_name

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_NAME = re.compile(r"""^(?:[ ]*-[ ]+)?name:[ ]*["']?([^\s"'#]+)""", re.MULTILINE)
_GPU = re.compile(r"nvidia(\d+)")
LATEST = "latest"


def completes(find: Callable[[click.Context], Iterable[str]], *, files: bool = False) -> Complete:
    """Return the completion of a parameter that takes one of some names, or also a path."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in dict.fromkeys(find(context)) if name.startswith(incomplete)]
        # First, because bash then drops what came before.
        return [CompletionItem(incomplete, type="file"), *found] if files else found

    return complete


def models(context: click.Context) -> list[str]:
    """Return the names of the built-in models and of the model files."""
    from segcore.inference.catalog import LISTED

    directory = context.params.get("models") or context.params.get("model_files") or "models"
    return [*LISTED, *(name for path, names in _names_in(Path(directory)) for name in names or [path.stem])]


def devices(_: click.Context, system: Path = Path("/dev")) -> list[str]:
    """Return what ``--device`` may take here, from the device files of the system."""
    gpus = sorted(int(found[1]) for entry in system.glob("nvidia*") if (found := _GPU.fullmatch(entry.name)))
    mps: list[str] = ["mps"] if sys.platform == "darwin" else []
    return ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{gpu}" for gpu in gpus), *mps]


def runs(context: click.Context) -> list[str]:
    """Return ``latest`` and the names of the saved runs, with the machine if it is another one."""
    directory = Path(context.params.get("storage") or DEFAULT_DIRECTORY)
    paths = [path for path in sorted(directory.rglob("*.json")) if path.stem != UNSAVED]
    machines = [(pulled_from(path), saved_name(path)) for path in paths]
    return [LATEST, *(f"{machine}/{name}" if machine else name for machine, name in machines)]


RUN = completes(runs, files=True)
"""Of a parameter that takes a saved run: its name, or a path."""


def cases_and_runs(context: click.Context) -> list[str]:
    """Return what selects series of the history: runs, and cases, whose names are in those of their items."""
    cases = [name for _, names in _names_in(Path("cases")) for name in names]
    return [*(name for name in runs(context) if name != LATEST), *cases]


def _names_in(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the YAML files below a directory, each with the names that it gives."""
    for path in sorted(directory.rglob("*.y*ml")):
        with contextlib.suppress(OSError):  # whoever uses the file is told
            yield path, _NAME.findall(path.read_text(encoding="utf-8", errors="replace"))
