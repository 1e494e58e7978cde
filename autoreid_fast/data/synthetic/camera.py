"""Cameras: colour cast, saturation, exposure, sharpness, noise and JPEG quality.

The differences between cameras were measured on PKU-Reid (Ma et al., arXiv:1605.02464): the torso's log gain
between its two cameras is R +0.50, G +0.45, B +0.33, with a standard deviation of 0.3 between images; the
mean saturations are 96 and 50.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray

GAIN_SPAN = np.array([0.50, 0.45, 0.33])  # log gain between the darkest and the brightest camera
GAIN_DEVIATION = 0.3  # standard deviation of the log gains between images, mostly common to the three
TINT_DEVIATION = 0.06


@dataclass(frozen=True)
class Camera:
    """Properties of one camera; ``detail`` is the fraction of the pixels that its lens resolves."""

    gain: Array  # (3,) log gain of R, G, B
    saturation: float
    contrast: float
    detail: float
    blur: float
    sharpen: float
    noise: float
    vignette: float
    quality: int
    tilt: float
    light: float  # direction of the light, -1 left .. 1 right
    shadow: float


def make_cameras(count: int, seed: int) -> list[Camera]:
    """Draw ``count`` cameras; the brightest and the darkest differ by ``GAIN_SPAN`` and a tint."""
    rng = np.random.default_rng([seed, 5001])
    places = np.linspace(-0.5, 0.5, count)[rng.permutation(count)] if count > 1 else np.zeros(1)
    colourfulness = np.linspace(0.62, 1.2, count)[rng.permutation(count)] if count > 1 else np.ones(1)
    sharpness = np.linspace(0.0, 1.0, count)[rng.permutation(count)] if count > 1 else np.ones(1)
    return [
        Camera(
            gain=places[i] * GAIN_SPAN + rng.normal(0, 0.05, 3),
            saturation=float(colourfulness[i]),
            contrast=float(rng.uniform(0.85, 1.2)),
            detail=float(0.5 + 0.5 * sharpness[i]),
            blur=float(0.9 - 0.7 * sharpness[i]),
            sharpen=float(rng.choice([0.0, 0.5, 1.0])),
            noise=float(rng.uniform(0.006, 0.022)),
            vignette=float(rng.uniform(-0.15, 0.15)),
            quality=int(rng.integers(60, 92)),
            tilt=float(rng.uniform(0.08, 0.32)),
            light=float(rng.uniform(-1, 1)),
            shadow=float(rng.uniform(0.1, 0.5)),
        )
        for i in range(count)
    ]


def develop(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Turn a drawn scene into a photo by ``camera``, RGB of the same size."""
    width, height = picture.size
    detail = camera.detail * float(rng.uniform(0.75, 1.0))  # distant people have fewer pixels
    small = (max(int(width * detail), 8), max(int(height * detail), 16))
    light = np.asarray(picture.resize(small, Image.Resampling.BOX), np.float32) * np.float32(1 / 255)
    luma = (
        light[..., :1] * np.float32(0.299)
        + light[..., 1:2] * np.float32(0.587)
        + light[..., 2:] * np.float32(0.114)
    )
    saturation = np.float32(camera.saturation * np.exp(rng.normal(0, 0.08)))
    exposure = rng.normal(0, np.sqrt(GAIN_DEVIATION**2 - TINT_DEVIATION**2))
    gain = np.exp(camera.gain + exposure + rng.normal(0, TINT_DEVIATION, 3)).astype(np.float32)
    light -= luma
    light *= saturation
    light += luma
    light *= gain * np.float32(camera.contrast)
    light += np.float32(0.45 * (1 - camera.contrast))
    light *= 1 + np.linspace(-camera.vignette, camera.vignette, small[1], dtype=np.float32)[:, None, None]
    over = light > 0.75  # highlights roll off
    light[over] = 1 - 0.25 * np.exp((0.75 - light[over]) * 4)
    light += np.float32(camera.noise) * rng.standard_normal((small[1], small[0], 1), np.float32)
    light += np.float32(0.5 * camera.noise) * rng.standard_normal((small[1], small[0], 3), np.float32)
    light *= 255
    image = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.filter(_lens(camera.blur * float(rng.uniform(0.6, 1.4)), camera.sharpen))


def _lens(blur: float, sharpen: float) -> ImageFilter.Kernel:
    """Build a filter that blurs with a standard deviation of ``blur`` pixels, then sharpens."""
    square = np.add.outer(np.arange(-2, 3) ** 2, np.arange(-2, 3) ** 2)

    def gaussian(deviation: float) -> Array:
        weights = np.exp(-square / (2 * deviation**2))
        return weights / weights.sum()

    narrow = gaussian(max(blur, 0.2))
    weights = (1 + sharpen) * narrow - sharpen * gaussian(blur + 1.0)
    return ImageFilter.Kernel((5, 5), weights.ravel().tolist(), 1)


def encode(image: Image.Image, camera: Camera, rng: np.random.Generator) -> bytes:
    """Encode a photo as JPEG, near the camera's quality."""
    stream = io.BytesIO()
    quality = int(np.clip(camera.quality + rng.integers(-8, 9), 40, 96))
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
