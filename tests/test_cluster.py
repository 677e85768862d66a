"""Pseudo-labels: fingerprints bit for bit, inertia by hand."""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import MACCSkeys

from moleclip import cluster, datasets

SMILES = list(datasets.load("chembl2321810").smiles[:200])


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return cluster.maccs(SMILES)


def test_maccs_agrees_with_the_bit_string(keys):
    for row, smiles in zip(keys[:50], SMILES[:50], strict=True):
        bits = MACCSkeys.GenMACCSKeys(Chem.MolFromSmiles(smiles)).ToBitString()
        assert bits[0] == "0"
        assert "".join(map(str, row)) == bits[1:]


def test_inertia_and_labels_by_hand(keys):
    labels, inertia = cluster.kmeans(keys, 7, seed=0)
    centres = np.stack([keys[labels == label].mean(axis=0) for label in range(7)])
    distances = ((keys[:, None].astype(float) - centres) ** 2).sum(axis=2)
    assert inertia == pytest.approx(distances[np.arange(len(keys)), labels].sum(), rel=1e-4)
    # Converged: no molecule is nearer to another centre.
    assert (distances.argmin(axis=1) == labels).mean() > 0.99


def test_same_seed_same_labels(keys):
    first, again, other = (cluster.kmeans(keys, 10, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sweep_falls_with_k(keys):
    curve, labels = cluster.sweep(keys, [3, 10, 50], seed=0)
    assert curve["inertia"].is_monotonic_decreasing
    assert [labels[k].max() + 1 for k in (3, 10, 50)] == [3, 10, 50]


def test_knee_of_two_straight_lines():
    ks = np.arange(1, 41)
    inertia = np.where(ks <= 10, 1000 - 90 * ks, 100 - (ks - 10))
    assert cluster.knee(pd.DataFrame({"k": ks, "inertia": inertia})) == 10


def test_more_clusters_than_molecules(keys):
    with pytest.raises(ValueError, match="K = 300 clusters asked of 200 molecules"):
        cluster.kmeans(keys, 300, seed=0)


def test_labels_of_a_table_without_them(tmp_path):
    file = tmp_path / "labels.parquet"
    pd.DataFrame({"smiles": SMILES, "k_5": 0}).to_parquet(file)
    assert len(cluster.read_labels(str(file), [5], seed=0)) == 200
    with pytest.raises(ValueError, match="lacks the labels k_9; it has k_5"):
        cluster.read_labels(str(file), [5, 9], seed=0)
