"""`pemn inspect`: what is in a model file, and what each part of it costs."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pemn import artifact, graph
from pemn.artifact import Artifact
from pemn.commands.model_file import model_file
from pemn.console import printable
from pemn.mask import Mask
from pemn.spec import InputContract

_NUMBERED = re.compile(r"pemn\.[0-9]+")  # as `pemn.export.packed` names constants


def inspect(path: Path, *, as_json: bool) -> int:
    """Prints the contents of a .pemn or an ONNX file.

    Args:
        path: The file.
        as_json: As one JSON object, for programs; sizes are in bytes, compression ratios in percent: 90 for a file of a
            tenth of the size. Of the two of a .pemn file `compression_ratio` is of all its bytes, against all weights
            and floats as float32; the other is `pemn.spec.ModelSpec.paper_compression_ratio`.

    Raises:
        FileError: If it cannot be read, or is not such a file (`MalformedArtifact`).
    """
    with model_file(path) as data:
        facts = _facts_of_pemn(data) if data.startswith(artifact.MAGIC) else _facts_of_onnx(data)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(printable(line) for line in _lines(facts)))
    return 0


def _facts_of_pemn(data: bytes) -> dict[str, Any]:
    model = Artifact.from_bytes(data)
    spec, mask = model.model, model.values_mask()
    sizes = artifact.sizes_in_file(data)
    float32_bytes = 4 * (spec.num_params + spec.num_floats)
    skeleton = graph.read(model.onnx_skeleton)
    return {
        "format": ".pemn",
        "bytes": len(data),
        "parts": sizes,
        "architecture": spec.architecture,
        "strategy": str(spec.strategy),
        "distribution": str(spec.distribution),
        "seed": spec.seed,
        "num_masked": spec.num_params,
        "num_values": spec.num_values,
        "kept": mask.num_kept,
        "density": mask.density,
        "unique_values": spec.unique_values,
        "num_floats": spec.num_floats,
        "tie": spec.tie,
        "mask_bits_per_weight": 8 * sizes["mask"] / spec.num_params,
        "float32_bytes": float32_bytes,
        "compression_ratio": 100 * (1 - len(data) / float32_bytes),
        "paper_compression_ratio": spec.paper_compression_ratio,
        "mask_sha256": model.mask.sha256.hex(),
        "weights_sha256": model.weights_sha256.hex(),
        "input": _contract(spec.input),
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "num_masked": layer.size,
                "kept": _num_kept(mask, index),
                "scale": layer.scale,
                "terms": layer.terms,
                "stream": source.stream,
                "period": source.period,
            }
            for index, (layer, source) in enumerate(zip(spec.layers, spec.sources, strict=True))
        ],
        "floats": [{"name": tensor.name, "shape": list(tensor.shape)} for tensor in spec.floats],
        "skeleton_bytes": len(model.onnx_skeleton),
        "operators": dict(Counter(skeleton.operators)),
        "provenance": dict(model.provenance),
    }


def _facts_of_onnx(data: bytes) -> dict[str, Any]:
    contents = graph.read(data)
    contract = graph.contract_of(contents)
    parts: dict[str, int] = {}
    for tensor in contents.tensors:
        name = "other constants of the rebuild" if _NUMBERED.fullmatch(tensor.name) else tensor.name
        parts[name] = parts.get(name, 0) + tensor.num_bytes
    packed = "pemn.mask" in parts
    return {
        "format": "packed ONNX" if packed else "dense ONNX",
        "bytes": len(data),
        "parts": {**parts, "graph": len(data) - sum(parts.values())},
        "input": _contract(contract),
        "operators": dict(Counter(contents.operators)),
    }


def _contract(contract: InputContract) -> dict[str, Any]:
    return {
        "shape": list(contract.shape),
        "mean": list(contract.mean),
        "std": list(contract.std),
        "class_names": list(contract.class_names),
    }


def _num_kept(mask: Mask, index: int) -> int:
    return int(np.bitwise_count(mask.layer(index)).sum(dtype=np.int64))


def _lines(facts: dict[str, Any]) -> list[str]:
    total = facts["bytes"]
    lines = [f"{facts['format']} file, {total:,} bytes", ""]
    width = max(len(name) for name in facts["parts"])
    lines += [f"  {name:{width}}  {size:>12,}  {size / total:6.1%}" for name, size in facts["parts"].items()]
    contract = facts["input"]
    names = contract["class_names"]
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    lines += [
        "",
        f"input      {' x '.join(map(str, contract['shape']))}, (pixels / 255 - mean) / std",
        f"           mean {_numbers(contract['mean'])}; std {_numbers(contract['std'])}",
        f"classes    {len(names)}: {shown}",
        "operators  " + ", ".join(f"{count} {name}" for name, count in facts["operators"].items()),
    ]
    return lines + (_lines_of_model(facts) if "layers" in facts else [])


def _lines_of_model(facts: dict[str, Any]) -> list[str]:
    num_floats, dense = facts["num_floats"], facts["float32_bytes"]
    shared, share = "", "a value"
    if facts["tie"] != 1:
        shared, share = f", where {facts['tie']} values share a bit", f"for {facts['tie']} values"
    lines = [
        f"network    {facts['architecture']}, strategy {facts['strategy']}, seed {facts['seed']}",
        f"weights    {facts['num_masked']:,} from {facts['unique_values']:,} {facts['distribution']} values; "
        f"{facts['kept']:,} of {facts['num_values']:,} kept ({facts['density']:.1%})",
        f"floats     {num_floats:,} in {len(facts['floats']):,} tensors, {4 * num_floats:,} bytes",
        f"mask       {facts['mask_bits_per_weight']:.3f} bits a weight in the file{shared}, "
        f"sha256 {facts['mask_sha256']}",
        f"float32    {dense:,} bytes, {dense / facts['bytes']:.1f} times this file; "
        f"sha256 of the weights {facts['weights_sha256']}",
        f"saved      {facts['compression_ratio']:.3f} %; {facts['paper_compression_ratio']:.3f} % by the paper's rule: "
        f"a bit {share}, 32 bits a unique value, nothing else",
        "",
    ]
    width = max(len("layer"), *(len(layer["name"]) for layer in facts["layers"]))
    lines.append(f"  {'layer':{width}}  {'shape':>18}  {'weights':>12}  {'kept':>6}  {'scale':>9}  values")
    for layer in facts["layers"]:
        shape, num_values = "x".join(map(str, layer["shape"])), layer["terms"] * layer["num_masked"]
        sums = f", sums of {layer['terms']}" if layer["terms"] > 1 else ""
        lines.append(
            f"  {layer['name']:{width}}  {shape:>18}  {layer['num_masked']:>12,}  "
            f"{layer['kept'] / num_values:6.1%}  {layer['scale']:9.6f}  "
            f"{min(layer['period'], num_values):,} of stream {layer['stream']}{sums}"
        )
    if facts["provenance"]:
        lines.append("")
        lines += [f"{name}: {text}" for name, text in facts["provenance"].items()]
    return lines


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
