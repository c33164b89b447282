"""ONNX files from outside: what PEMN has not written is refused before a runtime sees it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pemn import graph
from pemn.errors import MalformedArtifact
from pemn.spec import InputContract
from tests.models import make_artifact, make_file, skeleton_of
from tests.networks import DIGITS

Change = Callable[[onnx.ModelProto], object]


def change(data: bytes, how: Change) -> bytes:
    model = onnx.load_model_from_string(data)
    how(model)
    return model.SerializeToString()


def external(location: str, name: str = "secret", **more: str) -> TensorProto:
    tensor = TensorProto(name=name, dims=[4], data_type=1, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": "16", **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def add_initialiser(tensor: TensorProto) -> Change:
    return lambda model: model.graph.initializer.append(tensor)


def add_attribute(**attributes: object) -> Change:
    def how(model: onnx.ModelProto) -> None:
        attribute = helper.make_attribute(*next(iter(attributes.items())))
        model.graph.node[0].attribute.append(attribute)

    return how


def hidden_behind_a_harmless_entry() -> TensorProto:
    tensor = external(graph.WEIGHTS_LOCATION)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def sparse() -> onnx.SparseTensorProto:
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    return helper.make_sparse_tensor(values, indices, [1000])


def located_without_the_flag() -> TensorProto:
    tensor = external("/etc/hostname")
    tensor.data_location = TensorProto.DEFAULT
    return tensor


def add_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    opset = helper.make_opsetid("", 18)
    model.functions.append(helper.make_function("other", "f", ["x"], ["y"], [node], [opset]))


def set_domain(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.microsoft"


def add_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def subgraph() -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [])


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


HOSTILE: dict[str, tuple[Change, str]] = {
    "parent folder": (add_initialiser(external("../secret")), "data outside of its ONNX file"),
    "absolute path": (add_initialiser(external("/etc/hostname")), "data outside of its ONNX file"),
    "address in memory": (add_initialiser(external("*/_ORT_MEM_ADDR_/*")), "data outside of its ONNX file"),
    "offset into our place": (
        add_initialiser(external(graph.WEIGHTS_LOCATION, offset="64")),
        "data outside of its ONNX file",
    ),
    "second location": (add_initialiser(hidden_behind_a_harmless_entry()), "data outside of its ONNX file"),
    "location without the flag": (
        add_initialiser(located_without_the_flag()),
        "data outside of its ONNX file",
    ),
    "constant outside": (add_attribute(value=external("../secret")), "data outside of its ONNX file"),
    "constant without data": (
        add_attribute(value=external(graph.WEIGHTS_LOCATION)),
        "constant without data",
    ),
    "list of constants": (add_attribute(values=[external("../secret")]), "data outside of its ONNX file"),
    "sparse initialiser": (
        lambda model: model.graph.sparse_initializer.append(sparse()),
        "sparse initialisers",
    ),
    "sparse constant": (add_attribute(value=sparse()), "sparse tensor"),
    "function": (add_function, "functions"),
    "training": (lambda model: model.training_info.add(), "training graphs"),
    "subgraph": (add_attribute(then_branch=subgraph()), "subgraph"),
    "empty subgraph": (add_attribute(then_branch=onnx.GraphProto()), "subgraph"),
    "subgraphs": (add_attribute(branches=[subgraph()]), "subgraph"),
    "operator of a runtime": (set_domain, "another domain.*com.microsoft"),
    "operators of a stranger": (add_domain, "another domain.*com.example"),
    "two gigabytes": (
        add_initialiser(TensorProto(name="big", dims=[1 << 29], data_type=1, raw_data=bytes(8))),
        "size of a tensor",
    ),
    "overflowing size": (
        add_initialiser(TensorProto(name="big", dims=[1 << 62, 4], data_type=1)),
        "size of a tensor",
    ),
    "negative size": (
        add_initialiser(TensorProto(name="big", dims=[-1, -1], data_type=1)),
        "size of a tensor",
    ),
    "no data": (
        add_initialiser(TensorProto(name="big", dims=[1 << 27], data_type=1, raw_data=bytes(8))),
        "tensor without its data",
    ),
    "one name twice": (
        lambda model: model.graph.initializer.append(model.graph.initializer[0]),
        "two initialisers of one name",
    ),
    "fixed batch": (fix_batch, "shape in an ONNX file: got \\(1, 1, 8, 8\\)"),
    "second input": (add_input, "inputs or outputs"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("form", ["packed", "dense"])
def test_what_no_network_of_ours_needs_is_refused(case: str, form: str) -> None:
    how, complaint = HOSTILE[case]
    with pytest.raises(MalformedArtifact, match=complaint):
        graph.read(change(make_file(form), how))


def test_bytes_that_are_no_onnx_are_refused() -> None:
    dense = make_file("dense")
    for data in (b"", b"hello world", bytes(100), dense[:-1], dense[: len(dense) // 2], b"\x0a" * 60):
        with pytest.raises(MalformedArtifact, match="not an ONNX file"):
            graph.read(data)


@given(st.sampled_from(["packed", "dense"]), st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(form: str, draw: st.DataObject) -> None:
    data = bytearray(make_file(form))
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedArtifact):
        graph.contract_of(graph.read(bytes(data)))


def test_the_contents_are_those_that_onnx_reads() -> None:
    data = make_file("packed")
    contents = graph.read(data)
    model = onnx.load_model_from_string(data)
    assert contents.operators == tuple(node.op_type for node in model.graph.node)
    assert [(t.name, t.shape, t.data_type, t.num_bytes) for t in contents.tensors] == [
        (t.name, tuple(t.dims), t.data_type, t.ByteSize()) for t in model.graph.initializer
    ]
    assert (contents.input_shape, contents.num_classes, contents.producer) == ((1, 8, 8), 10, "pemn")


def test_a_skeleton_lacks_exactly_its_masked_weights() -> None:
    spec = make_artifact().model
    graph.check_skeleton(graph.read(skeleton_of("mlp-16-12")), spec)
    for other in (make_file("dense"), skeleton_of("mlp-16"), skeleton_of("cnn-4-6")):
        with pytest.raises(MalformedArtifact, match="weights of an ONNX skeleton"):
            graph.check_skeleton(graph.read(other), spec)
    with pytest.raises(MalformedArtifact, match=r"got \(16, 64\); wanted \(17, 64\)"):
        graph.check_skeleton(graph.read(skeleton_of("mlp-16-12")), make_artifact("mlp-17-12").model)


def test_a_skeleton_of_other_images_is_refused() -> None:
    other = InputContract((4, 4, 4), (0.5,) * 4, (0.5,) * 4, DIGITS.class_names)
    with pytest.raises(MalformedArtifact, match="input and output of an ONNX file"):
        graph.check_skeleton(graph.read(skeleton_of("mlp-16-12", other)), make_artifact().model)


def test_a_skeleton_is_not_a_model() -> None:
    with pytest.raises(MalformedArtifact, match="without its weights"):
        graph.contract_of(graph.read(skeleton_of("mlp-16-12")))


def with_contract(text: str | None) -> bytes:
    def how(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]
        if text is not None:
            model.metadata_props.add(key="pemn.input", value=text)

    return change(make_file("dense"), how)


def test_the_contract_comes_back() -> None:
    assert graph.contract_of(graph.read(make_file("packed"))) == DIGITS
    odd = InputContract((3, 2, 5), (0.1, -0.0, 1e-7), (1.0, 2.0, 3.0), ("Grüße", '"', "\n", "猫"))
    back = graph.contract_from_json(graph.contract_to_json(odd))
    assert back.class_names == odd.class_names
    assert back.mean == pytest.approx(odd.mean, rel=1e-7)


@pytest.mark.parametrize(
    "parts",
    [
        {"shape": [1, 8]},
        {"shape": [1, 8, 8, 8]},
        {"shape": [1, 8, -8]},
        {"shape": [1, 8, 8.0]},
        {"shape": [True, 8, 8]},
        {"mean": []},
        {"mean": ["0.5"]},
        {"mean": [float("nan")]},
        {"mean": [1e39]},
        {"std": [0]},
        {"std": [1e-60]},
        {"std": [10**400]},
        {"class_names": []},
        {"class_names": [1, 2]},
        {"class_names": None},
    ],
)
def test_a_wrong_contract_is_refused(parts: dict[str, object]) -> None:
    text = json.dumps({**json.loads(graph.contract_to_json(DIGITS)), **parts})
    with pytest.raises(MalformedArtifact, match="input contract of an ONNX file"):
        graph.contract_of(graph.read(with_contract(text)))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, '{"shape": 1}'])
def test_a_contract_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(MalformedArtifact, match="input contract of an ONNX file"):
        graph.contract_of(graph.read(with_contract(text)))


def test_files_of_others_are_refused() -> None:
    with pytest.raises(MalformedArtifact, match=r"PEMN has not written: wanted metadata 'pemn\.input'"):
        graph.contract_of(graph.read(with_contract(None)))


def test_a_contract_must_fit_its_graph() -> None:
    fewer = InputContract(DIGITS.shape, DIGITS.mean, DIGITS.std, DIGITS.class_names[:9])
    with pytest.raises(MalformedArtifact, match="input and output of an ONNX file"):
        graph.contract_of(graph.read(with_contract(graph.contract_to_json(fewer))))
