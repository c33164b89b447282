"""Memory and time of the worst there is, in figures: n / 8 bytes and 1 MiB besides the result, and work by n."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pemn.artifact import Artifact
from pemn.codec import rice
from pemn.errors import MalformedArtifact, MalformedFrame
from pemn.federation.flips import Draw, decode_flips, draw_flips, encode_flips
from pemn.federation.levels import Levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.federation.release import decode_mask, encode_mask, start_edges
from pemn.mask import Mask
from pemn.methods import Client, Server
from pemn.wire import limits
from pemn.wire.messages import Broadcast, Content, Metrics, Update, encode
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz.campaign import coded_by
from tests.fuzz.seals import FILE_HEAD, seal_file
from tests.fuzz.sequences import bomb
from tests.fuzz.tree import varint
from tests.fuzz.worlds import Drift, skeleton
from tests.networks import model_spec, run_spec

MIB = 1 << 20
NUM_PARAMS = 1 << 20
MODEL = model_spec((5, 7), (10, 5))


def working_bytes(read: Callable[[], object]) -> int:
    """Peak of what is allocated meanwhile, less what is returned."""
    peak, kept = _traced(read)
    return peak - kept


def _traced(read: Callable[[], object]) -> tuple[int, int]:
    """Returns the peak of what is allocated meanwhile, and what is left of it while the result is held."""
    tracemalloc.start()
    try:
        result = read()
        kept, peak = tracemalloc.get_traced_memory()
        del result
        return peak, kept
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Read:
    """Reads one coded sequence."""

    data: bytes
    decode: Callable[[bytes], object]

    def __call__(self) -> object:
        return self.decode(self.data)


@functools.cache
def reads(num_params: int, noise: float) -> dict[str, Read]:
    """A vote, moves and a mask of a network whose second layer begins within a byte."""
    spec = run_spec(model_spec((3, 1), (num_params // 1024, 1024)))
    num_params += 3
    levels, k = Levels.of(spec), np.zeros(num_params, np.int8)
    draw = Draw(levels, k, 1, 0)
    trained = Drift(0, noise, 1).train(levels.at(k), 1)[0]
    after = np.rint(np.random.default_rng(0).normal(0, noise, num_params)).clip(-127, 127).astype(np.int8)
    mask, edges = Mask.from_bits(trained > 32768, levels.sizes), start_edges(spec.mask)
    released = encode_mask(mask, levels.seed, edges)
    return {
        "flips": Read(encode_flips(draw_flips(trained, draw)), lambda data: decode_flips(data, draw)),
        "moves": Read(encode_moves(k, after, levels), lambda data: decode_moves(data, k, levels)),
        "mask": Read(released, lambda data: decode_mask(data, levels.sizes, levels.seed, edges)),
    }


def seconds(read: Callable[..., object], *arguments: object) -> float:
    start = time.thread_time()
    with suppress(MalformedFrame):
        read(*arguments)
    return time.thread_time() - start


def with_graph(graph: bytes) -> bytes:
    """A .pemn file with another graph."""
    whole = Artifact.of(
        MODEL, Mask.from_bits(np.ones(MODEL.num_params, np.bool_), MODEL.sizes), b"", {}
    ).to_bytes()
    proto = pb.Artifact.FromString(whole[len(FILE_HEAD) : -limits.SHA256_BYTES])
    deflate = zlib.compressobj(level=9, wbits=-15)
    proto.onnx_skeleton = deflate.compress(graph) + deflate.flush()
    return seal_file(FILE_HEAD + proto.SerializeToString(deterministic=True))


def test_a_graph_of_a_few_nodes_is_taken() -> None:
    assert Artifact.from_bytes(with_graph(skeleton(MODEL))).model == MODEL


@pytest.mark.parametrize("noise", [0.3, 8.0])
@pytest.mark.parametrize("kind", ["flips", "moves", "mask"])
def test_reading_a_million_weights_takes_a_mebibyte(kind: str, noise: float) -> None:
    assert working_bytes(reads(NUM_PARAMS, noise)[kind]) <= NUM_PARAMS // 8 + MIB


def test_taking_a_vote_takes_its_mask_and_a_mebibyte() -> None:
    """All that is allocated, what is returned too; a byte a weight alone would be 4 MiB."""
    num_params = 1 << 22
    server = Server.of(run_spec(model_spec((num_params // 1024, 1024))))
    client = Client.of(server.spec, 0)
    state, (update, _) = server.start(), client.train(client.start(), Drift(0, 1.0, 1))
    server.read_vote(state, 0, update)  # what is loaded once is not counted
    peak, kept = _traced(lambda: server.read_vote(state, 0, update))
    assert peak <= num_params // 8 + MIB
    assert kept <= num_params // 8 + 4096


def test_a_rice_code_takes_a_mebibyte() -> None:
    """As many ones as may be, as far apart as may be: a code of 16 KiB."""
    code = varint(rice.MAX_ONES) + b"\x1f" + b"\xff" * (4 * rice.MAX_ONES)
    assert working_bytes(lambda: rice.decode(code)) <= MIB


@pytest.mark.parametrize("implementation", ["integers", "lanes"])
def test_no_bomb_takes_longer_than_moves_of_every_weight(implementation: str) -> None:
    num_params = 1 << 14
    levels, k = Levels.of(run_spec(model_spec((num_params // 1024, 1024)))), np.zeros(num_params, np.int8)
    far = np.random.default_rng(0).integers(-127, 128, num_params).astype(np.int8)
    with coded_by(implementation):
        longest = 5 * seconds(decode_moves, encode_moves(k, far, levels), k, levels) + 0.1
        for number in range(60):
            data = bomb(num_params, random.Random(number))
            assert seconds(decode_moves, data, k, levels) <= longest


def test_a_graph_is_inflated_up_to_its_limit() -> None:
    data = with_graph(bytes(limits.MAX_SKELETON_BYTES + 1))
    assert len(data) < 100_000

    def refuse() -> object:
        with pytest.raises(MalformedArtifact, match="size of the ONNX skeleton"):
            Artifact.from_bytes(data)
        return None

    assert working_bytes(refuse) < 2.5 * limits.MAX_SKELETON_BYTES


def test_a_graph_of_a_million_nodes_is_refused() -> None:
    nodes = b"\x0a\0" * 1_000_000
    data = with_graph(skeleton(MODEL) + b"\x3a" + varint(len(nodes)) + nodes)
    assert len(data) < 10_000

    def refuse() -> object:
        with pytest.raises(MalformedArtifact, match="fields of an ONNX file"):
            Artifact.from_bytes(data)
        return None

    assert working_bytes(refuse) < 16 * MIB


_PEAK = """
import re, sys
from pemn.wire.messages import decode
def kib(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
before = kib("VmRSS")
data = sys.stdin.buffer.read()
decode(data)
print(1024 * (kib("VmHWM") - before) / len(data))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("kind", ["update", "broadcast"])
def test_a_content_is_held_four_times_at_most(kind: str) -> None:
    """Reading it from a pipe included."""
    coded = random.Random(1).randbytes(30 << 20)
    content = {
        "update": Content(update=Update(1, 2, 3, bytes(16), coded, bytes(8), Metrics(1, 2, 3))),
        "broadcast": Content(broadcast=Broadcast(1, 2, 3, bytes(16), coded)),
    }[kind]
    command = [sys.executable, "-c", _PEAK]
    ran = subprocess.run(command, input=encode(content), capture_output=True, check=True)
    assert 3 < float(ran.stdout) < 4.2


def run_memory(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.fuzz.memory", *arguments]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert not ran.stderr
    return ran.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_mutants_under_a_memory_limit() -> None:
    """In the largest of these networks an array of a byte a weight is too much, as the second run shows."""
    told = run_memory("--mutants", "120", "--worlds", "tiny", "small", "twin", "vast")
    assert told == "120 mutants, 0 failures\n"
    told = run_memory("--mutants", "2", "--worlds", "vast", "--waste")
    assert told.endswith("2 mutants, 2 failures\n")
    assert told.count("MemoryError") == 2
