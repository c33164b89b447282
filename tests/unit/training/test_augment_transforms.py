"""Crop, flip, erasing, normalisation and the presets: what they do to real images, and that a run can be resumed."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from pemn.errors import ConfigError, LocalError
from pemn.spec import InputContract
from pemn.training.augment import (
    PRESETS,
    Augmentation,
    ColorJitter,
    HorizontalFlip,
    Normalise,
    RandAugment,
    RandomCrop,
    RandomErasing,
    compose,
    light,
    none,
    paper_convmixer,
    paper_vit,
    preset,
)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)

EACH: tuple[Augmentation, ...] = (
    RandomCrop(4),
    HorizontalFlip(),
    RandAugment(2, 12),
    ColorJitter(0.2, 0.2, 0.2),
    RandomErasing(0.5),
)


def generator(seed: int = 1, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@functools.cache
def photographs() -> Tensor:
    """Two photographs in pieces, uint8 [B, 3, 32, 40]: wider than high, so that the two are not mistaken."""
    pieces = [
        picture[top : top + 32, left : left + 40]
        for picture in load_sample_images().images
        for top in range(0, 384, 32)
        for left in range(0, 600, 40)
    ]
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2).contiguous()


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    images, crop = photographs(), RandomCrop(4)
    corners = crop.draw(images, generator())
    assert set(corners[0].tolist()) == set(corners[1].tolist()) == set(range(9))
    for dtype in (torch.uint8, torch.float32):
        cropped = crop.apply(images.to(dtype), corners)
        padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
        for i, (top, left) in enumerate(corners.T.tolist()):
            assert np.array_equal(cropped[i].numpy(), padded[i, :, top : top + 32, left : left + 40])


def test_a_crop_without_padding_changes_nothing() -> None:
    assert torch.equal(RandomCrop(0)(photographs(), generator()), photographs())


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images, flip = photographs(), HorizontalFlip()
    mirrored = flip.draw(images, generator())
    flipped = flip.apply(images, mirrored)
    assert 0.4 < mirrored.double().mean() < 0.6
    assert torch.equal(flipped[mirrored], images[mirrored].flip(3))
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert torch.equal(HorizontalFlip(1.0)(images, generator()), images.flip(3))
    assert torch.equal(HorizontalFlip(0.0)(images, generator()), images)


def test_erasing_sets_one_rectangle_to_zero_and_nothing_else() -> None:
    images, erasing = photographs().float() + 1, RandomErasing(0.5)
    rectangles = erasing.draw(images, generator())
    erased = erasing.apply(images, rectangles)
    for i, (top, left, height, width) in enumerate(rectangles.T.int().tolist()):
        assert 0 <= top <= 32 - height
        assert 0 <= left <= 40 - width
        wanted = images[i].clone()
        wanted[:, top : top + height, left : left + width] = 0
        assert torch.equal(erased[i], wanted)


def test_erasing_draws_its_ranges() -> None:
    images = torch.empty(20_000, 1, 64, 80)
    top, left, height, width = RandomErasing(0.25, (0.1, 0.3), (0.5, 1.0)).draw(images, generator())
    hit = height > 0
    assert torch.equal(hit, width > 0)
    assert abs(hit.double().mean() - 0.25) < 0.01  # standard deviation 0.003
    top, left, height, width = top[hit], left[hit], height[hit], width[hit]
    area, ratio = height * width / (64 * 80), height / width
    assert 0.095 < area.min() < 0.101  # sides are rounded
    assert 0.296 < area.max() < 0.31
    assert abs(area.mean() - 0.2) < 0.003  # uniform
    assert 0.47 < ratio.min() < 0.51
    assert 0.98 < ratio.max() < 1.06
    assert abs(ratio.log2().mean() + 0.5) < 0.02  # uniform in the logarithm
    assert top.min() == left.min() == 0
    assert ((top + height).max(), (left + width).max()) == (64, 80)
    assert abs((top / (64 - height)).mean() - 0.5) < 0.02
    assert abs((left / (80 - width)).mean() - 0.5) < 0.02


def test_a_rectangle_that_does_not_fit_is_drawn_again_and_then_left() -> None:
    """0.9 of the area at ratios up to 9: most are too long. At 64 nearly all are, and ten draws may not do."""
    images = torch.empty(4000, 1, 32, 32)
    often = RandomErasing(1.0, (0.9, 0.9), (1 / 9, 9)).draw(images, generator())[2]
    seldom = RandomErasing(1.0, (0.9, 0.9), (1 / 64, 64)).draw(images, generator())[2]
    never = RandomErasing(1.0, (1.0, 1.0), (2, 3)).draw(images, generator())[2]
    # A draw fits if its side is below 31.5: |log ratio| < 2 log(31.5 / 32) - log 0.9 = 0.0739.
    assert (often > 0).double().mean() == pytest.approx(1 - (1 - 0.0739 / np.log(9)) ** 10, abs=0.03)
    assert (seldom > 0).double().mean() == pytest.approx(1 - (1 - 0.0739 / np.log(64)) ** 10, abs=0.03)
    assert not never.any()


def test_normalised_bytes_are_those_of_the_input_contract() -> None:
    contract = InputContract((3, 32, 40), MEAN, STD, ("a", "b"))
    images = photographs()
    normalised = Normalise(MEAN, STD)(images, generator())
    assert np.array_equal(normalised.numpy(), contract.normalise(images.numpy()))
    floats = images.double() / 255
    of_floats = Normalise(MEAN, STD)(floats, generator())
    assert torch.equal(floats, images.double() / 255)
    assert of_floats.dtype == torch.float64
    torch.testing.assert_close(of_floats.float(), normalised)


def test_normalising_other_channels() -> None:
    with pytest.raises(LocalError, match="1 channels"):
        Normalise(MEAN, STD)(torch.zeros(2, 1, 8, 8), generator())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("step", EACH, ids=lambda step: type(step).__name__)
def test_a_step_keeps_shape_and_dtype_and_its_input(step: Augmentation, dtype: torch.dtype) -> None:
    images = photographs() if dtype == torch.uint8 else (photographs() / 255).to(dtype)
    before = images.clone()
    changed = step(images, generator())
    assert (changed.shape, changed.dtype, changed.device) == (images.shape, images.dtype, images.device)
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)
    assert len(step(images[:0], generator())) == 0


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_its_input_and_takes_views(name: str) -> None:
    augmentation = preset(name, MEAN, STD)
    before = photographs().clone()
    changed = augmentation(photographs(), generator())
    assert torch.equal(photographs(), before)
    channels_last = photographs().contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmentation(channels_last, generator()), changed)
    assert torch.equal(augmentation(photographs().repeat(2, 1, 1, 1)[: len(before)], generator()), changed)


@pytest.mark.parametrize("name", PRESETS)
def test_a_generators_state_resumes_a_run(name: str) -> None:
    """Three batches at once are one batch, a state written and read, and two more."""
    augmentation = preset(name, MEAN, STD)
    batches = torch.split(photographs()[:300], 100)
    one = generator(7)
    uninterrupted = [augmentation(batch, one) for batch in batches]
    two = generator(7)
    first = augmentation(batches[0], two)
    three = torch.Generator()
    three.set_state(two.get_state())
    resumed = [first, *(augmentation(batch, three) for batch in batches[1:])]
    assert all(map(torch.equal, uninterrupted, resumed))
    again = augmentation(batches[0], generator(8))
    assert torch.equal(again, first) == (name == "none")


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_drawn_does_not_depend_on_the_images(name: str) -> None:
    first, second = generator(), generator()
    preset(name, MEAN, STD)(photographs(), first)
    preset(name, MEAN, STD)(torch.zeros_like(photographs()), second)
    assert torch.equal(first.get_state(), second.get_state())


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    for augmentation in PRESETS.values():
        augmentation(MEAN, STD)(photographs(), generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_presets_are_the_recipes_steps() -> None:
    normalise = Normalise(MEAN, STD)
    assert paper_convmixer(MEAN, STD) == compose(
        HorizontalFlip(0.5),
        RandAugment(2, 12),
        ColorJitter(0.2, 0.2, 0.2),
        normalise,
        RandomErasing(0.2, (0.02, 0.33), (0.3, 3.3)),
    )
    assert paper_vit(MEAN, STD) == compose(RandAugment(2, 14), RandomCrop(4), HorizontalFlip(0.5), normalise)
    assert light(MEAN, STD) == compose(RandomCrop(4), HorizontalFlip(0.5), normalise)
    assert none(MEAN, STD) == compose(normalise)


def test_composed_steps_run_in_order_from_one_generator() -> None:
    steps = (HorizontalFlip(), RandAugment(2, 12), RandomErasing(1.0))
    together = compose(*steps)(photographs(), generator(5))
    one = generator(5)
    images = photographs()
    for step in steps:
        images = step(images, one)
    assert torch.equal(together, images)
    assert compose()(photographs(), generator()) is photographs()


def test_augmentations_are_values() -> None:
    assert hash(preset("light", MEAN, STD)) == hash(light(MEAN, STD))
    with pytest.raises(dataclasses.FrozenInstanceError):
        RandomCrop(4).padding = 5  # type: ignore[misc]


def test_bad_parameters() -> None:
    with pytest.raises(
        ConfigError, match="augmentation: got heavy; wanted paper-convmixer, paper-vit, light, none"
    ):
        preset("heavy", MEAN, STD)
    with pytest.raises(LocalError, match="padding -1"):
        RandomCrop(-1)
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(LocalError, match="probability"):
            HorizontalFlip(p)
        with pytest.raises(LocalError, match="probability"):
            RandomErasing(p)
    for scale, ratio in (
        ((0.5, 0.1), (0.3, 3.3)),
        ((-0.1, 0.5), (1, 1)),
        ((0, 1.1), (1, 1)),
        ((0, 1), (0, 1)),
    ):
        with pytest.raises(LocalError, match="erasing"):
            RandomErasing(0.5, scale, ratio)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", PRESETS)
def test_cuda_gives_what_the_cpu_gives(name: str) -> None:
    """The generators differ, so what the device has drawn is handed to the CPU."""
    images = photographs()
    on_device, one = images.cuda(), generator(3, "cuda")
    for step in preset(name, MEAN, STD).steps:  # type: ignore[attr-defined]
        if isinstance(step, Normalise):
            images, on_device = step(images, generator()), step(on_device, one)
        else:
            drawn = step.draw(on_device, one)
            drawn = drawn if isinstance(drawn, tuple) else (drawn,)
            on_device = step.apply(on_device, *drawn)
            images = step.apply(images, *(v.cpu() for v in drawn))
        assert on_device.is_cuda
        assert torch.equal(on_device.cpu(), images)
