"""The bounds of every message, enforced before anything is allocated for it (docs/wire.md, "Limits")."""

from __future__ import annotations

PROTOCOL_VERSION = 7
"""Raised whenever bytes change their meaning; two ends with different versions do not talk."""

MAX_PARAMS = 1 << 28
"""Masked values of a network: 268 million."""

MAX_LAYERS = 4096
MAX_FLOAT_TENSORS = 8192
MAX_FLOATS = 1 << 24
"""Floats of a network besides its masked weights: 64 MiB."""

MAX_DIMENSIONS = 8
MAX_SCALE = 1 << 20
"""Of a layer: far below where a value times its scale is infinite."""

MAX_CLASSES = 32_768
MAX_CHANNELS = 64
MAX_TEXT_BYTES = 256
"""Names, strategies and other short texts, as UTF-8."""

MAX_ERROR_TEXT_BYTES = 1024
MAX_SLOTS = 1 << 20
MAX_GAMMA_VARIATES = 1 << 17
"""Slots times classes of a Dirichlet partition. A client draws them all, at about 0.1 ms each: 13 s."""

MAX_ROUND = (1 << 31) - 1
MAX_START_LEVELS = 4096
MIN_STEP = 512
"""In 1/65536. With steps of 256 or less, an int8 could not take every weight across 1/2; with those below 133, k would
drift away without votes where q is clipped and p_hat is not."""

MAX_CHANGES = 256
"""Of a setting that changes by round."""

MAX_STRIDE = 127
"""Steps by which k moves at least."""

MAX_WINDOW = 4096
"""Rounds over which a released model is averaged."""

MAX_TIE = 256
"""Values that share a bit of the mask."""

MAX_TERMS = 64
"""Masked values that a weight is the sum of."""

MAX_LOGIT_ADJUSTMENT = 100
MAX_EPOCHS = 10_000
MAX_BATCH_SIZE = 1 << 20
MAX_LEARNING_RATE = 1000
MAX_PROVENANCE = 64
"""Texts of provenance in a .pemn file."""

MAX_START_EDGES = 31
"""In a .pemn file: they part the draws of the start levels."""

STRUCTURE_BYTES = 16
"""Of the hash of a network's structure."""

STATE_HASH_BYTES = 16
SHA256_BYTES = 32
VOTE_HASH_BYTES = 8
SIGNATURE_BYTES = 64
"""Ed25519."""

CLIENT_ID_BYTES = 16
CHECK_BYTES = 8
"""Of the hash that ends a content."""

MAX_PART_BYTES = 512 * 1024
"""Data of one part on the link: well below the link's limit of 1 MiB a message."""

MAX_SPEC_BYTES = 1 << 20
MAX_SKELETON_BYTES = 64 << 20
"""An ONNX graph without its masked weights, inflated."""


def max_task_bytes(num_bits: int) -> int:
    """Returns the most bytes that a task of a network whose mask has `num_bits` can have.

    The link refuses what is longer before its first part is kept. What is longest is a change in which every k moves
    far: moves drawn evenly from all that there are fit (docs/wire.md, "Limits"; tests/unit/federation/test_moves.py).
    """
    return MAX_SPEC_BYTES + num_bits * 5 // 4 + 4096


def max_answer_bytes(num_bits: int) -> int:
    """Returns the most bytes that an answer can have: raw flips are as long as the mask, the rest is short."""
    return num_bits // 8 + 4096
