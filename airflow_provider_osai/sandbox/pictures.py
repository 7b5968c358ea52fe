"""What the sandbox does with image files. Pillow and numpy are imported when they are first needed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from airflow_provider_osai.sandbox.records import Refused

__all__ = ["features", "load", "side_for", "store"]

MAX_SIDE = 16
"""Pixels of the longer side that a model looks at; larger images are made smaller."""
GREY_TOLERANCE = 8
"""How far apart the three channels of a grey image may lie (JPEG is not exact)."""


def store(file: IO[bytes], path: Path) -> str:
    """Write *file* to *path* and return its SHA-256; 400 if it is no image that can be decoded."""
    from PIL import Image  # noqa: PLC0415 - heavy

    digest = hashlib.sha256()
    with path.open("wb") as target:
        while piece := file.read(2**16):
            digest.update(piece)
            target.write(piece)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        path.unlink(missing_ok=True)
        raise Refused(400, "the file is no image that can be decoded") from None
    return digest.hexdigest()


def side_for(paths: Sequence[Path]) -> int:
    """Return how many pixels wide and high a model for these images should see them."""
    from PIL import Image  # noqa: PLC0415 - heavy

    largest = 1
    for path in paths:
        with Image.open(path) as image:
            largest = max(largest, *image.size)
        if largest >= MAX_SIDE:
            break
    return min(MAX_SIDE, largest)


def load(paths: Sequence[Path], side: int, each: Callable[[], None]) -> Any:
    """Return the images as one array (image, row, column, channel) of bytes; *each* is called before every image."""
    import numpy as np  # noqa: PLC0415 - heavy
    from PIL import Image  # noqa: PLC0415 - heavy

    pixels = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        each()
        with Image.open(path) as image:
            pixels[index] = np.asarray(image.convert("RGB").resize((side, side)))
    return pixels


def has_colour(pixels: Any) -> bool:
    """Whether the images need all three channels."""
    return bool(pixels.size) and int((pixels.max(axis=-1) - pixels.min(axis=-1)).max()) > GREY_TOLERANCE


def features(pixels: Any, colour: bool) -> Any:
    """Return one row of pixel values (0-255, float32) for each image."""
    import numpy as np  # noqa: PLC0415 - heavy

    seen = pixels if colour else pixels.mean(axis=-1)
    return seen.reshape(len(pixels), -1).astype(np.float32)
