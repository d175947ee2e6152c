"""Run the commands under *Figures* in docs/performance.md and print that section again, with what they print.

    python bench/performance/tables.py > figures.md

On two otherwise idle cores this takes about twelve minutes, and on the first time some more, to export and quantise.
Progress goes to standard error.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import click
import torch

from segcore.measurement.machine import cpu_model

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
SECTION = "## Figures"
PACKAGES = ("torch", "openvino", "onnxruntime", "pillow")
_BLOCK = re.compile(r"^### (?P<title>[^\n]+)\n.*?^```bash\n(?P<commands>.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: str) -> dict[str, list[str]]:
    """Return the command lines under each heading of the section."""
    section = page.partition(SECTION)[2].partition("\n## ")[0]
    return {found["title"]: found["commands"].replace("\\\n", " ").splitlines() for found in _BLOCK.finditer(section)}


def words(line: str) -> list[str]:
    """Return a command line for this interpreter: `python` and `segcore` of the page are those that run this."""
    program, *arguments = shlex.split(line)
    return [sys.executable, *(["-m", "segcore"] if program == "segcore" else []), *arguments]


def output(line: str) -> str:
    """Return what a command prints, as Markdown.

    Raises:
        ClickException: it failed.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        words(line), cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"exit code {done.returncode}: {line}")
    text = done.stdout.strip()
    return text if text.startswith("|") else f"```text\n{text}\n```"


def machine() -> str:
    """Return the machine and the versions, as a sentence."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{cpu_model()}, {torch.get_num_threads()} threads, {platform.system()}, {versions}."


@click.command()
@click.argument("only", nargs=-1)
def main(only: tuple[str, ...]) -> None:
    """Print the section; ONLY: words, one of which a heading must contain."""
    begin = time.monotonic()
    click.echo(f"{SECTION}\n\n{machine()}\n")
    for title, lines in commands(PAGE.read_text(encoding="utf-8")).items():
        if only and not any(word.lower() in title.lower() for word in only):
            continue
        click.echo(f"### {title}\n")
        for line in lines:
            start = time.monotonic()
            text = output(line)
            click.echo(f"```bash\n{line}\n```\n\n{text}\n")
            click.echo(f"{time.monotonic() - start:5.0f} s  {line}", err=True)
    click.echo(f"{time.monotonic() - begin:5.0f} s in all", err=True)


if __name__ == "__main__":
    main()
