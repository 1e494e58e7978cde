"""Small JPEGs in base64, for records and pages that need no other file."""

import base64
import io

import numpy as np
from PIL import Image

HEIGHT = 192
JPEG_QUALITY = 87


def thumbnail(image: np.ndarray) -> str:
    """Encode an image of (H, W, 3) uint8 as a JPEG of at most `HEIGHT` rows, in base64."""
    picture = Image.fromarray(image)
    picture.thumbnail((4 * HEIGHT, HEIGHT))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
