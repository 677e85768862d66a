"""The cross-validation behind every comparison: who is tested when, on what, and what is kept of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import RepeatedKFold

from moleclip import FinetunedEncoder, baselines, datasets, splits, tables
from moleclip.apply import cross_validation
from moleclip.apply.cross_validation import CrossValidation
from moleclip.baselines import FrozenEncoder
from moleclip.estimator import MoleculeEstimator, Molecules

SERIES = datasets.load("chembl2321810")


def own(labels=None, count=60, task="regression", step=16):
    """Molecules from all over the series, with its labels or others [N] or [N, T]."""
    rows = slice(0, step * count, step)
    labels = SERIES.labels[rows] if labels is None else np.asarray(labels, float).reshape(count, -1)
    names = tuple("abc"[: labels.shape[1]])
    metric = "MAE" if task == "regression" else "ROC-AUC"
    return datasets.Dataset("own", SERIES.smiles[rows], labels, names, task, metric, "eV" * (task == "regression"))


def job(dataset=None, by="random", **options):
    dataset = dataset or own()
    molecules, _ = datasets.labelled(dataset, None, 0, 10)
    return CrossValidation(dataset, cross_validation.with_groups(molecules, by), "small/random", **options)


def random(count=60):
    return np.random.default_rng(5).normal(size=count)


def test_scores_are_those_of_scikit_learns_cross_validation():
    some = job(repeats=2, seed=3)
    found = some.run(["mean"])
    labels, errors = some.labels, []
    for number, (train, test) in enumerate(RepeatedKFold(n_splits=5, n_repeats=2, random_state=3).split(labels)):
        prediction = DummyRegressor().fit(train[:, None], labels[train, 0]).predict(test[:, None])
        errors.append(mean_absolute_error(labels[test, 0], prediction))
        place = found.predictions[["split_seed", "fold"]].to_numpy() - 1
        rows = found.predictions[(place == divmod(number, 5)).all(axis=1)]
        assert rows["row"].tolist() == test.tolist()
        np.testing.assert_allclose(rows["prediction"], prediction)
        np.testing.assert_allclose(rows["label"], labels[test, 0])
    assert found.scores["score"].to_numpy() == pytest.approx(errors)
    wide, overlap = tables.by_part(found.scores)
    assert wide["mean"].tolist() == pytest.approx(errors)
    assert overlap == pytest.approx(12 / 48)


def test_every_method_gets_the_same_molecules_and_never_those_tested(monkeypatch):
    seen = []

    def fit(model, some, labels):
        seen.append([type(model).__name__, model.seed, set(some.rows)])
        return model

    def predict_values(model, some):
        seen[-1].append(set(some.rows))
        return np.zeros((len(some), 1))

    monkeypatch.setattr(MoleculeEstimator, "fit", fit)
    monkeypatch.setattr(MoleculeEstimator, "predict_values", predict_values)
    names = ["mean", "ecfp4_forest", "frozen_linear", "finetuned"]
    found = job(repeats=2, seed=4).run(names, once=["finetuned"]).scores
    assert found["method"].value_counts(sort=False).to_dict() == dict(zip(names, (10, 10, 10, 5), strict=True))
    assert [name for name, *_ in seen[::10]] == ["Mean", "Forest", "FrozenEncoder", "FinetunedEncoder"]
    assert len({seed for _, seed, *_ in seen[10:20]}) == 10
    assert len({seed for _, seed, *_ in seen[20:30]}) == 1  # else each part would be embedded with another encoder
    for number in range(10):
        given = [seen[start + number][2:] for start in (0, 10, 20, *([30] if number < 5 else []))]
        assert all(pair == given[0] for pair in given)
        train, test = given[0]
        assert not train & test
        assert train | test == set(range(60))
    for repeat in (seen[:5], seen[5:10]):
        assert sorted(row for *_, test in repeat for row in test) == list(range(60))


def test_fewer_molecules_are_part_of_more():
    parts = {size: job(size=size).parts for size in (10, 20, None)}
    for few, more, all_ in zip(*parts.values(), strict=True):
        assert set(few.train) < set(more.train) < set(all_.train)
        assert (len(few.train), len(more.train), len(all_.train)) == (10, 20, 48)
        assert few.test.tolist() == all_.test.tolist()
    with pytest.raises(ValueError, match="size 49: a part of own leaves 48 molecules"):
        _ = job(size=49).parts


@pytest.mark.parametrize("by", ["scaffold", "cluster"])
def test_groups_stay_together(by):
    some = job(own(count=100, step=10), by, repeats=2)
    groups = some.molecules["group"].to_numpy()
    assert len(some.parts) == 10
    assert 5 < len(set(groups)) < 100
    for part in some.parts:
        assert not {*groups[part.train]} & {*groups[part.test]}
        assert sorted([*part.train, *part.test]) == list(range(100))
    assert some.parts[0].test.tolist() != some.parts[5].test.tolist()


def test_members_of_a_cluster_resemble_its_centre():
    smiles = list(SERIES.smiles[::25])
    groups = splits.groups("cluster", smiles)
    bits = Molecules(smiles).morgan()
    similarity = baselines.Tanimoto()(bits)
    for number in set(groups):
        members = np.flatnonzero(groups == number)
        assert similarity[np.ix_(members, members)].min(axis=1).max() >= 0.35 - 1e-9


def test_a_column_of_ones_own_divides(tmp_path):
    table = pd.DataFrame({"smiles": SERIES.smiles[:60:2], "y": random(30), "batch": list("xyz") * 10})
    table.loc[3, "smiles"] = "C1CC"
    table.to_csv(tmp_path / "my.csv", index=False)
    dataset = datasets.load(str(tmp_path / "my.csv"), labels=["y"])
    molecules, _ = datasets.labelled(dataset, None, 0, 10)
    grouped = cross_validation.with_groups(molecules, "batch", tmp_path / "my.csv")
    assert grouped["group"].tolist() == [list("xyz")[row % 3] for row in molecules["row"]]
    parts = CrossValidation(dataset, grouped, repeats=4).parts
    assert [(part.repeat, part.fold) for part in parts] == [(1, 1), (1, 2), (1, 3)]  # others would be the same
    with pytest.raises(ValueError, match="no column 'bach'; did you mean 'batch'"):
        cross_validation.with_groups(molecules, "bach", tmp_path / "my.csv")
    with pytest.raises(ValueError, match="only a file of your own has columns"):
        cross_validation.with_groups(molecules, "batch", "esol")


def test_an_empty_field_of_a_column_that_divides_is_told(tmp_path, caplog):
    table = pd.DataFrame({"smiles": SERIES.smiles[:60:2], "y": random(30), "batch": ["x", "y", ""] * 10})
    table.to_csv(tmp_path / "my.csv", index=False)
    molecules, _ = datasets.labelled(datasets.load(str(tmp_path / "my.csv"), labels=["y"]), None, 0, 10)
    cross_validation.with_groups(molecules, "batch", tmp_path / "my.csv")
    assert "column 'batch' is empty for 10 molecules, which are kept together" in caplog.text


def test_classes_are_in_every_part_and_scored_by_their_order():
    labels = (np.arange(60) % 10 == 0).astype(float)  # six of them
    some = job(own(labels, task="classification"), repeats=3)
    for part in some.parts:
        assert some.labels[part.test].sum() in (1, 2)
    assert (some.run(["mean"]).scores["score"] == 0.5).all()
    by_group = job(own(labels, task="classification"), "scaffold", repeats=2)
    for part in by_group.parts:
        assert 0 < by_group.labels[part.test].sum() < 6


def test_shuffled_labels_are_the_same_ones_elsewhere(tmp_path):
    some = job(folder=tmp_path)
    others = [some.shuffled(number) for number in (1, 2)]
    for other in others:
        assert sorted(other.labels[:, 0]) == sorted(some.labels[:, 0])
        assert (other.labels != some.labels).mean() > 0.9
        assert other.some is some.some
        assert other.identity != some.identity
    assert (others[0].labels != others[1].labels).any()


def test_what_is_kept_is_not_done_again(tmp_path, monkeypatch):
    found = job(folder=tmp_path).run(["mean", "tanimoto_gp"])
    again = job(folder=tmp_path)
    monkeypatch.setattr(CrossValidation, "fitted", None)
    for before, after in zip(found, again.run(["mean", "tanimoto_gp"]), strict=True):
        pd.testing.assert_frame_equal(before, after)
    with pytest.raises(TypeError):  # other folds
        job(folder=tmp_path, seed=1).run(["mean"])


def test_a_training_that_diverges_has_no_score(monkeypatch, caplog):
    def fit(*_):
        raise FloatingPointError

    monkeypatch.setattr(FinetunedEncoder, "fit", fit)
    found = job().run(["mean", "finetuned"])
    assert found.scores.set_index("method").loc["finetuned", "score"].isna().all()
    assert set(found.predictions["encoder"]) == {"mean"}
    assert "finetuned diverged in fold 1 of repeat 1" in caplog.text


def frozen(inputs, labels, given, task, monkeypatch):
    """Predictions of a linear model on given embeddings."""
    monkeypatch.setattr(FrozenEncoder, "_embeddings", lambda _, some: inputs[some.rows])
    some = Molecules(["C"] * len(inputs))
    return FrozenEncoder("any", task=task).fit(some[given], labels[given]).predict_values(some)[:, 0]


def test_ridge_is_that_of_the_best_penalty(monkeypatch):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 8)) * 10.0 ** np.arange(-4, 4)
    labels = (inputs / inputs.std(axis=0)) @ rng.normal(size=(8, 1)) + rng.normal(size=(60, 1))
    given = rng.permutation(60)[:40]
    losses, fits = [], []
    for penalty in baselines.PENALTIES:
        errors = []
        for fold in np.array_split(np.arange(40), 5):
            rest = given[np.setdiff1d(np.arange(40), fold)]
            mean, sd = inputs[rest].mean(axis=0), inputs[rest].std(axis=0)
            model = Ridge(alpha=penalty).fit((inputs[rest] - mean) / sd, labels[rest, 0])
            errors.append(mean_absolute_error(labels[given[fold], 0], model.predict((inputs[given[fold]] - mean) / sd)))
        losses.append(np.mean(errors))
        mean, sd = inputs[given].mean(axis=0), inputs[given].std(axis=0)
        fits.append(
            Ridge(alpha=penalty).fit((inputs[given] - mean) / sd, labels[given, 0]).predict((inputs - mean) / sd)
        )
    assert frozen(inputs, labels, given, "regression", monkeypatch) == pytest.approx(fits[int(np.argmin(losses))])


def test_logistic_regression_tells_classes_apart_even_if_one_is_rare(monkeypatch):
    rng = np.random.default_rng(0)
    classes = np.array([1.0] * 5 + [0.0] * 35)[rng.permutation(40)]
    inputs = rng.normal(size=(40, 3)) + 3 * classes[:, None]
    given = np.concatenate([np.flatnonzero(classes == 1)[:2], np.flatnonzero(classes == 0)[:20]])
    found = frozen(inputs, classes[:, None], given, "classification", monkeypatch)
    assert ((found >= 0) & (found <= 1)).all()
    rest = np.setdiff1d(np.arange(40), given)
    assert found[rest][classes[rest] == 1].min() > found[rest][classes[rest] == 0].max()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (own(count=9), "own: 9 different readable molecules with a label; at least 10 are needed"),
        (dataclasses.replace(own(), smiles=("C", "CC") * 30), "own: 2 different readable molecules"),
        (own(np.where(np.arange(60) < 5, random(), np.nan)), "own: 5 different readable"),
        (own(np.ones(60)), "all labels 'a' are the same"),
        (own(np.arange(60) == 7, task="classification"), "a class has 1 molecule: at least 4 are needed"),
        (own(np.arange(60) < 3, task="classification"), "a class has 3 molecules: at least 4 are needed"),
        (own(np.column_stack([random(), np.where(np.arange(60) < 3, random(), np.nan)])), "have no labels of 'b'"),
        (datasets.load("nci_5k"), "no labels to learn"),
    ],
)
def test_what_cannot_be_divided_says_why(dataset, message):
    with pytest.raises(ValueError, match=message):
        _ = job(dataset).parts


def test_doubtful_molecules_are_named(caplog):
    smiles = ["CCO", "OCC", "CCN", "NCC", "CC(N)C(=O)O", "C[C@H](N)C(=O)O", "CC(Cl)Br", "[Na+].[Cl-]", "C" * 9, "C" * 8]
    labels = np.array([1.0, 2, 3, 3, 5, 6, 7, 8, 9, 10, 11, np.nan])[:, None]
    dataset = datasets.Dataset("made", (*smiles, "CCCO", "CCCN"), labels, ("y",), "regression", "MAE", "")
    kept, doubts = datasets.labelled(dataset, None, 0, 9)
    assert doubts == {
        "repeated": ["row 0", "row 2"],
        "conflicts": ["row 0"],  # ethanol
        "differ_in_stereo_only": ["row 4", "row 5"],  # alanine, with and without
        "open_stereocentres": ["row 4", "row 6"],
        "several_fragments": ["row 7"],
    }
    assert "row 0 and row 1 are one molecule (y: 1, 2); the first is used" in caplog.text
    assert kept["row"].tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 10]
    assert "left out, 1 without a label and 2 that are repeated" in caplog.text
