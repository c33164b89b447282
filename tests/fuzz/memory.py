"""Mutants under a memory limit: `python -m tests.fuzz.memory --mutants 1000`. Linux only.

Before each one the address space of the process is limited to what it has, three copies of the frame, and n / 8 bytes
and 1 MiB more. Valid frames have been read before, so code that they need is there. Other than `tracemalloc`, the
limit also holds for protobuf and zlib. The mutants are made by another process, which reads them while it makes them.

The world `vast` is a vote in a network so large that an array of a byte a weight would break the limit;
`--waste` allocates one, to see that it does.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from pemn.errors import MalformedFrame
from pemn.methods import Client, Server
from pemn.wire.messages import Content, decode, encode
from tests.fuzz.campaign import Campaign, watch
from tests.fuzz.ends import FileEnd, Said, ServerEnd, Taken
from tests.fuzz.seals import claimed_params
from tests.fuzz.worlds import SPECS, Drift, Frame, frames
from tests.networks import model_spec, run_spec

WORLDS = (*SPECS, "vast")

_MIB = 1 << 20
_PAGE_BYTES = resource.getpagesize()
_VAST_SHAPE = (1 << 13, 1 << 10)
_COPIES = 3  # of a frame, besides itself (docs/wire.md, "Limits")


class _Reads(ServerEnd):
    """A server that reads votes and does not count them: the ballot has scratch space of its own."""

    def take(self, data: bytes) -> Taken:
        content = decode(data)
        if content.update is None:
            raise MalformedFrame("no vote")
        self.server.read_vote(self.state, self.slot, content.update)
        return Said(content)


def vast() -> Frame:
    """Returns a vote of few flips in a network of 8 M weights."""
    server = Server.of(run_spec(model_spec(_VAST_SHAPE)))
    state, client = server.start(), Client.of(server.spec, 0)
    update, _ = client.train(client.start(), Drift(0, 2.0, 0.001))
    return Frame("vast", "update", encode(Content(update=update)), _Reads(server, state, 0, bytes(32)))


def _frames(worlds: list[str]) -> list[Frame]:
    small = [world for world in worlds if world != "vast"]
    found = [frame for frame in frames(*small) if not isinstance(frame.end, FileEnd)] if small else []
    return found + [vast()] * ("vast" in worlds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.memory", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--waste", action="store_true", help="allocates n bytes with every mutant")
    parser.add_argument("--deliver", action="store_true", help="delivers what comes on the standard input")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a client says why it asks for more
    valid = _frames(options.worlds)
    if options.deliver:
        sys.exit(_deliver(valid, options.waste))
    campaign, lines = Campaign(valid, options.seed), []
    for number in range(options.mutants):
        frame, mutant = campaign.mutant(number)
        lines.append(f"{valid.index(frame)} {mutant.data.hex()}\n")
    command = [sys.executable, "-m", "tests.fuzz.memory", "--deliver", "--worlds", *options.worlds]
    command += ["--waste"] * options.waste
    # What is freed goes back to the system, or the heap would hold what mutants before have left.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    sys.exit(
        subprocess.run(command, input="".join(lines), text=True, check=False, env=environment).returncode
    )


def _deliver(valid: list[Frame], waste: bool) -> bool:
    for frame in valid:
        watch(frame, frame.data, traced=False)
    num_failures = count = 0
    for count, line in enumerate(sys.stdin, 1):
        index, data = line.rstrip("\n").split(" ")
        frame, mutant = valid[int(index)], bytes.fromhex(data)
        fate = _limited(frame, mutant, waste)
        if fate.startswith("!"):
            num_failures += 1
            print(f"mutant {count - 1}, of the {frame.kind} of {frame.world!r}: {fate}")
    print(f"{count} mutants, {num_failures} failures")
    return num_failures > 0


def _limited(frame: Frame, data: bytes, waste: bool) -> str:
    num_params = frame.end.num_params
    state_bytes = claimed_params(frame, data)  # of a network that the client has not seen before
    spare = num_params // 8 + _MIB + state_bytes + _COPIES * len(data)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * _PAGE_BYTES + spare, resource.RLIM_INFINITY))
    try:
        if waste:
            np.zeros(num_params, np.int8)
        return watch(frame, data, traced=False)[0]
    except MemoryError as error:
        return f"!{error!r}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
