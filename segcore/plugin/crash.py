"""Exit code of a crash if pytest's exit code is the verdict on a baseline."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from segcore.core.errors import EXIT_CRASHED


def open_closed_streams() -> None:
    """Give closed standard streams the null device: pytest ends in a traceback without them, with exit code 1."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for the whole process


class CrashHooks:
    """Make pytest exit with `EXIT_CRASHED` after an internal error or a crash at the end of the session.

    pytest itself would exit with 3, which means "inconclusive", or end in a traceback with 1, "regressed".
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_internalerror(self) -> Generator[None]:
        """Let the other plugins report the error, then exit."""
        yield
        pytest.exit("pytest or one of its plugins crashed: there is no verdict", returncode=EXIT_CRASHED)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Report a crash of another hook; keep the exit code of an earlier one."""
        crashed = session.exitstatus == EXIT_CRASHED
        try:
            yield
        except pytest.exit.Exception:
            raise
        except Exception as error:
            session.config.notify_exception(pytest.ExceptionInfo.from_exception(error), session.config.option)
        if crashed:
            session.exitstatus = EXIT_CRASHED
