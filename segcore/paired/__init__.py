"""The paired gate: two revisions, interpreters or option sets measured in turns by fresh processes."""
