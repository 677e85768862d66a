"""Augmentation: shares, sizes and noise over many draws, against the numbers of the method."""

import cv2
import numpy as np
import pytest
from scipy.stats import norm

from moleclip import augmentation, drawing

IMAGE = drawing.draw("CC(C)Cc1ccc(cc1)C(C)C(=O)O")
WHITE = np.full((224, 224, 3), 255, np.uint8)


def draws(image: np.ndarray, level: str, count: int) -> list[np.ndarray]:
    return [augmentation.augment(image, level, np.random.default_rng(seed)) for seed in range(count)]


def within(found: float, expected: float, count: int) -> bool:
    """Within four standard errors of a share."""
    return abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_none_changes_nothing():
    assert augmentation.augment(IMAGE, "none", np.random.default_rng(0)) is IMAGE


def test_the_input_is_left_alone_and_the_generator_decides():
    before = IMAGE.copy()
    once, again = (augmentation.augment(IMAGE, "intense", np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(IMAGE, before)
    assert once.dtype == np.uint8
    assert once.shape == IMAGE.shape


@pytest.mark.parametrize(("level", "share"), [("default", 0.25), ("intense", 0.25), ("intense_2024", 0.5)])
def test_share_of_grey_images(level, share):
    red = np.zeros((64, 64, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
    grey = np.mean([np.ptp(image, axis=2).max() == 0 for image in draws(red, level, 1500)])
    assert within(grey, share, 1500)


@pytest.mark.parametrize(("level", "p", "share"), [("default", 0.3, 0.01), ("intense", 0.5, 0.05)])
def test_share_of_dropped_pixels(level, p, share, monkeypatch):
    # On white, what is dropped before the image is inverted back stays white: only the second drop-out shows.
    for step in ("add_noise", "shrink"):
        monkeypatch.setattr(augmentation, step, lambda image, *_: image)
    monkeypatch.setattr(cv2, "blur", lambda image, _: image)
    dropped = np.array([(image == 0).all(axis=2).mean() for image in draws(WHITE, level, 800)])
    assert within((dropped > 0).mean(), p, 800)
    assert dropped[dropped > 0].mean() == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize(("level", "p", "smallest"), [("default", 0.5, 0.6), ("intense", 0.75, 0.5)])
def test_sizes_of_shrunken_drawings(level, p, smallest, monkeypatch):
    shares = []
    original = augmentation.shrink
    monkeypatch.setattr(
        augmentation, "shrink", lambda image, share, rng: shares.append(share) or original(image, share, rng)
    )
    draws(IMAGE, level, 1000)
    assert within(len(shares) / 1000, p, 1000)
    assert smallest <= min(shares) < smallest + 0.01
    assert 0.99 < max(shares) < 1


def test_shrinking_pads_with_the_border_and_keeps_the_drawing():
    ink = 255 - IMAGE
    small = augmentation.shrink(ink, 0.5, np.random.default_rng(0))
    assert small.shape == ink.shape
    assert small.astype(int).sum() == pytest.approx(ink.astype(int).sum() / 4, rel=0.05)


@pytest.mark.parametrize("variance", [10.0, 50.0])
def test_noise_has_the_asked_variance(variance):
    grey = np.full((224, 224, 3), 128, np.uint8)
    noise = augmentation.add_noise(grey, variance, np.random.default_rng(0)).astype(float) - 128
    # Rounding to whole levels adds 1/12.
    assert noise.var() == pytest.approx(variance + 1 / 12, rel=0.02)
    assert abs(noise.mean()) < 0.1


def test_noise_is_rounded_normal_noise_of_independent_pixels():
    grey = np.full((224, 224, 3), 128, np.uint8)
    noise = np.stack([augmentation.add_noise(grey, 16, np.random.default_rng(seed)) for seed in range(40)]) - 128.0
    levels = np.arange(-12, 13)
    shares = np.array([(noise == level).mean() for level in levels])
    expected = norm.cdf((levels + 0.5) / 4) - norm.cdf((levels - 0.5) / 4)
    # A channel of an image has 256 quantiles.
    assert np.all(np.abs(shares - expected) < 4 * np.sqrt(expected / (256 * 3 * 40)))
    for a, b in ((noise[:, 1:], noise[:, :-1]), (noise[:, :, 1:], noise[:, :, :-1]), (noise[..., 0], noise[..., 1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_noise_variances_span_10_to_50(monkeypatch):
    seen = []
    monkeypatch.setattr(augmentation, "add_noise", lambda image, variance, rng: seen.append(variance) or image)
    draws(IMAGE, "default", 1000)
    assert within(len(seen) / 1000, 0.3, 1000)
    assert 10 <= min(seen) < 11
    assert 49 < max(seen) <= 50


def test_coarsening_repeats_pixels_but_keeps_the_mean():
    coarse = augmentation.coarsen(IMAGE, 0.5)
    assert np.array_equal(coarse[::2], coarse[1::2])
    assert coarse.mean() == pytest.approx(IMAGE.mean(), abs=0.5)


def test_rotation_by_90_degrees_is_exact():
    assert np.array_equal(augmentation.rotate(IMAGE, 90), np.rot90(IMAGE))


def test_unknown_level():
    with pytest.raises(KeyError, match="intense"):
        augmentation.augment(IMAGE, "strong", np.random.default_rng(0))
