"""What the sandbox does with image files. Pillow and numpy are imported when they are first needed."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from airflow_provider_osai.sandbox.records import JobProblem, Refused

__all__ = ["features", "load", "operation_name", "side_for", "store", "variants"]

MAX_SIDE = 16
"""Pixels of the longer side that a model looks at; larger images are made smaller."""
GREY_TOLERANCE = 8
"""How far apart the three channels of a grey image may lie (JPEG is not exact)."""
MAX_GENERATED = 35
"""Rotated images that OSAI makes of one image at the most (docs.onestepai.com/datasets/data_augumentation)."""


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


def operation_name(operation: dict[str, Any]) -> str:
    """Return what an operation of a manipulation is called, folded."""
    return str(operation.get("type") or operation.get("operation") or operation.get("name") or "").strip().casefold()


def variants(image: Any, operations: Sequence[dict[str, Any]], chance: random.Random) -> Iterator[Any]:
    """Yield what the operations, in their order, make of one image: itself first, then what they generate."""
    if not operations:
        yield image
        return
    first, rest = operations[0], operations[1:]
    change = OPERATIONS.get(operation_name(first))
    for changed in change(image, first, chance) if change else (image,):
        yield from variants(changed, rest, chance)


def _number(operation: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(operation.get(name, default))
    except (TypeError, ValueError):
        value = float("nan")
    if not low <= value <= high:
        msg = f"{operation_name(operation)}: {name} = {operation.get(name)!r} is not between {low:g} and {high:g}"
        raise JobProblem(msg)
    return value


def _rotate(image: Any, operation: dict[str, Any], chance: random.Random) -> Iterator[Any]:
    angle = _number(operation, "angle", 15, -360, 360)
    yield image
    for _ in range(int(_number(operation, "generate", 1, 0, MAX_GENERATED))):
        yield image.rotate(chance.uniform(-angle, angle))


def _brighten(image: Any, operation: dict[str, Any], chance: random.Random) -> Iterator[Any]:
    from PIL import ImageEnhance  # noqa: PLC0415 - heavy

    contrast = _number(operation, "contrast", 1, 0.1, 3)
    spread = _number(operation, "brightness", 25, 0, 255) / 255
    yield image
    for _ in range(int(_number(operation, "generate", 1, 0, MAX_GENERATED))):
        lit = ImageEnhance.Brightness(image).enhance(1 + chance.uniform(-spread, spread))
        yield ImageEnhance.Contrast(lit).enhance(contrast)


def _resize(image: Any, operation: dict[str, Any], _chance: random.Random) -> Iterator[Any]:
    width = _number(operation, "width", image.width, 1, 4096)
    height = _number(operation, "height", image.height, 1, 4096)
    yield image.resize((int(width), int(height)))


OPERATIONS: dict[str, Callable[[Any, dict[str, Any], random.Random], Iterator[Any]]] = {
    "rotation": _rotate,
    "rotate": _rotate,
    "brightness": _brighten,
    "brightness_contrast": _brighten,
    "contrast": _brighten,
    "resize": _resize,
}
