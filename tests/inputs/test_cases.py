from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML

from segcore.core.errors import CaseError, IntegrityError, NotInstalledError, OfflineError
from segcore.core.labels import VOC, VOC_CLASSES
from segcore.core.limits import Limits
from segcore.inputs.cases import (
    SCHEMA_COMMAND,
    Case,
    ImageSource,
    Problem,
    check_cases,
    json_schema,
    load_cases,
    resolve_image,
    resolve_mask,
)
from segcore.inputs.download import FetchSettings
from tests.support.bad_cases import BAD, HEAD
from tests.support.examples import examples

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "cases"
SHARED = ROOT.parent / "shared" / "reference-images"
DOCS = (ROOT / "docs" / "cases.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)


def write(directory: Path, text: str | bytes, name: str = "a.yaml") -> Path:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def from_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def problems_in(directory: Path, text: str | bytes) -> tuple[Problem, ...]:
    return check_cases(write(directory, text))[1]


def case_in(directory: Path, text: str) -> Case:
    (case,) = load_cases(write(directory, HEAD + text))
    return case


# Valid files.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_text_as_other_tools_write_it(tmp_path: Path, encoding: str, ends: str) -> None:
    text = f"{HEAD}skip_reason: größer 猫\n".replace("\n", ends)
    (case,) = load_cases(write(tmp_path, text.encode(encoding)))
    assert (case.name, case.skip_reason) == ("cat", "größer 猫")


def test_a_case_with_everything(tmp_path: Path) -> None:
    case = case_in(
        tmp_path,
        """\
expect:
  dominant: cat
  classes: {cat: {min_fraction: 0.5}, Airplane: {max_fraction: 1e-3}, 15: {max_fraction: 0}}
  absent: [tv, couch, 12, "3"]
models: [embedded]
sizes: [320, 640]
tags: [offline]
limits: {max_slowdown: 0.1}
""",
    )
    expect = case.expect
    assert (case.name, case.models, case.sizes, case.tags) == ("cat", ("embedded",), (320, 640), ("offline",))
    assert list(expect.classes) == ["cat", "aeroplane", "person"]
    assert expect.classes["aeroplane"].max_fraction == 0.001
    assert expect.absent == ("tvmonitor", "sofa", "dog", "bird")
    assert (case.source_file, case.line) == (tmp_path / "a.yaml", 1)
    assert len({case, case.model_copy()}) == 1


@pytest.mark.parametrize("word", ["no", "on", "Yes", "0320", "5:20", "2026-01-01", "0x1f", "1_000", "1e", "9" * 19])
def test_unquoted_text_stays_text(tmp_path: Path, word: str) -> None:
    assert case_in(tmp_path, f"skip_reason: {word}").skip_reason == word


@pytest.mark.parametrize("name", [*VOC_CLASSES, *VOC.aliases, "0", "20"])
def test_every_name_of_a_class_is_known(tmp_path: Path, name: str) -> None:
    assert case_in(tmp_path, f"expect: {{dominant: '{name}'}}").expect.dominant in VOC_CLASSES


def test_cases_are_ordered_by_file_and_line(tmp_path: Path) -> None:
    image = "image: {resource: 'skimage:chelsea.png'}"
    write(tmp_path, f"cases:\n  - name: z\n    {image}\n  - name: b\n    {image}\n", "b.yaml")
    write(tmp_path, f"\ufeffname: m\n{image}\n", "a/deep.YML")
    write(tmp_path, f"# a comment first\nname: y\n{image}\n", "c.yaml")
    write(tmp_path, "not: a case", "notes.txt")
    cases = load_cases(tmp_path)
    assert [(case.name, case.line) for case in cases] == [("m", 1), ("z", 2), ("b", 4), ("y", 2)]
    assert load_cases(tmp_path / "b.yaml") == cases[1:3]


def test_defaults_apply_unless_a_case_overrides_them(tmp_path: Path) -> None:
    write(tmp_path, "models: [m]\nsizes: [64]\nlimits: {max_drift: 0.3, max_slowdown: 0.3}\n", "defaults.yaml")
    write(tmp_path, HEAD + "sizes: [96]\nlimits: {max_slowdown: 0.2}\n")
    write(tmp_path, HEAD.replace("cat", "elsewhere"), "sub/b.yaml")
    here, elsewhere = load_cases(tmp_path)
    assert (here.models, here.sizes) == (("m",), (96,))
    assert (elsewhere.models, elsewhere.sizes) == (("embedded", "fcn_resnet101"), (320,))
    assert limits_of(here) == {"max_drift": 0.3, "max_slowdown": {"p50": 0.2}}


def limits_of(case: Case, **item: Any) -> dict[str, Any]:
    item = {"model": "m", "device": "cpu", "runtime": "torch", "precision": "fp32", "size": 320, **item}
    return case.limits_for(**item).model_dump()


def test_the_last_matching_rule_counts(tmp_path: Path) -> None:
    case = case_in(
        tmp_path,
        """\
tags: [live]
limits:
  - max_drift: 0.1
  - {when: {device: cuda}, max_drift: 0.2, min_throughput: 30}
  - {when: {device: [mps, "cuda:1"], model: m}, max_drift: 0.3}
  - {when: {runtime: openvino, precision: int8}, max_drift: 0.4}
  - {when: {size: 640, tag: live}, max_latency_ms: 5}
  - {when: {kind: [latency, load], model: k}, max_slowdown: 0.2}
  - {when: {kind: throughput, batch: [2, 4]}, max_slowdown: 0.1}
""",
    )
    assert limits_of(case) == {"max_drift": 0.1}
    assert limits_of(case, device="cuda:0") == {"max_drift": 0.2, "min_throughput": 30}
    assert limits_of(case, device="cuda:1") == {"max_drift": 0.3, "min_throughput": 30}
    assert limits_of(case, device="cuda:1", model="n") == {"max_drift": 0.2, "min_throughput": 30}
    assert limits_of(case, runtime="openvino") == {"max_drift": 0.1}
    assert limits_of(case, runtime="openvino", precision="int8") == {"max_drift": 0.4}
    assert limits_of(case, size=640) == {"max_drift": 0.1, "max_latency_ms": {"p50": 5}}
    for kind, batch, limit in (("latency", 1, 0.2), ("load", 4, 0.2), ("throughput", 1, None), ("throughput", 4, 0.1)):
        found = limits_of(case, model="k", kind=kind, batch=batch)
        assert found.get("max_slowdown") == (limit and {"p50": limit}), kind
    assert isinstance(case.limits_for(model="m", device="cpu", runtime="t", precision="fp32", size=1), Limits)


# Invalid files.


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_mistake_is_reported_with_its_position(tmp_path: Path, text: str | bytes, expected: str) -> None:
    problems = problems_in(tmp_path, text)
    assert expected in "\n".join(map(str, problems))
    assert check_cases(tmp_path / "a.yaml")[0] == ()
    with pytest.raises(CaseError, match=r"^\d+ problems? in the cases of"):
        load_cases(tmp_path)


def test_all_problems_of_all_files_are_reported(tmp_path: Path) -> None:
    write(tmp_path, "cases:\n  - name: cat\n    image: {}\n    sizes: [1]\n  - nam: x\n", "b.yaml")
    write(tmp_path, HEAD.replace("chelsea", "nobody") + "tag: [x]\ntag: [y]\n", "a.yaml")
    write(tmp_path, "sizes: [2]\nmodel: [x]\n", "defaults.yaml")
    write(tmp_path, HEAD.replace("cat", "good"), "good.yaml")
    cases, problems = check_cases(tmp_path)
    assert [case.name for case in cases] == ["good"]
    assert [(p.file.name, p.line, p.column) for p in problems] == [
        *[("a.yaml", 3, 1), ("a.yaml", 4, 1)],
        *[("b.yaml", 2, 11), ("b.yaml", 3, 5), ("b.yaml", 4, 13), ("b.yaml", 5, 5), ("b.yaml", 5, 5), ("b.yaml", 5, 5)],
        *[("defaults.yaml", 1, 9), ("defaults.yaml", 2, 1)],
    ]
    with pytest.raises(CaseError) as raised:
        load_cases(tmp_path)
    assert all(str(problem) in str(raised.value) for problem in problems)


def test_a_rule_that_never_applies_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "limits:\n  - max_drift: 0.2\n  - {when: {tag: [lvie]}, max_drift: 0.1}\n", "defaults.yaml")
    file = write(tmp_path, HEAD + "tags: [live]\n")
    (problem,) = check_cases(tmp_path)[1]
    assert (problem.file.name, problem.line, problem.column) == ("defaults.yaml", 3, 18)
    assert "no case with the tag lvie" in problem.what
    assert load_cases(file), "the other files, which may have the tag, are not looked at"


def test_names_are_unique_over_all_files(tmp_path: Path) -> None:
    first, second = write(tmp_path, HEAD, "a.yaml"), write(tmp_path, "# later\n" + HEAD, "b.yml")
    (problem,) = check_cases(tmp_path)[1]
    assert (problem.file, problem.line, problem.column) == (second, 2, 7)
    assert f"{first}:1" in problem.what


def test_a_path_without_cases_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "sizes: [64]\n", "defaults.yaml")
    for path, words in ((tmp_path, "holds no case"), (tmp_path / "gone.yaml", "there is no such file")):
        with pytest.raises(CaseError, match=words):
            load_cases(path)


def test_no_unreadable_file_is_skipped_silently(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.yaml")
    write(tmp_path, "", "defaults.yaml")
    assert [problem.what.partition(":")[0] for problem in check_cases(tmp_path)[1]] == [
        "there is no such file",
        "is empty",
        "is not a regular file",
    ]


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    bomb = HEAD + "a: &a [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    problems = problems_in(tmp_path, bomb)
    assert sum("has an alias" in problem.what for problem in problems) == 8 * 9
    assert sum("has an anchor" in problem.what for problem in problems) == 9


@examples(150)
@given(data=st.data())
def test_a_damaged_file_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    text = (SHIPPED / "photos.yaml").read_bytes()[:1500]
    at = data.draw(st.integers(0, len(text)))
    rest = data.draw(st.integers(0, 40))
    put = data.draw(
        st.one_of(st.binary(max_size=6), st.sampled_from([b"&a ", b"*a", b"!!x ", b"- ", b": ", b"{", b"\n"]))
    )
    cases, problems = check_cases(write(tmp_path, text[:at] + put + text[at + rest :]))
    assert cases or problems
    assert all(problem.line >= 1 and problem.column >= 1 and problem.what for problem in problems)


# Sources of images.


def test_a_local_image_must_be_in_the_case_directory(tmp_path: Path) -> None:
    outside = write(tmp_path, "secret", "outside.jpg")
    write(tmp_path, "photo", "cases/photos/a.jpg")
    file = write(tmp_path, "name: x\nimage: {path: photos/a.jpg}\n", "cases/a.yaml")
    (case,) = load_cases(file)
    assert resolve_image(case) == tmp_path / "cases" / "photos" / "a.jpg"
    assert resolve_mask(case) is None

    (tmp_path / "cases" / "photos" / "link.jpg").symlink_to(outside)
    (tmp_path / "cases" / "up").symlink_to(tmp_path, target_is_directory=True)
    for path in ("photos/link.jpg", "up/outside.jpg"):
        (problem,) = problems_in(tmp_path / "cases", f"name: x\nimage: {{path: {path}}}\n")
        assert "leads out of the case file's directory" in problem.what
        with pytest.raises(CaseError, match="leads out"):
            resolve_image(case.model_copy(update={"image": ImageSource(path=path)}))


def test_a_missing_package_is_no_problem_of_the_case_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.inputs.images.find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'segcore\[photos\]'"):
        resolve_image(case_in(tmp_path, ""))


def test_a_path_is_relative_to_its_case_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "photo", "cases/a.jpg")
    write(tmp_path, "name: x\nimage: {path: a.jpg}\n", "cases/a.yaml")
    monkeypatch.chdir(tmp_path)
    (case,) = load_cases(Path("cases"))
    monkeypatch.chdir("/")
    assert resolve_image(case).read_bytes() == b"photo"


def test_hash_and_size_of_a_download_are_checked(tmp_path: Path) -> None:
    photo, url = b"photo" * 1000, "https://example.org/photos/a.jpg"
    write(tmp_path, photo, "mirror/a.jpg")
    mirror = ("https://example.org/photos", (tmp_path / "mirror").as_uri())
    fetching = FetchSettings(cache_dir=tmp_path / "cache", mirrors=(mirror,), retries=0)
    sha256 = hashlib.sha256(photo).hexdigest()

    def case(**source: Any) -> Case:
        image = ImageSource(url=url, **source)
        return Case.model_validate({"name": "x", "image": image, "expect": {"ground_truth": image}})

    with pytest.raises(IntegrityError):
        resolve_image(case(sha256="0" * 64), fetching)
    with pytest.raises(Exception, match="4000"):
        resolve_image(case(sha256=sha256, bytes=4000), fetching)
    right = case(sha256=sha256, bytes=5000)
    path = resolve_image(right, fetching)
    assert path.read_bytes() == photo
    assert resolve_mask(right, fetching) == path
    with pytest.raises(OfflineError):
        resolve_image(case(sha256=sha256), FetchSettings(cache_dir=tmp_path / "other", offline=True))


# The shipped cases, their schema and the documentation.


def test_the_shipped_cases_are_valid() -> None:
    cases = load_cases(SHIPPED)
    offline = {case.name: case.expect.dominant for case in cases if "offline" in case.tags}
    assert offline == {"astronaut": "person", "camera": "person", "chelsea": "cat", "motorcycle": "motorbike"}
    for case in cases:
        if case.name in offline:
            assert np.asarray(Image.open(resolve_image(case))).size
    assert any("speed" in case.tags for case in cases)


@pytest.mark.skipif(not SHARED.exists(), reason="the reference photos are not here")
def test_the_shipped_downloads_match_the_manifest() -> None:
    manifest = {entry["url"]: entry for entry in json.loads((SHARED / "manifest.json").read_text())}
    sources = [
        source
        for case in load_cases(SHIPPED)
        for source in (case.image, case.expect.ground_truth)
        if source is not None and source.url is not None
    ]
    assert {source.url for source in sources} == set(manifest)
    for source in sources:
        entry = manifest[str(source.url)]
        data = (SHARED / entry["file"]).read_bytes()
        assert (source.sha256, source.bytes) == (entry["sha256"], entry["bytes"])
        assert (source.sha256, source.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.skipif(not SHARED.exists(), reason="the reference photos are not here")
def test_the_mask_of_fcn_demo_meets_its_own_expectations() -> None:
    (case,) = (case for case in load_cases(SHIPPED) if case.expect.ground_truth is not None)
    mask = np.asarray(Image.open(SHARED / "fcn-demo-label.png"))
    for name, bounds in case.expect.classes.items():
        fraction = float((mask == VOC_CLASSES.index(name)).mean())
        assert bounds.min_fraction is not None
        assert bounds.max_fraction is not None
        assert bounds.min_fraction < fraction < bounds.max_fraction
    assert {VOC_CLASSES[index] for index in np.unique(mask) if index != 255} == set(case.expect.min_iou)


def test_the_schema_file_is_current() -> None:
    stored = json.loads((SHIPPED / "case.schema.json").read_text(encoding="utf-8"))
    assert stored == json_schema(), f"the cases' models have changed; run: {SCHEMA_COMMAND}"
    jsonschema.Draft202012Validator.check_schema(stored)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.name)
def test_the_schema_accepts_the_shipped_cases(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./case.schema.json\n")
    jsonschema.validate(from_yaml(text), json_schema())


@pytest.mark.parametrize(
    "key",
    [
        "unknown key",
        "unknown key below",
        "unknown limit",
        "no name",
        "name",
        "fraction above 1",
        "size too small",
        "no size",
        "unknown device",
        "bad percentile",
        "negative limit",
    ],
)
def test_the_schema_refuses_mistakes(key: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(from_yaml(str(BAD[key][0])), json_schema())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition("\n")[0][:30])
def test_every_example_of_the_documentation_is_valid(tmp_path: Path, example: str) -> None:
    for path in re.findall(r"path: ([\w./-]+)", example):
        write(tmp_path, "", path)
    defaults = example.startswith("# defaults.yaml\n")
    write(tmp_path, HEAD + "tags: [realtime]\n" if defaults else example, "a.yaml")
    if defaults:
        write(tmp_path, example, "defaults.yaml")
    assert load_cases(tmp_path)
    jsonschema.validate(from_yaml(example), json_schema())


def test_the_python_of_the_documentation_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["photo"].is_file()
    assert found["problems"] == ()


def test_the_documentation_names_every_key() -> None:
    def keys(schema: Any) -> set[str]:
        if isinstance(schema, dict):
            here = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
            return here.union(*map(keys, schema.values()))
        return set().union(*map(keys, schema)) if isinstance(schema, list) else set()

    assert keys(json_schema()) == {key for key in keys(json_schema()) if f"`{key}`" in DOCS}
    assert len(EXAMPLES) >= 6


def test_cases_load_without_torch() -> None:
    code = f"import sys; from segcore.inputs.cases import *; load_cases(__import__('pathlib').Path({str(SHIPPED)!r}))"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
