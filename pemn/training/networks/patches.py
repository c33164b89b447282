"""Images cut into square patches, as ConvMixer and ViT see them."""

from __future__ import annotations

from pemn.errors import ConfigError


def patch_grid(input_shape: tuple[int, int, int], patch: int, architecture: str) -> tuple[int, int]:
    """Returns how many patches an image has, down and across.

    Args:
        input_shape: (channels, height, width) of one image.
        patch: Side of a patch in pixels.
        architecture: The network's name, for the error.

    Raises:
        ConfigError: If pixels would be left over.
    """
    _, height, width = input_shape
    if height % patch or width % patch:
        raise ConfigError(
            "image size", got=input_shape, wanted=f"sides that are multiples of {patch}", where=architecture
        )
    return height // patch, width // patch
