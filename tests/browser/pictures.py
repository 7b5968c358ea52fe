"""Pictures of the docs without their empty margins."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops

__all__ = ["GRAPH_ONLY", "trim"]

GRAPH_ONLY = (
    ".react-flow__panel, .react-flow__background, button:not(.react-flow__node *) { visibility: hidden !important }"
)
"""Style that leaves only the tasks of a graph: no controls, no map, no dots."""


def trim(path: Path, *, margin: int = 16, bottom_only: bool = False) -> None:
    """Cut off what has the color of the picture's last pixel, but for a margin.

    :param path: the picture, which is overwritten.
    :param margin: pixels that stay around the content, as far as there are any.
    :param bottom_only: keep the width and the top, so that pictures of pages have one scale.
    """
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    plain = Image.new("RGB", picture.size, picture.getpixel((width - 1, height - 1)))
    content = ImageChops.difference(picture, plain).getbbox()
    if content is None:
        raise ValueError(f"{path.name} is empty")
    left, top, right, bottom = content
    if bottom_only:
        left, top, right = 0, 0, width
    box = (max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin))
    picture.crop(box).save(path, optimize=True)
