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


def test_maps_hold_every_molecule_and_are_the_same_again(table):
    smiles = list(datasets.load("nci_5k").smiles[:40])
    assert table["smiles"].tolist() == smiles
    assert table["chance"].iloc[0] == pytest.approx(9 / 39)
    again = latent.maps({"one": "small/random"}, smiles, np.arange(40) % 4, seed=0)
    assert np.array_equal(again[["x", "y"]], table[["x", "y"]])
    other = latent.embed("small/random", smiles, seed=1)
    assert not np.allclose(other, latent.embed("small/random", smiles, seed=0))


def test_classes_are_told_apart_by_their_markers(table):
    figure = figures.maps(table)
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert len(set(markers)) == len(markers) == 5  # one is of the other classes, here none
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == 40
