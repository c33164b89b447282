"""PEMN as a library: any torch module, from its description to a file that runs without torch."""

from __future__ import annotations

import operator
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pemn
from pemn.data.datasets import input_contract, load
from pemn.device.model import Model
from pemn.errors import ConfigError, LocalError


class Own(nn.Module):
    """A network that PEMN has never heard of: biases, batch norm, a branch, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.side = nn.Conv2d(1, 16, 1, bias=False)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.stem(image))) + self.side(image)
        tokens = features.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: torch.Tensor = self.head((tokens + mixed).mean(1))
        return logits


@pytest.mark.parametrize("scores", ["topk:0.5", "bernoulli"])
def test_from_a_module_to_a_device(scores: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = load("digits", None, "train")
    contract = input_contract("digits", data)
    module = Own()
    spec = pemn.describe(
        module,
        "own",
        contract,
        seed=3,
        strategy=pemn.Strategy.parse("rp:0.1"),
        rules=pemn.Rules(dense=("head.*",)),
    )
    assert {layer.name for layer in spec.layers} == {
        *("stem.weight", "side.weight", "attention.in_proj_weight", "attention.out_proj.weight")
    }
    pemn.mask_model(module, spec, pemn.ScoreRule.parse(scores))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    images, labels = (
        torch.from_numpy(contract.normalise(data.images[:256])),
        torch.from_numpy(data.labels[:256]),
    )
    losses = []
    for _ in range(20):
        for batch in torch.arange(256).view(8, 32):
            loss = nn.functional.cross_entropy(module(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])

    artifact = pemn.package(module, spec, {"note": "a test"})
    (tmp_path / "own.pemn").write_bytes(artifact.to_bytes())
    read = pemn.Artifact.from_bytes((tmp_path / "own.pemn").read_bytes())
    module.eval()
    for name, array in read.tensors().items():
        assert np.array_equal(array, operator.attrgetter(name)(module).detach().numpy()), name
    some = load("digits", None, "test").images[:50]
    with torch.no_grad():
        wanted = module(torch.from_numpy(contract.normalise(some))).numpy()
    np.testing.assert_allclose(Model.load(tmp_path / "own.pemn").predict(some), wanted, atol=1e-4)


def test_the_names_of_the_package_are_there() -> None:
    for name in pemn._PLACES:
        found = getattr(pemn, name)
        assert getattr(found, "__name__", name) == name
    assert isinstance(pemn.PAPER, pemn.WeightInit)
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        pemn.unheard_of  # noqa: B018


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "pemn.describe" in block
    ]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    logits = Model.load(tmp_path / "mine.pemn").predict(np.zeros((2, 1, 8, 8), np.uint8))
    assert logits.shape == (2, 10)


def test_a_module_of_another_spec_is_not_packaged() -> None:
    contract = pemn.InputContract((1, 8, 8), (0.5,), (0.25,), tuple("0123456789"))
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    specs = [
        pemn.describe(module, "own", contract, seed, pemn.Strategy.parse(strategy))
        for seed, strategy in ((1, "mp"), (2, "mp"), (1, "rp:0.1"))
    ]
    pemn.mask_model(module, specs[0])
    pemn.package(module, specs[0], {})
    for other in specs[1:]:
        with pytest.raises(LocalError, match=r"weights that are not the spec's.*in 1\.weight"):
            pemn.package(module, other, {})


def test_what_no_reader_takes_is_not_written() -> None:
    contract = pemn.InputContract((65, 2, 2), (0.5,) * 65, (0.25,) * 65, ("a", "b"))
    module = nn.Sequential(nn.Flatten(), nn.Linear(260, 2))
    with pytest.raises(ConfigError, match=r"network that no file can hold: .*InputContract\.mean"):
        pemn.describe(module, "own", contract, 1, pemn.Strategy.parse("mp"))
    contract = replace(contract, shape=(64, 2, 2), mean=(0.5,) * 64, std=(0.25,) * 64)
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    spec = pemn.describe(module, "own", contract, 1, pemn.Strategy.parse("mp"))
    artifact = pemn.package(pemn.mask_model(module, spec), spec, {})
    assert pemn.Artifact.from_bytes(artifact.to_bytes()) == artifact
    with pytest.raises(LocalError, match=r"network of a \.pemn file: empty architecture"):
        replace(artifact, model=replace(artifact.model, architecture="")).to_bytes()
