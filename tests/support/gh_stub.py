"""What replaces ``gh`` in tests: it notes its arguments, and answers from ``gh.json`` beside it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

MARK = "<!-- segcore -->"


def answer(words: list[str], state: dict[str, Any], here: Path) -> None:
    """Do what gh does with these arguments."""

    def values(*names: str) -> list[str]:
        return [value for name, value in pairwise(words) if name in names]

    given = values("--field", "--raw-field")
    bodies = [word.removeprefix("body=@") for word in given if word.startswith("body=@")]
    if words[:2] == ["run", "list"]:
        wanted = {key: values(f"--{key}") for key in ("branch", "event", "workflow", "status")}
        for run in state["runs"]:
            if all(run[key] in (wanted[key] or [run[key]]) for key in wanted):
                print(run["id"])
                return
    elif words[:2] == ["run", "download"]:
        if words[2] not in state["artifacts"]:
            sys.exit("no artifact matches")
        shutil.copytree(state["artifacts"][words[2]], values("--dir")[0], dirs_exist_ok=True, symlinks=True)
    elif bodies:
        if state["read_only"]:
            sys.exit("HTTP 403: Resource not accessible by integration")
        shutil.copy(bodies[0], here / "body.md")
    elif words[1].endswith("/comments"):
        mine = (c for c in state["comments"] if c["type"] == "Bot" and c["body"].startswith(MARK))
        print(*(comment["id"] for comment in mine), sep="\n")
    elif any(word.endswith("/pulls") for word in words):
        fitting = (p for p in state["pulls"] if f"head={p['head']}" in given and p["sha"] == os.environ["SHA"])
        print(*(pull["number"] for pull in fitting), sep="\n")


def main() -> None:
    """Note the arguments and answer."""
    here = Path(sys.argv[0]).parent
    with (here / "gh.log").open("a", encoding="utf-8") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    answer(sys.argv[1:], json.loads((here / "gh.json").read_text(encoding="utf-8")), here)


if __name__ == "__main__":
    main()
