"""Any torch module as a masked network: its frozen weights from a spec, its scores as the parameters that train.

`mask_model` parametrizes every tensor that the spec names (`torch.nn.utils.parametrize`): reading `layer.weight` gives
the masked weight, and `layer.parametrizations.weight.original` is the score. All else of the module stays as it is.

Every reading makes the mask anew, and MultiheadAttention reads its weight three times a pass. A pass `with
torch.nn.utils.parametrize.cached():` makes each mask once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pemn.errors import ConfigError, LocalError
from pemn.generator import Purpose, child
from pemn.mask import Mask
from pemn.spec import ModelSpec, to_float32
from pemn.training.generator import draw, words
from pemn.training.rules import check_maskable, fan_in, floating_shapes
from pemn.training.scores import PAPER_RULE, ScoreRule


class MaskedWeight(nn.Module):
    """The parametrization: scores -> masked weight.

    Args:
        frozen: float32, the layer's frozen weights.
        rule: How scores become a mask.
    """

    frozen_bits: Tensor

    def __init__(self, frozen: Tensor, rule: ScoreRule) -> None:
        super().__init__()
        self.rule = rule
        # As integers, which a cast of the module to another dtype leaves alone.
        self.register_buffer("frozen_bits", frozen.view(torch.int32), persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Returns the masked weight, float32, shaped as `scores`.

        Raises:
            ConfigError: If the module was cast to another dtype.
        """
        self._check_dtypes(scores)
        return self.rule.weights(scores, self.frozen_bits.view(torch.float32), training=self.training)

    def mask(self, scores: Tensor) -> Tensor:
        """Returns the mask of evaluation, bool, shaped as `scores`.

        Raises:
            ConfigError: If the module was cast to another dtype.
        """
        self._check_dtypes(scores)
        return self.rule.mask(scores, training=False)

    def _check_dtypes(self, scores: Tensor) -> None:
        if scores.dtype != torch.float32 or self.frozen_bits.dtype != torch.int32:
            got = f"scores of {scores.dtype}, weights in {self.frozen_bits.dtype}"
            raise ConfigError("masked module was cast", got=got, wanted="float32, with torch.autocast")


def mask_model(module: nn.Module, spec: ModelSpec, rule: ScoreRule = PAPER_RULE) -> nn.Module:
    """Masks a module in place.

    The parameters keep their identity: an optimizer that has them goes on with the scores. Scores begin uniform
    between -1/sqrt(fan_in) and 1/sqrt(fan_in), from the spec's seed.

    Args:
        module: Any module that has the tensors of `spec.layers`, on any device but all of it float32.
        spec: The network.
        rule: How scores become masks; the half of each layer with the largest scores if not given.

    Returns:
        The same module.

    Raises:
        LocalError: If the module is not the one that the spec describes; names the layer or tensor. Or if the mask is
            tied: only the clients of a federation train such scores.
        ConfigError: If one of the tensors cannot be masked, or is already. Nothing has been changed then.
    """
    if spec.tie != 1:
        raise LocalError("values that share a bit", got=spec.tie, wanted="1", where=spec.architecture)
    if spec.num_values != spec.num_params:
        raise LocalError(
            "network whose weights are sums", wanted="one value a weight", where=spec.architecture
        )
    _check_layers(module, spec)
    for index, layer in enumerate(spec.layers):
        path, own = _split(layer.name)
        scores = module.get_parameter(layer.name)
        start = _start_scores(spec, index, fan_in(module, layer.name), scores.device)
        frozen = _frozen(spec, index, scores.device)
        # Not checked once more, which would draw a mask from the caller's random numbers.
        parametrize.register_parametrization(
            module.get_submodule(path), own, MaskedWeight(frozen, rule), unsafe=True
        )
        with torch.no_grad():
            scores.requires_grad_(True).copy_(start)
    return module


def scores_of(module: nn.Module, spec: ModelSpec) -> Tensor:
    """Returns the scores of a masked module, layer after layer.

    Returns:
        float32 [n] on the module's device, a copy.
    """
    return torch.cat([scores.detach().reshape(-1) for scores, _ in _layers(module, spec)])


def set_scores(module: nn.Module, spec: ModelSpec, scores: Tensor) -> None:
    """Sets the scores of a masked module.

    Args:
        module: What `mask_model` made.
        spec: The network.
        scores: float32 [n], layer after layer, on any device.

    Raises:
        LocalError: If they have another shape or dtype.
    """
    if scores.dtype != torch.float32 or scores.shape != (spec.num_params,):
        got = f"{scores.dtype} {list(scores.shape)}"
        raise LocalError("scores", got=got, wanted=f"torch.float32 [{spec.num_params}]")
    with torch.no_grad():
        for (own, _), new in zip(_layers(module, spec), torch.split(scores, list(spec.sizes)), strict=True):
            own.copy_(new.view(own.shape))


def mask_of(module: nn.Module, spec: ModelSpec) -> Mask:
    """Returns the mask of a masked module; for `bernoulli` the one of evaluation, p > 1/2.

    Raises:
        ConfigError: If scores are not numbers.
    """
    if scores_of(module, spec).isnan().any():
        raise ConfigError(
            "scores that are not numbers", wanted="a lower learning rate", where=spec.architecture
        )
    masks = [weight.mask(scores).reshape(-1) for scores, weight in _layers(module, spec)]
    return Mask.from_bits(torch.cat(masks).cpu().numpy(), spec.sizes)


def unmask(module: nn.Module) -> nn.Module:
    """Makes a masked module an ordinary one again, in place.

    Returns:
        The same module, with the masked weights of evaluation as parameters that do not train.
    """
    for name, (scores, weight) in _masked(module).items():
        path, own = _split(name)
        owner = module.get_submodule(path)
        # A deep copy has the class that was made for its original, and removal deletes a property of that class.
        made = type(owner)
        owner.__class__ = type(made.__name__, made.__bases__, dict(vars(made)))
        weight.eval()
        parametrize.remove_parametrizations(owner, own)
        scores.requires_grad_(False)
    return module


def _check_layers(module: nn.Module, spec: ModelSpec) -> None:
    check_maskable(module, [layer.name for layer in spec.layers])
    for layer in spec.layers:
        parameter = module.get_parameter(layer.name)
        shape = tuple(parameter.shape)
        if shape != layer.shape:
            raise LocalError("shape of a layer", got=shape, wanted=layer.shape, where=layer.name)
        if parameter.is_meta:  # nobody would fill in the frozen weights later
            raise ConfigError("module on the meta device", wanted="memory of its own", where=layer.name)
    shapes = floating_shapes(module)
    for name in sorted(shapes.keys() | spec.shapes.keys()):  # a bias too many would train, and be in no file
        if shapes.get(name) != spec.shapes.get(name):
            got, wanted = shapes.get(name, "none"), spec.shapes.get(name, "none")
            raise LocalError("float tensor of a module", got=got, wanted=wanted, where=name)


def _split(name: str) -> tuple[str, str]:
    """Returns the path of the module that owns a tensor, and the tensor's name there."""
    path, _, own = name.rpartition(".")
    return path, own


def _masked(module: nn.Module) -> dict[str, tuple[Tensor, MaskedWeight]]:
    """Returns the scores and the parametrization of every masked tensor by its name."""
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(part[0], MaskedWeight):
            owner, _, own = path.rpartition("parametrizations.")
            found[owner + own] = (part.original, part[0])
    return found


def _layers(module: nn.Module, spec: ModelSpec) -> list[tuple[Tensor, MaskedWeight]]:
    """Returns the scores and the parametrization of every layer of a spec."""
    masked = _masked(module)
    for layer in spec.layers:
        if layer.name not in masked:
            raise LocalError("layer that is not masked", where=layer.name)
    return [masked[layer.name] for layer in spec.layers]


def _frozen(spec: ModelSpec, index: int, device: torch.device) -> Tensor:
    """Returns the frozen weights of a layer, with the bits of `pemn.rebuild.frozen_weights`."""
    layer, source = spec.layers[index], spec.sources[index]
    count = min(source.period, layer.size)
    key = child(spec.seed, Purpose.WEIGHTS, source.stream)
    values = draw(spec.distribution, key, 0, count, device) * layer.scale
    return values.repeat(-(-layer.size // count))[: layer.size].view(layer.shape)


def _start_scores(spec: ModelSpec, index: int, fan_in: int, device: torch.device) -> Tensor:
    """Returns the first scores of a layer: (2 b + 1 - 2^24) / 2^24 / sqrt(fan_in), b the top 24 bits of a word.

    The odd number fits a float32, so that only the last product is rounded, and no score is 0.
    """
    layer = spec.layers[index]
    drawn = words(child(spec.seed, Purpose.SCORES, index), 0, layer.size, device)
    odd = 2 * (drawn >> 40 & 0xFFFFFF) + 1 - (1 << 24)
    return (odd.float() / (1 << 24) * to_float32(1 / math.sqrt(fan_in))).view(layer.shape)
