"""Model files: what they say, every problem of them at once, their schema, and models by name or path."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from segcore.core.errors import ModelError
from segcore.core.labels import CITYSCAPES, VOC
from segcore.core.model_spec import Description, InputSpec, ModelSpec, OutputSpec, Resize, Source
from segcore.inputs.model_files import (
    SCHEMA_COMMAND,
    check_model_file,
    is_path,
    json_schema,
    open_model_files,
    read_model_file,
    spec_of_path,
)
from segcore.inputs.model_files.model import KINDS, InputEntry, LabelsEntry, ModelEntry, OutputEntry

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "examples" / "models" / "model.schema.json"

FULL = """
name: roadnet
source:
  python: roads.net:make
  arguments: {width: 0.5, layers: [1, 2], pretrained: false}
weights: {path: ../weights/road.pth, sha256: '%s'}
labels:
  names: [Background, road, person]
  colours: {Road: '#804080', person: [220, 20, 60]}
  aliases: {pedestrian: person}
  ignore: 254
input:
  resize: {letterbox: [512, 1024]}
  multiple_of: 32
  fill: [114, 114, 114]
  interpolation: bicubic
  resizer: torchvision
  antialias: false
  colour: bgr
  scale: 1/128
  mean: 1
  std: [1, 2, 3]
  layout: nhwc
  dtype: float16
output: {name: seg, kind: sigmoid, threshold: 0.4, layout: nhwc, align_corners: true}
""" % ("AB" * 32)


def write(directory: Path, text: str, name: str = "net.yaml") -> Path:
    file = directory / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_every_key_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    spec = read_model_file(write(tmp_path / "models", FULL))
    weights = str(tmp_path / "models" / "../weights/road.pth")
    keywords = (("width", 0.5), ("layers", (1, 2)), ("pretrained", False))
    assert spec.source == Source("python", "roads.net:make", keywords=keywords, weights=weights, sha256="ab" * 32)
    assert (spec.name, spec.root) == ("roadnet", tmp_path)
    assert spec.labels is not None
    assert spec.labels.names == ("Background", "road", "person")
    assert spec.labels.colors == ((0, 0, 0), (128, 64, 128), (220, 20, 60))
    assert (spec.labels.index("pedestrian"), spec.labels.background, spec.labels.ignore) == (2, 0, 254)
    assert spec.input == InputSpec(
        resize=Resize("letterbox", (512, 1024)),
        multiple_of=32,
        fill=(114, 114, 114),
        interpolation="bicubic",
        resizer="torchvision",
        antialias=False,
        colour="bgr",
        scale=1 / 128,
        mean=(1.0, 1.0, 1.0),
        std=(1.0, 2.0, 3.0),
        layout="nhwc",
        dtype="float16",
    )
    assert spec.output == OutputSpec("seg", "sigmoid", 0.4, "nhwc", True)
    jsonschema.validate(YAML(typ="safe").load(FULL), json_schema())


INPUTS = [
    ("{}", InputSpec()),
    ("{resize: longer}", InputSpec(resize=Resize("longer"))),
    ("{resize: none}", InputSpec(resize=Resize("none"))),
    ("{resize: {shorter: 512}}", InputSpec(resize=Resize("shorter", (512,)))),
    ("{resize: {fixed: [256, 512]}}", InputSpec(resize=Resize("fixed", (256, 512)))),
    ("{colour: grey, mean: 0.5, std: 0.5}", InputSpec(colour="grey", mean=(0.5,), std=(0.5,))),
    ("{dtype: uint8}", InputSpec(dtype="uint8", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)),
    ("{scale: 2}", InputSpec(scale=2.0)),
]


@pytest.mark.parametrize(("text", "wanted"), INPUTS)
def test_forms_of_the_input(tmp_path: Path, text: str, wanted: InputSpec) -> None:
    document = f"source: {{onnx: net.onnx}}\ninput: {text}\n"
    assert read_model_file(write(tmp_path, document)).input == wanted
    jsonschema.validate(YAML(typ="safe").load(document), json_schema())


LABELS = [
    ("cityscapes", CITYSCAPES.names, None),
    ("voc", VOC.names, 0),
    ("[a, b]", ("a", "b"), None),
    ("[sky, background]", ("sky", "background"), 1),
    ("{names: [background, b], background: null}", ("background", "b"), None),
    ("names.txt", ("road", "side walk"), None),
    ("lists/names.yaml", ("x", "y"), 1),
]


@pytest.mark.parametrize(("text", "names", "background"), LABELS)
def test_forms_of_the_labels(tmp_path: Path, text: str, names: tuple[str, ...], background: int | None) -> None:
    write(tmp_path, "road\n\n  side walk \n", "names.txt")
    write(tmp_path / "lists", "names: [x, y]\nbackground: y\n", "names.yaml")
    document = f"source: {{onnx: net.onnx}}\nlabels: {text}\n"
    labels = read_model_file(write(tmp_path, document)).labels
    assert labels is not None
    assert (labels.names, labels.background) == (names, background)
    jsonschema.validate(YAML(typ="safe").load(document), json_schema())


PROBLEMS = [
    ("", [(1, "is empty")]),
    ("source: {}", [(1, "wanted exactly one of torchvision, python")]),
    ("name: x", [(1, "source is missing")]),
    ("source: {onx: a.onnx}", [(1, "did you mean 'onnx'")]),
    ("source: {onnx: a, litert: b}", [(1, "found litert and onnx")]),
    ("source: {onnx: a}\nweight: b", [(2, "did you mean 'weights'")]),
    ("source: {onnx: a}\nweights: b", [(2, "onnx holds its own")]),
    ("source: {python: roads.net}", [(1, "package.module:factory")]),
    ("source: {onnx: a, arguments: {b: 1}}", [(1, "arguments need python")]),
    ("source: {python: 'a:b', arguments: {c: {d: 1}}}", [(1, "source.arguments.c")]),
    ("source: {torchvision: a}\nweights: {url: 'https://a.b/c'}", [(2, "needs its sha256")]),
    ("source: {torchvision: a}\nweights: {url: 'ftp://a.b/c'}", [(2, "https address")]),
    ("source: {onnx: a}\nlabels: citiscapes", [(2, "labels.set")]),
    ("source: {onnx: a}\nlabels: [a, A]", [(2, "both named 'A'")]),
    ("source: {onnx: a}\nlabels: {names: [a, b], colours: {c: '#010203'}}", [(2, "unknown class 'c'")]),
    ("source: {onnx: a}\nlabels: {names: [a, b], colours: {b: '#12'}}", [(2, "#RRGGBB")]),
    ("source: {onnx: a}\nlabels: {set: voc, ignore: 3}", [(2, "ignore needs names")]),
    ("source: {onnx: a}\nlabels: gone.txt", [(1, "cannot be read")]),
    ("source: {onnx: a}\nlabels: /dev/zero", [(1, "is not a regular file")]),
    ("source: {onnx: a}\ninput: {resize: shorte}", [(2, "shorter, longer or none")]),
    ("source: {onnx: a}\ninput: {resize: {fixed: [0, 1]}}", [(2, "resize.fixed[1]")]),
    ("source: {onnx: a}\ninput: {resize: {fixed: [5, 1], longer: 3}}", [(2, "found fixed and longer")]),
    ("source: {onnx: a}\ninput: {mean: [1, 2]}", [(2, "mean has 2 numbers")]),
    ("source: {onnx: a}\ninput: {std: 0}", [(2, "nothing can be divided by")]),
    ("source: {onnx: a}\ninput: {colour: grey}", [(2, "wanted 1 for grey"), (2, "std has 3")]),
    ("source: {onnx: a}\ninput: {dtype: uint8, scale: 2}", [(2, "does not go with dtype uint8")]),
    ("source: {onnx: a}\ninput: {antialias: false, interpolation: box}", [(2, "box averages")]),
    ("source: {onnx: a}\ninput: {resizer: torchvision, interpolation: lanczos}", [(2, "torchvision has no lanczos")]),
    ("source: {onnx: a}\noutput: {threshold: 0.5}", [(2, "needs kind sigmoid")]),
    ("source: {onnx: a}\noutput: {kind: sigmod}\ninput: {sdt: 1}", [(2, "'sigmoid'"), (3, "'std'")]),
    ("source: [", [(1, "is not YAML")]),
]


@pytest.mark.parametrize(("text", "wanted"), PROBLEMS)
def test_every_problem_is_said_with_its_line(tmp_path: Path, text: str, wanted: list[tuple[int, str]]) -> None:
    spec, problems = check_model_file(write(tmp_path, text))
    assert spec is None
    assert len(problems) == len(wanted), problems
    for problem, (line, words) in zip(problems, wanted, strict=True):
        assert problem.line == line
        assert words in str(problem)


def test_a_name_that_no_item_can_have_needs_another(tmp_path: Path) -> None:
    spec, problems = check_model_file(write(tmp_path, "source: {onnx: a}", "a model.yaml"))
    assert spec is None
    assert "add `name:`" in str(problems[0])


def test_models_by_name_and_path(tmp_path: Path) -> None:
    write(tmp_path, "source: {onnx: a.onnx}", "one.yaml")
    write(tmp_path / "more", "name: second\nsource: {litert: ../a.tflite}", "two.yml")
    files = open_model_files(tmp_path)
    assert (files.names, files.problems) == (("one", "second"), ())
    assert files.find("second").source == Source("litert", str(tmp_path / "more" / "../a.tflite"))
    assert files.find(str(tmp_path / "one.yaml")).name == "one"
    with pytest.raises(ModelError, match="did you mean 'second'"):
        files.find("secnd", ["embedded"])
    write(tmp_path, "source: {onxx: a.onnx}\nname: one", "three.yaml")
    write(tmp_path, "source: {onnx: a.onnx}\nname: one", "four.yaml")
    files = open_model_files(tmp_path)
    assert [problem.file.name for problem in files.problems] == ["one.yaml", "three.yaml"]
    assert files.find("one").name == "one"
    with pytest.raises(ModelError, match=r"(?s)2 problems .*three\.yaml:1:10"):
        files.find("third")
    assert open_model_files(tmp_path / "none").specs == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.onnx", "onnx"),
        ("a.xml", "openvino"),
        ("a.tflite", "litert"),
        ("a.pt2", "exported"),
        ("a.ts", "torchscript"),
        ("hf", "transformers"),
    ],
)
def test_a_model_that_describes_itself_needs_no_file(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / "hf", "{}", "config.json").parent if name == "hf" else write(tmp_path, "", name)
    spec = spec_of_path(path)
    assert (spec.name, spec.source) == (Path(name).stem, Source(kind, str(path)))  # type: ignore[arg-type]
    assert spec.input == InputSpec()


@pytest.mark.parametrize(("name", "words"), [("gone.onnx", "there is no such file"), ("a.bin", "describes itself")])
def test_other_paths_are_refused(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path, "", "a.bin")
    with pytest.raises(ModelError, match=words):
        spec_of_path(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "path"),
    [("embedded", False), ("a.yaml", True), ("./a", True), ("v1.2", False), ("A.ONNX", True), ("dir\\a", True)],
)
def test_what_is_a_path(name: str, path: bool) -> None:
    assert is_path(name) is path


def test_the_digest_is_of_what_is_said(tmp_path: Path) -> None:
    def digest(directory: str, text: str) -> str:
        return read_model_file(write(tmp_path / directory, text)).digest

    text = "source: {onnx: a.onnx}\nlabels: [a, b]\n"
    first = digest("a", text)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert digest("b", f"# a comment\n{text}input: {{antialias: true}}\n") == first
    others = [
        text.replace("a.onnx", "b.onnx"),
        text.replace("[a, b]", "[a, c]"),
        f"{text}input: {{mean: 0}}\n",
        f"{text}output: {{kind: classes}}\n",
        f"{text}name: other\n",
    ]
    assert len({first, *(digest("c", other) for other in others)}) == 1 + len(others)


def test_what_the_file_says_goes_before_the_models_own_description() -> None:
    spec = ModelSpec("a", Source("onnx", "a.onnx"), said=frozenset({"input.mean"}))
    found = Description(
        VOC, {"mean": (0.0,) * 3, "std": (2.0,) * 3}, {"kind": "classes"}, {"input.mean": "m", "x": "y"}
    )
    completed = spec.completed(found)
    assert (completed.input.mean, completed.input.std) == (InputSpec().mean, (2.0,) * 3)
    assert (completed.output.kind, completed.labels, completed.assumptions) == ("classes", VOC, ("y",))
    assert completed.completed(found) == completed


def test_the_schema_file_is_current() -> None:
    stored: Any = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert stored == json_schema(), f"the models of model files have changed; run: {SCHEMA_COMMAND}"
    jsonschema.Draft202012Validator.check_schema(stored)


@pytest.mark.parametrize(
    "text",
    [
        "source: {onx: a}",
        "name: a",
        "source: {python: a.b}",
        "source: {onnx: a}\ninput: {resize: shorte}",
        "source: {onnx: a}\ninput: {resize: {fixed: [0, 1]}}",
        "source: {onnx: a}\noutput: {kind: sigmod}",
        "source: {onnx: a}\nlabels: {names: []}",
    ],
)
def test_the_schema_refuses_what_is_refused(tmp_path: Path, text: str) -> None:
    assert check_model_file(write(tmp_path, text))[0] is None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe").load(text), json_schema())


DOCUMENTED = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("text", DOCUMENTED)
def test_the_documentation_is_valid(tmp_path: Path, text: str) -> None:
    spec, problems = check_model_file(write(tmp_path, text))
    assert spec is not None, problems
    jsonschema.validate(YAML(typ="safe").load(text), json_schema())


def test_every_key_and_source_is_documented() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    keys = [
        *KINDS,
        *InputEntry.model_fields,
        *OutputEntry.model_fields,
        *LabelsEntry.model_fields,
        *ModelEntry.model_fields,
    ]
    elsewhere = {"set", "file", "reference"}  # forms without the key; docs/programs.md
    assert [key for key in keys if f"{key}:" not in page and f"`{key}`" not in page and key not in elsewhere] == []
