"""torch module -> ONNX graph without its weights.

Masked weights and floats stay in the graph as initialisers without data, marked as external at
`graph.WEIGHTS_LOCATION`: a runtime can be handed them (`pemn.device`), and a packed or a dense file is made by putting
data in their place (`pemn.export.packed`, `pemn.export.dense`), without torch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from pemn import graph
from pemn.errors import ConfigError, LocalError
from pemn.export.parts import PRODUCER, replace, tensor_without_data
from pemn.spec import ModelSpec

try:
    import onnxscript.optimizer
    import torch
except ModuleNotFoundError as error:
    raise ConfigError(
        "missing package", got=f"no module {error.name}", wanted="pip install 'pemn[server]'"
    ) from error

OPSET = 18
IR_VERSION = 8
"""Of the ONNX format: what runtimes since onnxruntime 1.14 read."""

_NOISY = "torch.onnx._internal.exporter._registration"


def skeleton(module: torch.nn.Module, spec: ModelSpec) -> bytes:
    """Exports a network, as it predicts, without its weights.

    Args:
        module: As `pemn.training.networks.build` made it for the spec; it is left as it is.
        spec: Its description.

    Returns:
        An ONNX file, the same bytes for the same module: input `image`, output `logits`, both with a free batch.

    Raises:
        ConfigError: If torch cannot export the module, or it does not use a layer that is masked.
        LocalError: If the module is not the spec's, or the exporter did not keep its weights as they are.
    """
    probe = _probe(module, spec)
    with _quiet(), _told_as_the_users(spec.architecture):
        program = torch.onnx.export(
            probe,
            (torch.zeros(2, *spec.input.shape),),
            dynamo=True,
            # The default fuses normalisation into weights: they keep their names but change their values.
            optimize=False,
            opset_version=OPSET,
            input_names=[graph.INPUT_NAME],
            output_names=[graph.OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise LocalError("torch exported nothing", where=spec.architecture)
    model = program.model_proto
    _check_weights(model, probe, {layer.name for layer in spec.layers})
    _fold(model, spec)
    _strip(model)
    model.ir_version = IR_VERSION
    model.producer_name = PRODUCER
    model.producer_version = ""
    model.graph.name = spec.architecture
    data = model.SerializeToString(deterministic=True)
    graph.check_skeleton(graph.read(data), spec)
    return data


def _probe(module: torch.nn.Module, spec: ModelSpec) -> torch.nn.Module:
    """Returns a copy with weights that no pass of an exporter can take for something else: random ones."""
    probe = copy.deepcopy(module).cpu().eval()
    state = _floating(probe)
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if got != spec.shapes:
        raise LocalError("module of another network", got=got, wanted=spec.shapes)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for tensor in state.values():  # positive, as variances are
            tensor.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tuple(tensor.shape)).astype(np.float32)))
    return probe


def _floating(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state of a module without its counters, such as those of batch norm."""
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def _check_weights(model: onnx.ModelProto, probe: torch.nn.Module, masked: set[str]) -> None:
    """Checks that the exporter kept every tensor that the network uses, under a name of it and with its values."""
    state = _floating(probe)
    kept = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in state
    }
    for name, tensor in state.items():
        if name not in kept:
            if name in masked:
                raise ConfigError("masked tensor that the network does not use", where=name)
            if any(other.data_ptr() == tensor.data_ptr() for key, other in state.items() if key in kept):
                continue  # one tensor under two names
            if any(
                np.array_equal(onnx.numpy_helper.to_array(other).ravel(), tensor.numpy().ravel())
                for other in model.graph.initializer
            ):
                raise LocalError("the exporter renamed a weight", where=name)
        elif not np.array_equal(kept[name], tensor.numpy()):
            raise LocalError("the exporter changed a weight", where=name)


def _fold(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Takes the weights' data out, then folds what is constant without them.

    While folding, the weights are inputs of the graph: so nothing that is left can be made of the probe's values.
    """
    shapes = spec.shapes
    replace(model.graph.initializer, [t for t in model.graph.initializer if t.name not in shapes])
    for name, shape in shapes.items():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, graph.FLOAT32, shape))
    onnxscript.optimizer.fold_constants(model)
    onnxscript.optimizer.remove_unused_nodes(model)
    replace(model.graph.input, [value for value in model.graph.input if value.name not in shapes])
    used = {name for node in model.graph.node for name in node.input}
    replace(model.graph.initializer, [t for t in model.graph.initializer if t.name in used])
    model.graph.initializer.extend(tensor_without_data(name, shape) for name, shape in shapes.items())


def _strip(model: onnx.ModelProto) -> None:
    """Takes out what nobody needs: source lines and paths of this machine among it."""
    body = model.graph
    parts: list[Any] = [model, body, *body.node, *body.input, *body.output, *body.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    del body.value_info[:]


@contextlib.contextmanager
def _told_as_the_users(architecture: str) -> Iterator[None]:
    """Makes one line of what the exporter says of a network that it cannot follow."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception as error:  # its errors have no common base, and those of a user's forward() come through
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise ConfigError(
            "network that torch cannot export",
            got=f"{type(error).__name__}: {reason}",
            wanted="one whose steps do not depend on the values",
            where=architecture,
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes to its own developers off the user's screen."""
    logger = logging.getLogger(_NOISY)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
