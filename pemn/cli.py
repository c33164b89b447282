"""The `pemn` command: trains models, looks into them and runs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pemn import __version__
from pemn.console import Parser, run
from pemn.data.extras import provided_by

# The modules of `pemn.commands` are imported when their command is run: each needs other packages.


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments after the program's name; the process's own if not given.

    Returns:
        Its exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run("pemn", lambda: _dispatch(arguments), debug="--debug" in arguments)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["train"]:  # has options of its own, from flags, environment and TOML file
        with provided_by("server"):
            from pemn.commands.train import train
        return train(arguments[1:])
    parsed = _parser().parse_args(arguments)
    command: str = parsed.command
    if command == "predict":
        from pemn.commands.predict import predict

        return predict(
            parsed.model, parsed.images, dataset=parsed.dataset, data_dir=parsed.data_dir, count=parsed.count
        )
    if command == "inspect":
        from pemn.commands.inspect import inspect

        return inspect(parsed.model, as_json=parsed.json)
    if command == "export":
        from pemn.commands.export import export

        return export(parsed.model, parsed.onnx, parsed.output)
    from pemn.commands.verify import verify

    return verify(parsed.model)


def _parser() -> Parser:
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = Parser(prog="pemn", description="Trains models of PEMN, looks into them and runs them.")
    parser.add_argument("--version", action="version", version=f"pemn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", parents=[common], help="classify images")
    _add_model(predict, ".pemn file, or ONNX file made by `pemn export`")
    predict.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE", help="image files or uint8 .npy arrays"
    )
    predict.add_argument("--dataset", metavar="NAME", help="instead of files: test images of a data set")
    predict.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the data set's files")
    predict.add_argument(
        "--count", type=int, default=10, metavar="N", help="test images to show (default: 10)"
    )

    inspect = commands.add_parser(
        "inspect", parents=[common], help="show what is in a model file, byte by byte"
    )
    _add_model(inspect, ".pemn or ONNX file")
    inspect.add_argument("--json", action="store_true", help="as JSON")

    export = commands.add_parser("export", parents=[common], help="write a model as ONNX")
    _add_model(export, ".pemn file")
    export.add_argument(
        "--onnx",
        required=True,
        choices=("packed", "dense"),
        help="packed: one bit a weight, unpacked when it is opened; dense: ordinary float32 weights",
    )
    export.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="where to write it")

    commands.add_parser("train", help="train a masked network on this machine", add_help=False)
    verify = commands.add_parser("verify", parents=[common], help="check hashes and rebuild the weights")
    _add_model(verify, ".pemn file")
    return parser


def _add_model(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=text)


if __name__ == "__main__":
    sys.exit(main())
