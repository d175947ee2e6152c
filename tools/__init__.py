"""Programs for developers of segcore; not part of the wheel."""
