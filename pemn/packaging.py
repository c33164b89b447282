"""Masked module -> artifact: where training and export meet."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from torch import nn

from pemn.artifact import Artifact
from pemn.errors import ConfigError, LocalError
from pemn.export.skeleton import skeleton
from pemn.files import write_atomic
from pemn.rebuild import rebuild
from pemn.spec import ModelSpec
from pemn.training.masked import mask_of, unmask


def package(module: nn.Module, spec: ModelSpec, provenance: dict[str, str]) -> Artifact:
    """Returns a trained network as what a .pemn file holds: seed, mask, floats and graph.

    Args:
        module: What `pemn.mask_model` made for the spec, on any device; it is left as it is.
        spec: Its description.
        provenance: Texts for people.

    Raises:
        ConfigError: If scores or floats are not numbers, torch cannot export the module, or the exporter's packages are
            not installed.
        LocalError: If the module has other weights than the spec's.
    """
    mask = mask_of(module, spec)
    plain = unmask(copy.deepcopy(module)).cpu()
    state = plain.state_dict()
    rebuilt = np.split(rebuild(spec, mask), np.cumsum(spec.sizes)[:-1])
    for layer, weights in zip(spec.layers, rebuilt, strict=True):
        if not np.array_equal(state[layer.name].numpy().ravel(), weights):
            raise LocalError("weights that are not the spec's: another masked the module", where=layer.name)
    check_floats(plain, spec)
    floats = [state[tensor.name].numpy().ravel() for tensor in spec.floats]
    joined = np.concatenate([*floats, np.empty(0, np.float32)]).astype("<f4")
    return Artifact.of(spec, mask, skeleton(plain, spec), provenance, floats=joined.tobytes())


def check_floats(module: nn.Module, spec: ModelSpec) -> None:
    """Checks that a file can hold the floats of a network.

    Raises:
        ConfigError: If one is infinite or no number; names its tensor.
    """
    state = module.state_dict()
    for tensor in spec.floats:
        if not state[tensor.name].isfinite().all():
            wanted = "finite floats; a constant such as a causal mask as a buffer with persistent=False"
            raise ConfigError("floats of a network that are not finite", wanted=wanted, where=tensor.name)


def save(artifact: Artifact, path: Path | str) -> None:
    """Writes a .pemn file, whole or not at all.

    Raises:
        FileError: If it cannot be written.
    """
    write_atomic(Path(path), artifact.to_bytes())
