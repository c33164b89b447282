"""The `pemn` command, from arguments to output and exit code."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

import pemn.commands.predict
from pemn.artifact import Artifact
from pemn.cli import main
from pemn.data.datasets import load
from pemn.device import Model
from pemn.export import packed
from pemn.mask import Mask
from pemn.spec import FloatTensor
from tests.fuzz.worlds import skeleton
from tests.models import make_artifact, make_file, make_normed
from tests.networks import model_spec

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pemn"
    path.write_bytes(make_file("pemn"))
    return path


def fails(capsys: Capture, code: int, *arguments: object) -> str:
    """Runs a command that must fail; returns its one line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("pemn: error: ")
    return captured.err


def succeeds(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("form", ["packed", "dense"])
def test_export_writes_the_file(model: Path, form: str, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "model.onnx"
    output.write_bytes(b"old")
    text = succeeds(capsys, "export", model, "--onnx", form, "-o", output)
    assert output.read_bytes() == make_file(form)
    assert f"{output.stat().st_size:,} bytes" in text


def test_export_leaves_nothing_half_done(model: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "cannot write file" in fails(
        capsys, 7, "export", model, "--onnx", "dense", "-o", tmp_path / "no" / "x"
    )
    before = model.read_bytes()
    assert "would replace the model" in fails(capsys, 2, "export", model, "--onnx", "dense", "-o", model)
    assert model.read_bytes() == before
    model.write_bytes(before[:-1])
    output = tmp_path / "model.onnx"
    assert "cut off or damaged" in fails(capsys, 7, "export", model, "--onnx", "dense", "-o", output)
    other = dataclasses.replace(make_artifact(), weights_sha256=bytes(32))
    model.write_bytes(other.to_bytes())
    assert "hash of the rebuilt weights" in fails(capsys, 7, "export", model, "--onnx", "dense", "-o", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pemn"]


def test_verify_wants_equal_logits_that_are_numbers(
    model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = packed.packed
    other = make_artifact(density=0.1)  # of the same network
    monkeypatch.setattr(packed, "packed", lambda artifact: right(other))
    assert "logits of the packed ONNX file: got" in fails(capsys, 7, "verify", model)

    def none(self: Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(images), 10), np.nan, np.float32)

    monkeypatch.setattr(Model, "predict", none)
    assert "logits of a probe image: got one that is not finite" in fails(capsys, 7, "verify", model)


def test_verify(model: Path, capsys: Capture) -> None:
    text = succeeds(capsys, "verify", model)
    assert text.count(" ok ") == 6
    assert make_artifact().weights_sha256.hex() in text
    damaged = bytearray(model.read_bytes())
    damaged[200] ^= 1
    model.write_bytes(damaged)
    assert "cut off or damaged" in fails(capsys, 7, "verify", model)
    model.write_bytes(make_file("dense"))
    text = fails(capsys, 7, "verify", model)
    assert "not a .pemn file, and no other has hashes" in text
    assert str(model) in text


@pytest.mark.parametrize("form", ["pemn", "packed", "dense"])
def test_inspect_accounts_for_every_byte(form: str, model: Path, capsys: Capture) -> None:
    model.write_bytes(make_file(form))
    facts = json.loads(succeeds(capsys, "inspect", model, "--json"))
    assert facts["bytes"] == sum(facts["parts"].values()) == model.stat().st_size
    assert facts["input"]["class_names"] == list("0123456789")
    assert facts["operators"]["Gemm"] == 3
    text = succeeds(capsys, "inspect", model)
    sizes = [int(n.replace(",", "")) for n in re.findall(r"^  \S.* ([0-9,]+) +[0-9.]+%$", text, re.M)]
    assert sum(sizes) == facts["bytes"]


def test_inspect_says_what_the_network_is(model: Path, capsys: Capture) -> None:
    artifact = make_artifact()
    facts = json.loads(succeeds(capsys, "inspect", model, "--json"))
    assert facts["num_masked"] == artifact.model.num_params == 64 * 16 + 16 * 12 + 12 * 10
    assert facts["kept"] == int(artifact.mask.bits().sum()) == sum(layer["kept"] for layer in facts["layers"])
    assert facts["unique_values"] == artifact.model.unique_values == 103
    assert (facts["distribution"], facts["num_floats"], facts["floats"]) == ("signed", 0, [])
    assert facts["weights_sha256"] == artifact.weights_sha256.hex()
    text = succeeds(capsys, "inspect", model)
    for word in ("mlp-16-12", "rp:0.1", "linear1.weight", "16x64", "dataset: digits"):
        assert word in text


def test_inspect_and_verify_count_the_weights_of_a_tied_mask(model: Path, capsys: Capture) -> None:
    artifact = make_artifact(tie=3, density=0.1)
    model.write_bytes(artifact.to_bytes())
    facts = json.loads(succeeds(capsys, "inspect", model, "--json"))
    weights, kept = artifact.weights(), int(np.count_nonzero(artifact.weights()))
    assert (facts["tie"], facts["num_masked"], facts["kept"]) == (3, weights.size, kept)
    assert sum(layer["kept"] for layer in facts["layers"]) == kept
    assert facts["density"] == pytest.approx(kept / weights.size)
    assert facts["mask_sha256"] == artifact.mask.sha256.hex()
    text = succeeds(capsys, "inspect", model)
    assert "in the file, where 3 values share a bit, sha256" in text
    assert "by the paper's rule: a bit for 3 values, 32 bits a unique value" in text
    assert f" {kept:,} of {weights.size:,} values kept" in succeeds(capsys, "verify", model)


def test_inspect_says_what_floats_there_are(model: Path, capsys: Capture) -> None:
    artifact = make_normed()
    model.write_bytes(artifact.to_bytes())
    facts = json.loads(succeeds(capsys, "inspect", model, "--json"))
    assert facts["distribution"] == "normal"
    told = [(part["name"], tuple(part["shape"])) for part in facts["floats"]]
    assert told == [(part.name, part.shape) for part in artifact.model.floats]
    assert facts["num_floats"] == 1 + 16 * 9 + 6 + 4 * 6 + 2 * 9 + 2 * 9 + 10
    assert facts["parts"]["floats"] == 4 * facts["num_floats"] == len(artifact.floats)
    assert facts["bytes"] == sum(facts["parts"].values())
    text = succeeds(capsys, "inspect", model)
    assert "floats     221 in 12 tensors, 884 bytes" in text
    assert "49 normal values" in text


def test_inspect_says_the_honest_ratio(model: Path, capsys: Capture) -> None:
    """All bytes on disk over all bytes of the float32 model, floats among them."""
    model.write_bytes(make_normed().to_bytes())
    facts = json.loads(succeeds(capsys, "inspect", model, "--json"))
    dense_bytes = 4 * (6 * 9 + 9 * 6 * 9 + 10 * 9 + 221)
    assert facts["float32_bytes"] == dense_bytes
    assert facts["compression_ratio"] == pytest.approx(100 - 100 * model.stat().st_size / dense_bytes)
    assert f"saved      {facts['compression_ratio']:.3f} %; " in succeeds(capsys, "inspect", model)


CONVMIXER_6_256 = [(256, 3, 2, 2), *[(256, 1, 5, 5), (256, 256, 1, 1)] * 6, (10, 256)]
RESNET_56 = [
    *[(16, 3, 3, 3), *[(16, 16, 3, 3)] * 18],
    *[(32, 16, 3, 3), *[(32, 32, 3, 3)] * 17],
    *[(64, 32, 3, 3), *[(64, 64, 3, 3)] * 17],
    (10, 64),
]


@pytest.mark.parametrize(
    ("shapes", "strategy", "ratio"),
    [
        (RESNET_56, "mp", "92.53"),
        (RESNET_56, "rp:0.1", "96.44"),
        (RESNET_56, "rp:0.01", "96.83"),
        (CONVMIXER_6_256, "rp:0.1", "95.376"),
        (CONVMIXER_6_256, "rp:0.01", "96.725"),
        (CONVMIXER_6_256, "rp:0.001", "96.860"),
    ],
)
def test_inspect_says_the_papers_ratio(
    shapes: list[tuple[int, ...]], strategy: str, ratio: str, model: Path, capsys: Capture
) -> None:
    """The numbers of its Figures 4 and 5; floats do not count there."""
    floats = (FloatTensor("norms", (30_000,)),)
    network = dataclasses.replace(model_spec(*shapes, strategy=strategy), floats=floats)
    mask = Mask.from_bits(np.zeros(network.num_params, np.bool_), network.sizes)
    artifact = Artifact.of(network, mask, skeleton(network), {}, floats=bytes(4 * network.num_floats))
    model.write_bytes(artifact.to_bytes())
    found = json.loads(succeeds(capsys, "inspect", model, "--json"))["paper_compression_ratio"]
    assert f"{found:.{len(ratio.split('.')[1])}f}" == ratio
    assert f"; {found:.3f} % by the paper's rule" in succeeds(capsys, "inspect", model)


def test_predict_on_a_data_set(model: Path, capsys: Capture) -> None:
    test = load("digits", None, "test")
    guesses = Model.load(model).predict(test.images).argmax(axis=1)
    text = succeeds(capsys, "predict", model, "--dataset", "digits", "--count", 7)
    rows = re.findall(r"^digits test (\d+)  (\d) +(\d) +([0-9.]+)%(  wrong)?$", text, re.M)
    assert [int(row[0]) for row in rows] == list(range(7))
    assert [int(row[1]) for row in rows] == test.labels[:7].tolist()
    assert [int(row[2]) for row in rows] == guesses[:7].tolist()
    assert all((row[1] == row[2]) == (row[4] == "") for row in rows)
    right = guesses == test.labels
    shown = f"accuracy, shown: {right[:7].sum()} of 7 ({right[:7].mean():.1%})"
    whole = f"accuracy, whole test split: {right.sum()} of {len(right)} ({right.mean():.1%})"
    assert text.splitlines()[-2:] == [shown, whole]


def test_predict_draws_small_digits(model: Path, capsys: Capture) -> None:
    lines = succeeds(capsys, "predict", model, "--dataset", "digits", "--count", 1).splitlines()
    image = load("digits", None, "test").images[0, 0]
    for drawn, row in zip(lines, image, strict=False):
        inked = [char != " " for char in drawn.ljust(16)[::2]]
        assert inked == (row.astype(int) * 10 // 256 > 0).tolist()


@pytest.mark.parametrize("form", ["pemn", "packed", "dense"])
def test_predict_images(form: str, model: Path, tmp_path: Path, capsys: Capture) -> None:
    model.write_bytes(make_file(form))
    images = load("digits", None, "test").images[:3]
    Image.fromarray(images[0, 0]).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", images[1:3])
    text = succeeds(capsys, "predict", model, tmp_path / "a.png", tmp_path / "b.npy")
    rows = re.findall(r"^(a\.png|b\.npy \d) +- +(\d) ", text, re.M)
    guesses = Model.load(model).predict(images).argmax(axis=1)
    assert rows == list(zip(["a.png", "b.npy 0", "b.npy 1"], map(str, guesses), strict=True))
    assert "accuracy" not in text


def test_predict_refuses_what_does_not_fit(
    model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((1, 8, 9), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((1, 8, 8)))
    np.savez(tmp_path / "many.npz", a=np.zeros((1, 8, 8), np.uint8))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.png").write_text("no picture")
    for name, complaint in (
        ("wrong.npy", "images do not fit the network: got uint8 [1, 8, 9]; wanted uint8 [1, 8, 8]"),
        ("float.npy", "images do not fit the network: got float64"),
        ("many.npy", "got several arrays"),
        ("object.npy", "not an .npy file"),
        ("text.png", "unreadable image: got none of PNG, JPEG, BMP, WEBP"),
    ):
        assert complaint in fails(capsys, 3, "predict", model, tmp_path / name)
    assert "cannot read image" in fails(capsys, 7, "predict", model, tmp_path / "absent.npy")
    assert "got nothing" in fails(capsys, 2, "predict", model)
    assert "got both" in fails(capsys, 2, "predict", model, "x.png", "--dataset", "digits")
    assert ">= 1" in fails(capsys, 2, "predict", model, "--dataset", "digits", "--count", "0")
    assert "unknown data set" in fails(capsys, 3, "predict", model, "--dataset", "mnist")
    other = load("digits", None, "test")
    renamed = type(other)("digits", other.images, other.labels, tuple("abcdefghij"))
    monkeypatch.setattr(pemn.commands.predict, "load", lambda *_: renamed)
    assert "from 'a' to 'j'; wanted 10 from '0' to '9'" in fails(
        capsys, 3, "predict", model, "--dataset", "digits"
    )


def test_class_names_cannot_move_the_cursor(model: Path, tmp_path: Path, capsys: Capture) -> None:
    hostile = onnx.load_model_from_string(make_file("dense"))
    contract = json.loads(hostile.metadata_props[0].value)
    contract["class_names"] = [f"\x1b[2J{i}" for i in range(10)]
    hostile.metadata_props[0].value = json.dumps(contract)
    model.write_bytes(hostile.SerializeToString())
    np.save(tmp_path / "a.npy", np.zeros((1, 8, 8), np.uint8))
    for arguments in (("inspect", model), ("predict", model, tmp_path / "a.npy")):
        text = succeeds(capsys, *arguments)
        assert "\x1b" not in text
        assert "\\x1b[2J" in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("predict",),
        ("predict", "m", "--count", "many", "--dataset", "digits"),
        ("export", "m", "--onnx", "tiny", "-o", "x"),
        ("export", "m"),
        ("verify", "m", "--fast"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: tuple[str, ...], capsys: Capture) -> None:
    assert "--help" in fails(capsys, 2, *arguments)


@pytest.mark.parametrize("command", ["predict", "inspect", "export", "verify"])
def test_a_missing_model_is_7(command: str, tmp_path: Path, capsys: Capture) -> None:
    more = {"predict": ["x.png"], "export": ["--onnx", "dense", "-o", "x"]}.get(command, [])
    line = fails(capsys, 7, command, tmp_path / "none.pemn", *more)
    assert line == f"pemn: error: cannot read model, no such file or directory: in {tmp_path / 'none.pemn'}\n"


def test_debug_shows_where(tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", "--debug", str(tmp_path / "none")]) == 7
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("pemn: error: cannot read model")


def test_help_and_version(capsys: Capture) -> None:
    for arguments in (["--help"], ["predict", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    assert re.search(r"^pemn \d", capsys.readouterr().out, re.M)


def test_a_device_can_predict_inspect_and_verify(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 8, 8), np.uint8))
    program = """
import sys
for name in ("torch", "onnx", "onnxscript", "flwr", "PIL", "sklearn", "pyarrow", "matplotlib", "grpc"):
    sys.modules[name] = None
from pemn.cli import main
sys.exit(main())
"""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for command in (("predict", model, tmp_path / "a.npy"), ("inspect", model), ("verify", model)):
        done = run(*command)
        assert (done.returncode, done.stderr) == (0, "")
    for arguments, remedy in (
        (("export", model, "--onnx", "dense", "-o", tmp_path / "x"), "pip install 'pemn[server]'"),
        (("predict", model, "x.png"), "pip install 'pemn[data]'"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("pemn: error: ")
        assert remedy in done.stderr
        assert done.stderr.count("\n") == 1
