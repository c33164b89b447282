"""`pemn predict`: what a model says about images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pemn.commands.image_file import read_images
from pemn.commands.model_file import model_file
from pemn.console import printable
from pemn.data.datasets import load
from pemn.device import Model
from pemn.errors import ConfigError, DataError

_SHADES = " .:-=+*#%@"
_MAX_DRAWN_SIDE = 16  # pixels
_LINE_WIDTH = 80


def predict(
    path: Path, files: Sequence[Path], *, dataset: str | None, data_dir: Path | None, count: int
) -> int:
    """Prints a table of predictions.

    Args:
        path: A .pemn file or an exported ONNX file.
        files: Image files, or none.
        dataset: Else the data set whose first test images are shown, and on all of whose it is measured.
        data_dir: Folder of that data set.
        count: How many of its images are shown.

    Raises:
        ConfigError: If there is neither, or both.
        DataError: If images or data set are unreadable or do not fit the model.
        FileError: If the model cannot be read.
    """
    if bool(files) == (dataset is not None):
        raise ConfigError(
            "what to predict", got="both" if files else "nothing", wanted="IMAGE... or --dataset NAME"
        )
    if count < 1:
        raise ConfigError("--count", got=count, wanted=">= 1")
    with model_file(path) as data:
        model = Model.load(data)
    if dataset is None:
        images, names = read_images(files, model.contract.shape)
        _print_table(model, images, names, None)
        return 0
    test = load(dataset, data_dir, "test")
    if test.class_names != model.class_names:
        raise DataError(
            "classes of the data set",
            got=_short(test.class_names),
            wanted=f"{_short(model.class_names)}, those of the model",
            where=dataset,
        )
    images, labels = test.images[:count], test.labels[:count]
    _print_table(model, images, [f"{dataset} test {i}" for i in range(len(images))], labels)
    print()
    print(_accuracy("shown", model.predict(images), labels))
    print(_accuracy("whole test split", model.predict(test.images), test.labels))
    return 0


def _print_table(
    model: Model, images: NDArray[np.uint8], names: Sequence[str], labels: NDArray[np.int64] | None
) -> None:
    probabilities = _softmax(model.predict(images))
    for line in _drawing(images):
        print(line)
    classes = [printable(name) for name in model.class_names]
    truths = ["-"] * len(images) if labels is None else [classes[label] for label in labels]
    guesses = probabilities.argmax(axis=1)
    widths = [
        max(len("image"), *map(len, names)),
        max(len("truth"), *map(len, truths)),
        max(len("prediction"), *(len(classes[guess]) for guess in guesses)),
    ]
    print(
        "  ".join(
            f"{head:{width}}" for head, width in zip(("image", "truth", "prediction"), widths, strict=True)
        ),
        " probability",
    )
    for name, truth, guess, row in zip(names, truths, guesses, probabilities, strict=True):
        cells = (printable(name), truth, classes[guess])
        text = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
        wrong = "" if truth in ("-", classes[guess]) else "  wrong"
        print(f"{text}  {row[guess]:>11.1%}{wrong}")


def _accuracy(what: str, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    right = int((logits.argmax(axis=1) == labels).sum())
    return f"accuracy, {what}: {right:,} of {len(labels):,} ({right / len(labels):.1%})"


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _drawing(images: NDArray[np.uint8]) -> list[str]:
    """Draws small grey images in characters, side by side; larger or coloured ones not at all."""
    _, channels, height, width = images.shape
    if channels != 1 or max(height, width) > _MAX_DRAWN_SIDE:
        return []
    shades = np.array(list(_SHADES))[images[:, 0].astype(np.int64) * len(_SHADES) // 256]
    pictures = np.repeat(shades, 2, axis=2)  # a character is about twice as high as wide
    in_line = max(1, _LINE_WIDTH // (2 * width + 2))
    lines = []
    for begin in range(0, len(pictures), in_line):
        group = pictures[begin : begin + in_line]
        lines += ["  ".join("".join(picture[row]) for picture in group).rstrip() for row in range(height)]
        lines.append("")
    return lines


def _short(names: Sequence[str]) -> str:
    return f"{len(names)} from {names[0]!r} to {names[-1]!r}"
