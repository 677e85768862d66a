"""Image-level augmentation of molecule drawings (paper, Methods; ESI)."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import ndtri

from moleclip.drawing import Image


@dataclass(frozen=True)
class Level:
    """Strength of each step; `p_` is the probability that a step is taken."""

    p_shrink: float
    shrink: float  # smallest size of the shrunken drawing, relative to the image
    p_dropout: float
    dropout: float  # fraction of dropped pixels
    p_blur: float
    p_noise: float
    p_grey: float = 0.25
    p_rotate: float = 0.0
    p_downscale: float = 0.0
    downscale: tuple[float, float] = (1.0, 1.0)  # range of the factor


VARIANCE = (10, 50)  # of noise, at all levels
LEVELS = {
    "none": None,
    "default": Level(0.5, 0.6, 0.3, 0.01, 0.3, 0.3, p_downscale=0.75, downscale=(0.7, 0.85)),
    "intense": Level(0.75, 0.5, 0.5, 0.05, 0.5, 0.5, p_rotate=0.5),
    # The form of the runs of 2024, before the authors removed the downscaling.
    "intense_2024": Level(
        0.75, 0.5, 0.5, 0.05, 0.5, 0.5, p_grey=0.5, p_rotate=0.5, p_downscale=0.75, downscale=(0.5, 0.75)
    ),
}


def augment(image: Image, level: str, rng: np.random.Generator) -> Image:
    """Augment one drawing.

    DEVIATION: the shrunken size is drawn for every image; the authors' code draws it once per run.

    Parameters
    ----------
    image : ndarray of uint8, shape [H, W, 3]
        Dark lines on white; not changed.
    level : {"none", "default", "intense", "intense_2024"}
    rng : Generator
        The only source of randomness.

    Returns
    -------
    ndarray of uint8, shape [H, W, 3]

    Raises
    ------
    KeyError
        The level is unknown.
    """
    if level not in LEVELS:
        raise KeyError(f"unknown augmentation {level!r}: known are {', '.join(LEVELS)}")
    step = LEVELS[level]
    if step is None:
        return image
    if rng.random() < step.p_rotate:
        image = rotate(image, rng.uniform(-180, 180))
    if rng.random() < step.p_downscale:
        image = coarsen(image, rng.uniform(*step.downscale))
    if rng.random() < step.p_shrink:
        image = shrink(image, rng.uniform(step.shrink, 1), rng)
    # The authors drop pixels of the inverted image, too: those turn white.
    for value in (255, 0):
        if rng.random() < step.p_dropout:
            image = drop_pixels(image, step.dropout, rng, value)
    if rng.random() < step.p_blur:
        image = np.asarray(cv2.blur(image, (3, 3)), np.uint8)
    if rng.random() < step.p_noise:
        image = add_noise(image, rng.uniform(*VARIANCE), rng)
    if rng.random() < step.p_grey:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    return image


def rotate(image: Image, degrees: float) -> Image:
    """Rotate about the centre; the border is replicated."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def coarsen(image: Image, factor: float) -> Image:
    """Scale down by area, then up to the old size by nearest neighbour."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (int(width * factor), int(height * factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def shrink(image: Image, scale: float, rng: np.random.Generator) -> Image:
    """Scale down by `scale`, and pad back at a random position, replicating the border."""
    height, width = image.shape[:2]
    new_height, new_width = int(height * scale), int(width * scale)
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    top = int(rng.integers(height - new_height + 1))
    left = int(rng.integers(width - new_width + 1))
    bottom, right = height - new_height - top, width - new_width - left
    return np.asarray(cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def drop_pixels(image: Image, fraction: float, rng: np.random.Generator, value: int = 0) -> Image:
    """Set each pixel to `value`, all channels together, with probability `fraction`."""
    count = image.shape[0] * image.shape[1]
    dropped = image.copy()
    # How many, and then which: far fewer random numbers than one a pixel, and the same distribution.
    where = rng.choice(count, rng.binomial(count, fraction), replace=False, shuffle=False)
    dropped.reshape(count, -1)[where] = value
    return dropped


def add_noise(image: Image, variance: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise of this variance (on the scale 0..255), round to nearest and saturate.

    Noise of whole levels is rounded noise. A random byte looks it up in a table of its channel, of 256 quantiles at
    random within 256 steps of equal probability: each pixel's noise is distributed as if drawn by itself.
    """
    steps = (np.arange(256)[:, None] + rng.random((256, image.shape[2]))) / 256
    table = np.clip(np.rint(ndtri(steps) * np.sqrt(variance)), -127, 127).astype(np.int8)
    numbers = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return np.asarray(cv2.add(image, cv2.LUT(numbers, table[None]), dtype=cv2.CV_8U), np.uint8)
