"""Decode images in parallel, with bounded memory, and keep of each the few facts that the rules need."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from airflow_provider_osai.data.images import HEAD, is_image
from airflow_provider_osai.data.local_files import UnreadableFile
from airflow_provider_osai.data.quality.options import QualityOptions
from airflow_provider_osai.data.scan import NOT_AN_IMAGE
from airflow_provider_osai.data.sources import Opener, Source

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFacts", "PerceptualHash", "PixelBudget", "decode_images", "perceptual_hash_or_none", "scaled_down"]

FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
"""Pillow's names of the formats that an upload accepts. No other decoder is run on a user's file."""
STRIP_PIXELS: Final = 1 << 20
"""Pixels that are converted at once when the pixels of an image are hashed."""
HASH_SIDE: Final = 16
SCALED_SIDE: Final = 128
"""Minimum shorter side in pixels of the scaled image whose perceptual hash is computed, if the image is larger."""
BLANK_RANGE: Final = 3
"""Maximum difference of the darkest and brightest value (of 255) of each channel of a blank image."""
ORIENTATION_TAG: Final = 0x0112
PerceptualHash = Callable[[Any], bytes]
"""Returns the perceptual hash, 32 bytes, of a Pillow image."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image after it was decoded.

    :param name: the name relative to the source.
    :param problem: the code of the finding, if the image was not decoded.
    :param reason: why it was not decoded.
    :param format: Pillow's name of the format.
    :param mode: Pillow's mode; ``16-bit <mode>`` for more than 8 bits per channel.
    :param width: the stored width in pixels, before any EXIF rotation.
    :param height: the stored height in pixels.
    :param orientation: the EXIF orientation, 1 to 8.
    :param is_animated: whether there are several frames.
    :param is_transparent: whether a pixel is not opaque.
    :param is_blank: whether all pixels have the same colour.
    :param digest: equal for images with identical pixels, whatever their format.
    :param perceptual_hash: similar for images that look alike; empty if it was not computed.
    """

    name: str
    problem: str = ""
    reason: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    is_animated: bool = False
    is_transparent: bool = False
    is_blank: bool = False
    digest: bytes = b""
    perceptual_hash: bytes = b""


class PixelBudget:
    """Limits the pixels that are decoded at the same time: large images wait for each other, small ones do not.

    :param limit: maximum pixels; an image with more is decoded alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until *pixels* fit, and reserve them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= self._limit)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


def perceptual_hash_or_none() -> PerceptualHash | None:
    """Return the function that computes perceptual hashes; ``None`` if ImageHash is not installed."""
    try:
        import imagehash
    except ImportError:
        return None

    def compute(image: Any) -> bytes:
        bits = imagehash.phash(image, hash_size=HASH_SIDE).hash
        return bytes.fromhex(f"{int(''.join('1' if bit else '0' for bit in bits.flatten()), 2):064x}")

    return compute


def decode_images(
    source: Source,
    names: Collection[str],
    options: QualityOptions,
    perceptual_hash: PerceptualHash | None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[ImageFacts]:
    """Decode images in ``options.workers`` threads, and yield their facts in the order of the source.

    Pillow releases Python's global lock while it decodes. At most two files per thread are open, and the images that
    are decoded at the same time have at most ``options.max_pixels`` pixels together.

    :param names: the images.
    :param perceptual_hash: computes perceptual hashes; ``None``: they are not needed.
    :param is_stopped: whether to end early.
    """
    from PIL import Image

    Image.init()  # loads the decoders: not safe in several threads
    budget = PixelBudget(options.max_pixels)
    pending: deque[Future[ImageFacts]] = deque()
    pool = ThreadPoolExecutor(options.workers, thread_name_prefix="osai-decode")
    try:
        for name, opener in source.walk(names):
            if is_stopped():
                return
            pending.append(pool.submit(_facts, name, opener, options, budget, perceptual_hash))
            if len(pending) >= 2 * options.workers:
                yield pending.popleft().result()
        while pending and not is_stopped():
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _facts(
    name: str, opener: Opener, options: QualityOptions, budget: PixelBudget, perceptual_hash: PerceptualHash | None
) -> ImageFacts:
    try:
        file = opener()
    except UnreadableFile as error:
        return ImageFacts(name, "invalid-file", str(error))
    with file:
        head = file.read(HEAD)
        if not head:
            return ImageFacts(name, "empty-file")
        if not is_image(head):
            return ImageFacts(name, "unsupported-format", NOT_AN_IMAGE)
        file.seek(0)
        try:
            return _decode(name, file, options, budget, perceptual_hash)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises many types for broken images
            return ImageFacts(name, "unreadable-image", _reason(error))


def _reason(error: Exception) -> str:
    text = str(error)
    # Pillow's message for an unknown header ends with the repr of the file object.
    return "not a valid image" if not text or "cannot identify image file" in text else text[:200]


def _decode(
    name: str, file: IO[bytes], options: QualityOptions, budget: PixelBudget, perceptual_hash: PerceptualHash | None
) -> ImageFacts:
    from PIL import Image

    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        return ImageFacts(name, "image-too-large", f"more than {options.max_pixels:,} pixels")
    with image:
        pixels = image.width * image.height
        if pixels > options.max_pixels:
            reason = f"{image.width:,} x {image.height:,}, more than {options.max_pixels:,} pixels"
            return ImageFacts(name, "image-too-large", reason)
        is_deep = _is_deep(image)  # while the decoder's settings are there: loading removes them
        with budget.reserve(pixels):
            image.load()
            is_animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
            is_blank = _is_blank(image)
            return ImageFacts(
                name,
                format="JPEG" if image.format == "MPO" else str(image.format),
                mode=f"16-bit {image.mode}" if is_deep else image.mode,
                width=image.width,
                height=image.height,
                orientation=_orientation(image),
                is_animated=is_animated,
                is_transparent=_is_transparent(image),
                is_blank=is_blank,
                digest=_pixel_digest(image, file if is_animated else None),
                perceptual_hash=b""
                if is_blank or perceptual_hash is None
                else perceptual_hash(scaled_down(image, SCALED_SIDE)),
            )


def _is_deep(image: Image.Image) -> bool:
    """Return whether a channel has more than 8 bits; Pillow reduces some such images to 8 bits."""
    return image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF data; software ignores it
        return 1
    return value if value in range(1, 9) else 1


def _is_transparent(image: Image.Image) -> bool:
    if "transparency" in image.info and image.mode not in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
    return "A" in image.getbands() and _extrema(image.getchannel("A"))[0][0] < 255


def _is_blank(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    spread = BLANK_RANGE if not image.mode.startswith(("I", "F")) else 0
    bands = zip(image.getbands(), _extrema(image), strict=True)
    return all(high - low <= spread for band, (low, high) in bands if band != "A")


def _extrema(image: Image.Image) -> tuple[tuple[float, float], ...]:
    """Return the lowest and the highest value of each channel."""
    extrema: Any = image.getextrema()
    return extrema if isinstance(extrema[0], tuple) else (extrema,)


def _pixel_digest(image: Image.Image, file: IO[bytes] | None) -> bytes:
    """Return a digest of the pixels, and of the whole file if it is given."""
    digest = hashlib.blake2b(f"{image.width}x{image.height}".encode(), digest_size=16)
    rows = max(1, STRIP_PIXELS // max(1, image.width))
    is_deep = image.mode.startswith(("I", "F"))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        digest.update((strip if is_deep else strip.convert("RGBA")).tobytes())
    if file is not None:
        file.seek(0)
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.digest()


def scaled_down(image: Image.Image, side: int) -> Image.Image:
    """Return an upright 8-bit RGB copy whose shorter side has about *side* pixels, or fewer if the image has."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):
        ((low, high),) = _extrema(image)
        factor = 255 / (high - low) if high > low else 1.0
        upright = image.convert("F").point(lambda value: value * factor - low * factor).convert("L")
        upright.info = dict(image.info)
        image = upright
    elif image.mode in ("1", "P", "PA", "La", "RGBa"):
        image = image.convert("RGB")
    factor_down = min(image.width, image.height) // side
    if factor_down > 1:
        image = image.reduce(factor_down)
    return ImageOps.exif_transpose(image.convert("RGB"))
