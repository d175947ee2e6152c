"""Training of the `embedded` weights; not part of the wheel."""
