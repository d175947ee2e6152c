"""The paired gate: two revisions, interpreters or sets of options measured in alternation by fresh processes."""
