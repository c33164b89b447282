"""Networks that other packages bring: `timm:NAME` and `PKG:FACTORY`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from pemn.errors import ConfigError
from pemn.training.networks import build

CIFAR = (3, 32, 32)


class FakeTimm(ModuleType):
    """The part of timm that is used. `vit` is made for one size of image, `resnet` for any."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.calls: list[dict[str, Any]] = []

    def create_model(self, name: str, pretrained: bool, **options: Any) -> object:
        assert not pretrained
        self.calls.append({"name": name, **options})
        if name == "resnet" and "img_size" in options:
            raise TypeError("ResNet.__init__() got an unexpected keyword argument 'img_size'")
        if name == "fixed" and "in_chans" in options:
            raise TypeError("Fixed.__init__() got an unexpected keyword argument 'in_chans'")
        if name == "nothing":
            return None
        if name not in ("vit", "resnet"):
            raise RuntimeError(f"Unknown model ({name})")
        return nn.Linear(options["in_chans"], options["num_classes"], bias=False)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> FakeTimm:
    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


def test_timm_is_told_classes_channels_and_size(timm: FakeTimm) -> None:
    module = build("timm:vit", (1, 28, 24), 7)
    assert isinstance(module, nn.Linear)
    assert timm.calls == [{"name": "vit", "num_classes": 7, "in_chans": 1, "img_size": (28, 24)}]


def test_timm_is_not_told_the_size_where_it_does_not_matter(timm: FakeTimm) -> None:
    assert isinstance(build("timm:resnet", CIFAR, 7), nn.Linear)
    assert timm.calls[1:] == [{"name": "resnet", "num_classes": 7, "in_chans": 3}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", r"timm made no such network: got RuntimeError: Unknown model \(gone\); in timm:gone$"),
        ("fixed", r"timm made no such network: got TypeError: .*'in_chans'; in timm:fixed$"),
        ("nothing", "timm made no network: got NoneType"),
    ],
)
def test_what_timm_cannot_make_is_one_line(timm: FakeTimm, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(f"timm:{name}", CIFAR, 10)
    assert len(timm.calls) == 1


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18", "hf_hub:a", "local-dir:models", "../resnet", "", "a..b"]
)
def test_names_with_which_timm_would_read_files_or_download_are_unknown(timm: FakeTimm, name: str) -> None:
    with pytest.raises(ConfigError, match="unknown architecture"):
        build(f"timm:{name}", CIFAR, 10)
    assert not timm.calls


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module", name="timm"),
            "missing package: got no module timm; wanted pip install timm",
        ),
        (
            RuntimeError("operator does not exist"),
            "timm cannot be imported: got RuntimeError: operator does not",
        ),
    ],
)
def test_a_timm_that_does_not_import_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(name: str) -> ModuleType:
        assert name == "timm"
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=message):
        build("timm:vit", CIFAR, 10)


SOURCE = """
import torch
from pemn.errors import ConfigError

ONE = 1

class Net(torch.nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.shape = input_shape
        self.head = torch.nn.Linear(input_shape[0], num_classes, bias=False)

    def forward(self, image):
        return self.head(image.mean((-2, -1)))

def small(input_shape, num_classes):
    return Net(input_shape, num_classes)

def class_itself(input_shape, num_classes):
    return Net

def nothing(input_shape, num_classes):
    return None

def failing(input_shape, num_classes):
    raise ValueError("two\\nlines")

def leaving(input_shape, num_classes):
    raise SystemExit(3)

def picky(input_shape, num_classes):
    raise ConfigError("images", got=input_shape, wanted="square ones")

def other_arguments(width):
    return Net((width, 1, 1), 2)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a module of the package `pemn_test_models` where Python finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pemn_test_models").mkdir()

    def write(module: str, source: str) -> None:
        (tmp_path / "pemn_test_models" / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.startswith("pemn_test_models")]:
            monkeypatch.delitem(sys.modules, name)

    write("__init__", "")
    write("small", SOURCE)
    return write


@pytest.mark.parametrize("factory", ["small", "Net"])
def test_a_factory_is_called_with_shape_and_classes(package: object, factory: str) -> None:
    module = build(f"pemn_test_models.small:{factory}", CIFAR, 7)
    assert module.shape == CIFAR
    assert module(torch.zeros(2, *CIFAR)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pemn_test_gone:small",
            "missing package: got no module pemn_test_gone; wanted the same code installed",
        ),
        ("pemn_test_models.gone:small", r"missing package: got no module pemn_test_models\.gone"),
        (
            "pemn_test_models.small:gone",
            "without this function: got no such attribute; wanted a callable gone",
        ),
        ("pemn_test_models.small:ONE", "without this function: got int; wanted a callable ONE"),
        ("pemn_test_models.small:nothing", "factory returned no network: got NoneType"),
        ("pemn_test_models.small:class_itself", "factory returned no network: got type"),
        ("pemn_test_models.small:failing", "factory of the network failed: got ValueError: two lines"),
        ("pemn_test_models.small:leaving", "factory of the network failed: got SystemExit: 3"),
        ("pemn_test_models.small:other_arguments", "factory of the network failed: got TypeError"),
    ],
)
def test_a_name_that_gives_no_network_is_one_line_with_the_name(
    package: object, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(name, CIFAR, 10)
    assert str(caught.value).endswith(f"in {name}")
    assert "\n" not in str(caught.value)


def test_a_factory_says_itself_what_it_wants(package: object) -> None:
    with pytest.raises(ConfigError, match=r"^images: got \(3, 32, 32\); wanted square ones$"):
        build("pemn_test_models.small:picky", CIFAR, 10)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import pemn_test_not_there", "missing package: got no module pemn_test_not_there"),
        ("raise SystemExit(1)", "cannot be imported: got SystemExit: 1"),
        ("1 +", "cannot be imported: got SyntaxError"),
    ],
)
def test_a_package_that_does_not_import_is_one_line(
    package: Callable[[str, str], None], source: str, message: str
) -> None:
    package("broken", source)
    with pytest.raises(ConfigError, match=f"{message}.*in pemn_test_models.broken:net$"):
        build("pemn_test_models.broken:net", CIFAR, 10)


@pytest.mark.parametrize(
    "name",
    [
        ":a",
        "a:",
        "a.:b",
        ".a:b",
        "a..b:c",
        "a/b:c",
        "a:b.c",
        "a:b()",
        "a:b:c",
        "a-b:c",
        "a:1b",
        "ä:b",
        "a :b",
    ],
)
def test_what_is_no_name_in_python_is_never_imported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _: pytest.fail("imported"))
    with pytest.raises(ConfigError, match="unknown architecture"):
        build(name, CIFAR, 10)
