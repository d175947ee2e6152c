from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore.core.errors import DatasetError, ImageError, UsageError
from segcore.core.labels import CITYSCAPES, CITYSCAPES_IDS, COCO_STUFF, VOC, LabelSet, numbered
from segcore.inputs.datasets import Dataset, fit, open_dataset
from segcore.inputs.datasets.label_map import LabelMap, by_name, read_label_map
from segcore.inputs.datasets.masks import mask_reader
from tests.support.pairs import TRAIN_IDS, make_cityscapes, make_coco, make_voc

STREET = """
classes:
  person: person
  rider: person
  26: car          # car
  motorcycle: 14   # motorbike
  bicycle: bike
  bus: bus
  train: train
  truck: ignore
others: background
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def save_png(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_a_map_by_names_aliases_and_indices(tmp_path: Path) -> None:
    found = read_label_map(write(tmp_path / "street.yaml", STREET), CITYSCAPES_IDS, VOC)
    mask = np.array([[24, 25, 26, 32, 33, 28, 31, 27, 7, 0, 255]], dtype=np.uint8)
    wanted = [[15, 15, 7, 14, 2, 6, 19, 255, 0, 0, 255]]
    for label_map in (found, pickle.loads(pickle.dumps(found))):
        assert label_map.apply(mask).tolist() == wanted
        assert label_map.apply(mask).dtype == np.uint8
    assert found.names["rider"] == "person"
    assert found.names["truck"] == "ignore"
    assert found.names["sky"] == "background"
    assert found.judged == {0, 15, 7, 14, 2, 6, 19}
    with pytest.raises(DatasetError, match=r"no class of cityscapes-ids: 34, 99; wanted 0 to 33 or 255"):
        found.apply(np.array([[34, 99, 255, 7]], dtype=np.uint8))


def test_a_map_by_name_and_16_bits(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "{by_name: true, classes: {background: ignore}, others: 0}")
    found = read_label_map(file, VOC, COCO_STUFF)
    assert found.names["pottedplant"] == "potted plant"
    assert found.names["background"] == "ignore"
    many = numbered(300)
    found = read_label_map(write(tmp_path / "b.yaml", "others: 299"), VOC, many)
    mask = found.apply(np.array([[3, 255]], dtype=np.uint8))
    assert mask.tolist() == [[299, 65535]]
    assert mask.dtype == np.uint16


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["1:1: is empty"]),
        ("classes: [", ["1:11: is not YAML"]),
        ("class: {}\nothers: 3", ["1:1: unknown key 'class' (did you mean 'classes'?)"]),
        (
            "classes:\n  persn: person\n  24: people\n  rider: dogg\n  person: person\nothers: nothing",
            [
                "2:3: classes: the dataset's unknown class 'persn' (did you mean 'person'?)",
                "4:10: classes.rider: the model's unknown class 'dogg' (did you mean 'dog'?)",
                "5:3: classes: 'person' is the same class as '24' in line 3",
                "6:9: others: the model's unknown class 'nothing'",
            ],
        ),
        ("classes:\n  person: person", ["1:1: says nothing of 33 classes of the dataset: unlabeled, ego vehicle"]),
        (
            "classes:\n  person: 21\nothers: ignore",
            ["2:11: classes.person: the model's class 21 is not a class of voc"],
        ),
        ("classes:\n  person: [1]\nothers: true", ["2:11: classes.person", "3:9: others"]),
        ("by_name: true", ["1:1: says nothing of 28 classes"]),
    ],
)
def test_every_problem_of_a_map_is_named_with_its_position(tmp_path: Path, text: str, problems: list[str]) -> None:
    file = write(tmp_path / "street.yaml", text)
    with pytest.raises(UsageError) as caught:
        read_label_map(file, CITYSCAPES_IDS, VOC)
    lines = str(caught.value).splitlines()[1:]
    places = {line.split(": ")[0] for line in lines}
    for problem in problems:
        assert any(f"{file}:{problem}" in line for line in lines), lines
    assert len(places) == len(problems)


def test_pixels_to_ignore_need_a_value_for_them() -> None:
    everything = LabelSet("all", ("a", "b"), ignore=None)
    with pytest.raises(UsageError, match="give the model's labels an `ignore`"):
        LabelMap(numbered(1), everything, (None,))


def test_equal_names_need_no_file_and_others_do(tmp_path: Path) -> None:
    make_voc(tmp_path, 2)
    voc = open_dataset("voc", tmp_path)
    assert fit(voc, VOC) is voc
    turned = LabelSet("mine", ("person", *[name for name in VOC.names if name != "person"]), background=1)
    fitted = fit(voc, turned)
    names = np.array([*VOC.names, "void"])
    mine = np.array([*turned.names, "void"])
    one, other = voc.load(0)[1], fitted.load(0)[1]
    np.testing.assert_array_equal(names[np.where(one == 255, 21, one)], mine[np.where(other == 255, 21, other)])
    assert fit(fitted, turned) is fitted
    assert fit(fitted, VOC).load(0)[1].tolist() == one.tolist()
    with pytest.raises(UsageError, match=r"which lack background, aeroplane.*--map"):
        fit(voc, CITYSCAPES)


def test_label_ids_and_train_ids_of_cityscapes(tmp_path: Path) -> None:
    masks = make_cityscapes(tmp_path)
    dataset = open_dataset("cityscapes", tmp_path)
    assert (dataset.name, dataset.names, dataset.labels) == ("cityscapes-val", tuple(sorted(masks)), CITYSCAPES_IDS)
    by_hand = np.full(256, 255, dtype=np.uint8)
    by_hand[list(TRAIN_IDS)] = list(TRAIN_IDS.values())
    fitted = fit(dataset, CITYSCAPES)
    first = fitted.load(0)[1]
    for index, (name, ids) in enumerate(sorted(masks.items())):
        np.testing.assert_array_equal(dataset.load(index)[1], ids)
        np.testing.assert_array_equal(fitted.load(index)[1], by_hand[ids])
        stem = tmp_path / "gtFine" / "val" / name
        save_png(by_hand[ids], Path(f"{stem}_gtFine_labelTrainIds.png"))
        Path(f"{stem}_gtFine_labelIds.png").unlink()
    trained = open_dataset("cityscapes", tmp_path)
    assert trained.labels == CITYSCAPES
    np.testing.assert_array_equal(fit(trained, CITYSCAPES).load(0)[1], first)


def test_cityscapes_ids_are_those_of_its_scripts() -> None:
    reason = "compares with the scripts of Cityscapes: pip install cityscapesscripts"
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason=reason).labels
    for label in labels:
        if label.id >= 0:
            assert (CITYSCAPES_IDS.names[label.id], CITYSCAPES_IDS.colors[label.id]) == (label.name, label.color)
            assert TRAIN_IDS.get(label.id) == (None if label.ignoreInEval else label.trainId)
    assert len(labels) == 35


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "gtFine").rename(root / "gtCoarse"), "no such directory; wanted leftImg8bit/val/"),
        (
            lambda root: [file.unlink() for file in root.glob("gtFine/*/*/*")],
            r"no masks: wanted CITY/\*_gtFine_labelIds",
        ),
        (lambda root: next(root.glob("leftImg8bit/*/*/*")).unlink(), "1 masks have no photo, the first is "),
    ],
)
def test_other_layouts_are_not_cityscapes(tmp_path: Path, spoil: object, message: str) -> None:
    make_cityscapes(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]  # a function of the table
    with pytest.raises(DatasetError, match=message):
        open_dataset("cityscapes", tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # of pycocotools
def test_coco_in_other_classes(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="COCO is an extra: pip install segcore[coco]")
    in_voc = list(make_coco(tmp_path).values())
    dataset = open_dataset("coco", tmp_path)
    assert dataset.labels is not None
    assert dataset.labels.names == ("background", "person", "stop sign", "cat", "dog")
    assert dataset.labels.index("13") == 2  # the id of the category
    two = LabelSet("two", ("other", "living", "sign"), background=0)
    text = "{classes: {background: other, person: living, 17: living, dog: ignore, stop sign: sign}}"
    mapped = open_dataset("coco", tmp_path, label_map=write(tmp_path / "map.yaml", text))
    masks = [fit(mapped, two).load(index)[1] for index in range(3)]
    np.testing.assert_array_equal(masks[0] == 1, (in_voc[0] == 8) | (in_voc[0] == 15))
    np.testing.assert_array_equal(masks[0] == 255, in_voc[0] == 255)
    assert set(np.unique(masks[1])) == {2, 255}  # a sign behind dogs: two instances overlap wherever a dog is
    assert set(np.unique(masks[2])) == {0, 2}
    np.testing.assert_array_equal(fit(mapped, two).load(2)[1] == 2, masks[2] == 2)
    with pytest.raises(UsageError, match="lack background, person"):
        fit(dataset, two)


LABELS = LabelSet("street", ("road", "car"), colors=((128, 64, 128), (0, 0, 142)))


def folder(root: Path, mask: np.ndarray, **options: object) -> Dataset:
    save_png(np.zeros((*mask.shape[:2], 3), dtype=np.uint8), root / "images" / "a.png")
    save_png(mask, root / "masks" / "a.png")
    return open_dataset("folder", root, **options)  # type: ignore[arg-type]  # options of the tests


def test_masks_as_colours(tmp_path: Path) -> None:
    colours = np.array([*LABELS.colors, (224, 224, 192)], dtype=np.uint8)
    wanted = np.array([[0, 1, 2], [1, 1, 0]])
    dataset = folder(tmp_path, colours[wanted], labels=LABELS, masks="colours")
    assert dataset.load(0)[1].tolist() == [[0, 1, 255], [1, 1, 0]]
    with_alpha = np.dstack([colours[wanted], np.full(wanted.shape, 255, np.uint8)])
    assert folder(tmp_path, with_alpha, labels=LABELS, masks="colours").load(0)[1].tolist() == [[0, 1, 255], [1, 1, 0]]
    colours[2] = (0, 0, 143)
    spoiled = colours[wanted]
    spoiled[1, 1] = (255, 0, 0)
    with pytest.raises(ImageError) as caught:
        folder(tmp_path, spoiled, labels=LABELS, masks="colours").load(0)
    assert "2 colours that no class of street has" in str(caught.value)
    assert "#00008f (1 pixels, the nearest is car, #00008e), #ff0000 (1 pixels" in str(caught.value)


def test_masks_in_black_and_white(tmp_path: Path) -> None:
    grey = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    for mask in (grey, grey > 0):
        assert folder(tmp_path, mask, labels=LABELS, masks="binary").load(0)[1].tolist() == [[0, 1], [1, 0]]
    grey[0, 0] = 17
    with pytest.raises(ImageError, match=r"the values 0 and 255, found also 17$"):
        folder(tmp_path, grey, labels=LABELS, masks="binary").load(0)
    with pytest.raises(ImageError, match="found mode RGB"):
        folder(tmp_path, np.dstack([grey] * 3), labels=LABELS, masks="binary").load(0)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("colors", LABELS, "unknown kind of masks 'colors' .did you mean 'colours'"),
        ("colours", None, "need the labels of the dataset"),
        ("binary", VOC, "the labels 'voc' have 21"),
        (
            "colours",
            LabelSet("twice", ("a", "b"), colors=((1, 2, 3), (1, 2, 3))),
            "a and b both have the colour #010203",
        ),
    ],
)
def test_kinds_of_masks_that_cannot_be_read(kind: str, labels: LabelSet | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mask_reader(kind, labels)


def test_labels_by_name_and_file(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc", 1)
    file = write(tmp_path / "labels.yaml", "{names: [background, cat], colours: {cat: '#ff0000'}}")
    found = open_dataset("voc", tmp_path / "voc", labels=str(file)).labels
    assert found is not None
    assert (found.names, found.colors[1], found.background) == (("background", "cat"), (255, 0, 0), 0)
    assert open_dataset("voc", tmp_path / "voc", labels="cityscapes-ids").labels == CITYSCAPES_IDS
    for labels, message in (("citiscapes", "unknown label set"), (str(tmp_path / "none.yaml"), "no such file")):
        with pytest.raises(UsageError, match=message):
            open_dataset("voc", tmp_path / "voc", labels=labels)
    make_cityscapes(tmp_path / "streets")
    for options in ({"labels": "voc"}, {"masks": "colours"}):
        with pytest.raises(UsageError, match="does not go with the layout cityscapes"):
            open_dataset("cityscapes", tmp_path / "streets", **options)


def test_a_mask_in_the_classes_of_the_same_names() -> None:
    own = LabelSet("own", ("sky", "people", "car"), aliases={"person": "people"})
    mask = np.array([[11, 13, 255, 10]], dtype=np.uint8)  # person, car, void, sky
    assert by_name(mask, CITYSCAPES, own).tolist() == [[1, 2, 255, 0]]
    assert by_name(mask, CITYSCAPES, CITYSCAPES) is mask
    strict = LabelSet("strict", own.names, aliases=own.aliases, ignore=None)
    assert by_name(mask[:, :2], CITYSCAPES, strict).tolist() == [[1, 2]]
    with pytest.raises(DatasetError, match="pixels that are not scored: strict does not"):
        by_name(mask, CITYSCAPES, strict)
    with pytest.raises(DatasetError, match="has the class 'road', 'sidewalk': own does not"):
        by_name(np.array([[0, 1, 11]], dtype=np.uint8), CITYSCAPES, own)
