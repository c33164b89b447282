"""Small federations that really run; every frame that they send is kept, with who took it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pemn import graph
from pemn.artifact import Artifact
from pemn.distribution import Distribution
from pemn.errors import OutOfSync
from pemn.federation.levels import HIGHEST, LOWEST, Levels, normal_start_levels
from pemn.federation.public import PublicState
from pemn.federation.release import start_edges
from pemn.methods import Client, Server, ServerState
from pemn.onnx.v1 import onnx_pb2
from pemn.schedule import Schedule
from pemn.spec import FloatTensor, ModelSpec
from pemn.wire.messages import Content, Failure, Metrics, Update, encode
from pemn.wire.spec import Spec
from tests.fuzz.ends import ClientEnd, End, FileEnd, ServerEnd, StoreEnd
from tests.networks import model_spec, run_spec

_EXTERNAL = 1


@dataclass(frozen=True, eq=False)
class Frame:
    """Valid bytes and who takes them.

    Attributes:
        world: Name of its federation.
        kind: What it is; the last word is that of the message.
        data: The bytes.
        end: Who takes them.
    """

    world: str
    kind: str
    data: bytes
    end: End


@dataclass(frozen=True)
class Drift:
    """Trains nothing: moves scores at random.

    Attributes:
        seed: Of the drift.
        noise: Standard deviation in units of the scores; 0 learns nothing.
        share: Of the weights that move.
    """

    seed: int
    noise: float
    share: float

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        random = np.random.default_rng([self.seed, round_])
        scores = np.log(q / (65536.0 - q))
        scores += self.noise * random.standard_normal(q.size) * (random.random(q.size) < self.share)
        p = np.rint(65536 / (1 + np.exp(-scores))).clip(LOWEST, HIGHEST).astype(np.uint16)
        return np.where(scores == np.log(q / (65536.0 - q)), q, p), Metrics(50 + round_, 700, 3 * self.seed)


# Slots vote with few flips (Rice), many (raw), some (rANS) and none.
_TRAINERS = (Drift(0, 2, 0.02), Drift(1, 8, 1), Drift(2, 1, 1), Drift(3, 0, 1))
_LATE, _AWAY = 2, 3


def run(name: str, spec: Spec, rounds: int) -> Iterator[Frame]:
    """Runs a federation of four slots: one votes a round too late every other round, one is away for long.

    Every frame is taken by whom it is for, so it is valid.
    """
    server = Server.of(spec, late_rounds=2)
    state = server.start()
    clients = [Client.of(spec, slot) for slot in range(4)]
    has: list[PublicState | None] = [None] * 4
    late: Update | None = None

    def bring(slot: int) -> Iterator[Frame]:
        content = server.tasks(state, [slot])[slot]
        known = has[slot]
        end = ClientEnd(slot, spec.model.num_params, clients[slot] if known else None, known)
        kind = "new client's" if content.spec else "merged" if _far(content) else "next"
        yield Frame(name, f"{kind} task", encode(content), end)
        assert content.broadcast is not None
        has[slot] = clients[slot].apply(known or clients[slot].start(), content.broadcast)

    def bring_all(slot: int) -> Iterator[Frame]:
        content = server.tasks(server.forget(state, slot), [slot])[slot]
        end = ClientEnd(slot, spec.model.num_params, clients[slot], has[slot])
        yield Frame(name, "known client's task", encode(content), end)

    def answer(slot: int, content: Content, kind: str, weights: bytes = bytes(32)) -> Frame:
        return Frame(name, kind, encode(content), ServerEnd(server, state, slot, weights))

    for round_ in range(1, rounds + 1):
        ballot = server.open()
        if late is not None:
            yield answer(_LATE, Content(update=late), "late update")
            state = server.take_vote(state, ballot, _LATE, late)
        asked = [0, 1] + [_LATE] * (late is None) + [_AWAY] * (round_ in (1, rounds))
        late = None
        for slot in asked:
            yield from bring(slot)
            update, _ = clients[slot].train(has[slot] or clients[slot].start(), _TRAINERS[slot])
            yield answer(slot, Content(update=update), "update")
            if slot == _LATE and round_ < rounds:
                late = update
            else:
                state = server.take_vote(state, ballot, slot, update)
        state = server.commit(state, ballot)
    state = server.rewind(server.forget(state, 0), 1)  # one has lost its store, one is out of step
    has[0] = None
    weights = server.weights_sha256(state)
    yield from bring_all(_AWAY)  # it has a state, and is told all from the beginning
    for slot in range(4):
        yield from bring(slot)
        state = server.seen(state, slot)
        yield answer(
            slot, Content(ack=clients[slot].acknowledge(has[slot] or clients[slot].start())), "ack", weights
        )
    failure = Failure(OutOfSync.code, "base round: got 3; wanted 2; in broadcast \N{SNOWMAN}")
    yield answer(0, Content(error=failure), "error")
    yield Frame(name, "stored spec", spec.to_bytes(), StoreEnd(1, spec.model.num_params))
    yield from _files(name, server, state)


def _far(content: Content) -> bool:
    assert content.broadcast is not None
    return content.broadcast.round > content.broadcast.base_round + 1


def _files(name: str, server: Server, state: ServerState) -> Iterator[Frame]:
    model, end = server.spec.model, FileEnd(server.spec.model.num_params)
    texts = {"dataset": "digits", "note": "", "\N{SNOWMAN}": "x" * 200}
    released = Artifact.of(
        model,
        Levels.of(server.spec).mask(state.public.values),
        skeleton(model),
        texts,
        start_edges(server.spec.mask),
    )
    yield Frame(name, "artifact", released.to_bytes(), end)
    plain = replace(released, provenance={}, start_edges=())
    yield Frame(name, "artifact", plain.to_bytes(), end)
    with_floats = replace(model, floats=FLOATS)
    floats = np.random.default_rng(model.seed).standard_normal(with_floats.num_floats).astype("<f4").tobytes()
    trained = replace(plain, model=with_floats, onnx_skeleton=skeleton(with_floats), floats=floats)
    yield Frame(name, "artifact with floats", trained.to_bytes(), end)


def skeleton(model: ModelSpec) -> bytes:
    """Returns the smallest ONNX graph that goes with a network."""
    proto = onnx_pb2.Model(producer_name="fuzz")
    proto.opset_import.add(version=20)
    proto.graph.node.add(op_type="Gemm", name="head")
    for tensor_name, shape in model.shapes.items():
        tensor = proto.graph.initializer.add(name=tensor_name, dims=shape, data_type=graph.FLOAT32)
        tensor.data_location = _EXTERNAL
        tensor.external_data.add(key="location", value=graph.WEIGHTS_LOCATION)
        tensor.external_data.add(key="length", value=str(4 * math.prod(shape)))
    ends = (
        (proto.graph.input.add(name=graph.INPUT_NAME), model.input.shape),
        (proto.graph.output.add(name=graph.OUTPUT_NAME), (model.num_classes,)),
    )
    for end, sizes in ends:
        end.type.tensor_type.elem_type = graph.FLOAT32
        end.type.tensor_type.shape.dim.add(dim_param="batch")
        for size in sizes:
            end.type.tensor_type.shape.dim.add(dim_value=size)
    return proto.SerializeToString(deterministic=True)


def _spec(
    *shapes: tuple[int, ...],
    run_id: int,
    spread: float = 3.0,
    step: int = 32768,
    distribution: Distribution = Distribution.SIGNED,
) -> Spec:
    model = replace(model_spec(*shapes, seed=run_id), distribution=distribution)
    spec = run_spec(model, num_slots=4, step=step, spread=spread, eta=(1, 1), run_id=run_id)
    levels = normal_start_levels(spread, 8) if len(shapes) == 1 else spec.mask.start_levels
    return replace(spec, protocol=replace(spec.mask, start_levels=levels))


def _tied() -> Spec:
    """With all that a spec can have: ties, sums, schedules, an average, an adjusted loss, a part of the data."""
    spec = _spec((12, 9), (10, 12), run_id=7, step=4096)
    first, last = spec.model.layers
    protocol = replace(
        spec.mask,
        eta_num=Schedule(((1, 2), (3, 1))),
        stride=Schedule(((1, 4), (2, 2), (3, 1))),
        window=2,
        keep=Schedule(((1, 256), (2, 192))),
    )
    training = replace(spec.training, learning_rate=Schedule(((1, 0.5), (2, 0.25))), logit_adjustment=1.0)
    return replace(
        spec,
        model=replace(spec.model, layers=(first, replace(last, terms=2)), tie=3),
        protocol=protocol,
        training=training,
        data=replace(spec.data, num_images=1000),
        num_rounds=3,
    )


FLOATS = (FloatTensor("norm.running_var", (3, 2)), FloatTensor("gain", ()), FloatTensor("norm.bias", (5,)))
"""What the last file of every world has besides its weights."""

NINE = ((100, 20), (30, 30), (70, 10), (50, 10), (20, 20), (30, 10), (150,), (40,), (10,))

SPECS = {
    "one": (_spec((1, 1), run_id=1, spread=0), 2),
    "tiny": (_spec((5, 7), (3, 5), run_id=2, step=16384), 3),
    "small": (_spec((40, 24), (24, 10), run_id=3), 4),
    "twin": (_spec((40, 24), (24, 11), run_id=3), 2),  # of the same run id: only n differs
    "deep": (_spec(*NINE, run_id=4, step=512), 4),
    "normal": (_spec((12, 9), (10, 12), run_id=6, distribution=Distribution.NORMAL), 2),
    "tied": (_tied(), 3),
    "large": (_spec((280, 250), run_id=5, step=900), 2),
}
"""Networks of 1, 50, 1,200, 1,224, 5,000, 228, again 228 and 70,000 weights, and how many rounds each runs."""


def frames(*names: str) -> list[Frame]:
    """Returns the frames of these federations, or of all."""
    return [frame for name in names or SPECS for frame in run(name, *SPECS[name])]


def digest(data: bytes) -> bytes:
    """Short name of some bytes."""
    return hashlib.sha256(data).digest()[:16]
