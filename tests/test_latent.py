"""Neighbours of known embeddings; maps of molecules."""

import numpy as np
import pytest

from moleclip import datasets, encoder
from moleclip.explain import latent
from moleclip.plots import molecules


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


def test_difference_by_hand():
    """Two heaps: in each, the labels of a molecule's two nearest are known."""
    embeddings = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]], np.float32)
    labels = np.array([0.0, 1.0, 2.0, 10.0, 10.0, 13.0])
    near, chance = latent.difference(embeddings, labels, 2)
    assert near == pytest.approx(np.mean([1.5, 1, 1.5, 1.5, 1.5, 3]))
    pairs = [abs(a - b) for i, a in enumerate(labels) for j, b in enumerate(labels) if i != j]
    assert chance == pytest.approx(np.mean(pairs))


def test_molecules_without_a_label_are_no_neighbours():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.normal(size=40)
    labels[::4] = np.nan
    known = ~np.isnan(labels)
    assert latent.difference(embeddings, labels, 3) == latent.difference(embeddings[known], labels[known], 3)
    with pytest.raises(ValueError, match="2 molecules have a label: too few for 3 neighbours"):
        latent.difference(embeddings[known][:2], labels[known][:2], 3)


def test_labels_that_make_the_space_are_close_there_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, np.pi / 2, 300)
    embeddings = {"circle": np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)}
    classes = (angles > np.pi / 4).astype(np.int64)
    line = latent.neighbours(embeddings, classes, angles).iloc[0]
    assert line["difference"] < 0.1 * line["difference_chance"]
    assert line["purity"] > 0.95
    order = rng.permutation(300)
    line = latent.neighbours(embeddings, classes[order], angles[order]).iloc[0]
    assert line["difference"] == pytest.approx(line["difference_chance"], rel=0.1)
    assert line["purity"] == pytest.approx(line["purity_chance"], abs=0.1)


def test_an_encoder_embeds_as_its_source_does():
    smiles = datasets.load("nci_5k").smiles[:4]
    loaded = encoder.load("small/random", 5)
    assert np.allclose(latent.embed(loaded, smiles), latent.embed("small/random", smiles, 5), atol=1e-6)


def test_an_unknown_method_and_a_missing_package_are_named(monkeypatch):
    embeddings = np.eye(8, dtype=np.float32)
    with pytest.raises(ValueError, match="'pca': expected 'tsne' or 'umap'"):
        latent.plane(embeddings, 0, "pca")
    monkeypatch.setattr(latent, "has_umap", lambda: False)
    with pytest.raises(ModuleNotFoundError, match="pip install umap-learn"):
        latent.plane(embeddings, 0, "umap")


@pytest.mark.skipif(not latent.has_umap(), reason="needs umap-learn")
def test_umap_keeps_heaps_apart():
    embeddings = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    embeddings[:20] += 10 * np.eye(8, dtype=np.float32)[0]
    embeddings[20:] += 10 * np.eye(8, dtype=np.float32)[1]
    placed = latent.plane(embeddings, 0, "umap")
    assert latent.purity(placed - placed.mean(axis=0), np.arange(40) // 20, 5) > 0.9


def test_classes_are_told_apart_by_their_markers(table):
    figure = molecules.maps(table)
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert len(set(markers)) == len(markers) == 5  # one is of the other classes, here none
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == 40
