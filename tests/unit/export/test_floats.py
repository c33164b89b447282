"""Networks with batch norm, biases and embeddings: the same logits from torch and from every kind of file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.func import functional_call

from pemn import graph
from pemn.artifact import Artifact
from pemn.device import Model
from pemn.distribution import Distribution
from pemn.errors import ConfigError, MalformedArtifact
from pemn.export.dense import dense
from pemn.export.packed import packed
from pemn.export.skeleton import skeleton
from pemn.packaging import package
from pemn.prototype import Strategy
from pemn.training.masked import mask_model
from pemn.training.models import describe
from tests.models import Normed, as_file, make_normed, normed_skeleton, random_images
from tests.networks import DIGITS

FORMS = ["pemn", "packed", "dense"]
CASES = [(distribution, strategy) for distribution in Distribution for strategy in ("full", "mp", "rp:0.1")]


def logits_of_torch(artifact: Artifact, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By the module itself, with what comes out of the .pemn file."""
    back = Artifact.from_bytes(artifact.to_bytes())
    tensors = {name: torch.from_numpy(array.copy()) for name, array in back.tensors().items()}
    with torch.no_grad():
        batch = torch.from_numpy(back.model.input.normalise(images))
        logits: NDArray[np.float32] = functional_call(Normed().eval(), tensors, (batch,)).numpy()
    return logits


@pytest.mark.parametrize(("distribution", "strategy"), CASES)
def test_torch_and_every_kind_of_file_agree(distribution: Distribution, strategy: str) -> None:
    artifact = make_normed(distribution, strategy)
    images = random_images(DIGITS, 30)
    wanted = logits_of_torch(artifact, images)
    assert np.abs(wanted).max() > 0.5
    assert np.median(np.ptp(wanted, axis=0)) > 0.05  # they depend on the image
    found = [Model.load(as_file(form, artifact), num_threads=1).predict(images) for form in FORMS]
    for logits in found:
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[2])


def test_every_float_matters() -> None:
    """So a file in which one of them was lost or swapped would be noticed."""
    artifact, images = make_normed(), random_images(DIGITS, 30)
    wanted = Model.load(artifact.to_bytes(), num_threads=1).predict(images)
    begin = 0
    for part in artifact.model.floats:
        floats = np.frombuffer(artifact.floats, "<f4").copy()
        floats[begin : begin + part.size] *= np.float32(1.5)
        begin += part.size
        for form in FORMS:
            other = as_file(form, replace(artifact, floats=floats.tobytes()))
            assert np.abs(Model.load(other, num_threads=1).predict(images) - wanted).max() > 1e-4, part.name


def test_tensors_are_those_of_the_state_dict_but_for_counters() -> None:
    artifact, state = make_normed(), Normed().state_dict()
    counters = {"norm1.num_batches_tracked", "norm2.num_batches_tracked"}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in counters}
    tensors = artifact.tensors()
    assert {name: array.shape for name, array in tensors.items()} == shapes
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    floats = np.concatenate([tensors[part.name].ravel() for part in artifact.model.floats])
    assert floats.astype("<f4").tobytes() == artifact.floats


def test_the_skeleton_holds_no_float_and_no_fused_norm() -> None:
    contents, spec = graph.read(normed_skeleton()), make_normed().model
    assert {tensor.name for tensor in contents.tensors if tensor.external} == set(spec.shapes)
    count = Counter(contents.operators)
    assert (count["BatchNormalization"], count["LayerNormalization"], count["Conv"]) == (2, 1, 2)
    assert b"num_batches_tracked" not in normed_skeleton()


def test_no_constant_of_the_skeleton_is_made_of_the_probes_values(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda _: seeded(99))
    assert skeleton(Normed().train(), make_normed().model) == normed_skeleton()


def test_the_files_hold_the_floats_as_they_are(tmp_path: Path) -> None:
    artifact = make_normed()
    for make in (packed, dense):
        data = make(artifact)
        onnx.checker.check_model(data, full_check=True)
        found = {
            t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(data).graph.initializer
        }
        for part in artifact.model.floats:
            assert found[part.name].shape == part.shape
            assert np.array_equal(found[part.name], artifact.tensors()[part.name])


def test_the_runtime_folds_the_packed_file(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(packed(make_normed()), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert [node.name for node in optimised.graph.node if node.name.startswith("pemn")] == []


def reopened(artifact: Artifact) -> Artifact:
    return Artifact.from_bytes(artifact.to_bytes())


@pytest.mark.parametrize("use", [reopened, packed, dense])
def test_a_skeleton_without_one_of_the_floats_is_refused(use: Callable[[Artifact], object]) -> None:
    artifact = make_normed()
    model = onnx.load_model_from_string(artifact.onnx_skeleton)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
    model.graph.initializer.remove(bias)
    without = replace(artifact, onnx_skeleton=model.SerializeToString())
    with pytest.raises(MalformedArtifact, match=r"weights of an ONNX skeleton: .* in head\.bias$"):
        use(without)


@pytest.mark.parametrize("use", [reopened, packed, dense])
def test_a_skeleton_with_a_float_too_many_is_refused(use: Callable[[Artifact], object]) -> None:
    artifact = make_normed()
    *floats, last = artifact.model.floats
    fewer = replace(artifact.model, floats=tuple(floats))
    without = replace(artifact, model=fewer, floats=artifact.floats[: -4 * last.size])
    with pytest.raises(MalformedArtifact, match=r"weights of an ONNX skeleton: .* in head\.bias$"):
        use(without)


class Careless(nn.Module):
    """Has a parameter that it does not use, and one under two names."""

    def __init__(self, *, uses_head: bool = True) -> None:
        super().__init__()
        self.body = nn.Linear(64, 10)
        self.head = nn.Linear(10, 10)
        self.head.bias = self.body.bias
        self.spare = nn.Parameter(torch.ones(3))
        self.uses_head = uses_head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.body(image.flatten(1))
        return self.head(logits) if self.uses_head else logits


@pytest.mark.parametrize("form", ["pemn", "packed", "dense"])
def test_floats_that_are_unused_or_have_two_names_are_no_hindrance(form: str) -> None:
    torch.manual_seed(1)
    module = Careless()
    torch.nn.init.normal_(module.body.bias)
    spec = describe(module, "careless", DIGITS, 7, Strategy("mp"))
    artifact = package(mask_model(module, spec), spec, {})
    data = {"pemn": Artifact.to_bytes, "packed": packed, "dense": dense}[form](artifact)
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8), np.uint8)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(DIGITS.normalise(images))).numpy()
    np.testing.assert_allclose(Model.load(data).predict(images), wanted, atol=1e-4)


def test_a_masked_layer_that_is_not_used_is_named() -> None:
    module = Careless(uses_head=False)
    spec = describe(module, "careless", DIGITS, 7, Strategy("mp"))
    with pytest.raises(ConfigError, match=r"masked tensor that the network does not use: in head\.weight"):
        skeleton(module, spec)


class Learning(nn.Module):
    """Its forward pass depends on whole numbers, and on a constant that is not saved, that training changes."""

    steps: torch.Tensor
    offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10, bias=False)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("offset", torch.zeros(10), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        if self.training:
            self.steps += 1
            self.offset += torch.arange(10.0)
        logits: torch.Tensor = self.head(image.flatten(1)) + self.steps * torch.arange(10) + self.offset
        return logits


def test_a_file_has_what_training_has_changed_of_the_constants() -> None:
    module = Learning()
    spec = describe(module, "learning", DIGITS, 7, Strategy("mp"))
    mask_model(module, spec)
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8), np.uint8)
    inputs = torch.from_numpy(DIGITS.normalise(images))
    for _ in range(3):
        module(inputs)
    with torch.no_grad():
        wanted = module.eval()(inputs).numpy()
    np.testing.assert_allclose(
        Model.load(package(module, spec, {}).to_bytes()).predict(images), wanted, atol=1e-4
    )
    assert wanted[:, 9].min() > 40


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_floats_that_are_not_finite_are_named_with_what_helps(value: float) -> None:
    module = Learning()
    module.register_buffer("causal", torch.full((2, 2), value))
    spec = describe(module, "learning", DIGITS, 7, Strategy("mp"))
    with pytest.raises(ConfigError, match=r"not finite: wanted .*persistent=False; in causal"):
        package(mask_model(module, spec), spec, {})
