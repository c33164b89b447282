"""Packed and dense ONNX: the weights of `pemn.rebuild`, bit for bit, in every strategy and odd size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from pemn.artifact import Artifact
from pemn.distribution import Distribution
from pemn.errors import MalformedArtifact
from pemn.export.dense import dense
from pemn.export.packed import packed
from tests.models import make_artifact, random_images, skeleton_of

# Layer sizes that are and are no multiple of 8, layers of one shape, a stride-1 convolution.
ARCHITECTURES = ["mlp-17-17-17", "cnn-7-9-9"]
# Periods: the layer's own, the largest layer's, one that is no multiple of 8, a single value.
STRATEGIES = ["full", "one-layer", "mp", "rp:0.6", "rp:0.1", "rp:0.013", "rp:0.0001"]
CASES = [(a, s, d, 1, 1) for a in ARCHITECTURES for s in STRATEGIES for d in Distribution]
# Layers of 1088, 289 and 170 weights, or 63, 567 and 810: ties that divide them and ties that do not, into bits that
# are a multiple of 8 and bits that are not.
CASES += [
    (a, s, Distribution.NORMAL, t, 1)
    for a in ARCHITECTURES
    for s in ("full", "rp:0.1")
    for t in (2, 3, 17, 256)
]
# Weights that are sums, alone and of tied values; the order of the terms decides the last place of these.
CASES += [
    ("mlp-17-17-17", s, d, t, n)
    for s in ("full", "mp", "rp:0.1")
    for d in Distribution
    for t, n in [(1, 16), (3, 5)]
]


def open_session(data: bytes, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimised is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(data: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = open_session(data).run(["logits"], {"image": images})[0]
    return logits


def both(artifact: Artifact) -> tuple[bytes, bytes]:
    return packed(artifact), dense(artifact)


@pytest.mark.parametrize(("architecture", "strategy", "distribution", "tie", "terms"), CASES)
def test_the_runtime_folds_the_packed_file_to_the_rebuilt_weights(
    architecture: str, strategy: str, distribution: Distribution, tie: int, terms: int, tmp_path: Path
) -> None:
    artifact = make_artifact(architecture, strategy, distribution=distribution, tie=tie, terms=terms)
    open_session(both(artifact)[0], tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert [node.name for node in optimised.graph.node if node.name.startswith("pemn")] == []
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in optimised.graph.initializer}
    weights = artifact.weights()
    begin = 0
    for layer in artifact.model.layers:
        wanted = weights[begin : begin + layer.size]
        begin += layer.size
        assert found[layer.name].shape == layer.shape
        assert found[layer.name].tobytes() == wanted.tobytes(), layer.name  # +0.0 and -0.0 differ here


@pytest.mark.parametrize(("architecture", "strategy", "distribution", "tie", "terms"), CASES)
def test_packed_and_dense_give_the_same_logits(
    architecture: str, strategy: str, distribution: Distribution, tie: int, terms: int
) -> None:
    artifact = make_artifact(architecture, strategy, distribution=distribution, tie=tie, terms=terms)
    images = artifact.model.input.normalise(random_images(artifact.model.input))
    small, large = (run(data, images) for data in both(artifact))
    assert np.abs(small).max() > 0.01
    assert np.abs(small - large).max() == 0


@pytest.mark.parametrize(("architecture", "strategy", "distribution", "tie", "terms"), CASES)
def test_the_packed_file_is_small(
    architecture: str, strategy: str, distribution: Distribution, tie: int, terms: int
) -> None:
    artifact = make_artifact(architecture, strategy, distribution=distribution, tie=tie, terms=terms)
    spec = artifact.model
    data = both(artifact)[0]
    num_nodes = len(onnx.load_model_from_string(data).graph.node)
    bytes_of_value = 1 / 8 if distribution is Distribution.SIGNED else 2
    prototype = spec.unique_values * bytes_of_value + len(spec.layers)
    assert len(data) <= artifact.mask.packed.size + prototype + 12 * 1024 + 60 * num_nodes


def test_the_packed_file_is_many_times_smaller_than_the_dense_one() -> None:
    small, large = both(make_artifact("mlp-512-512", "full"))
    assert 14 * len(small) < len(large)
    small, large = both(make_artifact("mlp-512-512", "rp:0.01"))
    assert 24 * len(small) < len(large)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full_masks(density: float) -> None:
    artifact = make_artifact("mlp-17", "rp:0.1", density=density)
    images = artifact.model.input.normalise(random_images(artifact.model.input))
    small, large = (run(data, images) for data in both(artifact))
    assert np.array_equal(small, large)
    assert bool(small.any()) == (density > 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_files_are_valid_standard_onnx_and_reproducible(architecture: str) -> None:
    artifact = make_artifact(architecture, "rp:0.1")
    for data, again in zip(both(artifact), both(artifact), strict=True):
        assert data == again
        onnx.checker.check_model(data, full_check=True)
        model = onnx.load_model_from_string(data)
        assert (model.producer_name, model.ir_version) == ("pemn", 8)
        assert {node.domain for node in model.graph.node} == {""}
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)


def test_the_onnx_projects_own_runtime_agrees() -> None:
    artifact = make_artifact("mlp-17-17-17", "rp:0.013")
    images = artifact.model.input.normalise(random_images(artifact.model.input, 3))
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_model_from_string(both(artifact)[0])
    logits: Any = ReferenceEvaluator(model).run(["logits"], {"image": images})
    np.testing.assert_allclose(logits[0], run(both(artifact)[1], images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [packed, dense])
def test_a_skeleton_of_another_network_is_refused(make: Callable[[Artifact], bytes]) -> None:
    artifact = replace(make_artifact("mlp-17-17-17", "mp"), onnx_skeleton=skeleton_of("mlp-16"))
    with pytest.raises(MalformedArtifact, match="weights of an ONNX skeleton"):
        make(artifact)


def test_a_skeleton_that_is_no_valid_onnx_is_refused() -> None:
    artifact = make_artifact("mlp-17-17-17", "mp")
    model = onnx.load_model_from_string(artifact.onnx_skeleton)
    model.graph.node[-1].input[0] = "nowhere"
    with pytest.raises(MalformedArtifact, match="ONNX skeleton of a network"):
        packed(replace(artifact, onnx_skeleton=model.SerializeToString()))


def test_files_are_made_without_torch(tmp_path: Path) -> None:
    artifact = make_artifact("mlp-17-17-17", "mp")
    (tmp_path / "model.pemn").write_bytes(artifact.to_bytes())
    program = f"""
import sys
sys.modules["torch"] = sys.modules["onnxscript"] = None
from pathlib import Path
from typing import Any
from pemn.artifact import Artifact
from pemn.export.dense import dense
from pemn.export.packed import packed
folder = Path({str(tmp_path)!r})
artifact = Artifact.from_bytes((folder / "model.pemn").read_bytes())
for make in (packed, dense):
    (folder / make.__name__).write_bytes(make(artifact))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    for name, wanted in zip(("packed", "dense"), both(artifact), strict=True):
        assert (tmp_path / name).read_bytes() == wanted


def test_a_missing_onnx_package_is_one_line_that_names_the_remedy() -> None:
    program = """
import sys
sys.modules["onnx"] = None
from pemn.errors import ConfigError
try:
    import pemn.export.packed
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "missing package: got no module onnx; wanted pip install 'pemn[server]'\n"
