"""Images that clients send: untrusted bytes to pixels of the size that is drawn.

Called while a request is prepared, off the event loop and off the executor's thread. The header is read
first: what is too large is refused before a pixel is decoded.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from pipelines.contract import ByteArray
from pipelines.errors import InvalidRequest
from pipelines.limits import MAX_IMAGE_BYTES

MAX_PIXELS: Final = 1 << 22
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_WHITE: Final = (255, 255, 255, 255)


def decode_reference(data: bytes, field: str, width: int, height: int) -> ByteArray:
    """uint8 (height, width, 3). The image is turned upright, put on white where it is transparent, and fills
    the size asked for, cut at the edges that are too long.

    Raises: InvalidRequest naming the field and the limit.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidRequest(field, f"at most {MAX_IMAGE_BYTES} bytes, not {len(data)}")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            _check_size(picture.size, field)
            upright = ImageOps.exif_transpose(picture)
            fitted = ImageOps.fit(_opaque(upright), (width, height), Image.Resampling.LANCZOS)
    except Image.DecompressionBombError as error:
        raise InvalidRequest(field, f"at most {MAX_PIXELS} pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError) as error:
        raise InvalidRequest(field, "must be a whole PNG, JPEG or WebP image") from error
    return np.asarray(fitted)


def _check_size(size: tuple[int, int], field: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidRequest(field, f"at most {MAX_PIXELS} pixels, not {size[0]} x {size[1]}")


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, _WHITE), seen).convert("RGB")
