"""Vocabulary shared by every room: errors, labels, limits, records and atomic files."""
