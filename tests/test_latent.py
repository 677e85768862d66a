"""Neighbours of known embeddings; maps of molecules."""

import numpy as np
import pytest

from moleclip import datasets, figures, latent


def test_purity_by_hand():
    """Three classes on a circle: each molecule's two nearest are known."""
    angles = np.array([0, 1, 2, 90, 91, 180, 181, 182])
    embeddings = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)
    classes = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    # Of class 1, one neighbour is its fellow and the other of another class.
    assert latent.purity(embeddings, classes, 2) == pytest.approx((3 * 1 + 2 * 0.5 + 3 * 1) / 8)


def test_length_does_not_matter():
    rng = np.random.default_rng(0)
    embeddings, classes = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 3, 40)
    scaled = embeddings * rng.uniform(0.1, 10, (40, 1)).astype(np.float32)
    assert latent.purity(scaled, classes, 5) == pytest.approx(latent.purity(embeddings, classes, 5))


def test_equal_drawings_do_not_hide_a_molecule_from_itself():
    """Of copies, which one is found first is by chance: a molecule is never its own neighbour."""
    embeddings = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    assert latent.purity(embeddings, np.array([0, 1, 0, 1, 0, 1, 0, 1]), 3) == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def table():
    smiles = datasets.load("nci_5k").smiles[:40]
    return latent.maps({"one": "small/random"}, smiles, np.arange(40) % 4, seed=0)


def test_maps_hold_every_molecule(table):
    assert table["smiles"].tolist() == list(datasets.load("nci_5k").smiles[:40])
    assert table["chance"].iloc[0] == pytest.approx(9 / 39)
    assert np.isfinite(table[["x", "y"]]).all(axis=None)


def test_random_weights_have_a_seed():
    smiles = datasets.load("nci_5k").smiles[:4]
    first, again, other = (latent.embed("small/random", smiles, seed=seed) for seed in (0, 0, 1))
    assert np.allclose(first, again, atol=1e-6)  # the last bits depend on where in memory they are computed
    assert not np.allclose(first, other, atol=1e-3)


def test_the_same_embeddings_have_the_same_place():
    """Bit for bit; and two heaps stay two heaps."""
    embeddings = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    embeddings[:20] += 10 * np.eye(8, dtype=np.float32)[0]
    embeddings[20:] += 10 * np.eye(8, dtype=np.float32)[1]
    placed = latent.plane(embeddings, 0)
    assert np.array_equal(latent.plane(embeddings, 0), placed)
    assert latent.purity(placed - placed.mean(axis=0), np.arange(40) // 20, 5) > 0.9


def test_classes_are_told_apart_by_their_markers(table):
    figure = figures.maps(table)
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert len(set(markers)) == len(markers) == 5  # one is of the other classes, here none
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == 40
