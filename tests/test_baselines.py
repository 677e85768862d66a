"""Baselines against second implementations."""

import os
import sys

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, Descriptors
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from moleclip import baselines, config, datasets, metrics, molecules, splits

SERIES = datasets.load("chembl2321810")
FEATURES = molecules.Features(SERIES.smiles)


def test_morgan_fingerprints_agree_with_the_older_interface():
    found = molecules.Features(SERIES.smiles[:20]).morgan
    for row, smiles in zip(found, SERIES.smiles[:20], strict=True):
        bits = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(smiles), 2, 2048)
        expected = np.zeros(2048, np.float32)
        DataStructs.ConvertToNumpyArray(bits, expected)
        assert np.array_equal(row, expected)


def test_descriptors_are_rdkits_and_finite_or_missing():
    smiles = [*SERIES.smiles[:3], "[Na+].[Cl-]", "C1CC1[Si](C)(C)C"]
    found = molecules.Features(smiles).descriptors
    names = [name for name, _ in Descriptors.descList]
    assert found.shape == (5, len(names))
    assert found[:, names.index("MolWt")] == pytest.approx([Descriptors.MolWt(Chem.MolFromSmiles(s)) for s in smiles])
    assert not np.isinf(found).any()


@pytest.mark.parametrize("name", config.FORESTS)
def test_forests_beat_the_mean_and_are_seeded(name):
    split = splits.random(len(SERIES), 1)
    runs = [baselines.predict(name, FEATURES, SERIES.labels, split.train, "regression", seed) for seed in (1, 1, 2)]
    mean = baselines.predict("mean", FEATURES, SERIES.labels, split.train, "regression", 1)
    assert mean == pytest.approx(SERIES.labels[split.train].mean())
    errors = [metrics.score("MAE", SERIES.labels[split.test], found[split.test]) for found in (runs[0], mean)]
    assert errors[0] < 0.8 * errors[1]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_penalty_of_a_linear_head_is_chosen_on_validation():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 20)).astype(np.float32)
    labels = inputs[:, :1] + 2.0 * rng.normal(size=(60, 1))
    train, val = np.arange(30), np.arange(30, 45)
    exact = inputs.astype(float)
    scaled = StandardScaler().fit(exact[train]).transform(exact)
    candidates = [Ridge(a).fit(scaled[train], labels[train, 0]).predict(scaled) for a in baselines.PENALTIES]
    best = min(candidates, key=lambda found: np.abs(found[val] - labels[val, 0]).mean())
    assert baselines.linear(inputs, labels, train, val, "regression")[:, 0] == pytest.approx(best)
    classes = (labels > 0).astype(float)
    found = baselines.linear(inputs, classes, train, val, "classification")
    scores = [
        LogisticRegression(C=1 / a, max_iter=5000).fit(scaled[train], classes[train, 0]).predict_proba(scaled)[:, 1]
        for a in baselines.PENALTIES
    ]
    losses = [-np.log(np.where(classes[val, 0] == 1, s[val], 1 - s[val])).mean() for s in scores]
    assert found[:, 0] == pytest.approx(scores[int(np.argmin(losses))])


def test_missing_labels_are_left_out():
    labels = SERIES.labels[:60].copy()
    labels[5] = np.nan
    train = np.arange(50)
    kept = np.delete(train, 5)
    found, expected = (
        baselines.predict("ecfp4_forest", molecules.Features(SERIES.smiles[:60]), labels, rows, "regression", 0)
        for rows in (train, kept)
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
    table.iloc[parts["train"], 1:].mean().to_json(model)
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
    found = baselines.chemprop(smiles, labels, split, "regression", 5)
    assert found == pytest.approx(
        baselines.predict("mean", molecules.Features(smiles), labels, split.train, "regression", 5)
    )
    with pytest.raises(RuntimeError, match=r"(?s)chemprop train failed.*AssertionError"):
        baselines.chemprop(smiles, labels, split, "regression", 6)
    relative = os.path.relpath(command)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", f"{sys.executable} {command}")  # and with arguments
    assert np.array_equal(baselines.chemprop(smiles, labels, split, "regression", 5), found)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", relative)
    assert np.array_equal(baselines.chemprop(smiles, labels, split, "regression", 5), found)
    monkeypatch.delenv("MOLECLIP_CHEMPROP")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="pipx install chemprop"):
        baselines.chemprop(smiles, labels, split, "regression", 5)


@pytest.mark.skipif(not os.environ.get("MOLECLIP_CHEMPROP"), reason="needs chemprop's command (MOLECLIP_CHEMPROP)")
def test_chemprop_itself_learns_more_than_the_mean():
    series = datasets.load("chembl2321810")
    smiles, labels = list(series.smiles[:200]), series.labels[:200]
    split = splits.random(200, 1)
    found = baselines.chemprop(smiles, labels, split, "regression", 1)
    mean = baselines.predict("mean", molecules.Features(smiles), labels, split.train, "regression", 1)
    errors = [np.abs(values - labels)[split.test].mean() for values in (found, mean)]
    assert errors[0] < errors[1]
