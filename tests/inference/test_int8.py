"""Mixtures of int8 and fp32: what is written, what runs it, and how findings are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segcore import Segmenter
from segcore.core.errors import DeviceError
from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.inference.runtimes.int8 import Int8Source, QuantisedNetwork
from segcore.inputs.download import FetchSettings

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.slow

from segcore.inference.runtimes.openvino import _core  # noqa: E402  # needs the packages above
from tests.support.chains import write_chain  # noqa: E402

PHOTOS = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8) for seed in range(4)]
LAYERS = tuple(f"conv{index}" for index in range(5))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("int8")
    write_chain(found / "chain.onnx")
    openvino.serialize(_core().read_model(found / "chain.onnx"), found / "chain.xml", found / "chain.bin")
    return found


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FetchSettings:
    return FetchSettings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def make(directory: Path, settings: FetchSettings) -> Callable[..., Segmenter]:
    def segmenter(file: str = "chain.onnx", runtime: str = "openvino", precision: str = "fp32") -> Segmenter:
        return Segmenter(
            str(directory / file),
            device="cpu",
            size=48,
            runtime=runtime,
            precision=precision,
            calibration=PHOTOS,
            settings=settings,
        )

    return segmenter


@pytest.fixture(scope="module", params=["chain.onnx", "chain.xml"])
def quantised(
    request: pytest.FixtureRequest, make: Callable[..., Segmenter]
) -> tuple[Segmenter, Int8Source, QuantisedNetwork]:
    reference = make(request.param)
    source = reference.int8_source(PHOTOS)
    return reference, source, source.quantised()


Quantised = tuple[Segmenter, Int8Source, QuantisedNetwork]


def logits(segmenter: Segmenter) -> np.ndarray:
    return segmenter.at_own_scale(segmenter.prepare(PHOTOS[0])[None]).numpy()


def mixture(quantised: Quantised, kept: tuple[str, ...], path: Path) -> np.ndarray:
    reference, source, network = quantised
    file = path / f"mixture{source.suffix}"
    network.write(file, kept)
    return logits(reference.on_file(file))


def test_layers_are_the_convolutions_in_order(quantised: Quantised) -> None:
    _, _, network = quantised
    names = [layer.name for layer in network.layers]
    assert len(names) == len(LAYERS)
    assert all(f"{index}" in name for index, name in enumerate(names))


def test_with_all_layers_kept_it_is_the_network_in_fp32(quantised: Quantised, tmp_path: Path) -> None:
    wanted = logits(quantised[0])
    kept = tuple(layer.name for layer in quantised[2].layers)
    assert np.array_equal(mixture(quantised, kept, tmp_path), wanted)
    assert np.abs(mixture(quantised, (), tmp_path) - wanted).max() > 1e-3


def test_errors_of_single_layers_are_smaller_than_that_of_all(quantised: Quantised, tmp_path: Path) -> None:
    """A mixture has the error of the layers that are in int8, whichever those are."""
    wanted = logits(quantised[0])
    names = [layer.name for layer in quantised[2].layers]
    every = np.square(mixture(quantised, (), tmp_path) - wanted).mean()
    single = [np.square(mixture(quantised, tuple(set(names) - {name}), tmp_path) - wanted).mean() for name in names]
    assert all(0 < error < every for error in single)
    assert 0.3 < sum(single) / every < 3


def test_onnxruntime_and_openvino_agree_on_a_mixture(make: Callable[..., Segmenter], tmp_path: Path) -> None:
    source = make().int8_source(PHOTOS)
    network = source.quantised()
    for kept in ((), LAYERS[:2], LAYERS[3:]):
        network.write(tmp_path / "m.onnx", kept)
        found = [logits(make(runtime=runtime).on_file(tmp_path / "m.onnx")) for runtime in ("openvino", "onnxruntime")]
        wanted = logits(make())
        assert np.abs(found[0] - found[1]).max() < 0.05 * np.abs(wanted).max()


def test_onnxruntime_fuses_every_layer_in_int8(make: Callable[..., Segmenter], tmp_path: Path) -> None:
    make().int8_source(PHOTOS).quantised().write(tmp_path / "m.onnx", ())
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") >= len(LAYERS) - 1  # the last one's output is not quantised
    assert "FusedConv" not in kinds


def test_weights_that_nothing_reads_are_not_written(make: Callable[..., Segmenter], tmp_path: Path) -> None:
    network = make().int8_source(PHOTOS).quantised()
    for kept in ((), LAYERS):
        network.write(tmp_path / "m.onnx", kept)
        model = onnx.load(tmp_path / "m.onnx")
        onnx.checker.check_model(model)
        read = {name for node in model.graph.node for name in node.input}
        assert {each.name for each in model.graph.initializer} <= read
        has_int8 = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        assert has_int8 == (not kept)


def record(kept: tuple[str, ...], limit: float = 0.01) -> Int8Record:
    layers = tuple(
        LayerRecord(name=name, kind="Conv", changed=0.0, halved=0.0, damage=0.0, kept=name in kept) for name in LAYERS
    )
    about = {"model": "chain", "weights": "", "runtime": "openvino", "calibration": "", "truth": ""}
    return Int8Record(**about, size=48, limit=limit, plain_drop=0.1, drop=0.0, evaluations=1, layers=layers)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_int8_uses_what_was_found_last(
    runtime: str, make: Callable[..., Segmenter], settings: FetchSettings, tmp_path: Path
) -> None:
    source = make().int8_source(PHOTOS)
    network = source.quantised()
    source.record_path().unlink(missing_ok=True)
    plain = make(runtime=runtime, precision="int8")
    assert plain.int8_record is None
    for kept in (LAYERS[:1], LAYERS[:3]):
        source.store(record(kept), limit="0.01")
        found = make(runtime=runtime, precision="int8")
        assert found.int8_record == record(kept)
        network.write(tmp_path / "m.onnx", kept)
        assert np.array_equal(logits(found), logits(make(runtime=runtime).on_file(tmp_path / "m.onnx")))
        assert not np.array_equal(logits(found), logits(plain))
    assert source.found(limit="0.01") == record(LAYERS[:3])
    assert source.found(limit="0.02") is None


def test_other_weights_and_photos_have_findings_of_their_own(
    make: Callable[..., Segmenter], directory: Path, settings: FetchSettings
) -> None:
    write_chain(directory / "other.onnx", seed=1)
    paths = {
        make().int8_source(PHOTOS).record_path(),
        make().int8_source(PHOTOS[:3]).record_path(),
        make("other.onnx").int8_source(PHOTOS).record_path(),
    }
    assert len(paths) == 3


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}', "null"])
def test_a_damaged_finding_is_refused(content: str, make: Callable[..., Segmenter]) -> None:
    path = make().int8_source(PHOTOS).record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    try:
        with pytest.raises(DeviceError, match="quantize again"):
            make(precision="int8")
    finally:
        path.unlink()


def test_what_cannot_be_quantised_is_refused(make: Callable[..., Segmenter], directory: Path) -> None:
    source = make().int8_source([])
    with pytest.raises(DeviceError, match="calibration is empty"):
        source.quantised()
    with pytest.raises(DeviceError, match="runs no files"):
        Segmenter("embedded", device="cpu", size=48).on_file(directory / "chain.onnx")
