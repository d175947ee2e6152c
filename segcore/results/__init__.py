"""Run files: naming, finding, reading and writing."""
