"""Mutants under a memory limit: `python -m tests.fuzz.memory --mutants 1000`. Linux only.

Before each one the address space of the process is limited to what it has, n / 8 bytes and 1 MiB more. Valid frames
have been read before, so what they need is there. Other than `tracemalloc`, the limit also holds for protobuf and zlib.
The mutants are made by another process, which reads them while it makes them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

from tests.fuzz.campaign import Campaign, watch
from tests.fuzz.ends import FileEnd
from tests.fuzz.seals import claimed_params
from tests.fuzz.worlds import SPECS, Frame, frames

_MIB = 1 << 20
_PAGE_BYTES = resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.memory", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--spare-mib", type=int, default=1, help="how much more than n / 8")
    parser.add_argument("--deliver", action="store_true", help="delivers what comes on the standard input")
    options = parser.parse_args()
    valid = [frame for frame in frames(*options.worlds) if not isinstance(frame.end, FileEnd)]
    if options.deliver:
        sys.exit(_deliver(valid, options.spare_mib))
    campaign, lines = Campaign(valid, options.seed), []
    for number in range(options.mutants):
        frame, mutant = campaign.mutant(number)
        lines.append(f"{valid.index(frame)} {mutant.data.hex()}\n")
    command = [sys.executable, "-m", "tests.fuzz.memory", "--deliver", "--spare-mib", str(options.spare_mib)]
    command += ["--worlds", *options.worlds]
    sys.exit(subprocess.run(command, input="".join(lines), text=True, check=False).returncode)


def _deliver(valid: list[Frame], spare_mib: int) -> bool:
    for frame in valid:
        watch(frame, frame.data, traced=False)
    num_failures = count = 0
    for count, line in enumerate(sys.stdin, 1):
        index, data = line.rstrip("\n").split(" ")
        frame, mutant = valid[int(index)], bytes.fromhex(data)
        fate = _limited(frame, mutant, spare_mib)
        if fate.startswith("!"):
            num_failures += 1
            print(f"mutant {count - 1}, of the {frame.kind} of {frame.world!r}: {fate}")
    print(f"{count} mutants, {num_failures} failures")
    return num_failures > 0


def _limited(frame: Frame, data: bytes, spare_mib: int) -> str:
    state_bytes = claimed_params(frame, data)  # of a network that the client has not seen before
    spare = frame.end.num_params // 8 + spare_mib * _MIB + state_bytes
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * _PAGE_BYTES + spare, resource.RLIM_INFINITY))
    try:
        return watch(frame, data, traced=False)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
