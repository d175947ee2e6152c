"""Run files: written, found and read."""
