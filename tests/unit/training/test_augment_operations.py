"""Every operation of RandAugment and of the colour jitter against Pillow, image by image: equal to the bit."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from pemn.errors import ConfigError, LocalError
from pemn.training.augment import ColorJitter, RandAugment
from pemn.training.augment.rand_augment import OPERATIONS

BINS = (0, 1, 5, 12, 14, 21, 30)


@functools.cache
def photographs(height: int = 32, width: int = 32, step: int = 48) -> Tensor:
    """Pieces of two photographs, and images that Pillow treats apart; uint8 [B, 3, H, W]."""
    pieces = [
        picture[top : top + height, left : left + width]
        for picture in load_sample_images().images
        for top in range(0, 427 - height, step)
        for left in range(0, 640 - width, step)
    ]
    rng = np.random.default_rng(7)
    shape = (height, width, 3)
    odd: list[NDArray[np.uint8]] = [
        np.zeros(shape, np.uint8),
        np.full(shape, 255, np.uint8),
        rng.integers(0, 256, shape, np.uint8),
        rng.integers(100, 103, shape, np.uint8),
        np.where(rng.random(shape) < 0.5, 0, 255).astype(np.uint8),
        np.broadcast_to(np.array([3, 200, 77], np.uint8), shape).copy(),
        np.where(np.arange(width)[:, None] < 1, 9, rng.integers(40, 80, (height, 1, 3))).astype(np.uint8),
    ]
    return torch.from_numpy(np.stack(pieces + odd)).permute(0, 3, 1, 2).contiguous()


@functools.cache
def digits() -> Tensor:
    """Grey images, uint8 [200, 1, 8, 8]."""
    return torch.from_numpy((load_digits().images[:200, None] * 15.9375).astype(np.uint8))


def to_pillow(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])


def from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]


def by_pillow(image: Image.Image, name: str, magnitude: int, sign: int) -> Image.Image:
    """What torchvision's RandAugment does to a Pillow image, by its table of magnitudes."""
    share = magnitude / 30
    factor = 1 + sign * float(np.float32(share * 0.9))
    shift_px = [int(share * 150 / 331 * side) * sign for side in image.size]

    def transform(*coefficients: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)

    match name:
        case "ShearX":
            return transform(1, sign * share * 0.3, 0, 0, 1, 0)
        case "ShearY":
            return transform(1, 0, 0, sign * share * 0.3, 1, 0)
        case "TranslateX":
            return transform(1, 0, -shift_px[0], 0, 1, 0)
        case "TranslateY":
            return transform(1, 0, 0, 0, 1, -shift_px[1])
        case "Rotate":
            return image.rotate(sign * share * 30)
        case "Posterize":
            return ImageOps.posterize(image, 8 - round(share * 4))
        case "Solarize":
            return ImageOps.solarize(image, 255 - share * 255)  # type: ignore[arg-type]
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Identity":
            return image
        case _:
            enhancer: ImageEnhance._Enhance = getattr(ImageEnhance, name)(image)
            return enhancer.enhance(factor)


def assert_equals_pillow(images: Tensor, name: str, magnitude: int, *, is_negative: bool) -> None:
    operations = torch.full((1, len(images)), OPERATIONS.index(name))
    ours = RandAugment(1, magnitude).apply(images, operations, torch.full((1, len(images)), is_negative))
    sign = -1 if is_negative else 1
    theirs = [from_pillow(by_pillow(to_pillow(image), name, magnitude, sign)) for image in images]
    wrong = np.flatnonzero((ours.numpy() != np.stack(theirs)).any((1, 2, 3)))
    assert not wrong.size, f"{name} at {magnitude}: images {wrong[:10]}"


def test_the_operations_are_torchvisions() -> None:
    assert OPERATIONS == (
        "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
        "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
    )  # fmt: skip


@pytest.mark.parametrize("is_negative", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows(name: str, is_negative: bool) -> None:
    for magnitude in BINS:
        assert_equals_pillow(photographs(), name, magnitude, is_negative=is_negative)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows_for_grey_images_and_for_other_shapes(name: str) -> None:
    for images in (
        digits(),
        photographs(27, 45, 150),
        photographs(2, 64, 150),
        photographs(3, 4, 150),
        photographs(90, 61, 200),
    ):
        assert_equals_pillow(images, name, 14, is_negative=True)


@pytest.mark.parametrize(
    "name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Posterize", "Solarize"]
)
def test_every_magnitude_is_pillows(name: str) -> None:
    for magnitude in range(31):
        assert_equals_pillow(photographs(step=200), name, magnitude, is_negative=magnitude % 2 == 1)


def test_magnitude_12_in_numbers() -> None:
    """Of an image whose rows count 0, 8, 16 ... : the operations of the paper's recipe, by hand."""
    image = (torch.arange(32, dtype=torch.uint8) * 8).view(1, 1, 32, 1).expand(1, 1, 32, 32).contiguous()

    def column(name: str, is_negative: bool = False) -> list[int]:
        operations = torch.full((1, 1), OPERATIONS.index(name))
        return RandAugment(1, 12).apply(image, operations, torch.tensor([[is_negative]]))[0, 0, :, 7].tolist()

    assert column("TranslateY") == [0] * 5 + [8 * row for row in range(27)]  # int(150 / 331 * 32 * 0.4) = 5
    assert column("TranslateY", is_negative=True) == [8 * row for row in range(5, 32)] + [0] * 5
    assert column("Posterize") == [8 * row // 4 * 4 for row in range(32)]  # 8 - round(1.6) = 6 bits
    assert column("Solarize") == [8 * row if 8 * row < 153 else 255 - 8 * row for row in range(32)]
    assert column("Brightness") == [min(255, int(8 * row * 1.36)) for row in range(32)]
    assert column("Brightness", is_negative=True) == [int(8 * row * 0.64) for row in range(32)]


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"AutoContrast", "Equalize"}))
@pytest.mark.parametrize("is_negative", [False, True])
def test_magnitude_0_changes_nothing(name: str, is_negative: bool) -> None:
    images = photographs()
    if name == "Solarize":  # its threshold is 255 then, and it is reached
        images = images.clamp(max=254)
    operations = torch.full((1, len(images)), OPERATIONS.index(name))
    changed = RandAugment(1, 0).apply(images, operations, torch.full((1, len(images)), is_negative))
    assert torch.equal(changed, images)


def test_two_operations_are_applied_in_order() -> None:
    images = photographs(step=200)
    sign = torch.zeros(1, len(images), dtype=torch.bool)
    chosen = [torch.full((1, len(images)), OPERATIONS.index(name)) for name in ("Equalize", "Rotate")]
    both = RandAugment(2, 20).apply(images, torch.cat(chosen), torch.cat((sign, sign)))
    one = RandAugment(1, 20)
    assert torch.equal(both, one.apply(one.apply(images, chosen[0], sign), chosen[1], sign))
    assert not torch.equal(both, one.apply(one.apply(images, chosen[1], sign), chosen[0], sign))


def test_rand_augment_of_a_batch_is_that_of_its_images_and_pillows() -> None:
    images = photographs()
    augment = RandAugment(3, 17)
    operations, negative = augment.draw(images, torch.Generator().manual_seed(3))
    assert set(operations.flatten().tolist()) == set(range(14))
    augmented = augment.apply(images, operations, negative)
    for i in range(len(images)):
        alone = augment.apply(images[i : i + 1], operations[:, i : i + 1], negative[:, i : i + 1])
        image = to_pillow(images[i])
        for number, is_negative in zip(operations[:, i].tolist(), negative[:, i].tolist(), strict=True):
            image = by_pillow(image, OPERATIONS[number], 17, -1 if is_negative else 1)
        assert torch.equal(augmented[i], alone[0])
        assert np.array_equal(augmented[i].numpy(), from_pillow(image))


def test_rand_augment_draws_evenly_and_each_image_its_own() -> None:
    operations, negative = RandAugment(2, 9).draw(torch.empty(14_000, 0), torch.Generator().manual_seed(5))
    counts = operations.flatten().bincount(minlength=14)
    assert counts.min() > 1840  # 2000 expected, standard deviation 43
    assert counts.max() < 2160
    assert abs(negative.double().mean() - 0.5) < 0.012
    together = (operations[0] * 14 + operations[1]).bincount(minlength=196)
    assert together.min() > 30  # 71 expected, 8.4


def test_color_jitter_is_pillows() -> None:
    images = photographs(step=64)
    jitter = ColorJitter(0.7, 0.8, 0.9)
    order, factors = jitter.draw(images, torch.Generator().manual_seed(1))
    ours = jitter.apply(images, order, factors)
    names = ("Brightness", "Color", "Contrast")
    assert len(set(map(tuple, order.T.tolist()))) == 6
    for i in range(len(images)):
        image = to_pillow(images[i])
        for kind, factor in zip(order[:, i].tolist(), factors[:, i].tolist(), strict=True):
            image = getattr(ImageEnhance, names[kind])(image).enhance(factor)
        assert np.array_equal(ours[i].numpy(), from_pillow(image)), i
        alone = jitter.apply(images[i : i + 1], order[:, i : i + 1], factors[:, i : i + 1])
        assert torch.equal(ours[i], alone[0])


def test_color_jitter_of_grey_images_is_pillows() -> None:
    images = digits()
    jitter = ColorJitter(0.4, 0.4, 0.4)
    order, factors = jitter.draw(images, torch.Generator().manual_seed(2))
    ours = jitter.apply(images, order, factors)
    for i in range(len(images)):
        image = to_pillow(images[i])
        for kind, factor in zip(order[:, i].tolist(), factors[:, i].tolist(), strict=True):
            image = getattr(ImageEnhance, ("Brightness", "Color", "Contrast")[kind])(image).enhance(factor)
        assert np.array_equal(ours[i].numpy(), from_pillow(image)), i


def test_color_jitter_draws_its_ranges() -> None:
    order, factors = ColorJitter(0.2, 0.5, 1.5).draw(torch.empty(20_000, 0), torch.Generator().manual_seed(4))
    assert torch.equal(order.sort(0).values, torch.arange(3)[:, None].expand(3, 20_000))
    permutations = Counter(map(tuple, order.T.tolist()))
    assert len(permutations) == 6
    assert min(permutations.values()) > 3333 - 210  # standard deviation 53
    for kind, (low, high) in enumerate(
        ((0.8, 1.2), (0.0, 2.5), (0.5, 1.5))
    ):  # brightness, saturation, contrast
        drawn = factors[order == kind]
        assert low <= drawn.min() < low + 0.01
        assert high - 0.01 < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.02


def test_no_jitter_changes_nothing() -> None:
    images = photographs(step=200)
    assert torch.equal(ColorJitter()(images, torch.Generator()), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_floats_are_worked_on_as_bytes(dtype: torch.dtype) -> None:
    images = photographs(step=200)
    for augment in (RandAugment(2, 12), ColorJitter(0.4, 0.4, 0.4)):
        of_bytes = augment(images, torch.Generator().manual_seed(9))
        of_floats = augment((images / 255).to(dtype), torch.Generator().manual_seed(9))
        assert of_floats.dtype == dtype
        assert torch.equal((of_floats.float() * 255).round().to(torch.uint8), of_bytes)


def test_what_is_no_batch_of_images() -> None:
    generator = torch.Generator()
    for augment in (RandAugment(), ColorJitter(0.1, 0.1, 0.1)):
        with pytest.raises(LocalError, match=r"images: got torch\.int64"):
            augment(torch.zeros(1, 3, 8, 8, dtype=torch.int64), generator)
        with pytest.raises(LocalError, match="wanted uint8 or float"):
            augment(torch.zeros(3, 8, 8), generator)
        with pytest.raises(ConfigError, match="2 channels; wanted 1 or 3"):
            augment(torch.zeros(1, 2, 8, 8), generator)


def test_parameters_out_of_range() -> None:
    with pytest.raises(LocalError, match=r"wanted a magnitude of 0 \.\. 30"):
        RandAugment(2, 31)
    with pytest.raises(LocalError, match="RandAugment"):
        RandAugment(-1, 3)
    with pytest.raises(LocalError, match="colour jitter"):
        ColorJitter(0.1, -0.1)
