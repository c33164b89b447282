"""What a run leaves behind: the model, its ONNX file, the summary and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pemn
from pemn.artifact import Artifact
from pemn.export.dense import dense, with_tensors
from pemn.export.packed import packed
from pemn.export.skeleton import skeleton
from pemn.federation.release import start_edges
from pemn.files import LEDGER_NAME, REPORT_NAME, SUMMARY_NAME, read_lines, write_atomic
from pemn.ledger import Direction, Ledger
from pemn.methods import method_of
from pemn.rebuild import named_tensors, weights_sha256
from pemn.report import render
from pemn.training.networks import build
from pemn.wire.protocols import FedPMProtocol, MaskProtocol
from pemn.wire.spec import Spec
from pemn_server.outcome import Outcome
from pemn_server.report import MAX_LEDGER_BYTES
from pemn_server.run import fedavg_bytes
from pemn_server.settings import RunOptions

_LINKS: dict[str, Direction] = {"uplink": "up", "downlink": "down"}
MODEL_NAME, ONNX_NAME = "model.pemn", "model.onnx"


def write_results(
    folder: Path, options: RunOptions, spec: Spec, outcome: Outcome, ledger: Ledger, wire_source: str
) -> dict[str, Any]:
    """Writes model, ONNX file, report and, last, the summary.

    Returns:
        The summary, as `pemn/report/summary.schema.json` describes it.

    Raises:
        FileError: If a file cannot be written; those before it are whole.
    """
    model, method, public = spec.model, method_of(spec), outcome.state.public
    graph = skeleton(build(model.architecture, model.input.shape, model.num_classes), model)
    weights, mask = method.weights(public), method.mask(public)
    if mask is None:
        no_floats = np.empty(0, np.float32)
        plain = with_tensors(model, graph, named_tensors(model, weights, no_floats))
        files = {ONNX_NAME: plain}
        model_bytes: dict[str, int | None] = {"pemn": None, "onnx_packed": None, "onnx_dense": len(plain)}
    else:
        artifact = Artifact.of(model, mask, graph, _provenance(spec, public.round), _edges(spec))
        files = {MODEL_NAME: artifact.to_bytes(), ONNX_NAME: packed(artifact)}
        model_bytes = {
            "pemn": len(files[MODEL_NAME]),
            "onnx_packed": len(files[ONNX_NAME]),
            "onnx_dense": len(dense(artifact)),
        }
    for name, data in files.items():
        write_atomic(folder / name, data)
    summary = summarise(options, spec, weights, outcome, ledger, wire_source, model_bytes)
    lines = read_lines(folder / LEDGER_NAME, max_bytes=MAX_LEDGER_BYTES, what="ledger")
    page = render(summary, lines, images_by_slot=outcome.images)
    write_atomic(folder / REPORT_NAME, page.encode())
    write_atomic(folder / SUMMARY_NAME, (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def summarise(
    options: RunOptions,
    spec: Spec,
    weights: NDArray[np.float32],
    outcome: Outcome,
    ledger: Ledger,
    wire_source: str,
    model_bytes: dict[str, int | None],
) -> dict[str, Any]:
    """Returns the summary of a run."""
    payload = {name: ledger.total(way, "payload") for name, way in _LINKS.items()}
    wire = {name: ledger.total(way, "wire") for name, way in _LINKS.items()}
    per_param = 8 / (spec.model.num_params * sum(outcome.num_votes))
    counted = wire_source != "framed"  # else `wire` holds the framed bytes, and the saving is one of those
    fedavg = fedavg_bytes(spec, outcome.num_votes)
    return {
        "pemn_version": pemn.__version__,
        "label": options.label or spec.method,
        "method": spec.method,
        "dataset": spec.data.dataset,
        "model": spec.model.architecture,
        "strategy": str(spec.model.strategy),
        "partition": spec.data.partition,
        "num_params": spec.model.num_params,
        "num_rounds": outcome.state.public.round,
        "num_clients": spec.data.num_slots,
        "num_images": spec.data.num_images,
        "seed": spec.model.seed,
        "epochs": options.epochs,
        "accuracy": outcome.accuracies[-1],
        "accuracy_by_round": outcome.accuracies,
        "bytes": {
            "seed": ledger.total_of_kind("spec"),
            **{f"{name}_payload": value for name, value in payload.items()},
            **{f"{name}_wire": value if counted else None for name, value in wire.items()},
        },
        "bits_per_parameter": {
            **{name: value * per_param if counted else None for name, value in wire.items()},
            **{f"{name}_payload": value * per_param for name, value in payload.items()},
        },
        "wire_source": wire_source,
        "client_rounds": sum(outcome.num_votes),
        "fedavg_bytes": fedavg,
        "saving": fedavg / sum(wire.values()),
        "model_bytes": model_bytes,
        "weights_sha256": weights_sha256(weights).hex(),
        "state_hash": outcome.state.public.hash(spec.run_id).hex(),
        "density": np.count_nonzero(weights) / weights.size,
        "unique_values": len(np.unique(weights)) if model_bytes["pemn"] is None else spec.model.unique_values,
        "seconds": outcome.seconds,
        "abandoned_rounds": outcome.abandoned_rounds,
    }


def _provenance(spec: Spec, num_rounds: int) -> dict[str, str]:
    return {
        "pemn": pemn.__version__,
        "run": f"{spec.run_id:016x}",
        "dataset": spec.data.dataset,
        "rounds": str(num_rounds),
    }


def _edges(spec: Spec) -> tuple[int, ...]:
    """Returns what the coder of the mask may know of where training began."""
    return start_edges(spec.protocol) if isinstance(spec.protocol, MaskProtocol | FedPMProtocol) else ()
