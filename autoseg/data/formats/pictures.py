"""PNG, JPEG and BMP through Pillow: one plane, gray or colour, with or without transparency."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from autoseg.data.formats.pixels import Pixels
from autoseg.errors import UnreadableFileError
from autoseg.geometry import Grid

_AS_THEY_ARE = ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def read_picture(path: Path, *, labels: bool) -> Pixels:
    """A picture as (channel, 1, y, x), spacing 1 mm: dots per inch are no anatomy.

    Args:
        labels: a palette's indices are the values, not its colours.

    Raises:
        UnreadableFileError: truncated, damaged, not a picture, or gray of 16 bits with transparency.
    """
    from PIL import Image

    if _sixteen_bit_colour(path):
        from autoseg.data.formats.itk import read_itk  # Pillow would halve its depth

        return read_itk(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a section of tissue may well have 100 million pixels
        try:
            with Image.open(path) as image:
                values, alpha = _values(image, labels)
        except Image.DecompressionBombError:
            from autoseg.data.formats.itk import read_itk

            return read_itk(path)
        except (OSError, SyntaxError, ValueError) as error:
            message = f"it cannot be read as a picture ({str(error).replace(str(path), path.name)})"
            raise UnreadableFileError(message, file=path, remedy="Copy or export it again") from error
    values = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
    return Pixels(values[:, None], Grid((1, *values.shape[1:]), planar=True), placed=False, alpha=alpha)


def _values(image, labels: bool) -> tuple[np.ndarray, bool]:
    """An array (y, x) or (y, x, channel), and whether its last channel is transparency."""
    if image.mode == "P":
        transparent = "transparency" in image.info and not labels
        image = image if labels else image.convert("RGBA" if transparent else "RGB")
    elif image.mode not in _AS_THEY_ARE:
        image = image.convert("RGB")
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values, image.mode in ("LA", "RGBA")


def _sixteen_bit_colour(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits a channel with several channels.

    Raises:
        UnreadableFileError: they are gray and transparency, which no reader here knows.
    """
    with path.open("rb") as handle:
        head = handle.read(26)
    if not head.startswith(b"\x89PNG") or len(head) < 26 or head[24] != 16 or head[25] == 0:
        return False
    if head[25] == 4:
        raise UnreadableFileError(
            "it is gray of 16 bits with transparency, which is not read", file=path, remedy="Save it without transparency"
        )
    return True
