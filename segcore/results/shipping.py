"""Pack runs for a place with those of many machines, and unpack and check those of others.

A place has ``MACHINE/STARTED_NAME.json`` and, in ``MACHINE/STARTED_NAME/``, pictures named by their own hash. STARTED
is when the run began (UTC) and eight digits of the hash of its file: runs of any number of machines never share a name,
and pushing one again changes nothing. What a place holds was written by others: files with names of another form are
ignored, and contents are read within limits, checked, and never followed.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from segcore.core.errors import ImageError, RecordError
from segcore.core.files import read_file, write_file
from segcore.core.image_files import open_image
from segcore.core.records import Run
from segcore.core.system import MAX_MACHINE
from segcore.results.naming import MACHINES, saved_name
from segcore.results.pictures import MAX_PIXELS, picture_path
from segcore.results.store import (
    MAX_BYTES,
    document_bytes,
    is_ours,
    parse_document,
    parse_run,
    read_bytes,
    read_document,
)

MAX_SIDE = 960
"""Pixels of the longer side of a photo in a place; a page shows at most 640."""
MAX_PICTURE = 16 << 20
"""Bytes of a picture; a larger one stays where it is."""
MAX_NAME = 220
"""Bytes of NAME, so that the file name has at most the 255 of every file system."""
_JPEG_QUALITY = 80
_STEM = re.compile(r"(\d{22})_(.+)", re.ASCII | re.DOTALL)
_MACHINE = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9.-]{{0,{MAX_MACHINE - 2}}}[A-Za-z0-9])?")
_PICTURE = re.compile(r"[0-9a-f]{32}\.(png|jpg)")
_MAPS = ("class_map", "margin_map")


@dataclass(frozen=True, order=True)
class Entry:
    """One run of a place."""

    stem: str
    """Orders the runs of a machine by when they began."""
    machine: str

    @property
    def file(self) -> str:
        """Path of the run file in a place."""
        return f"{self.machine}/{self.stem}.json"

    @property
    def directory(self) -> str:
        """Path of the pictures in a place."""
        return f"{self.machine}/{self.stem}"

    @property
    def name(self) -> str:
        """Name the run was saved under."""
        return saved_name(Path(f"{self.stem}.json"))

    @property
    def full_name(self) -> str:
        """Name by which the run can be referred to on every machine."""
        return f"{self.machine}/{self.name}"


def entry_of(path: Path, machine: str) -> Entry:
    """Return what a run of this machine is called in any place.

    Raises:
        RecordError: the file cannot be read, or does not say when the run began.
    """
    data = read_bytes(path)
    document = parse_document(data, str(path))
    head = document.get("segcore") if isinstance(document, dict) else None
    started = str(head.get("started")) if isinstance(head, dict) else ""
    try:
        moment = datetime.fromisoformat(started).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RecordError(f"{path}: started {started[:50]!r} is not a time; record the run again") from None
    digits = int(hashlib.sha256(data).hexdigest()[:16], 16) % 10**8
    return Entry(f"{moment.year:04}{moment:%m%d%H%M%S}{digits:08}_{_portable(saved_name(path))}", machine)


def _portable(name: str) -> str:
    """Return a name as every file system can hold it."""
    text = unicodedata.normalize("NFC", name)
    clean = "".join("-" if char in r'\/:*?"<>|' or not char.isprintable() else char for char in text)
    return clean.encode()[:MAX_NAME].decode(errors="ignore") or "-"


def parse_entry(path: str) -> tuple[Entry, str] | None:
    """Return the run that a file of a place belongs to, and the picture that it is, if any; None for other files."""
    machine, *rest = path.split("/")
    if not _MACHINE.fullmatch(machine) or not 1 <= len(rest) <= 2:
        return None
    stem, picture = (rest[0].removesuffix(".json"), "") if len(rest) == 1 else (rest[0], rest[1])
    found = _STEM.fullmatch(stem)
    if not found or _portable(found[2]) != found[2]:
        return None
    if (picture and not _PICTURE.fullmatch(picture)) or (not picture and not path.endswith(".json")):
        return None
    return Entry(stem, machine), picture


def pack(entry: Entry, path: Path) -> dict[str, bytes]:
    """Return the files of a run as a place gets them, by path, the run file last.

    Photos are made small; maps, which are compared pixel by pixel, are not changed; overlays can be drawn from both.
    A picture that is missing or no picture is left out, as it is where the run was recorded.

    Raises:
        RecordError: the run cannot be read.
    """
    document: Any = read_document(path)
    run = parse_run(document, path)
    files: dict[str, bytes] = {}
    for record, field in _pictures(document):
        if field == "overlay":
            record[field] = None
            continue
        try:
            data = _map(run, record[field]) if field in _MAPS else _photo(run, record[field])
        except (ImageError, RecordError, OSError):
            continue
        if len(data) <= MAX_PICTURE:
            name = _picture_name(data, "png" if field in _MAPS else "jpg")
            record[field] = f"{entry.stem}/{name}"
            files[f"{entry.directory}/{name}"] = data
    files[entry.file] = document_bytes(document)
    return files


def unpack(read: Callable[[str, int], bytes], entry: Entry, pictures: Mapping[str, str], storage: Path) -> None:
    """Copy a run from a place into a store, its file last; what is there already stays.

    `read` is the `Place.read` of the place, and `pictures` are the paths there by name.

    Raises:
        RecordError: it cannot be read, or it is no valid run.
        OutputError: it cannot be written.
    """
    where = storage / MACHINES / entry.machine
    try:
        data = read(entry.file, MAX_BYTES)
    except OSError as error:
        raise RecordError(f"{entry.file}: cannot be read: {error.strerror or error}") from None
    document: Any = parse_document(data, entry.file)
    parse_run(document, Path(entry.file))
    for record, field in _pictures(document):
        stem, _, name = str(record[field]).partition("/")
        if stem == entry.stem and name in pictures and not (where / stem / name).exists():
            try:
                picture = read(pictures[name], MAX_PICTURE)
            except OSError:
                continue  # reports say of the picture that it is missing
            if _picture_name(picture, name.partition(".")[2]) == name:
                write_file(where / stem / name, picture)
    write_file(where / f"{entry.stem}.json", data)


def _picture_name(data: bytes, ending: str) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:32]}.{ending}"


def _pictures(document: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each record of a valid document that names a picture, with the field that does."""
    for entry in filter(is_ours, document["benchmarks"]):
        info = entry["extra_info"]["segcore"]
        accuracy = info.get("accuracy") or {}
        yield from ((accuracy, field) for field in (*_MAPS, "photo", "overlay") if accuracy.get(field))
        worst = (info.get("dataset") or {}).get("worst") or ()
        yield from ((record, "picture") for record in worst if record.get("picture"))


def _map(run: Run, relative: str) -> bytes:
    path = picture_path(run, relative)
    with open_image(path, ("PNG",), MAX_PIXELS):
        return read_file(path, MAX_PICTURE)


def _photo(run: Run, relative: str) -> bytes:
    """Return a photo as a JPEG, of at most `MAX_SIDE` pixels, without what a camera writes beside the pixels."""
    path = picture_path(run, relative)
    with open_image(path, ("JPEG", "PNG"), MAX_PIXELS) as image:
        if image.format == "JPEG" and max(image.size) <= MAX_SIDE and not image.getexif():
            return read_file(path, MAX_PICTURE)
        small = image.convert("RGB")
        small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
        return out.getvalue()
