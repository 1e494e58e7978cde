"""What a camera does to a picture: cast, saturation, exposure, sharpness, noise and JPEG.

The spread between cameras is measured on PKU-Reid (Ma et al., arXiv:1605.02464): the torso's log gain between its two
cameras is R +0.50, G +0.45, B +0.33, with 0.3 deviation from image to image; mean saturation 96 against 50.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray

GAIN_SPAN = np.array([0.50, 0.45, 0.33])  # log gain between the darkest and the brightest camera
GAIN_DEVIATION = 0.3  # of log gain from image to image


@dataclass(frozen=True)
class Camera:
    """One camera's own look. Gains are logarithms; ``detail`` is the share of the pixels its sensor resolves."""

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
    light: float  # the side the light comes from, -1..1
    shadow: float


def make_cameras(count: int, seed: int) -> list[Camera]:
    """``count`` cameras; the gains of the first and last in brightness differ by ``GAIN_SPAN`` and a tint."""
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
            sharpen=float(rng.choice([0.0, 60.0, 140.0])),
            noise=float(rng.uniform(0.008, 0.03)),
            vignette=float(rng.uniform(-0.15, 0.15)),
            quality=int(rng.integers(60, 92)),
            tilt=float(rng.uniform(0.08, 0.32)),
            light=float(rng.uniform(-1, 1)),
            shadow=float(rng.uniform(0.1, 0.5)),
        )
        for i in range(count)
    ]


def develop(picture: Array, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """The photo that ``camera`` takes of a scene, (H, W, 3) float32 in 0..1."""
    height, width = picture.shape[:2]
    common = rng.normal(0, 0.93 * GAIN_DEVIATION)
    gain = camera.gain + common + rng.normal(0, 0.36 * GAIN_DEVIATION, 3)
    light = picture * np.exp(gain).astype(np.float32)
    luma = light @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = np.float32(camera.saturation * np.exp(rng.normal(0, 0.08)))
    light = luma[..., None] + saturation * (light - luma[..., None])
    light = 0.45 + np.float32(camera.contrast) * (light - 0.45)
    light = np.where(
        light > 0.75, 1 - 0.25 * np.exp(np.minimum((0.75 - light) * 4, 0)), light
    )  # highlights roll off
    fall = np.linspace(-camera.vignette, camera.vignette, height, dtype=np.float32)[:, None, None]
    grain = rng.standard_normal((height, width, 1), np.float32) + 0.5 * rng.standard_normal(
        (height, width, 3), np.float32
    )
    light = light * (1 + fall) + np.float32(camera.noise) * grain
    image = Image.fromarray((np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8))
    detail = camera.detail * float(rng.uniform(0.75, 1.0))  # people far away have fewer pixels
    small = (max(int(width * detail), 8), max(int(height * detail), 16))
    image = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BILINEAR)
    blur = camera.blur * float(rng.uniform(0.6, 1.4))
    if blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if camera.sharpen:
        image = image.filter(ImageFilter.UnsharpMask(1.2, int(camera.sharpen), 2))
    return image


def encode(image: Image.Image, camera: Camera, rng: np.random.Generator) -> bytes:
    """The photo as JPEG, at the camera's quality give or take."""
    stream = io.BytesIO()
    quality = int(np.clip(camera.quality + rng.integers(-8, 9), 40, 96))
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
