"""Read image files, and turn them into feature rows for training. Pillow and numpy are imported when first needed."""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from airflow_provider_osai.sandbox.models import ApiError

__all__ = ["features", "input_side", "load", "read", "store"]

MAX_SIDE = 16
"""Maximum width and height of a model's input in pixels; larger images are scaled down."""
GREY_TOLERANCE = 8
"""Maximum difference between the channels of a grey image (JPEG is not exact)."""
MAX_LEVEL = 2**16 - 1
"""The brightest level of an image with 16 bits per pixel."""


def store(file: IO[bytes], path: Path) -> str:
    """Write *file* to *path* and return its SHA-256.

    :raises ApiError: 400, if it cannot be decoded as an image, or has 32 bits per pixel, whose range is undefined.
    """
    from PIL import Image  # heavy

    digest = hashlib.sha256()
    with path.open("wb") as target:
        while chunk := file.read(2**16):
            digest.update(chunk)
            target.write(chunk)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                if exceeds_8_bits(image):
                    _to_8_bits(image)
                Image.new(image.mode, (1, 1)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        path.unlink(missing_ok=True)
        raise ApiError(400, "The file cannot be decoded as an image of 8 or 16 bits per channel") from None
    return digest.hexdigest()


def read(path: Path) -> Any:
    """Return an image with its EXIF orientation applied and 8 bits per channel: grey (``L``) or ``RGB``.

    :raises ValueError: if it has 32 bits per pixel.
    """
    from PIL import Image, ImageOps  # heavy

    with Image.open(path) as opened:
        opened.load()
        try:
            image = ImageOps.exif_transpose(opened)
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):  # invalid EXIF is ignored
            image = opened.copy()
    if exceeds_8_bits(image):
        image = _to_8_bits(image)
    return image if image.mode == "L" else image.convert("RGB")


def exceeds_8_bits(image: Any) -> bool:
    """Whether a grey image has more than 8 bits per pixel, which Pillow would clip rather than scale."""
    return str(image.mode).startswith(("I", "F"))


def _to_8_bits(image: Any) -> Any:
    import numpy as np  # heavy
    from PIL import Image  # heavy

    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > MAX_LEVEL:
        msg = "Images with 32 bits per pixel are not supported, since their range is undefined; use 8 or 16 bits"
        raise ValueError(msg)
    return Image.fromarray((levels // (MAX_LEVEL // 255)).astype(np.uint8))


def input_side(paths: Sequence[Path]) -> int:
    """Return the width and height in pixels of the input of a model for these images."""
    from PIL import Image  # heavy

    largest = 1
    for path in paths:
        with Image.open(path) as image:
            largest = max(largest, *image.size)
        if largest >= MAX_SIDE:
            break
    return min(MAX_SIDE, largest)


def load(paths: Sequence[Path], side: int, on_image: Callable[[], object]) -> Any:
    """Return the images as one array (image, row, column, channel) of bytes.

    :param on_image: called before each image.
    """
    import numpy as np  # heavy

    pixels = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        on_image()
        pixels[index] = np.asarray(read(path).convert("RGB").resize((side, side)))
    return pixels


def has_colour(pixels: Any) -> bool:
    """Whether any of the images is not grey."""
    return bool(pixels.size) and int((pixels.max(axis=-1) - pixels.min(axis=-1)).max()) > GREY_TOLERANCE


def features(pixels: Any, colour: bool) -> Any:
    """Return one row of pixel values (0-255, float32) for each image."""
    import numpy as np  # heavy

    channels = pixels if colour else pixels.mean(axis=-1)
    return channels.reshape(len(pixels), -1).astype(np.float32)
