"""Files that systems and editors leave, and names that are spelled in several ways."""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from segcore.core.errors import DatasetError, ImageError
from segcore.core.files import find_file, is_hidden
from segcore.inputs.cases import check_cases
from segcore.inputs.datasets import open_dataset
from segcore.inputs.images import find_photos
from tests.support.pairs import save_mask

STRAY = (
    *("._a.jpg", "._a.png", "._a.yaml", ".DS_Store", ".hidden.jpg", ".hidden.png", ".hidden.yaml"),  # macOS
    *("Thumbs.db", "desktop.ini", "ehthumbs.db", "~$a.docx"),  # Windows
    *(".a.yaml.swp", ".a.jpg.swp", "a.yaml~", "a.jpg~", "#a.yaml#", ".#a.yaml", ".#a.jpg", "4913"),  # editors
    *(".~lock.a.csv#", ".nfs000000001", ".directory", ".gitkeep", "a.jpg.part", "a.png.crdownload"),
)
STRAY_DIRECTORIES = (".ipynb_checkpoints", ".git", "@eaDir", ".thumbnails", "__pycache__")
NFC, NFD = (unicodedata.normalize(form, "Ångström é") for form in ("NFC", "NFD"))


def litter(directory: Path) -> None:
    """Leave behind what systems and editors leave."""
    for name in STRAY:
        if name.startswith(".#"):
            (directory / name).symlink_to("someone@host.1")
        else:
            (directory / name).write_bytes(b"\0\5\x26\7")
    for name in STRAY_DIRECTORIES:
        (directory / name).mkdir()
        (directory / name / "b.jpg").write_bytes(b"\0\5\x26\7")
    (directory / ".ipynb_checkpoints/a-checkpoint.yaml").write_bytes(b"\0\5\x26\7")


def save_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (7, 5)).save(path, format="JPEG")
    return path


def test_stray_files_are_no_pairs(tmp_path: Path) -> None:
    save_photo(tmp_path / "images/a.jpg")
    save_mask(np.full((5, 7), 8, np.uint8), tmp_path / "masks/a.png")
    for directory in ("images", "masks"):
        litter(tmp_path / directory)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.names == ("a.jpg",)
    assert dataset.load(0)[1].tolist() == [[8] * 7] * 5


def test_stray_files_are_no_photos(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg")
    litter(tmp_path)
    assert find_photos([str(tmp_path)]) == (str(photo),)
    assert find_photos([str(tmp_path / "*")]) == (str(photo),)


def test_a_directory_of_stray_files_has_no_photo(tmp_path: Path) -> None:
    litter(tmp_path)
    with pytest.raises(ImageError, match="no photo in it"):
        find_photos([str(tmp_path)])


def test_stray_files_are_no_cases(tmp_path: Path) -> None:
    save_photo(tmp_path / ".cases/a.jpg")  # the directory that is named may itself be hidden
    (tmp_path / ".cases/a.yaml").write_text("name: a\nimage: {path: a.jpg}\n")
    litter(tmp_path / ".cases")
    cases, problems = check_cases(tmp_path / ".cases")
    assert ([case.name for case in cases], problems) == (["a"], ())


def test_stray_lists_are_no_splits(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name in ("._val.txt", "train.txt"):
        (lists / name).touch()
    with pytest.raises(DatasetError, match=r"splits there are: train$"):
        open_dataset("voc", tmp_path)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a.yaml", False),
        ("._a.yaml", True),
        (".git/a.yaml", True),
        ("a/.b/c.yaml", True),
        ("a/b.c/d..yaml", False),
        ("..a", True),
    ],
)
def test_hidden_files(path: str, hidden: bool) -> None:
    assert is_hidden(Path(path)) is hidden


# Spelling


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        (["a.jpg"], "a.jpg", "a.jpg"),
        (["a.JPG"], "a.jpg", "a.JPG"),
        (["a.Jpg"], "a.JPG", "a.Jpg"),
        (["a.jpg", "a.JPG"], "a.jpg", "a.jpg"),
        (["a.jpg", "a.JPG"], "a.Jpg", "a.Jpg"),  # either may be meant
        ([NFD], NFC, NFD),
        ([NFC], NFD, NFC),
        ([f"{NFD}.PNG"], f"{NFC}.png", f"{NFD}.PNG"),
        (["A.jpg"], "a.jpg", "a.jpg"),  # another name
        (["b.jpg"], "a.jpg", "a.jpg"),
        ([], "a" * 300, "a" * 300),
        ([], "a\0b", "a\0b"),
        ([], "\udcff\ud800", "\udcff\ud800"),
        ([], "nowhere/a.jpg", "nowhere/a.jpg"),
    ],
)
def test_a_file_that_is_spelled_alike_is_found(tmp_path: Path, there: list[str], asked: str, found: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert find_file(tmp_path / asked) == tmp_path / found
    (tmp_path / "later.JPG").touch()
    assert find_file(tmp_path / "later.jpg") == tmp_path / "later.JPG"


ENDINGS = [("a.jpg", "a.png"), ("a.JPG", "a.PNG"), ("a.JPG", "a.png"), ("a.jpg", "a.Png")]
FORMS = [(f"{photo}.jpg", f"{mask}.png") for photo in (NFC, NFD) for mask in (NFC, NFD)]


@pytest.mark.parametrize(("photo", "mask"), ENDINGS + FORMS)
@pytest.mark.parametrize("layout", ["voc", "folder"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_pairs_whose_files_are_spelled_differently(
    tmp_path: Path, layout: str, photo: str, mask: str, form: Literal["NFC", "NFD"]
) -> None:
    photos, masks = {"voc": ("JPEGImages", "SegmentationClass"), "folder": ("images", "masks")}[layout]
    save_photo(tmp_path / photos / photo)
    save_mask(np.full((5, 7), 8, np.uint8), tmp_path / masks / "a.png")
    (tmp_path / masks / "a.png").rename(tmp_path / masks / mask)
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    stem = Path(photo).stem.replace(" ", "_") if layout == "voc" else Path(photo).stem
    if layout == "voc":  # a list has a name as the first word of a line
        for path in (tmp_path / photos / photo, tmp_path / masks / mask):
            path.rename(path.with_name(path.name.replace(" ", "_")))
    (lists / "val.txt").write_text(unicodedata.normalize(form, stem) + "\n", encoding="utf-8")
    dataset = open_dataset(layout, tmp_path)
    assert all(unicodedata.is_normalized("NFC", name) for name in dataset.names)  # so that its hash is the same
    assert dataset.load(0)[1].tolist() == [[8] * 7] * 5


def test_photos_of_one_name_in_two_spellings_are_refused(tmp_path: Path) -> None:
    for name in (NFC, NFD):
        save_photo(tmp_path / f"images/{name}.jpg")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetError, match="more than one photo is named"):
        open_dataset("folder", tmp_path)


def test_a_photo_of_a_case_is_found_whatever_its_spelling(tmp_path: Path) -> None:
    save_photo(tmp_path / f"{NFD}.JPG")
    (tmp_path / "a.yaml").write_text(f"name: a\nimage: {{path: {NFC}.jpg}}\n", encoding="utf-8")
    assert check_cases(tmp_path)[1] == ()


# Split lists


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode(),
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-32"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: text.replace("\n", " \t\n").encode(),
        lambda text: text.replace("\n", "\n\n \n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: b"".join(codecs.BOM_UTF8 + line.encode() for line in text.splitlines(keepends=True)),
        lambda text: text.replace("\n", "  1\n").encode(),
        lambda text: text.replace("\n", "\u00a0\u3000\n").encode(),
        lambda text: text.encode() + b"\x1a",  # end of a file in DOS
    ],
)
def test_lists_as_other_tools_write_them(tmp_path: Path, written: Callable[[str], bytes]) -> None:
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_bytes(written("a\né\n2007_000032\n"))
    assert open_dataset("voc", tmp_path).names == ("a", "é", "2007_000032")


@pytest.mark.parametrize("data", ["é\n".encode("latin-1"), b"\0", b"\xff\xfe\0", b"ab\0\n"])
def test_lists_that_are_no_text_are_refused(tmp_path: Path, data: bytes) -> None:
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_bytes(data)
    with pytest.raises(DatasetError, match=r"val\.txt: no list of images"):
        open_dataset("voc", tmp_path)


@pytest.mark.parametrize("layout", ["voc", "coco", "folder"])
@pytest.mark.parametrize("split", ["**", "[", "../..", "a" * 300, "a\nb", "/", "\udcff", "fifo", "zero"])
def test_splits_that_are_none_are_refused(tmp_path: Path, layout: str, split: str) -> None:
    lists, annotations = tmp_path / "ImageSets/Segmentation", tmp_path / "annotations"
    for directory, ending in ((lists, "{}.txt"), (annotations, "instances_{}2017.json")):
        directory.mkdir(parents=True)
        os.mkfifo(directory / ending.format("fifo"))
        (directory / ending.format("zero")).symlink_to("/dev/zero")
    with pytest.raises(DatasetError):
        open_dataset(layout, tmp_path, split)
