"""Which tensors of a torch module are masked, which stay ordinary floats, and which cannot be masked.

    masked      weights of Linear, Conv and ConvTranspose, and of MultiheadAttention's projections
    float       every other parameter, and the running statistics
    neither     whole numbers such as num_batches_tracked
    forbidden   recurrent layers, tied or lazy parameters, other dtypes than float32, parametrized weights

`Rules` changes the first two by patterns. What is forbidden may still be left as floats by a `dense` pattern.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pemn.errors import ConfigError, LocalError
from pemn.spec import FloatTensor

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MASKED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Rules:
    """Exceptions from what is masked by default, as shell patterns (`*`, `?`, `[a-z]`) of parameter names.

    Attributes:
        dense: What is left as floats; goes before `masked`.
        masked: What is masked as well.
    """

    dense: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskedTensor:
    """A tensor that is to be masked.

    Attributes:
        name: Its name in the module's `state_dict`.
        shape: Its shape.
        fan_in: How many inputs one output of its layer sums over; see `fan_in`.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """What becomes of a module's state, in `state_dict` order.

    Attributes:
        masked: The tensors that are masked.
        floats: Parameters that train as floats, and running statistics.
    """

    masked: tuple[MaskedTensor, ...]
    floats: tuple[FloatTensor, ...]


def plan(module: nn.Module, rules: Rules | None = None) -> Plan:
    """Returns what is masked in a module and what stays a float.

    Args:
        module: Any module; may be on the meta device.
        rules: Exceptions from the default.

    Raises:
        ConfigError: If a pattern matches nothing, nothing is masked, a tensor is to be masked that cannot be, or
            some of the state can neither be masked nor stored as float32.
    """
    rules = rules or Rules()
    by_default = _by_default(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    names = sorted(by_default | parameters.keys())
    masked = (by_default | _matches(rules.masked, names)) - _matches(rules.dense, names)
    if not masked:
        raise ConfigError("nothing to mask", where=type(module).__name__)
    check_maskable(module, sorted(masked))
    tensors, floats = [], []
    for name, tensor in module.state_dict().items():
        if name in masked:
            tensors.append(MaskedTensor(name, tuple(tensor.shape), fan_in(module, name)))
        elif _is_float(name, tensor, is_parameter=name in parameters):
            floats.append(FloatTensor(name, tuple(tensor.shape)))
    return Plan(tuple(tensors), tuple(floats))


def check_maskable(module: nn.Module, names: Iterable[str]) -> None:
    """Checks that each of these tensors can be masked.

    Raises:
        ConfigError: If one cannot; names it.
        LocalError: If the module has none of that name.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    owners: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        owners.setdefault(_place(parameter), []).append(name)
    for name in names:
        try:
            owner = _owner(module, name)
        except AttributeError:
            owner = nn.Module()
        if not hasattr(owner, name.rpartition(".")[2]):
            raise LocalError("tensor that the module does not have", where=name)
        if isinstance(owner, nn.RNNBase):
            raise _cannot(name, got="a recurrent layer")
        if name not in parameters:
            raise _cannot(
                name, got="a tensor computed from others: parametrized, weight_norm, or already masked"
            )
        parameter = parameters[name]
        if is_lazy(parameter):
            raise _cannot(name, got="a lazy parameter", wanted="a shape: run the module once")
        if parameter.dtype != torch.float32:
            raise _cannot(name, got=parameter.dtype, wanted="torch.float32")
        if others := [other for other in owners[_place(parameter)] if other != name]:
            raise _cannot(name, got=f"a parameter tied to {', '.join(others)}")


def floating_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every float tensor in a module's state by its name."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }


def fan_in(module: nn.Module, name: str) -> int:
    """Returns how many inputs one output sums over: input channels of a group times the kernel's size.

    A transposed convolution reaches each output with one of `stride` kernel positions only. An embedding selects one
    row. A tensor of any other module is taken for a matrix whose first dimension is the output.

    Args:
        module: Any module.
        name: Name of a parameter that `check_maskable` lets pass.
    """
    owner, shape = _owner(module, name), module.get_parameter(name).shape
    if isinstance(owner, _TRANSPOSED):
        inputs = owner.in_channels // owner.groups * math.prod(owner.kernel_size)
        return max(1, inputs // math.prod(owner.stride))
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return 1
    return math.prod(shape[1:])


def _by_default(module: nn.Module) -> set[str]:
    names = set()
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if isinstance(owner, _MASKED):
            names.add(f"{prefix}weight")
        elif isinstance(owner, nn.MultiheadAttention):
            names.update(prefix + own for own in _PROJECTIONS if getattr(owner, own) is not None)
        elif isinstance(owner, nn.RNNBase):  # so that it is refused rather than left as floats unasked
            names.update(prefix + own for own, _ in owner.named_parameters(recurse=False))
    return names


def _matches(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            raise ConfigError("pattern that matches no parameter", got=repr(pattern))
        found |= hits
    return found


def _owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def _place(parameter: nn.Parameter) -> int:
    """Returns what is equal for tied parameters: the address, or where there is no memory the object itself."""
    return id(parameter) if is_lazy(parameter) else parameter.data_ptr() or id(parameter)


def _is_float(name: str, tensor: object, *, is_parameter: bool) -> bool:
    """Returns whether some state that is not masked is float32; else it must be whole numbers of a buffer."""
    if not isinstance(tensor, Tensor) or is_lazy(tensor) or tensor.is_quantized:
        raise ConfigError("state that cannot be stored", got="lazy, quantised or no tensor", where=name)
    if tensor.dtype == torch.float32:
        return True
    if is_parameter or tensor.is_floating_point() or tensor.is_complex():
        raise ConfigError("state that cannot be stored", got=tensor.dtype, wanted="torch.float32", where=name)
    return False


def _cannot(name: str, *, got: object, wanted: str | None = None) -> ConfigError:
    return ConfigError(
        "tensor cannot be masked", got=got, wanted=wanted or "a `dense` rule for it", where=name
    )
