"""The worked example of docs/wire.md, computed by the second implementation.

`golden.json` holds what this gave once. It is never written by a test; `python -m tests.golden.example` prints it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.golden import reference as r
from tests.golden.reference_bytes import clip
from tests.golden.reference_codes import Decisions, Model, blocks, encode_decisions
from tests.golden.reference_messages import (
    Message,
    encode,
    encode_artifact,
    encode_content,
    levels_of,
    rule_of,
)

RUN_ID = 0xFEDCBA9876543210
SHAPES = [(5, 7), (3, 5)]
SCALES = [r.float32(2 / 7**0.5), r.float32(2 / 5**0.5)]
MODEL: Message = {
    "architecture": "mlp-5",
    "input": {"shape": [1, 1, 7], "mean": [0.5], "std": [0.25], "class_names": ["a", "b", "c"]},
    "layers": [
        {"name": "linear1.weight", "shape": [5, 7], "scale": SCALES[0], "terms": 1},
        {"name": "head.weight", "shape": [3, 5], "scale": SCALES[1], "terms": 1},
    ],
    "seed": 0x0123456789ABCDEF,
    "strategy": "rp:0.3",
    "distribution": "signed",
    "structure": bytes(range(0x40, 0x50)),
    "tie": 1,
}
SPEC: Message = {
    "protocol_version": 7,
    "run_id": RUN_ID,
    "model": MODEL,
    "mask": {
        "step": 16384,
        "eta_nums": [{"from_round": 1, "value": 2}],
        "eta_den": 3,
        "start_level_deltas": [3277, 6553, 9831, 9830],
        "strides": [{"from_round": 1, "value": 1}],
        "window": 1,
        "keeps": [{"from_round": 1, "value": 256}],
    },
    "training": {
        "epochs": 3,
        "batch_size": 64,
        "learning_rates": [{"from_round": 1, "value": r.float32(0.2)}],
    },
    "data": {"dataset": "example", "partition": "iid", "num_slots": 2},
    "num_rounds": 20,
}
SIZES = [35, 15]
EDGES = r.start_edges(levels_of(SPEC["mask"]))
METRICS: list[Message] = [
    {"num_images": 100, "loss_milli": 693, "train_ms": 12},
    {"num_images": 120, "loss_milli": 650, "train_ms": 15},
]
PROVENANCE = [{"key": "dataset", "value": "example"}, {"key": "note", "value": ""}]
CLIENT_ID = bytes(range(16))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NONCE = bytes(range(32, 64))
DISTRIBUTIONS = ("signed", "uniform", "normal")
WITH_FLOATS: Message = {
    **MODEL,
    "distribution": "normal",
    "floats": [{"name": "linear1.bias", "shape": [5]}, {"name": "gain"}],
}
FLOATS = [0.5, -1.0, 0.0, 2.0**-20, 1.5, 2.0]


def trained(slot: int, q: list[int]) -> list[int]:
    """What the clients of the example have learnt: most weights nothing."""
    if slot == 0:
        return [r.HIGHEST if i in (0, 9, 23, 44) else value for i, value in enumerate(q)]
    return [(r.HIGHEST, r.LOWEST, value)[i % 3] for i, value in enumerate(q)]


def content(**fields: Message) -> bytes:
    return encode_content(fields)


def uint16s(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def ack_of(round_: int, slot: int, k: list[int]) -> bytes:
    mask = r.state_mask(rule_of(SPEC).q(k))
    ack = {
        "run_id": RUN_ID,
        "round": round_,
        "slot": slot,
        "state_hash": r.state_hash(RUN_ID, round_, k),
        "weights_sha256": r.weights_hash(r.masked(frozen(), mask)),
    }
    return content(ack=ack)


def frozen(distribution: str = MODEL["distribution"]) -> list[float]:
    return r.frozen_weights(MODEL["seed"], MODEL["strategy"], distribution, SHAPES, SCALES)


def stored(data: bytes) -> bytes:
    """DEFLATE without compression, one block: the same bytes from every program."""
    return b"\x01" + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data


def pemn_file(skeleton: bytes, mask: list[int]) -> bytes:
    return encode_artifact(
        {
            "model": MODEL,
            "mask": r.encode_mask(mask, r.release_contexts(SIZES, MODEL["seed"], EDGES)),
            "onnx_skeleton": stored(skeleton),
            "weights_sha256": r.weights_hash(r.masked(frozen(), mask)),
            "provenance": PROVENANCE,
            "start_edges": EDGES,
        }
    )


def example() -> dict[str, bytes]:
    """Every byte string of the worked example by its name there."""
    rule = rule_of(SPEC)
    k_0 = [0] * rule.num_params
    q_0 = rule.q(k_0)
    hash_0 = r.state_hash(RUN_ID, 0, k_0)
    first = {"run_id": RUN_ID, "base_round": 0, "round": 0, "state_hash": hash_0, "change": b""}
    out = {
        "spec": encode("Spec", SPEC),
        **{f"{kind} weights": struct.pack(f"<{rule.num_params}f", *frozen(kind)) for kind in DISTRIBUTIONS},
        "q of round 0": uint16s(q_0),
        "hash of the state of round 0": hash_0,
        "mask of round 0": r.packed_mask(r.state_mask(q_0), SIZES),
        "task: query, new client": content(spec=SPEC, broadcast=first),
        "answer: ack of slot 0": ack_of(0, 0, k_0),
        "task: train in round 1": content(broadcast=first),
    }
    votes = []
    for slot in (0, 1):
        draw = r.draw_of(rule, k_0, 1, slot)
        mask = r.flip_mask(trained(slot, q_0), draw)
        flips, flips_hash = r.encode_flips(mask, draw), r.flips_hash(mask, hash_0, slot)
        votes.append(r.votes_of(mask, draw))
        update = {
            "run_id": RUN_ID,
            "round": 1,
            "slot": slot,
            "state_hash": hash_0,
            "vote": flips,
            "vote_hash": flips_hash,
            "metrics": METRICS[slot],
        }
        out |= {
            f"dither of slot {slot}": uint16s(draw.u),
            f"flips of slot {slot}": flips,
            f"hash of the flips of slot {slot}": flips_hash,
            f"answer: update of slot {slot}": content(update=update),
        }
    p_hat = r.forget(rule, 1, r.learn(rule, 1, r.start_p_hat(rule), votes), q_0)
    k_1 = r.agree(rule, 1, p_hat, r.settle(rule, 1, p_hat, k_0))
    q_1, hash_1 = rule.q(k_1), r.state_hash(RUN_ID, 1, k_1)
    moves = r.encode_moves(r.Base(rule, k_0), k_1)
    second = {"run_id": RUN_ID, "base_round": 0, "round": 1, "state_hash": hash_1, "change": moves}
    mask_1 = r.state_mask(q_1)
    error = {"code": 47, "text": "no spec of this run"}
    task = content(broadcast=second)
    part = {"message_id": 3, "size": len(task), "action": "query", "offset": 0, "data": task}
    hello = {"protocol_version": 7, "client_id": CLIENT_ID, "slot": 1, "num_slots": 2}
    public_key = KEY.public_key().public_bytes_raw()
    client_id = hashlib.sha256(public_key).digest()[:16]
    to_enter = b"pemn hello" + NONCE + client_id + struct.pack("<3I", 7, 1, 2)
    to_vote = (
        b"pemn update"
        + struct.pack("<Q2I", RUN_ID, 1, 1)
        + hash_0
        + client_id
        + struct.pack("<Q", rule.num_params)
        + hashlib.sha256(encode("Update", update)).digest()
    )
    return out | {
        "tally": struct.pack(f"<{rule.num_params}b", *map(sum, zip(*votes, strict=True))),
        "p_hat after round 1": struct.pack(f"<{rule.num_params}i", *p_hat),
        "k of round 1": struct.pack(f"<{rule.num_params}b", *k_1),
        "q of round 1": uint16s(q_1),
        "hash of the state of round 1": hash_1,
        "moves": moves,
        "task: query after round 1": task,
        "mask of round 1": r.packed_mask(mask_1, SIZES),
        "hash of the weights of round 1": r.weights_hash(r.masked(frozen(), mask_1)),
        "answer: ack of slot 1": ack_of(1, 1, k_1),
        "answer: error": content(error=error),
        "link: hello of slot 1": encode("SessionRequest", {"hello": hello}),
        "link: query after round 1": encode("SessionResponse", {"part": part}),
        "public key": public_key,
        "signed to enter": to_enter,
        "link: proof of slot 1": encode("SessionRequest", {"proof": {"signature": KEY.sign(to_enter)}}),
        "signed with the vote of slot 1": to_vote,
        "signature of the vote of slot 1": KEY.sign(to_vote),
        "network with floats": encode("ModelSpec", WITH_FLOATS),
        "its floats": struct.pack(f"<{len(FLOATS)}f", *FLOATS),
    }


def _list_of(decisions: str, contexts: str | None) -> Decisions:
    digits = [()] * len(decisions) if contexts is None else [(int(digit),) for digit in contexts]
    return list(zip(digits, map(int, decisions), strict=True))


def encode_digits(decisions: str, contexts: str | None) -> bytes:
    """One list a block, one decision a weight; each digit of `contexts` is the context of one of them."""
    pairs = _list_of(decisions, contexts)
    return encode_decisions([[pairs[block.start : block.stop]] for block in blocks(len(pairs))])


def with_ones(count: int, *places: int) -> str:
    return "".join("1" if i in places else "0" for i in range(count))


ALMOST = "".join("1" if i % 2 and i != 41 else "0" for i in range(200))


def coded_decisions() -> list[dict[str, Any]]:
    """Small codes of every kind: decisions and contexts as texts of digits, the code in hex."""
    made: list[tuple[str, str | None]] = [
        ("", None),
        ("00000", None),
        ("0" * 50, None),
        ("1" * 50, None),
        ("01" * 12, None),
        (with_ones(64, 3, 10, 50), None),
        (with_ones(1000, 0, 999), None),
        ("1" * 300, None),
        ("01" * 100, "01" * 100),
        (ALMOST, "01" * 100),
        ("".join("1" if i % 3 else "0" for i in range(500)), "012345" * 83 + "01"),
    ]
    return [
        {"decisions": decisions, "contexts": contexts, "code": encode_digits(decisions, contexts).hex()}
        for decisions, contexts in made
    ]


def frequencies() -> list[tuple[str, int, int]]:
    """Weights of each block of `ALMOST`, and how likely a 1 is in its two contexts."""
    pairs, model, out = _list_of(ALMOST, "01" * 100), Model(), []
    for block in blocks(len(pairs)):
        out.append((f"{block.start} .. {block.stop - 1}", model.frequency((0,)), model.frequency((1,))))
        model.end_block(pairs[block.start : block.stop])
    return out


LARGE_SIZES = (8000, 3000, 900, 700, 500, 400, 300, 150, 40, 10)


def large_states() -> tuple[r.Rule, list[int], list[int]]:
    """The network of the larger codes, k before the moves and after them."""
    of_example = rule_of(SPEC)
    rule = r.Rule(of_example.seed, LARGE_SIZES, of_example.step, lower_levels=of_example.lower_levels)
    before = [v % 7 - 3 for v in r.integers(1, rule.num_params)]
    far = [(v % 3 - 1) * 2 ** (v // 3 % 8) for v in r.integers(2, rule.num_params)]
    return rule, before, [clip(k + move, -127, 127) for k, move in zip(before, far, strict=True)]


def released(before: list[int]) -> list[int]:
    """A k near the start, so that the start says much about the mask."""
    return [v // 3 if v > 0 else 0 for v in before]


def large_codes() -> dict[str, bytes]:
    """Codes of thousands of decisions, with every kind of context and several lanes."""
    rule, before, after = large_states()
    draw = r.draw_of(rule, before, 5, 1)
    drawn = r.integers(3, rule.num_params)
    p = [clip(q + v // 2 - 16384, r.LOWEST, r.HIGHEST) for q, v in zip(draw.q, drawn, strict=True)]
    contexts = r.release_contexts(LARGE_SIZES, rule.seed, r.start_edges(rule.lower_levels))
    return {
        "flips": r.encode_flips(r.flip_mask(p, draw), draw),
        "moves": r.encode_moves(r.Base(rule, before), after),
        "released mask": r.encode_mask(r.state_mask(rule.q(released(before))), contexts),
    }


def main() -> None:
    golden = {
        "example": {name: data.hex() for name, data in example().items()},
        "coded_decisions": coded_decisions(),
        "large_codes": {name: data.hex() for name, data in large_codes().items()},
    }
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
