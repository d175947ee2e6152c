"""How the `embedded` weights were trained; not part of the wheel."""
