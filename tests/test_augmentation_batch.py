"""Augmentation of batches: the distribution of the other implementation, whatever the batch."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from moleclip import augmentation, augmentation_batch, drawing

IMAGE = drawing.draw("CC(C)Cc1ccc(cc1)[C@H](N)C(=O)Cl", size=96)
RED = np.zeros((96, 96, 3), np.uint8) + np.array([200, 30, 30], np.uint8)


def batch(image: np.ndarray, level: str, count: int) -> np.ndarray:
    images = torch.from_numpy(image).expand(count, -1, -1, -1)
    return augmentation_batch.augment(images, level, augmentation_batch.keys(3, 1, torch.arange(count), 0)).numpy()


def one_by_one(image: np.ndarray, level: str, count: int) -> np.ndarray:
    return np.stack([augmentation.augment(image, level, np.random.default_rng(seed)) for seed in range(count)])


STATISTICS = {
    "ink": lambda images: 255 - images.mean((1, 2, 3)),
    "contrast": lambda images: images.std((1, 2, 3)),
    "white": lambda images: (images > 250).mean((1, 2, 3)),
    "roughness": lambda images: np.abs(np.diff(images.astype(int), axis=2)).mean((1, 2, 3)),
    "repeated columns": lambda images: (np.diff(images.astype(int), axis=2) == 0).mean((1, 2, 3)),
    "colour": lambda images: np.ptp(images, axis=3).astype(float).mean((1, 2)),
    "height of the ink's centre": lambda images: np.average(
        np.broadcast_to(np.arange(96), (len(images), 96)), axis=1, weights=255.1 - images.mean((2, 3))
    ),
}


@pytest.mark.parametrize("level", ["default", "intense", "intense_2024"])
def test_the_distribution_is_that_of_single_images(level):
    ours, theirs = batch(IMAGE, level, 600), one_by_one(IMAGE, level, 600)
    for name, statistic in STATISTICS.items():
        # Of values that come again and again, such as those of untouched images, last digits would tell apart.
        test = ks_2samp(*(np.round(statistic(images), 1) for images in (ours, theirs)))
        assert test.pvalue > 1e-4, name


@pytest.mark.parametrize("step", ["p_rotate", "p_downscale", "p_shrink", "p_blur", "p_grey"])
def test_each_step_is_that_of_opencv(step, monkeypatch):
    """One step at a time, with an amount that leaves nothing to chance."""
    alone = augmentation.Level(0, 0.75, 0, 0.05, 0, 0, 0, 0, 0, (0.75, 0.75))
    monkeypatch.setitem(augmentation.LEVELS, "alone", dataclasses.replace(alone, **{step: 1}))
    found = batch(IMAGE, "alone", 8).astype(int)
    u = augmentation_batch._uniform(augmentation_batch.keys(3, 1, torch.arange(8), 0), 14, 0).double().numpy()
    for image, numbers in zip(found, u, strict=True):
        if step == "p_rotate":
            expected = augmentation.rotate(IMAGE, 360 * numbers[augmentation_batch._ANGLE] - 180)
        elif step == "p_downscale":
            expected = augmentation.coarsen(IMAGE, 0.75)
        elif step == "p_shrink":
            small = int(96 * (0.75 + 0.25 * numbers[augmentation_batch._SCALE]))
            small_image = cv2.resize(IMAGE, (small, small), interpolation=cv2.INTER_AREA)
            top, left = (int(numbers[at] * (97 - small)) for at in (augmentation_batch._TOP, augmentation_batch._LEFT))
            margins = (top, 96 - small - top, left, 96 - small - left)
            expected = cv2.copyMakeBorder(small_image, *margins, cv2.BORDER_REPLICATE)
        elif step == "p_blur":
            expected = cv2.blur(IMAGE, (3, 3))
        else:
            expected = np.repeat(cv2.cvtColor(IMAGE, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        # OpenCV rotates by fractions of 1/32 of a pixel.
        assert np.abs(image - expected).max() <= (8 if step == "p_rotate" else 1)


def test_an_image_does_not_depend_on_its_batch():
    images = torch.from_numpy(np.stack([IMAGE, RED] * 40))
    keys = augmentation_batch.keys(0, 2, torch.arange(80), 1)
    whole = augmentation_batch.augment(images, "intense", keys)
    alone = augmentation_batch.augment(images[67:70], "intense", keys[67:70])
    assert torch.equal(whole[67:70], alone)
    assert not torch.equal(whole[0], whole[2])


def test_keys_tell_seed_epoch_molecule_and_view_apart():
    found = [
        augmentation_batch.keys(seed, epoch, torch.arange(1000), view)
        for seed in range(3)
        for epoch in range(3)
        for view in range(2)
    ]
    assert torch.cat(found).unique().numel() == 18 * 1000


def test_random_numbers_are_uniform_and_uncorrelated():
    u = augmentation_batch._uniform(augmentation_batch.keys(0, 0, torch.arange(200), 0), 5000, stream=0).double()
    assert ((u > 0) & (u < 1)).all()
    assert u.mean().item() == pytest.approx(0.5, abs=4 / np.sqrt(12e6))
    assert u.var().item() == pytest.approx(1 / 12, rel=0.005)
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 4e-3


def test_no_augmentation_changes_nothing():
    images = torch.from_numpy(IMAGE)[None]
    assert augmentation_batch.augment(images, "none", torch.zeros(1, dtype=torch.long)) is images
