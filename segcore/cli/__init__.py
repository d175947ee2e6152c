"""The ``segcore`` command: subcommands load when they are run, so that ``--help`` needs no torch."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from segcore import __version__
from segcore.core.errors import (
    EXIT_BAD_INPUT,
    EXIT_BROKEN_PIPE,
    EXIT_CRASHED,
    EXIT_INTERRUPTED,
    EXIT_IO_ERROR,
    SegcoreError,
    nearest_hint,
)
from segcore.inference.allocator import keep_freed_memory

# Name -> (home of the click command, one line of help). Kept here so that listing them imports nothing.
COMMANDS: dict[str, tuple[str, str]] = {
    "segment": ("segcore.cli.segment:segment", "Segment photos: masks, overlays and a table of classes."),
    "evaluate": ("segcore.cli.evaluate:evaluate", "Score a model on a dataset: mIoU and more, by protocol."),
    "report": ("segcore.cli.report:report", "Show run files as a page, a comment or tables."),
    "gate": ("segcore.cli.gate:gate", "Judge a run against a baseline, or two revisions against each other."),
    "compare": ("segcore.cli.compare:compare", "Put devices and machines side by side."),
    "history": ("segcore.cli.history:history", "Show runs over time, with change points."),
    "devices": ("segcore.cli.inventory:devices", "List CUDA, MPS and CPU as found here."),
    "models": ("segcore.cli.inventory:models", "List models, their cost, and whether their weights are here."),
    "fetch": ("segcore.cli.inventory:fetch", "Download weights and reference photos ahead of time."),
    "runtimes": ("segcore.cli.runtimes:runtimes", "List ways to execute a model, as found here."),
    "best": ("segcore.cli.runtimes:best", "Find the fastest runtime and precision that keeps the masks."),
    "load": ("segcore.cli.load:load", "Put a model under load as MLPerf does: streams, server, offline."),
    "cases": ("segcore.cli.inventory:cases", "List or check YAML cases."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest_hint(args[0], COMMANDS)}; see `segcore --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected error is one line on stderr and exit code 2."""
        try:
            return super().invoke(ctx)
        except SegcoreError as error:
            click.echo(f"segcore: {error}", err=True)
            ctx.exit(EXIT_BAD_INPUT)
        except BrokenPipeError:  # click would exit with 1, which means "regressed"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails again
            ctx.exit(EXIT_BROKEN_PIPE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="segcore")
def cli() -> None:
    """Is this segmentation model still right, and still fast, on every device it ships to?

    The benchmark itself runs under pytest: `pytest bench/ --benchmark-save=NAME`.
    """


def main() -> None:
    """Run the ``segcore`` script; no failure of its own exits with a code that `segcore gate` uses for a verdict."""
    keep_freed_memory()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("segcore: interrupted", err=True)
        code = EXIT_INTERRUPTED
    except OSError as error:
        click.echo(f"segcore: {error}", err=True)
        code = EXIT_IO_ERROR
    except Exception:
        traceback.print_exc()
        code = EXIT_CRASHED
    sys.exit(code if isinstance(code, int) else 0)
