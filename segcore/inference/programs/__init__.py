"""Programs that segment photos: a photo file in, a class map PNG out, in any language.

A program is started for each photo, ``[PROGRAM, ARGS..., "{photo}", "{mask}"]``, and writes the mask; or it serves:
it is started once, reads the path of a photo as a line on standard input, and answers with the path of its mask as a
line on standard output, with milliseconds of its own behind it if it likes (``/tmp/a.png 12.5``). Whatever else it does
is an error of that photo.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segcore.core.errors import ImageError, ProgramError
from segcore.core.image_files import open_image
from segcore.core.labels import ClassMap
from segcore.core.model_spec import MASK, PHOTO, PhotoFormat
from segcore.core.text import listed
from segcore.inference.decode import RgbImage
from segcore.inference.programs.child import Child, Watchdog, shown

_CLOCK_S = 2.0
"""Coarsest time of a file: FAT keeps every second one."""
_ANSWER = re.compile(r"(?P<mask>.+\.png)(?:[ \t]+(?P<ms>[0-9]+(?:\.[0-9]*)?))?", re.IGNORECASE)


@dataclass(frozen=True)
class ProgramSpec:
    """How a program is run."""

    command: tuple[str, ...]
    """Program and arguments; without `serve`, ``{photo}`` and ``{mask}`` in them stand for the paths of the files."""
    directory: Path
    serve: bool = False
    timeout_s: float = 60.0
    """Longest time for one photo, the start of the program included."""
    photos: PhotoFormat = "png"
    """Format of the photos it gets, 8-bit RGB: PPM (``P6``) can be read without a library."""

    def sha256(self) -> str:
        """Return a hash of the command and of all files that it names: another build is another model."""
        found = hashlib.sha256()
        for number, word in enumerate(self.command):
            found.update(f"{len(word)} {word}\n".encode(errors="surrogateescape"))
            name = word if number or os.sep in word else shutil.which(word) or word
            with contextlib.suppress(OSError, ValueError):
                found.update((self.directory / name).read_bytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Answer:
    """What a program made of a photo."""

    class_map: ClassMap
    """uint8 (H, W), or uint16 if there are more than 256 classes."""
    own_seconds: float | None = None
    """As the program says."""


class Program:
    """A program that is ready for photos; one at a time, whichever thread asks.

    A mask with a value of `classes` or more is an error.

    Raises:
        ProgramError: this system has no process groups.
    """

    def __init__(self, spec: ProgramSpec, classes: int) -> None:
        if os.name != "posix":
            raise ProgramError(f"{spec.command[0]}: programs as models need Linux or macOS")
        self.spec = spec
        self._classes = classes
        self._lock = threading.Lock()
        self._state = _State(Path(tempfile.mkdtemp(prefix="segcore-program-")))
        self.close = weakref.finalize(self, _State.close, self._state)
        """End the program and remove its files; also called when the object or the interpreter goes."""

    def segment(self, photo: RgbImage) -> Answer:
        """Return the class map of a photo, uint8 RGB (H, W, 3).

        Raises:
            ProgramError: the program failed; the next photo starts it anew.
        """
        with self._lock:
            self._state.photos += 1
            stem = f"{self._state.photos:06}"
            file = self._state.directory / f"{stem}.{self.spec.photos}"
            Image.fromarray(photo).save(file, compress_level=1)  # which is for PNG alone
            try:
                run = self._serve if self.spec.serve else self._start
                return run(file, photo.shape[:2])
            except ProgramError as error:
                raise ProgramError(f"{' '.join(self.spec.command)[:200]}: {error}") from None
            finally:
                for leftover in self._state.directory.glob(f"{stem}*"):
                    with contextlib.suppress(OSError):
                        leftover.unlink()

    def _start(self, photo: Path, shape: tuple[int, ...]) -> Answer:
        mask = photo.with_name(f"{photo.stem}-mask.png")
        words = [part.replace(PHOTO, str(photo)).replace(MASK, str(mask)) for part in self.spec.command]
        deadline = time.monotonic() + self.spec.timeout_s
        child = Child(words, self.spec.directory, self._state.watchdog, serving=False)
        try:
            child.finish(deadline)
        finally:
            child.close()
        if not mask.exists():
            raise ProgramError(f"ended with exit code 0, but wrote no mask to {mask}{child.said()}")
        return Answer(self._read(mask, shape))

    def _serve(self, photo: Path, shape: tuple[int, ...]) -> Answer:
        state = self._state
        asked_at, start = time.time(), time.monotonic()
        state.child = state.child or Child(self.spec.command, self.spec.directory, state.watchdog, serving=True)
        try:
            answer = state.child.ask(str(photo), start + self.spec.timeout_s)
            mask, own = self._understand(answer, time.monotonic() - start)
            self._check_new(mask, asked_at)
            return Answer(self._read(mask, shape), own)
        except BaseException:  # also Ctrl-C: whatever it answers later would be taken for the next photo's
            state.child.close()
            state.child = None
            raise

    def _understand(self, answer: str, seconds: float) -> tuple[Path, float | None]:
        """Return the mask that a line names, and the seconds behind it."""
        found = _ANSWER.fullmatch(answer.strip())
        if found is None:
            what = shown(answer.encode(errors="surrogateescape"))
            raise ProgramError(f"answered {what}: wanted the path of a .png, alone or with milliseconds behind it")
        own = float(found["ms"]) / 1e3 if found["ms"] else None
        if own is not None and own > seconds + 1e-3:
            raise ProgramError(f"says it took {own * 1e3:g} ms, but answered after {seconds * 1e3:.1f} ms")
        return self.spec.directory / found["mask"], own

    def _check_new(self, mask: Path, asked_at: float) -> None:
        """Raise an error if the mask is of an earlier photo."""
        try:
            status = mask.stat()
        except (OSError, ValueError) as error:
            raise ProgramError(f"answered {mask}: {getattr(error, 'strerror', error)}") from None
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if status.st_mtime < asked_at - _CLOCK_S or identity == self._state.seen.get(mask):
            raise ProgramError(f"answered {mask}, which it has not written anew for this photo")
        self._state.seen[mask] = identity

    def _read(self, mask: Path, shape: tuple[int, ...]) -> ClassMap:
        """Return the class map in a file if it has the photo's size and only classes there are."""
        height, width = shape
        try:
            with open_image(mask, ("PNG",)) as image:
                size, mode = image.size, image.mode
                packed = mode == "L" and any(tile.args != "L" for tile in getattr(image, "tile", ()))
                fits = size == (width, height) and mode in {"P", "L", "I;16"} and not packed
                pixels = np.array(image) if fits else np.zeros((1, 1), dtype=np.uint8)  # not decoded: it may be huge
        except ImageError as error:
            raise ProgramError(f"wrote a mask that cannot be read: {error}") from None
        if size != (width, height):
            raise ProgramError(f"wrote a mask of {size[0]}x{size[1]} pixels for a photo of {width}x{height}")
        if not fits:
            found = f"mode {mode}" + " with less than 8 bits" * packed
            raise ProgramError(f"wrote a mask of {found}: wanted class indices, paletted or grey, 8-bit or 16-bit")
        largest = int(pixels.max())
        if largest >= self._classes:
            unknown = np.unique(pixels[pixels >= self._classes])
            raise ProgramError(
                f"wrote unknown class ids {listed(unknown, 5)}: the classes are 0 to {self._classes - 1}"
            )
        return pixels.astype(np.uint16) if self._classes > 256 else pixels.astype(np.uint8, copy=False)


class _State:
    """What must be ended: the directory of photos and masks, the watchdog, and the process that serves, if any."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.watchdog = Watchdog(directory)
        self.child: Child | None = None
        self.photos = 0
        self.seen: dict[Path, tuple[int, int, int]] = {}
        """Identity of the masks read so far."""
        self._owner = os.getpid()

    def close(self) -> None:
        if os.getpid() != self._owner:  # a fork of ours has no right to end it
            return
        if self.child is not None:
            self.child.close(kindly=True)
            self.child = None
        self.watchdog.close()
