"""The worked example of docs/wire.md: both implementations give these bytes, and PEMN takes them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn import codec, generator
from pemn.artifact import Artifact
from pemn.distribution import Distribution
from pemn.federation import release
from pemn.federation.flips import Draw, decode_flips, draw_flips, encode_flips
from pemn.federation.levels import Levels, dither
from pemn.federation.moves import decode_moves, encode_moves
from pemn.link.frames import framed_bytes, parse_request, parse_response
from pemn.link.keys import ClientKey, signed_hello
from pemn.link.parts import Joiner, split
from pemn.link.v1 import link_pb2 as pb
from pemn.mask import Mask
from pemn.methods import Client, Server
from pemn.methods.mask import FlipTally
from pemn.prototype import Strategy
from pemn.rebuild import frozen_weights, rebuild, weights_sha256
from pemn.schedule import Schedule
from pemn.spec import FloatTensor, InputContract, Layer, ModelSpec
from pemn.wire.messages import Content, Failure, Metrics, decode, encode
from pemn.wire.model import model_from_proto, model_to_proto
from pemn.wire.protocols import MaskProtocol
from pemn.wire.spec import DataPlan, LocalTraining, Spec
from pemn.wire.v1 import messages_pb2
from tests.fuzz.worlds import skeleton
from tests.golden import example as golden
from tests.golden.reference_messages import decode_artifact

FOLDER = Path(__file__).parent
STORED: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
EXAMPLE = {name: bytes.fromhex(text) for name, text in STORED["example"].items()}
SKELETON = (FOLDER / "skeleton.onnx").read_bytes()

MODEL = ModelSpec(
    architecture="mlp-5",
    input=InputContract((1, 1, 7), (0.5,), (0.25,), ("a", "b", "c")),
    layers=(
        Layer("linear1.weight", (5, 7), golden.SCALES[0]),
        Layer("head.weight", (3, 5), golden.SCALES[1]),
    ),
    seed=0x0123456789ABCDEF,
    strategy=Strategy("rp", 0.3),
    structure=bytes(range(0x40, 0x50)),
)
SPEC = Spec(
    run_id=0xFEDCBA9876543210,
    model=MODEL,
    protocol=MaskProtocol(16384, Schedule.always(2), 3, (3277, 9830, 19661, 29491)),
    training=LocalTraining(3, 64, Schedule.always(golden.SPEC["training"]["learning_rates"][0]["value"])),
    data=DataPlan("example", "iid", 2),
    num_rounds=20,
)


class Trained:
    """A trainer that has learnt what the example says."""

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        p = np.array(golden.trained(self.slot, q.tolist()), np.uint16)
        return p, Metrics(**golden.METRICS[self.slot])


NEW_BYTES = (
    "PEMN gives other bytes than it did. Bytes that change are a new protocol version (docs/wire.md, Limits: "
    "PROTOCOL_VERSION), or of the .pemn file a new version of the format: change the document and the second "
    "implementation first, then write golden.json anew with python -m tests.golden.example"
)


def same(got: object, stored: object) -> None:
    assert got == stored, NEW_BYTES


def test_the_second_implementation_still_gives_the_stored_bytes() -> None:
    same(golden.example(), EXAMPLE)
    same(golden.coded_decisions(), STORED["coded_decisions"])
    same({name: code.hex() for name, code in golden.large_codes().items()}, STORED["large_codes"])


def test_the_spec() -> None:
    same(SPEC.to_bytes(), EXAMPLE["spec"])
    assert Spec.from_bytes(EXAMPLE["spec"]) == SPEC


def test_the_weights() -> None:
    for distribution in Distribution:
        model = dataclasses.replace(MODEL, distribution=distribution)
        same(frozen_weights(model).astype("<f4").tobytes(), EXAMPLE[f"{distribution} weights"])
    packed = np.frombuffer(EXAMPLE["mask of round 1"], np.uint8).copy()
    weights = rebuild(MODEL, Mask(MODEL.sizes, packed))
    assert weights_sha256(weights) == EXAMPLE["hash of the weights of round 1"]


def test_a_network_with_floats() -> None:
    floats = (FloatTensor("linear1.bias", (5,)), FloatTensor("gain", ()))
    model = dataclasses.replace(MODEL, distribution=Distribution.NORMAL, floats=floats)
    same(model_to_proto(model).SerializeToString(), EXAMPLE["network with floats"])
    proto = messages_pb2.ModelSpec.FromString(EXAMPLE["network with floats"])
    assert model_from_proto(proto) == model
    mask = Mask.from_bits(np.ones(model.num_params, np.bool_), model.sizes)
    data = Artifact.of(model, mask, skeleton(model), {}, floats=EXAMPLE["its floats"]).to_bytes()
    message, *_ = decode_artifact(data)
    assert message["model"] == golden.WITH_FLOATS
    assert message["floats"] == EXAMPLE["its floats"]
    *_, bias, gain = Artifact.from_bytes(data).tensors().values()
    assert [*bias.tolist(), gain.item()] == golden.FLOATS


def test_a_round() -> None:
    server, levels = Server.of(SPEC), Levels.of(SPEC)
    clients = [Client.of(SPEC, slot) for slot in (0, 1)]
    state = server.start()
    assert levels.at(state.public.values).astype("<u2").tobytes() == EXAMPLE["q of round 0"]
    assert state.public.hash(SPEC.run_id) == EXAMPLE["hash of the state of round 0"]
    assert levels.mask(state.public.values).packed.tobytes() == EXAMPLE["mask of round 0"]

    same(encode(server.tasks(state, [0])[0]), EXAMPLE["task: query, new client"])
    first = decode(EXAMPLE["task: query, new client"])
    assert first.spec == SPEC
    assert first.broadcast is not None
    public = clients[0].apply(clients[0].start(), first.broadcast)
    same(encode(Content(ack=clients[0].acknowledge(public))), EXAMPLE["answer: ack of slot 0"])
    ack = decode(EXAMPLE["answer: ack of slot 0"]).ack
    assert ack is not None
    server.check_ack(state, 0, ack, server.weights_sha256(state))

    ballot = server.open()
    for slot, client in enumerate(clients):
        state = server.seen(state, slot)
        same(encode(server.tasks(state, [slot])[slot]), EXAMPLE["task: train in round 1"])
        u = dither(MODEL.seed, 1, slot, 0, MODEL.num_params)
        assert u.astype("<u2").tobytes() == EXAMPLE[f"dither of slot {slot}"]
        update, _ = client.train(public, Trained(slot))
        same(update.vote, EXAMPLE[f"flips of slot {slot}"])
        same(update.vote_hash, EXAMPLE[f"hash of the flips of slot {slot}"])
        same(encode(Content(update=update)), EXAMPLE[f"answer: update of slot {slot}"])
        read = decode(EXAMPLE[f"answer: update of slot {slot}"]).update
        assert read == update
        ballot.add(server.read_vote(state, slot, read))
    assert isinstance(ballot.tally, FlipTally)
    assert ballot.tally.flips.sums(0, MODEL.num_params).astype(np.int8).tobytes() == EXAMPLE["tally"]

    after = server.commit(state, ballot)
    assert after.private[0].astype("<i4").tobytes() == EXAMPLE["p_hat after round 1"]
    assert after.public.values.tobytes() == EXAMPLE["k of round 1"]
    assert levels.at(after.public.values).astype("<u2").tobytes() == EXAMPLE["q of round 1"]
    assert after.public.hash(SPEC.run_id) == EXAMPLE["hash of the state of round 1"]
    assert levels.mask(after.public.values).packed.tobytes() == EXAMPLE["mask of round 1"]

    same(encode(server.tasks(after, [1])[1]), EXAMPLE["task: query after round 1"])
    second = decode(EXAMPLE["task: query after round 1"]).broadcast
    assert second is not None
    same(second.change, EXAMPLE["moves"])
    assert np.array_equal(decode_moves(bytes(second.change), public.values, levels), after.public.values)
    later = clients[1].apply(public, second)
    same(encode(Content(ack=clients[1].acknowledge(later))), EXAMPLE["answer: ack of slot 1"])
    ack = decode(EXAMPLE["answer: ack of slot 1"]).ack
    assert ack is not None
    assert ack.weights_sha256 == EXAMPLE["hash of the weights of round 1"]
    server.check_ack(after, 1, ack, server.weights_sha256(after))


def test_an_error() -> None:
    failure = Content(error=Failure(47, "no spec of this run"))
    same(encode(failure), EXAMPLE["answer: error"])
    assert decode(EXAMPLE["answer: error"]) == failure


def test_a_signed_vote() -> None:
    key = ClientKey(golden.KEY)
    update = decode(EXAMPLE["answer: update of slot 1"]).update
    assert update is not None
    same(update.signed(key.client_id, MODEL.num_params), EXAMPLE["signed with the vote of slot 1"])
    signed = key.sign_update(update, MODEL.num_params)
    same(signed.signature, EXAMPLE["signature of the vote of slot 1"])
    assert decode(encode(Content(update=signed))).update == signed
    assert signed.signed(key.client_id, MODEL.num_params) == EXAMPLE["signed with the vote of slot 1"]


def test_the_frames_of_the_link() -> None:
    hello = pb.Hello(protocol_version=7, client_id=golden.CLIENT_ID, slot=1, num_slots=2)
    frame = EXAMPLE["link: hello of slot 1"]
    same(pb.SessionRequest(hello=hello).SerializeToString(), frame)
    assert parse_request(frame).hello == hello

    key = ClientKey(golden.KEY)
    assert key.public == EXAMPLE["public key"]
    hello = pb.Hello(protocol_version=7, client_id=key.client_id, slot=1, num_slots=2)
    same(signed_hello(hello, golden.NONCE), EXAMPLE["signed to enter"])
    proof = pb.Proof(signature=key.sign(EXAMPLE["signed to enter"]))
    same(pb.SessionRequest(proof=proof).SerializeToString(), EXAMPLE["link: proof of slot 1"])

    task, frame = EXAMPLE["task: query after round 1"], EXAMPLE["link: query after round 1"]
    frames = [pb.SessionResponse(part=part).SerializeToString() for part in split(3, task, "query")]
    assert frames == [frame]
    joiner = Joiner(len(task), tasks=True)
    message = joiner.add(parse_response(frame).part, framed_bytes(frame))
    assert message is not None
    assert (message.message_id, message.action, message.content) == (3, "query", task)
    assert message.framed_bytes == len(frame) + 5


def test_the_pemn_file() -> None:
    data = (FOLDER / "example.pemn").read_bytes()
    mask = Mask(MODEL.sizes, np.frombuffer(EXAMPLE["mask of round 1"], np.uint8).copy())
    same(golden.pemn_file(SKELETON, mask.bits().astype(int).tolist()), data)
    artifact = Artifact.from_bytes(data)
    edges = release.start_edges(SPEC.mask)
    assert artifact == Artifact.of(MODEL, mask, SKELETON, {"dataset": "example", "note": ""}, edges)
    assert weights_sha256(artifact.weights()) == EXAMPLE["hash of the weights of round 1"]


def test_the_second_implementation_reads_pemns_own_file() -> None:
    artifact = Artifact.from_bytes((FOLDER / "example.pemn").read_bytes())
    texts = {"b": "2", "\u00e4": "3", "a": "1", "c": "", "\uffee": "4", "\U0001f600": "5"}  # sorted as bytes
    artifact = dataclasses.replace(artifact, provenance=texts)
    message, mask, skeleton = decode_artifact(artifact.to_bytes())
    assert message["model"] == golden.MODEL
    assert mask == artifact.mask.bits().astype(int).tolist()
    assert skeleton == SKELETON
    assert message["weights_sha256"] == artifact.weights_sha256
    assert {entry["key"]: entry["value"] for entry in message["provenance"]} == artifact.provenance


@pytest.mark.parametrize("case", STORED["coded_decisions"], ids=lambda case: case["code"])
def test_coded_decisions(case: dict[str, str | None]) -> None:
    decisions = np.array([digit == "1" for digit in case["decisions"] or ""], np.bool_)
    contexts = np.array([int(digit) for digit in case["contexts"] or "0" * decisions.size], np.uint16)
    shape = () if case["contexts"] is None else (10,)

    def decide(start: int, stop: int) -> list[codec.Decisions]:
        return [(decisions[start:stop], contexts[start:stop])]

    code = bytes.fromhex(case["code"] or "")
    same(codec.encode(decisions.size, decide, shape), code)
    reader = codec.Reader(code, shape)
    for start, stop in codec.blocks(decisions.size):
        assert np.array_equal(reader.read(contexts[start:stop]), decisions[start:stop])
        reader.end_block()
    reader.finish()


def test_large_codes() -> None:
    stored = {name: bytes.fromhex(text) for name, text in STORED["large_codes"].items()}
    rule, *states = golden.large_states()
    levels = Levels(SPEC.mask, rule.seed, rule.sizes)
    before, after = (np.array(k, np.int8) for k in states)
    same(encode_moves(before, after, levels), stored["moves"])
    assert np.array_equal(decode_moves(stored["moves"], before, levels), after)
    q = levels.at(before)
    drawn = generator.uint16s(3, 0, levels.num_params).astype(np.int32)
    draw = Draw(levels, before, 5, 1)
    flips = draw_flips((q + drawn // 2 - 16384).clip(66, 65470).astype(np.uint16), draw)
    same(encode_flips(flips), stored["flips"])
    assert np.array_equal(decode_flips(stored["flips"], draw).mask, flips.mask)
    near = np.array(golden.released(states[0]), np.int8)
    mask, edges = levels.mask(near), release.start_edges(SPEC.mask)
    same(release.encode_mask(mask, rule.seed, edges), stored["released mask"])
    assert release.decode_mask(stored["released mask"], rule.sizes, rule.seed, edges) == mask
