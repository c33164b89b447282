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
    if arguments[:1] == ["figures"]:  # these have options of their own, from flags, environment and TOML file
        with provided_by("server"):
            from pemn.commands.figures import figures
        return figures(arguments[1:])
    if arguments[:1] in (["train"], ["baseline"]):
        with provided_by("server"):
            from pemn.commands import train
        return (train.train if arguments[0] == "train" else train.baseline)(arguments[1:])
    parsed = _parser().parse_args(arguments)
    command: str = parsed.command
    if command == "predict":
        from pemn.commands.predict import predict

        return predict(
            parsed.model, parsed.images, dataset=parsed.dataset, data_dir=parsed.data_dir, count=parsed.count
        )
    if command == "init":
        with provided_by("server"):
            from pemn.commands.init import init
        return init(parsed)
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

    init = commands.add_parser("init", parents=[common], help="write an untrained model, to plan sizes with")
    init.add_argument(
        "--model", required=True, metavar="NAME", help="network, such as resnet-56 or PKG:FACTORY"
    )
    init.add_argument(
        "--strategy", default="rp:1e-2", help="full, one-layer, mp or rp:RATIO (default: rp:1e-2)"
    )
    init.add_argument("--values", default="normal", help="signed, uniform or normal (default: normal)")
    init.add_argument("--seed", type=int, default=0, help="64-bit seed (default: 0)")
    init.add_argument(
        "--kept", type=float, default=0.5, metavar="SHARE", help="of each layer's weights (default: 0.5)"
    )
    init.add_argument(
        "--dense-layers",
        metavar="PATTERNS",
        help="comma-separated tensors to leave as floats, such as head.*",
    )
    init.add_argument("--input", default="3x32x32", metavar="CxHxW", help="of an image (default: 3x32x32)")
    init.add_argument("--classes", type=int, default=10, metavar="N", help="(default: 10)")
    init.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help=".pemn file to write")

    commands.add_parser("train", help="train a masked network on this machine", add_help=False)
    commands.add_parser("baseline", help="train a pruned network, to compare with", add_help=False)
    commands.add_parser("figures", help="train many and draw the paper's figures", add_help=False)
    verify = commands.add_parser("verify", parents=[common], help="check hashes and rebuild the weights")
    _add_model(verify, ".pemn file")
    return parser


def _add_model(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=text)


if __name__ == "__main__":
    sys.exit(main())
