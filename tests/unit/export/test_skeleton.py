"""The exported graph without its weights: clean, reproducible, and never made of a probe's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxscript import ir
from torch import nn

from pemn import graph
from pemn.errors import LocalError
from pemn.export.skeleton import skeleton
from pemn.prototype import Strategy
from pemn.spec import Layer, ModelSpec
from pemn.training.models import model_spec
from pemn.training.networks import build
from tests.models import skeleton_of
from tests.networks import DIGITS

ARCHITECTURE = "cnn-6-9-16"


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return model_spec(ARCHITECTURE, DIGITS, 7, Strategy("mp"))


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load_model_from_string(skeleton_of(ARCHITECTURE))


def test_format(model: onnx.ModelProto) -> None:
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [value.name for value in model.graph.input] == [graph.INPUT_NAME]
    assert [value.name for value in model.graph.output] == [graph.OUTPUT_NAME]
    shape = model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["batch", 1, 8, 8]
    assert model.producer_name == "pemn"


def test_masked_weights_are_declared_without_data(model: onnx.ModelProto, spec: ModelSpec) -> None:
    declared = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert [(t.name, tuple(t.dims)) for t in declared] == [(v.name, v.shape) for v in spec.layers]
    assert not any(t.HasField("raw_data") or t.float_data for t in declared)
    assert not any(t.data_location for t in model.graph.initializer if t not in declared)


def test_nothing_of_this_machine_or_of_torch_is_left(model: onnx.ModelProto) -> None:
    data = skeleton_of(ARCHITECTURE)
    for trace in (
        str(Path.cwd()),
        str(Path.home()),
        "/site-packages",
        ".py",
        "torch",
        "stack_trace",
        "probe",
    ):
        assert trace.encode() not in data
    assert not model.graph.value_info
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output]
    assert not any(part.doc_string or part.metadata_props for part in (*parts, *model.graph.initializer))


def test_the_same_module_gives_the_same_bytes_and_is_left_alone(spec: ModelSpec) -> None:
    module = build(ARCHITECTURE, DIGITS.shape, 10).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert skeleton(module, spec) == skeleton_of(ARCHITECTURE)
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_no_constant_is_made_of_the_probes_values(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda _: seeded(99))
    assert skeleton(build(ARCHITECTURE, DIGITS.shape, 10), spec) == skeleton_of(ARCHITECTURE)


def test_a_graph_that_transforms_its_weights_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding would otherwise put the transposed probe into the graph."""

    class Transposing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 10))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1) @ (2 * self.weight.t()).t()

    module = Transposing()
    spec = ModelSpec("own", DIGITS, (Layer("weight", (64, 10), 0.5),), 7, Strategy("mp"), bytes(16))
    contents = graph.read(skeleton(module, spec))
    graph.check_skeleton(contents, spec)
    assert {"Transpose", "Mul"} <= set(contents.operators)
    assert max(t.num_bytes for t in contents.tensors) < 64 * 10


def test_a_changed_weight_is_noticed(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an exporter does that fuses normalisation into weights, under their old names."""
    export = torch.onnx.export

    def fusing(*args: Any, **kwargs: Any) -> Any:
        program = export(*args, **kwargs)
        assert program is not None
        value = program.model.graph.initializers["conv2.weight"]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
        return program

    monkeypatch.setattr(torch.onnx, "export", fusing)
    with pytest.raises(LocalError, match=r"exporter changed a weight: in conv2\.weight"):
        skeleton(build(ARCHITECTURE, DIGITS.shape, 10), spec)


def test_modules_of_other_networks_are_refused(spec: ModelSpec) -> None:
    with_statistics = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(216, 10, bias=False)
    )
    for module in (build("cnn-6-9-8", DIGITS.shape, 10), build("mlp-6", DIGITS.shape, 10), with_statistics):
        with pytest.raises(LocalError, match="module of another network"):
            skeleton(module, spec)
