"""Verdicts and comparisons: pure functions of records."""
