"""The project in which the plugin is tried."""

from tests.support.bench_project import where

__all__ = ["where"]
