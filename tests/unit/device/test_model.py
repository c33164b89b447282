"""Models on a device: three kinds of file, the same logits, and nothing foreign is opened."""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pemn.artifact import Artifact
from pemn.device import Model
from pemn.errors import DataError, FileError, MalformedArtifact
from pemn.training.local import unflatten
from pemn.training.networks import build
from tests.models import make_artifact, make_file, random_images, skeleton_of
from tests.networks import DIGITS

FORMS = ["pemn", "packed", "dense"]
CASES = [
    *(
        ("mlp-16-12", "full", 1, 1),
        ("mlp-17-17", "one-layer", 1, 1),
        ("cnn-7-9-9", "rp:0.013", 1, 1),
        ("cnn-8-16-16", "mp", 1, 1),
    ),
    *(
        ("mlp-17-17", "full", 3, 1),
        ("cnn-7-9-9", "rp:0.1", 8, 1),
        ("cnn-7-9-9", "rp:0.1", 1, 16),
        ("mlp-17-17", "mp", 2, 3),
    ),
]


@pytest.mark.parametrize(("architecture", "strategy", "tie", "terms"), CASES)
def test_all_kinds_of_file_give_the_same_logits(
    architecture: str, strategy: str, tie: int, terms: int
) -> None:
    images = random_images(DIGITS, 30)
    logits = [
        Model.load(make_file(form, architecture, strategy, tie, terms), num_threads=1).predict(images)
        for form in FORMS
    ]
    assert np.abs(logits[0] - logits[1]).max() == 0
    assert np.abs(logits[0] - logits[2]).max() == 0
    assert logits[0].dtype == np.float32


@pytest.mark.parametrize(("architecture", "strategy", "tie", "terms"), CASES)
@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_those_of_torch(
    architecture: str, strategy: str, tie: int, terms: int, form: str
) -> None:
    artifact = make_artifact(architecture, strategy, tie=tie, terms=terms)
    module = build(architecture, DIGITS.shape, 10)
    module.load_state_dict(unflatten(torch.from_numpy(artifact.weights()), artifact.model))
    images = random_images(DIGITS, 30)
    with torch.no_grad():
        wanted = module(torch.from_numpy(DIGITS.normalise(images))).numpy()
    logits = Model.load(make_file(form, architecture, strategy, tie, terms)).predict(images)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_images(form: str) -> None:
    model = Model.load(make_file(form), num_threads=1)
    images = random_images(DIGITS, 600)  # more than one batch
    logits = model.predict(images)
    assert logits.shape == (600, 10)
    one_by_one = np.concatenate([model.predict(image[None]) for image in images[250:260]])
    np.testing.assert_allclose(logits[250:260], one_by_one, rtol=1e-4, atol=1e-6)
    assert model.predict(images[:0]).shape == (0, 10)


def test_injected_weights_live_as_long_as_the_model() -> None:
    """The runtime computes with the very memory that it was given."""
    images = random_images(DIGITS)
    wanted = Model.load(make_file("dense", "mlp-64-64", "mp"), num_threads=1).predict(images)
    model = Model.load(make_file("pemn", "mlp-64-64", "mp"), num_threads=1)
    gc.collect()
    junk = [np.full(size, np.nan, np.float32) for size in (64, 640, 4096, 8832) for _ in range(200)]
    assert np.array_equal(model.predict(images), wanted)
    del junk


def test_files_paths_and_bytes(tmp_path: Path) -> None:
    images = random_images(DIGITS)
    for form in FORMS:
        path = tmp_path / "model"
        path.write_bytes(make_file(form))
        model = Model.load(path)
        assert model.contract == DIGITS
        assert model.class_names == DIGITS.class_names
        assert np.array_equal(model.predict(images), Model.load(str(path)).predict(images))


@pytest.mark.parametrize("form", FORMS)
def test_images_that_do_not_fit_are_refused(form: str) -> None:
    model = Model.load(make_file(form))
    for images in (
        np.zeros((1, 1, 8, 9), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((1, 1, 8, 8), np.float32),
    ):
        with pytest.raises(
            DataError, match=r"images do not fit the network: got .*; wanted uint8 \[N, 1, 8, 8\]"
        ):
            model.predict(images)  # type: ignore[arg-type]


def external_initialiser() -> bytes:
    model = onnx.load_model_from_string(make_file("dense"))
    tensor = onnx.TensorProto(name="x", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../x")
    model.graph.initializer.append(tensor)
    return model.SerializeToString()


def without_contract() -> bytes:
    model = onnx.load_model_from_string(make_file("dense"))
    del model.metadata_props[:]
    return model.SerializeToString()


def with_other_weights() -> bytes:
    return dataclasses.replace(make_artifact(), weights_sha256=bytes(32)).to_bytes()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (lambda: b"", "not an ONNX file"),
        (lambda: b"GIF89a" * 10, "not an ONNX file"),
        (lambda: make_file("pemn")[:-9], "cut off or damaged"),
        (lambda: make_file("packed")[:-9], "not an ONNX file"),
        (external_initialiser, "data outside of its ONNX file"),
        (without_contract, "PEMN has not written"),
        (lambda: skeleton_of("mlp-16-12"), "without its weights"),
        (with_other_weights, "hash of the rebuilt weights"),
    ],
)
def test_foreign_files_are_refused_before_a_session_is_made(
    data: object, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("a session was made")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    with pytest.raises(MalformedArtifact, match=complaint):
        Model.load(data())  # type: ignore[operator]


def test_a_graph_that_the_runtime_refuses_is_one_clear_error() -> None:
    model = onnx.load_model_from_string(make_file("dense"))
    model.graph.node[-1].op_type = "Teleport"
    with pytest.raises(MalformedArtifact, match=r"onnxruntime cannot open the network.*Teleport") as caught:
        Model.load(model.SerializeToString())
    assert "\n" not in str(caught.value)


def test_a_graph_that_fails_or_gives_something_else_is_one_clear_error() -> None:
    model = onnx.load_model_from_string(make_file("dense"))
    last = model.graph.node[-1]
    last.output[0] = "before"
    node = onnx.helper.make_node("Concat", ["before", "before"], ["logits"], axis=0)
    model.graph.node.append(node)
    with pytest.raises(MalformedArtifact, match=r"logits: got float32 \(18, 10\); wanted float32 \(9, 10\)"):
        Model.load(model.SerializeToString()).predict(random_images(DIGITS))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read a model, no such file or directory: in .*none\.pemn"):
        Model.load(tmp_path / "none.pemn")


def test_a_device_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    for form in FORMS:
        (tmp_path / form).write_bytes(make_file(form))
    program = f"""
import sys
absent = ("torch", "onnx", "onnxscript", "flwr", "PIL", "sklearn", "pyarrow", "matplotlib", "pydantic_settings", "grpc")
for name in absent:
    sys.modules[name] = None
import json, pathlib
import numpy as np
from pemn.device import Model
images = np.random.default_rng(9).integers(0, 256, (9, 1, 8, 8), np.uint8)
folder = pathlib.Path({str(tmp_path)!r})
print(json.dumps([Model.load(folder / form).predict(images).tolist() for form in {FORMS!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    wanted = Model.load(make_file("dense")).predict(random_images(DIGITS))
    for logits in json.loads(done.stdout):
        assert np.array_equal(np.array(logits, np.float32), wanted)


def test_the_artifact_on_a_device_is_the_one_that_was_made() -> None:
    assert Artifact.from_bytes(make_file("pemn")) == make_artifact()
