"""``python -m segcore`` is the ``segcore`` command."""

from segcore.cli import main

main()
