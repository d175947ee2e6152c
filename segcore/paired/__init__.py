"""The paired gate: two revisions, interpreters or sets of options, measured in turns by fresh processes."""
