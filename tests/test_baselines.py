"""Baselines against second implementations."""

import os
import pickle
import sys

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, Descriptors
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from moleclip import baselines, config, datasets, metrics, molecules, splits
from moleclip.estimator import Molecules

SERIES = datasets.load("chembl2321810")
SOME = Molecules(SERIES.smiles)


def test_morgan_fingerprints_agree_with_the_older_interface():
    found = molecules.morgan(SERIES.smiles[:20])
    for row, smiles in zip(found, SERIES.smiles[:20], strict=True):
        bits = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(smiles), 2, 2048)
        expected = np.zeros(2048, np.float32)
        DataStructs.ConvertToNumpyArray(bits, expected)
        assert np.array_equal(row, expected)


def test_descriptors_are_rdkits_and_finite_or_missing():
    smiles = [*SERIES.smiles[:3], "[Na+].[Cl-]", "C1CC1[Si](C)(C)C"]
    found = molecules.descriptors(smiles)
    names = [name for name, _ in Descriptors.descList]
    assert found.shape == (5, len(names))
    assert found[:, names.index("MolWt")] == pytest.approx([Descriptors.MolWt(Chem.MolFromSmiles(s)) for s in smiles])
    assert not np.isinf(found).any()


@pytest.mark.parametrize("make", [molecules.morgan, molecules.descriptors])
def test_a_molecule_that_cannot_be_read_is_named(make):
    with pytest.raises(ValueError, match=r"C1CC: cannot be read \(not a SMILES string\); leave it out"):
        make(["CCO", "C1CC"])


@pytest.mark.parametrize(
    "name", ["ecfp4_forest", *(pytest.param(name, marks=pytest.mark.long) for name in config.FORESTS[1:])]
)
def test_forests_beat_the_mean_and_are_seeded(name):
    rows = np.random.default_rng(0).permutation(len(SERIES))[:300]
    train, test = np.split(rows, [240])
    models = [baselines.BY_NAME[name](trees=100, seed=seed) for seed in (1, 1, 2)]
    *runs, mean = (
        model.fit(SOME[train], SERIES.labels[train]).predict(SOME[test]) for model in (*models, baselines.Mean())
    )
    assert mean == pytest.approx(SERIES.labels[train].mean())
    errors = [metrics.score("MAE", SERIES.labels[test], found) for found in (runs[0], mean)]
    assert errors[0] < 0.8 * errors[1]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("name", ["count_forest", "tanimoto_gp", "gradient_boosting", "tuned_forest"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_models_on_counts(name, task):
    """Better than the mean on a series; the forests that are tuned, with few trees here."""
    rows = np.random.default_rng(0).permutation(len(SERIES))[:150]
    train, test = np.split(rows, [120])
    labels = SERIES.labels if task == "regression" else (SERIES.labels > np.median(SERIES.labels)).astype(float)
    model = baselines.BY_NAME[name](task=task)
    model = model.set_params(trees=20) if isinstance(model, baselines.Forest) else model
    found = model.fit(SOME[train], labels[train]).predict_values(SOME[test])
    if task == "classification":
        assert metrics.score("ROC-AUC", labels[test], found) > 0.7
    else:
        mean = np.full_like(found, labels[train].mean())
        assert metrics.score("MAE", labels[test], found) < 0.85 * metrics.score("MAE", labels[test], mean)


def test_tanimotos_kernel_is_rdkits_similarity():
    """Of bits, as RDKit has it for bits; of counts, a kernel: no eigenvalue is below zero."""
    bits, counts = molecules.morgan(SERIES.smiles[:30]), molecules.morgan(SERIES.smiles[:30], counts=True)
    fingerprints = [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(s), 2, 2048) for s in SERIES.smiles[:30]]
    expected = [DataStructs.BulkTanimotoSimilarity(one, fingerprints) for one in fingerprints]
    assert np.allclose(baselines.Tanimoto()(bits.astype(float)), expected)
    assert counts.max() > 1
    assert np.array_equal(counts > 0, bits > 0)
    similarity = baselines.Tanimoto()(counts.astype(float))
    assert np.linalg.eigvalsh(similarity).min() > -1e-9
    assert np.allclose(np.diag(similarity), baselines.Tanimoto().diag(counts))


def embeddings(size):
    return np.random.default_rng(0).normal(size=(size, 20))


def test_the_penalty_of_a_linear_head_is_chosen_on_validation(monkeypatch):
    exact = embeddings(60)
    labels = exact[:, :1] + 2.0 * np.random.default_rng(1).normal(size=(60, 1))
    monkeypatch.setattr(baselines.FrozenEncoder, "_embeddings", lambda _, given: exact[given.rows])
    some, train, val = SOME[:60], np.arange(30), np.arange(30, 45)

    def fitted(task, labels):
        return baselines.FrozenEncoder("any", task=task).fit(some[train], labels[train], (some[val], labels[val]))

    scaled = StandardScaler().fit(exact[train]).transform(exact)
    candidates = [Ridge(a).fit(scaled[train], labels[train, 0]).predict(scaled) for a in baselines.PENALTIES]
    best = min(candidates, key=lambda found: np.abs(found[val] - labels[val, 0]).mean())
    assert fitted("regression", labels).predict_values(some)[:, 0] == pytest.approx(best)
    classes = (labels > 0).astype(float)
    scores = [
        LogisticRegression(C=1 / a, max_iter=5000).fit(scaled[train], classes[train, 0]).predict_proba(scaled)[:, 1]
        for a in baselines.PENALTIES
    ]
    losses = [-np.log(np.where(classes[val, 0] == 1, s[val], 1 - s[val])).mean() for s in scores]
    found = fitted("classification", classes).predict_values(some)
    assert found[:, 0] == pytest.approx(scores[int(np.argmin(losses))])


def test_on_the_unit_sphere_small_directions_stay_small(monkeypatch):
    """The label lies along the wide directions, noise along many narrow ones, which standardising would blow up."""
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(60, 3)), 1e-3 * rng.normal(size=(60, 200))
    embedded = np.concatenate([np.full((60, 1), 3.0), wide, narrow], axis=1)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    labels = embedded[:, 1:4] @ [[1.0], [2.0], [3.0]]
    some, train, val, test = SOME[:60], *np.split(np.arange(60), [30, 40])
    errors = []
    for length in (1.0, 2.0, 1.9 + 0.2 * rng.random((60, 1))):
        inputs = length * embedded
        monkeypatch.setattr(baselines.FrozenEncoder, "_embeddings", lambda _, given, known=inputs: known[given.rows])
        model = baselines.FrozenEncoder("any").fit(some[train], labels[train], (some[val], labels[val]))
        errors.append(np.abs(model.predict(some[test]) - labels[test]).mean())
    assert errors[1] == pytest.approx(errors[0])  # the length of all means nothing
    assert errors[0] < 0.1 * errors[2]


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        *(("svm", task) for task in ("regression", "classification")),
        *(("extra_trees", task) for task in ("regression", "classification")),
        ("pls", "regression"),
        ("gaussian_process", "regression"),
    ],
)
def test_each_model_on_embeddings_beats_the_mean_where_labels_follow_from_them(monkeypatch, kind, task):
    exact = embeddings(120)
    labels = exact[:, :1] + np.sin(2 * exact[:, 1:2])
    labels = labels if task == "regression" else (labels > 0).astype(float)
    monkeypatch.setattr(baselines.FrozenEncoder, "_embeddings", lambda _, given: exact[given.rows])
    some, (train, val, test) = SOME[:120], np.split(np.arange(120), [70, 90])
    model = baselines.FrozenEncoder("any", model=kind, task=task)
    found = model.fit(some[train], labels[train], (some[val], labels[val]))
    assert found.score(some[test], labels[test]) > (0.3 if task == "regression" else 0.65)


def test_the_best_of_all_models_is_chosen_on_validation(monkeypatch):
    exact = embeddings(90)
    monkeypatch.setattr(baselines.FrozenEncoder, "_embeddings", lambda _, given: exact[given.rows])
    labels, some, (train, val) = (
        np.sign(exact[:, :1]) * np.sign(exact[:, 1:2]),
        SOME[:90],
        np.split(np.arange(90), [70]),
    )
    losses = {}
    for kind in ("linear", "pls", "svm", "extra_trees", "gaussian_process", "best"):
        model = baselines.FrozenEncoder("any", model=kind).fit(some[train], labels[train], (some[val], labels[val]))
        losses[kind] = np.abs(model.predict(some[val]) - labels[val]).mean()
    assert losses.pop("best") == pytest.approx(min(losses.values()))


def test_an_unknown_model_on_embeddings_is_refused(monkeypatch):
    monkeypatch.setattr(baselines.FrozenEncoder, "_embeddings", lambda _, given: embeddings(20))
    with pytest.raises(ValueError, match="'pls': expected best, or for classification one of linear, svm"):
        baselines.FrozenEncoder("any", model="pls", task="classification").fit(SOME[:20], np.arange(20) % 2)


def test_missing_labels_are_left_out():
    labels = SERIES.labels[:60].copy()
    labels[5] = np.nan
    train, forest = np.arange(50), baselines.Forest(trees=50)
    found, expected = (
        forest.fit(SOME[rows], labels[rows]).predict(SOME[50:60]) for rows in (train, np.delete(train, 5))
    )
    assert np.array_equal(found, expected)


FAKE = """#!{python}
import json, pathlib, sys
import pandas as pd
options = dict(zip(sys.argv[2:], sys.argv[3:]))
if sys.argv[1] == "train":
    table, (parts,) = pd.read_csv(options["--data-path"]), json.load(open(options["--splits-file"]))
    assert (options["--task-type"], options["--pytorch-seed"]) == ("regression", "5")
    model = pathlib.Path(options["--output-dir"], "model_0", "best.pt")
    model.parent.mkdir(parents=True)
    started = dict(CheMeleon=1).get(options.get("--from-foundation"), 0)
    (table.iloc[parts["train"], 1:].mean() + started).to_json(model)
else:
    table, means = pd.read_csv(options["-i"]), json.load(open(options["--model-paths"]))
    assert list(table) == ["smiles"]
    table.assign(**means).to_csv(options["-o"], index=False)
"""


def test_chemprop_gets_the_split_and_gives_its_predictions_back(tmp_path, monkeypatch):
    command = tmp_path / "chemprop"
    command.write_text(FAKE.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", str(command))
    smiles, labels = ["C" * n for n in range(1, 21)], np.arange(40.0).reshape(20, 2)
    labels[3, 1] = np.nan
    split = splits.random(20, 1)

    def predicted(seed=5, name="chemprop"):
        validation = ([smiles[row] for row in split.val], labels[split.val])
        model = baselines.make(name, "regression", seed)
        model.fit([smiles[row] for row in split.train], labels[split.train], validation)
        return pickle.loads(pickle.dumps(model)).predict(smiles)

    found = predicted()
    assert found == pytest.approx(np.tile(np.nanmean(labels[split.train], axis=0), (20, 1)))
    assert predicted(name="chemeleon") == pytest.approx(found + 1)
    with pytest.raises(RuntimeError, match=r"(?s)chemprop train failed.*AssertionError"):
        predicted(6)
    relative = os.path.relpath(command)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", f"{sys.executable} {command}")  # and with arguments
    assert np.array_equal(predicted(), found)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", relative)
    assert np.array_equal(predicted(), found)
    monkeypatch.delenv("MOLECLIP_CHEMPROP")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="pipx install chemprop"):
        predicted()


@pytest.mark.skipif(not os.environ.get("MOLECLIP_CHEMPROP"), reason="needs chemprop's command (MOLECLIP_CHEMPROP)")
def test_chemprop_itself_learns_more_than_the_mean():
    series = datasets.load("chembl2321810")
    smiles, labels = Molecules(series.smiles[:200]), series.labels[:200]
    split = splits.random(200, 1)
    validation = (smiles[split.val], labels[split.val])
    errors = [
        np.abs(
            model.fit(smiles[split.train], labels[split.train], validation).predict(smiles[split.test])
            - labels[split.test]
        ).mean()
        for model in (baselines.Chemprop(seed=1), baselines.Mean())
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", ["finetuned", "fingerprint_mlp", "chemprop"])
def test_what_chooses_an_epoch_needs_molecules_to_choose_on(name):
    model = baselines.make(name, "regression", 0, "small/random", validation_fraction=0.0)
    with pytest.raises(ValueError, match="no validation molecules: give some, or a validation_fraction above 0"):
        model.fit(["CCO", "CCN", "CCC"], [1.0, 2.0, 3.0])


def test_estimators_by_name():
    for name in baselines.BY_NAME:
        model = baselines.make(name, "classification", 7, "some/encoder")
        assert (model.task, model.seed) == ("classification", 7)
        assert getattr(model, "encoder", None) == ("some/encoder" if baselines.sees(name) else None)
    with pytest.raises(ValueError, match="unknown method 'frozen_liner'; did you mean 'frozen_linear'"):
        baselines.make("frozen_liner", "regression", 0)
