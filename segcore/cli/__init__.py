"""The ``segcore`` command. Subcommands are imported when they run, so ``--help`` loads no torch."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
from functools import partial
from typing import IO, Any, TextIO

import click
from click.shell_completion import CompletionItem

from segcore import __version__
from segcore.core.errors import (
    EXIT_BAD_INPUT,
    EXIT_CRASHED,
    EXIT_INTERRUPTED,
    EXIT_IO_ERROR,
    CaseError,
    SegcoreError,
    nearest_hint,
)
from segcore.core.system import explain
from segcore.inference.allocator import keep_freed_memory

COMMANDS = {
    "init": "Start a bench in this directory: cases, tests, settings, CI.",
    "segment": "Segment photos: masks, overlays and a table of classes.",
    "evaluate": "Score a model on a dataset: mIoU and other metrics.",
    "report": "Report on run files: page, pull-request comment or tables.",
    "gate": "Judge a run against a baseline, or one revision against another.",
    "compare": "Compare devices and machines side by side.",
    "history": "Show runs over time, with change points.",
    "sync": "Exchange runs with other machines: by a directory or a git repository.",
    "devices": "List CUDA, MPS and CPU devices.",
    "models": "List models, their cost, and whether their weights are here.",
    "fetch": "Download weights and reference photos ahead of time.",
    "runtimes": "List the runtimes and precisions available here.",
    "best": "Find the fastest runtime and precision that keeps the masks.",
    "quantize": "Find which layers int8 must leave in fp32 to keep the masks.",
    "cases": "List or check YAML cases.",
}
"""Help of each command, one line: kept here so that ``--help`` imports no command."""


class LazyGroup(click.Group):
    """A group that imports only the command that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option of the group, without importing a command."""
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"segcore.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Report an unknown command with the nearest valid name; give a known one its defaults of pyproject.toml."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest_hint(args[0], COMMANDS)}; see `segcore --help`")
        name, command, rest = super().resolve_command(ctx, args)
        if name and command and not ctx.resilient_parsing and not set(ctx.help_option_names) & set(rest):
            from segcore.cli.configured import configured

            ctx.default_map = {name: configured(name, command, partial(self.get_command, ctx), COMMANDS)}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected error is one line on stderr."""
        try:
            return super().invoke(ctx)
        except Exception as error:  # OSError too, because click exits with 1, a verdict, on EPIPE
            from segcore.report.escape import plain_text

            line = str(error) if isinstance(error, SegcoreError) else explain(error)
            if line is None and not isinstance(error, OSError):
                raise
            text = line or str(error)
            lines = text.splitlines() if isinstance(error, CaseError) else [text]
            click.echo("\n".join(map(plain_text, [f"segcore: {lines[0]}", *lines[1:]])), err=True)
            raise click.exceptions.Exit(EXIT_BAD_INPUT if line else EXIT_IO_ERROR) from None


class StdoutError(click.ClickException):
    """Standard output cannot be written, for example because a pipe was closed."""

    exit_code = EXIT_BAD_INPUT

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error."""
        click.echo(f"segcore: standard output cannot be written: {self.message}", err=True)


class Stdout(io.FileIO):
    """Standard output that raises `StdoutError` if it cannot be written."""

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except OSError as error:
            self.close_for_good()
            raise StdoutError(error.strerror or str(error)) from error

    def close_for_good(self) -> None:
        """Discard what is still to come: when the interpreter exits, it flushes buffers, which must not fail again."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


class Stderr(Stdout):
    """Standard error, of which a failure can be reported nowhere, and changes no exit code."""

    def write(self, data: Any, /) -> int:
        """Write bytes if possible."""
        try:
            return super().write(data)
        except StdoutError:
            return len(data)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="segcore")
def cli() -> None:
    """Is this segmentation model still right, and still fast, on every device it ships to?

    The benchmark itself runs under pytest: `pytest bench/ --benchmark-save=NAME`.
    """


def _open_closed_streams() -> None:
    """Open the null device for closed standard streams: another file that took their place would be written to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _open(raw: type[Stdout], stream: TextIO, errors: str) -> TextIO:
    buffer = io.BufferedWriter(raw(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(buffer, stream.encoding, errors, line_buffering=bool(stream.line_buffering))


def main() -> None:
    """Run the ``segcore`` script; no failure exits with a code that `segcore gate` uses for a verdict."""
    _open_closed_streams()
    if sys.stdout is not None:
        # Characters that the encoding lacks are replaced, as on standard error.
        sys.stdout = _open(Stdout, sys.stdout, "replace")
    if sys.stderr is not None:
        sys.stderr = _open(Stderr, sys.stderr, "backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that nothing is left half-done
    keep_freed_memory()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("segcore: interrupted", err=True)
        code = EXIT_INTERRUPTED
    except Exception:
        traceback.print_exc()
        code = EXIT_CRASHED
    sys.exit(code if isinstance(code, int) else 0)
