"""PEMN as a library: any torch module, from its description to a file that runs without torch."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pemn
from pemn.data.datasets import input_contract, load
from pemn.device.model import Model


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
        assert getattr(pemn, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        pemn.unheard_of  # noqa: B018
