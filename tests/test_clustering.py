"""Pseudo-labels: fingerprints bit for bit, inertia by hand."""

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import MACCSkeys
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from moleclip import clustering, datasets

SMILES = list(datasets.load("chembl2321810").smiles[:200])


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return clustering.maccs(SMILES)


def test_maccs_agrees_with_the_bit_string(keys):
    assert keys.shape == (200, 21)
    for row, smiles in zip(clustering.unpack(keys)[:50], SMILES[:50], strict=True):
        bits = MACCSkeys.GenMACCSKeys(Chem.MolFromSmiles(smiles)).ToBitString()
        assert bits[0] == "0"
        assert "".join(map(str, row)) == bits[1:]


def test_inertia_and_labels_by_hand(keys):
    labels, inertia = clustering.kmeans(keys, 7, seed=0)
    bits = clustering.unpack(keys).astype(float)
    centres = np.stack([bits[labels == label].mean(axis=0) for label in range(7)])
    distances = ((bits[:, None] - centres) ** 2).sum(axis=2)
    assert inertia == pytest.approx(distances[np.arange(len(keys)), labels].sum(), rel=1e-4)
    # Converged: no molecule is nearer to another centre.
    assert (distances.argmin(axis=1) == labels).mean() > 0.99


def test_assignments_agree_with_scikit_learn(keys):
    """The same first centres, weighed by nothing but the molecules themselves: the same clusters."""
    distinct, _, counts = clustering._distinct(keys)
    first = clustering._first_centres(distinct, counts, 9, seed=0)
    theirs = KMeans(9, init=first, n_init=1, tol=0, max_iter=200).fit(clustering.unpack(keys).astype(float))
    labels, inertia = clustering.kmeans(keys, 9, seed=0, max_passes=200, tolerance=0)
    assert np.array_equal(labels, theirs.labels_)
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-6)


def test_copies_of_a_molecule_count_and_rows_may_come_in_any_order(keys):
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.repeat(np.arange(200), 3))
    labels, inertia = clustering.kmeans(keys, 8, seed=0)
    shuffled, thrice = clustering.kmeans(keys[rows], 8, seed=0)
    assert adjusted_rand_score(labels[rows], shuffled) > 0.5
    assert all(len(set(shuffled[rows == row])) == 1 for row in range(200))
    assert thrice == pytest.approx(3 * inertia, rel=0.1)
    assert np.array_equal(clustering.kmeans(keys[::-1], 8, seed=0)[0], labels[::-1])


@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_kmeans_goes_on_bit_for_bit(keys, stop, tmp_path, monkeypatch):
    labels, inertia = clustering.kmeans(keys, 20, seed=0)
    original, passes = clustering._pass, []

    def limited(*arguments):
        if len(passes) == stop:
            raise KeyboardInterrupt
        passes.append(1)
        return original(*arguments)

    monkeypatch.setattr(clustering, "SECONDS", 0)
    monkeypatch.setattr(clustering, "_pass", limited)
    with pytest.raises(KeyboardInterrupt):
        clustering.kmeans(keys, 20, seed=0, cache=tmp_path)
    monkeypatch.setattr(clustering, "_pass", original)
    resumed = clustering.kmeans(keys, 20, seed=0, cache=tmp_path)
    assert np.array_equal(resumed[0], labels)
    assert resumed[1] == inertia
    monkeypatch.setattr(clustering, "_first_centres", None)  # from here on, the finished state is read
    assert np.array_equal(clustering.kmeans(keys, 20, seed=0, cache=tmp_path)[0], labels)


def test_the_kind_of_state_a_run_goes_on_from_is_its_own(keys, tmp_path):
    clustering.kmeans(keys, 5, seed=0, cache=tmp_path)
    assert np.array_equal(clustering.kmeans(keys, 5, seed=1, cache=tmp_path)[0], clustering.kmeans(keys, 5, seed=1)[0])
    assert np.array_equal(clustering.kmeans(keys[:90], 5, 0, tmp_path)[0], clustering.kmeans(keys[:90], 5, 0)[0])


def test_what_is_kept_is_made_anew_if_the_code_gives_other_results(keys, tmp_path, monkeypatch):
    clustering.kmeans(keys, 5, seed=0, cache=tmp_path)
    monkeypatch.setattr(clustering.config, "RESULTS", 0)
    clustering.kmeans(keys, 5, seed=0, cache=tmp_path)
    assert len(list(tmp_path.rglob("kmeans_5-*.npz"))) == 2


def test_same_seed_same_labels(keys):
    first, again, other = (clustering.kmeans(keys, 10, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sweep_falls_with_k(keys):
    curve, labels = clustering.sweep(keys, [3, 10, 50], seed=0)
    assert curve["inertia"].is_monotonic_decreasing
    assert [labels[k].max() + 1 for k in (3, 10, 50)] == [3, 10, 50]


def test_knee_of_two_straight_lines():
    ks = np.arange(1, 41)
    inertia = np.where(ks <= 10, 1000 - 90 * ks, 100 - (ks - 10))
    assert clustering.knee(pd.DataFrame({"k": ks, "inertia": inertia})) == 10


def test_more_clusters_than_molecules(keys):
    different = len(np.unique(keys, axis=0))
    with pytest.raises(ValueError, match=f"K = 300 clusters asked of {different} different fingerprints"):
        clustering.kmeans(keys, 300, seed=0)


def test_a_set_too_small_for_its_classes_is_named(tmp_path):
    (tmp_path / "own.smi").write_text("\n".join(SMILES[:20]))
    with pytest.raises(ValueError, match=r"own\.smi: K = 300 clusters asked of \d+ different .*: take a smaller K"):
        clustering.read_labels(str(tmp_path / "own.smi"), [5, 300], seed=0)


def test_labels_computed_for_a_set_are_kept(tmp_path, monkeypatch):
    (tmp_path / "own.smi").write_text("\n".join(SMILES))
    source = (str(tmp_path / "own.smi"), [5], 0)
    first = clustering.read_labels(*source, tmp_path / "cache")
    pd.testing.assert_frame_equal(clustering.read_labels(*source), first)
    monkeypatch.setattr(clustering, "_first_centres", None)
    pd.testing.assert_frame_equal(clustering.read_labels(*source, tmp_path / "cache"), first)


def test_labels_of_a_table_without_them(tmp_path):
    file = tmp_path / "labels.parquet"
    pd.DataFrame({"smiles": SMILES, "k_5": 0}).to_parquet(file)
    assert len(clustering.read_labels(str(file), [5], seed=0)) == 200
    with pytest.raises(ValueError, match="lacks the labels k_9; it has k_5"):
        clustering.read_labels(str(file), [5, 9], seed=0)
