"""Runs of many machines through one place: none is lost, none is half there, and a hostile place harms nobody."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segcore.core.errors import ConflictError, OutputError, RecordError, UsageError
from segcore.core.files import write_file
from segcore.core.records import Run
from segcore.report.model import build_report, open_pictures
from segcore.results import shipping, sync
from segcore.results.naming import MACHINES
from segcore.results.places import DirectoryPlace, GitPlace
from segcore.results.shipping import Entry, entry_of, pack, parse_entry
from segcore.results.store import find_runs, load_run, resolve_run, save_document
from segcore.results.sync import Exchange, open_place, plan
from tests.support.factories import make_run
from tests.support.repositories import git

KINDS = ("directory", "git")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    if request.param == "git":
        git(path, "init", "-q", "--bare")
    return path


@cache
def recorded() -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the document of a small run, and its pictures by path."""
    with TemporaryDirectory() as directory:
        run = make_run(Path(directory), "run", rounds=7, models=("embedded",))
        pictures = {str(path.relative_to(directory)): path.read_bytes() for path in Path(directory).glob("run-maps/*")}
        return json.loads(run.path.read_bytes()), pictures


def record(storage: Path, name: str, day: int = 1, slower: float = 1.0) -> Run:
    """Save a small run with pictures, as `pytest bench/` would; no two stores get the same samples."""
    directory = storage / "Linux-CPython"
    document, pictures = recorded()
    document = copy.deepcopy(document)
    document["segcore"] |= {"name": name, "started": f"2026-11-{day:02}T10:00:00+00:00"}
    for entry in document["benchmarks"]:
        factor = slower + zlib.crc32(storage.name.encode()) / 1e12
        entry["stats"]["data"] = [seconds * factor for seconds in entry["stats"]["data"]]
    for path, data in pictures.items():
        write_file(directory / path, data)
    number = len(list(directory.glob("*.json"))) + 1
    save_document(directory / f"{number:04}_{name}.json", document)
    return load_run(directory / f"{number:04}_{name}.json")


def exchange(place: Path | str, storage: Path, machine: str, **options: Any) -> Exchange:
    with open_place(str(place), "segcore-runs") as opened:
        return sync.sync(opened, storage, machine, **options)


def names(entries: list[Entry]) -> list[str]:
    return [entry.full_name for entry in entries]


def files(place: Path) -> set[str]:
    """Return what a place holds."""
    if (place / "objects").exists():
        return set(git(place, "ls-tree", "-r", "--name-only", "segcore-runs").splitlines()) - {".segcore-runs"}
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_every_machine_gets_the_runs_of_all_others(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, laptop = tmp_path / "desk", tmp_path / "laptop"
    own = record(desk, "main")
    record(desk, "change", 2, slower=1.5)
    record(laptop, "main", 3)
    assert names(exchange(place, desk, "desk").pushed) == ["desk/main", "desk/change"]
    second = exchange(place, laptop, "laptop")
    assert (names(second.pulled), names(second.pushed)) == (["desk/main", "desk/change"], ["laptop/main"])
    assert names(exchange(place, desk, "desk").pulled) == ["laptop/main"]
    assert exchange(place, desk, "desk") == exchange(place, laptop, "laptop") == Exchange()

    monkeypatch.setattr("platform.node", lambda: "laptop")
    monkeypatch.delenv("SEGCORE_MACHINE", raising=False)
    pulled = load_run(resolve_run("desk/main", laptop))
    assert pulled.measured == own.measured
    assert len(find_runs(laptop)) == 3
    (seen, _) = [open_pictures(case) for case in build_report([pulled]).cases]
    assert seen.photo is not None
    assert seen.class_map is not None
    assert seen.notes == ()


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("laptop/main", "laptop"),
        ("desk/main", "here"),
        ("desk/0001_main", "here"),
        ("laptop/latest", "laptop"),
        ("latest", "here"),
        ("change", "here"),
        ("server/only", "server"),
        ("only", "server"),
        ("main", ("desk/main", "laptop/main", "server/main")),
        ("nobody/main", None),
        ("laptop/change", None),
    ],
)
def test_a_name_means_one_machine_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, found: str | tuple[str, ...] | None
) -> None:
    monkeypatch.setenv("SEGCORE_MACHINE", "desk")
    place = tmp_path / "place"
    place.mkdir()
    for machine, runs in (("laptop", ["main"]), ("server", ["main", "only"])):
        for name in runs:
            record(tmp_path / machine, name, 9)
        exchange(place, tmp_path / machine, machine)
    for name in ("main", "change"):
        record(tmp_path / "here", name, 2)
    exchange(place, tmp_path / "here", "desk")
    if isinstance(found, str):
        path = resolve_run(reference, tmp_path / "here")
        assert (path.parent.name if MACHINES in path.parts else "here") == found
        return
    with pytest.raises(RecordError) as caught:
        resolve_run(reference, tmp_path / "here")
    assert all(candidate in str(caught.value) for candidate in found or (reference,))


def test_where_nothing_was_recorded_the_latest_is_that_of_the_only_other_machine(tmp_path: Path) -> None:
    place, here = tmp_path / "place", tmp_path / "here"
    place.mkdir()
    for machine in ("laptop", "server"):
        record(tmp_path / machine, "main")
        exchange(place, tmp_path / machine, machine)
        exchange(place, here, "dashboard")
        if machine == "laptop":
            assert load_run(resolve_run("latest", here)).measured
    with pytest.raises(RecordError, match="laptop/latest, server/latest"):
        resolve_run("latest", here)


def test_runs_that_start_in_the_same_second_under_one_name_are_all_kept(place: Path, tmp_path: Path) -> None:
    """As jobs of a CI service do, each in a new container."""
    for job in range(5):
        record(tmp_path / str(job), "main", slower=1 + job / 10)
        exchange(place, tmp_path / str(job), "ci")
    exchange(place, tmp_path / "here", "desk")
    assert len({load_run(path).measured for path in find_runs(tmp_path / "here")}) == 5


ENTRIES = st.builds(
    Entry,
    stem=st.builds(
        "{:022}_{}".format, st.integers(0, 30), st.sampled_from(["main", "change", "desk-1a2b3c4", "desk-9f8e7d6"])
    ),
    machine=st.sampled_from(["desk", "laptop"]),
)


@given(st.sets(ENTRIES, max_size=12), st.sets(ENTRIES, max_size=8), st.none() | st.integers(1, 3))
def test_a_plan_pushes_what_is_new_and_prunes_the_oldest_of_this_machine_alone(
    there: set[Entry], here: set[Entry], keep: int | None
) -> None:
    here = {Entry(entry.stem, "desk") for entry in here}
    push, prune = plan(there, here, "desk", keep)
    after = (there | set(push)) - set(prune)
    assert set(prune) <= there
    assert all(entry.machine == "desk" for entry in prune)
    assert set(push) <= here
    assert list(push) == sorted(push)
    if keep is None:
        assert not prune
        assert {entry.stem for entry in here} <= {entry.stem for entry in after}
        return
    for name in ("main", "change", "desk-#"):
        ours = sorted(e.stem for e in after if e.machine == "desk" and e.name.startswith(name.removesuffix("#")))
        known = {e.stem for e in there}
        all_ours = sorted(
            {e.stem for e in there | {h for h in here if h.stem not in known} if e.machine == "desk"}
            & {e.stem for e in there | here if e.name.startswith(name.removesuffix("#"))}
        )
        assert ours == all_ours[-keep:]
    assert plan(after, here, "desk", keep) == ([], [])


def test_keep_deletes_the_oldest_runs_of_this_machine_with_their_pictures(place: Path, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        record(tmp_path / "desk", "main", day)
    record(tmp_path / "laptop", "main", 1)
    exchange(place, tmp_path / "laptop", "laptop")
    exchange(place, tmp_path / "desk", "desk")
    record(tmp_path / "desk", "main", 4)
    done = exchange(place, tmp_path / "desk", "desk", keep=2)
    assert (len(done.pushed), len(done.pruned)) == (1, 2)
    left = files(place)
    assert sum(path.startswith("desk/") and path.endswith(".json") for path in left) == 2
    assert {Path(path).parts[1][:8] for path in left if path.startswith("desk/")} == {"20261103", "20261104"}
    assert sum(path.startswith("laptop/") for path in left) == 5
    assert exchange(place, tmp_path / "desk", "desk", keep=2) == Exchange()


def test_pull_only_changes_nothing_in_the_place(place: Path, tmp_path: Path) -> None:
    record(tmp_path / "desk", "main")
    exchange(place, tmp_path / "desk", "desk")
    before = files(place)
    record(tmp_path / "laptop", "main")
    done = exchange(place, tmp_path / "laptop", "laptop", pull_only=True)
    assert (names(done.pulled), done.pushed) == (["desk/main"], [])
    assert files(place) == before


def test_pictures_are_made_small_and_maps_stay_exact(place: Path, tmp_path: Path) -> None:
    run = record(tmp_path / "desk", "main")
    accuracy = next(b.info.accuracy for b in run.benchmarks if b.info.accuracy)
    assert accuracy.photo
    assert accuracy.class_map
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    Image.effect_noise((3000, 2000), 60).convert("RGB").save(run.path.parent / accuracy.photo, exif=exif)
    exact = (run.path.parent / accuracy.class_map).read_bytes()
    exchange(place, tmp_path / "desk", "desk")
    exchange(place, tmp_path / "here", "laptop")
    (pulled,) = map(load_run, find_runs(tmp_path / "here"))
    shown = next(b.info.accuracy for b in pulled.benchmarks if b.info.accuracy)
    assert shown.photo
    assert shown.class_map
    with Image.open(pulled.path.parent / shown.photo) as photo:
        assert photo.size == (960, 640)
        assert not photo.getexif()
    assert (pulled.path.parent / shown.class_map).read_bytes() == exact


def test_a_run_in_progress_is_not_pushed(place: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    run = record(tmp_path / "desk", "main")
    journal = run.path.with_suffix(".partial.jsonl")
    with journal.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert exchange(place, tmp_path / "desk", "desk") == Exchange()
    assert len(exchange(place, tmp_path / "desk", "desk").pushed) == 1, "once it has ended"
    assert not journal.exists()


def test_what_cannot_be_read_here_is_named_and_the_rest_is_pushed(place: Path, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        record(tmp_path / "desk", "main", day)
    paths = sorted((tmp_path / "desk").rglob("*.json"))
    for path, change in ((paths[0], {"started": "yesterday"}), (paths[1], {"schema_version": 99})):
        document = json.loads(path.read_bytes())
        document["segcore"] |= change
        path.write_text(json.dumps(document))
    done = exchange(place, tmp_path / "desk", "desk")
    assert len(done.pushed) == 1
    assert [name in line for line, name in zip(done.failed, ("0001_main", "0002_main"), strict=True)] == [True] * 2


@pytest.mark.parametrize("name", ["x" * 240, "é" * 115, "猫" * 80, "a b+c@d", "trailing.", "-dash", "..", "caf\udce9"])
def test_names_of_any_kind_travel(place: Path, tmp_path: Path, name: str) -> None:
    """Near 255 bytes with number and ending; bytes that are not UTF-8."""
    plain = record(tmp_path / "desk", "x")
    run_file = plain.path.with_name(f"0001_{name}.json")
    plain.path.rename(run_file)
    assert len(exchange(place, tmp_path / "desk", "desk").pushed) == 1
    exchange(place, tmp_path / "here", "laptop")
    (path,) = find_runs(tmp_path / "here")
    assert load_run(path).measured == plain.measured
    assert len(os.fsencode(path.name)) <= 255
    assert exchange(place, tmp_path / "desk", "desk") == Exchange()


@pytest.mark.parametrize(
    "path",
    [
        "desk/2026110110000088007841_main.json.json/x",
        "../2026110110000088007841_main.json",
        "desk/../2026110110000088007841_main.json",
        "/desk/2026110110000088007841_main.json",
        ".git/2026110110000088007841_main.json",
        "desk./2026110110000088007841_main.json",
        "a b/2026110110000088007841_main.json",
        f"{'x' * 64}/2026110110000088007841_main.json",
        "desk/0001_main.json",
        "desk/2026110110000088007841_main.txt",
        "desk/2026110110000088007841_.json",
        "desk/2026110110000088007841_a\nb.json",
        "desk/2026110110000088007841_a\\b.json",
        "desk/2026110110000088007841_a\udcff.json",
        f"desk/2026110110000088007841_{'x' * 221}.json",
        "desk/2026110110000088007841_main/photo.jpg",
        "desk/2026110110000088007841_main/004d73e5de16373f0e707b73cc7beca1.svg",
        "desk/2026110110000088007841_main/../004d73e5de16373f0e707b73cc7beca1.png",
        "desk/٢٠٢٦١١٠١١٠٠٠٠٠٨٨٠٠٧٨٤١_main.json",
        "README.md",
        "",
    ],
)
def test_other_names_are_no_runs(path: str) -> None:
    assert parse_entry(path) is None


def test_a_name_comes_back_from_its_file() -> None:
    entry = Entry("2026110110000088007841_main", "desk")
    assert parse_entry(entry.file) == (entry, "")
    assert parse_entry(f"{entry.directory}/{'a' * 32}.png") == (entry, f"{'a' * 32}.png")
    assert (entry.name, entry.full_name) == ("main", "desk/main")


def hostile_files(valid: bytes) -> dict[str, bytes]:
    """Return run files as nobody of ours writes them; the last one is good."""
    stem = "20261101100000{:08}_main".format

    def with_picture(path: str) -> bytes:
        document = json.loads(valid)
        for entry in document["benchmarks"]:
            if accuracy := entry["extra_info"]["segcore"]["accuracy"]:
                accuracy |= {"photo": path, "class_map": path}
        return json.dumps(document).encode()

    return {
        f"evil/{stem(1)}.json": b"",
        f"evil/{stem(2)}.json": b"{",
        f"evil/{stem(3)}.json": b"[" * 100_000,
        f"evil/{stem(4)}.json": b"\xff" * 1000,
        f"evil/{stem(5)}.json": b'{"segcore": {"schema_version": 99}}',
        f"evil/{stem(6)}.json": valid.replace(b'"schema_version": 3', b'"schema_version": 3, "evil": 1'),
        f"evil/{stem(7)}.json": with_picture("../../../../../../etc/passwd"),
        f"evil/{stem(8)}.json": with_picture("/etc/passwd"),
        f"evil/{stem(9)}.json": with_picture(f"{stem(9)}/{'a' * 32}.png"),
        f"evil/{stem(9)}/{'a' * 32}.png": b"not what its name says",
        f"evil/{stem(9)}/notes.txt": b"x",
        "evil/notes.json": valid,
        "README.md": b"# mine",
        f"good/{stem(10)}.json": valid,
    }


def plant(place: Path, content: dict[str, bytes], links: dict[str, str]) -> None:
    """Put files and symbolic links into a place, as somebody with access to it could."""
    if not (place / "objects").exists():
        for path, data in content.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        for path, target in links.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).symlink_to(target)
        return
    stream = [b"commit refs/heads/segcore-runs\ncommitter a <a@b> 1 +0000\ndata 0\n"]
    for path, data in {".segcore-runs": b"", **content}.items():
        stream.append(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data))
    for path, target in links.items():
        stream.append(b"M 120000 inline %b\ndata %d\n%b\n" % (path.encode(), len(target), target.encode()))
    stream.append(b"M 160000 0123456789012345678901234567890123456789 evil/2026110110000000000055_main.json\n")
    subprocess.run(["git", "fast-import", "--quiet"], cwd=place, input=b"".join(stream), check=True)


def test_a_hostile_place_is_only_data(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "MAX_BYTES", 200_000)
    valid = record(tmp_path / "good", "main").path.read_bytes()
    content = hostile_files(valid)
    content["evil/2026110110000000000077_main.json"] = valid + b" " * 200_000
    secret = tmp_path / "secret.json"
    secret.write_bytes(valid)
    links = {
        "evil/2026110110000000000066_main.json": str(secret),
        "linked": str(tmp_path / "good" / "Linux-CPython"),
        "evil/2026110110000000000088_main": "/etc",
    }
    plant(place, content, links)
    record(tmp_path / "desk", "main", 9)
    before = set(tmp_path.rglob("*"))
    done = exchange(place, tmp_path / "desk", "desk")
    assert sorted(names(done.pulled)) == ["evil/main"] * 3 + ["good/main"]
    assert len(done.left_out) == 7
    assert names(done.pushed) == ["desk/main"]
    new = set(tmp_path.rglob("*")) - before - set(place.rglob("*"))
    store = tmp_path / "desk" / MACHINES
    assert {path for path in new if path.is_file()} == {store / e.file for e in done.pulled}
    assert not any(path.is_symlink() for path in new)
    for path in find_runs(tmp_path / "desk"):
        for case in build_report([load_run(path)]).cases:
            seen = open_pictures(case)
            assert (seen.photo is None) == (path.parent.name in ("evil", "good"))


def test_a_link_instead_of_the_directory_of_this_machine_is_refused(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / "desk").symlink_to(elsewhere)
    record(tmp_path / "desk", "main")
    with pytest.raises(OutputError, match="symbolic link"):
        exchange(place, tmp_path / "desk", "desk")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("nth", range(1, 12))
def test_an_interrupt_leaves_whole_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    place = tmp_path / "place"
    place.mkdir()
    record(tmp_path / "desk", "main")
    exchange(place, tmp_path / "desk", "desk")
    record(tmp_path / "laptop", "main", 2)
    from segcore.core import files as writing

    calls = 0

    def interrupted(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise KeyboardInterrupt
        writing.write_file(path, data)

    for module in ("shipping", "places"):
        monkeypatch.setattr(f"segcore.results.{module}.write_file", interrupted)
    with pytest.raises(KeyboardInterrupt) if nth <= 10 else pytest.MonkeyPatch.context():
        exchange(place, tmp_path / "laptop", "laptop")
    for path in (*find_runs(place), *find_runs(tmp_path / "laptop")):
        for case in build_report([load_run(path)]).cases:
            assert open_pictures(case).notes == ()
    with_runs = {path.with_suffix("") for path in place.rglob("*.json")}
    assert {path.parent for path in place.rglob("*.png")} == with_runs
    monkeypatch.undo()
    exchange(place, tmp_path / "laptop", "laptop")
    exchange(place, tmp_path / "here", "here")
    assert len(find_runs(tmp_path / "here")) == len(find_runs(tmp_path / "laptop")) == 2


def test_a_push_that_loses_the_race_is_made_again_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place.git"
    place.mkdir()
    git(place, "init", "-q", "--bare")
    for machine in ("desk", "laptop", "server"):
        record(tmp_path / machine, "main")
    change, others = GitPlace.change, ["laptop", "server"]

    def change_late(self: GitPlace, added: Mapping[str, bytes], removed: Sequence[Entry], message: str) -> None:
        """Let another machine push first, twice: once to the branch that is not there yet."""
        if message.startswith("desk") and others:
            exchange(place, tmp_path / others[0], others.pop(0))
        change(self, added, removed, message)

    monkeypatch.setattr(GitPlace, "change", change_late)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert names(exchange(place, tmp_path / "desk", "desk").pushed) == ["desk/main"]
    assert {path.partition("/")[0] for path in files(place)} == {"desk", "laptop", "server"}
    assert git(place, "rev-list", "--count", "segcore-runs") == "3", "one commit each, none replaced"


def test_a_push_that_is_always_refused_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place.git"
    place.mkdir()
    git(place, "init", "-q", "--bare")
    (place / "hooks" / "pre-receive").write_text("#!/bin/sh\necho 'only admins push here' >&2\nexit 1\n")
    (place / "hooks" / "pre-receive").chmod(0o755)
    record(tmp_path / "desk", "main")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(OutputError, match="pre-receive hook declined"):
        exchange(place, tmp_path / "desk", "desk")


@pytest.mark.parametrize(
    ("reference", "branch", "words"),
    [
        ("nowhere", "runs", "wanted a directory"),
        ("--upload-pack=x", "runs", "wanted a directory"),
        ("file:///nowhere/x.git", "runs", "fatal: '/nowhere/x.git' does not appear to be a git repository"),
        ("code", "main", "was not made for runs"),
        ("code", "a..b", "not a valid branch name"),
        ("code", "a b", "not a valid branch name"),
    ],
)
def test_a_place_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, branch: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code = tmp_path / "code"
    code.mkdir()
    git(code, "init", "-q", "-b", "main")
    git(code, "commit", "-q", "--allow-empty", "-m", "code")
    head = git(code, "rev-parse", "main")
    record(tmp_path / "desk", "main")
    with pytest.raises(UsageError, match=words), open_place(reference, branch) as place:
        sync.sync(place, tmp_path / "desk", "desk")
    assert git(code, "rev-parse", "main") == head


def test_a_remote_is_named_as_git_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from within a hook, whose variables name the repository here."""
    for name in ("place.git", "code"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "-q", *(["--bare"] if name != "code" else []))
    git(tmp_path / "code", "remote", "add", "upstream", str(tmp_path / "place.git"))
    monkeypatch.chdir(tmp_path / "code")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "code" / ".git"))
    record(tmp_path / "desk", "main")
    assert len(exchange("upstream", tmp_path / "desk", "desk").pushed) == 1
    monkeypatch.delenv("GIT_DIR")
    assert files(tmp_path / "place.git")
    assert git(tmp_path / "code", "for-each-ref") == ""


def test_only_the_files_that_are_wanted_are_fetched(tmp_path: Path) -> None:
    place = tmp_path / "place.git"
    place.mkdir()
    git(place, "init", "-q", "--bare")
    git(place, "config", "uploadpack.allowFilter", "true")
    record(tmp_path / "desk", "main")
    exchange(place, tmp_path / "desk", "desk")
    exchange(place, tmp_path / "here", "here")
    (tmp_path / "scratch").mkdir()
    opened = GitPlace(place.as_uri(), "segcore-runs", tmp_path / "scratch")
    there = opened.listing()
    objects: Callable[[], str] = lambda: git(tmp_path / "scratch", "cat-file", "--batch-all-objects", "--batch-check")  # noqa: E731
    assert "blob" not in objects()
    (entry,) = there
    opened.prepare([entry.file])
    assert objects().count("blob") == 1
    assert parse_entry(entry.file)
    assert json.loads(opened.read(entry.file, 1 << 20))["segcore"]
    with pytest.raises(OSError, match="bytes"):
        opened.read(entry.file, 10)
    record(tmp_path / "server", "main", 5)
    new = entry_of(next(iter(find_runs(tmp_path / "server"))), "server")
    opened.change(pack(new, next(iter(find_runs(tmp_path / "server")))), (), "server")
    assert {path.partition("/")[0] for path in files(place)} == {"desk", "server"}
    with pytest.raises(ConflictError):
        opened.change({new.file: b""}, (), "from a head that is not the latest")


PUSHERS = """
import os, sys
from pathlib import Path
from segcore.results.sync import open_place, sync

def push(place, storage, machine):
    with open_place(place, "segcore-runs") as opened:
        done = sync(opened, Path(storage), machine)
    assert len(done.pushed) == 2 and not done.failed, done

ready, go = os.pipe()
for n in range(20):
    if not os.fork():
        os.close(go)
        os.read(ready, 1)  # ends when the parent closes the other end: for all at once
        push(sys.argv[1], f"{sys.argv[2]}/s{n}", f"m{n % 4}")
        os._exit(0)
os.close(go)
sys.exit(sum(os.wait()[1] != 0 for _ in range(20)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_many_pushers_at_once_lose_nothing(place: Path, tmp_path: Path) -> None:
    """Four machines' names among twenty processes, all waiting for the same moment."""
    wanted = {record(tmp_path / f"s{n}", "main", day, slower=1 + n / 100).measured for n in range(20) for day in (1, 2)}
    done = subprocess.run(
        [sys.executable, "-c", PUSHERS, str(place), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    exchange(place, tmp_path / "here", "here")
    runs = [load_run(path) for path in find_runs(tmp_path / "here")]
    assert {run.measured for run in runs} == wanted
    assert all(open_pictures(case).notes == () for run in runs for case in build_report([run]).cases)


def test_a_directory_place_has_no_conflicts(tmp_path: Path) -> None:
    assert DirectoryPlace(tmp_path).listing() == {}


def test_what_a_killed_process_left_is_deleted_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name, age in ((f"{sync.PREFIX}old", 2 * sync.ABANDONED_S), (f"{sync.PREFIX}new", 60), ("other", 10**7)):
        (tmp_path / "tmp" / name).mkdir(parents=True)
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    (tmp_path / "place").mkdir()
    git(tmp_path / "place", "init", "-q", "--bare")
    exchange(tmp_path / "place", tmp_path / "desk", "desk")
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == {f"{sync.PREFIX}new", "other"}
