"""A run of three clients and four rounds, its ledger kept by the ledger itself from encoded messages."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from pemn.ledger import Entry, Ledger
from pemn.wire.messages import Ack, Broadcast, Content, Failure, Metrics, Update, encode, num_bytes_by_kind

NUM_CLIENTS, NUM_ROUNDS, NUM_PARAMS = 3, 4, 20_000
HASH = bytes(range(16))
RUN_ID = 0xFEDCBA9876543210


@pytest.fixture
def ledger() -> list[dict[str, Any]]:
    book, entries = Ledger(), list[Entry]()
    on_wire = dict.fromkeys(range(NUM_CLIENTS), (0, 0))
    for round_ in range(NUM_ROUNDS + 2):
        for slot in range(NUM_CLIENTS):
            down = Content(broadcast=Broadcast(RUN_ID, 0, round_, HASH, bytes(2000 // (round_ or 1))))
            if 1 <= round_ <= NUM_ROUNDS:
                flips = bytes(900 + slot)
                up = Content(
                    update=Update(RUN_ID, round_, slot, HASH, flips, bytes(8), Metrics(100, 700, 50))
                )
            elif slot:
                up = Content(ack=Ack(RUN_ID, round_, slot, HASH, bytes(32)))
            else:
                up = Content(error=Failure(46, "out of sync"))
            for direction, content in (("up", up), ("down", down)):
                data = encode(content)
                book.note(slot, direction, len(data), num_bytes_by_kind(data), len(data) + 9)  # type: ignore[arg-type]
            on_wire[slot] = (on_wire[slot][0] + 1300, on_wire[slot][1] + 2500)
        entries += book.close_round(round_, on_wire)
    lines: list[dict[str, Any]] = json.loads(json.dumps([asdict(entry) for entry in entries]))
    return lines


@pytest.fixture
def summary(ledger: list[dict[str, Any]]) -> dict[str, Any]:
    def total(direction: str, column: str) -> int:
        return sum(line[column] for line in ledger if line["direction"] == direction)

    client_rounds = NUM_CLIENTS * NUM_ROUNDS
    weight_rounds = client_rounds * NUM_PARAMS
    moved = total("up", "wire") + total("down", "wire")
    return {
        "pemn_version": "0.1.0",
        "label": "mask",
        "method": "mask",
        "dataset": "digits",
        "model": "mlp-64",
        "strategy": "rp:0.1",
        "partition": "dirichlet:0.3",
        "num_params": NUM_PARAMS,
        "num_rounds": NUM_ROUNDS,
        "num_clients": NUM_CLIENTS,
        "num_images": 1_000,
        "seed": 2**64 - 59,
        "epochs": 3,
        "accuracy": 0.9137,
        "accuracy_by_round": [0.4321, 0.7654, 0.8765, 0.9111],
        "bytes": {
            "seed": 0,
            "uplink_payload": total("up", "payload"),
            "uplink_wire": total("up", "wire"),
            "downlink_payload": total("down", "payload"),
            "downlink_wire": total("down", "wire"),
        },
        "bits_per_parameter": {
            "uplink": 8 * total("up", "wire") / weight_rounds,
            "downlink": 8 * total("down", "wire") / weight_rounds,
            "uplink_payload": 8 * total("up", "payload") / weight_rounds,
            "downlink_payload": 8 * total("down", "payload") / weight_rounds,
        },
        "wire_source": "socket",
        "client_rounds": client_rounds,
        "fedavg_bytes": 8 * weight_rounds,
        "saving": 8 * weight_rounds / moved,
        "model_bytes": {"pemn": 3_121, "onnx_packed": 4_177, "onnx_dense": 81_313},
        "weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "state_hash": "000102030405060708090a0b0c0d0e0f",
        "density": 0.5312,
        "unique_values": 1971,
        "seconds": 74.21,
        "abandoned_rounds": 1,
    }
