"""Every model is an estimator by scikit-learn's rules."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from moleclip import datasets, drawing
from moleclip.baselines import FingerprintMLP, Forest, FrozenEncoder, Mean
from moleclip.estimator import Molecules
from moleclip.finetune import FinetunedEncoder

SERIES = datasets.load("chembl2321810")
SMILES, ACTIVITY = list(SERIES.smiles[::34]), SERIES.labels[::34, 0]  # 30 molecules
CLASSES = (np.median(ACTIVITY) < ACTIVITY).astype(int)
SIZE = {"image_size": None}


def models(task="regression"):
    return {
        "mean": Mean(task=task),
        "forest": Forest("ecfp4", "extra_trees", trees=20, task=task),
        "descriptors": Forest("descriptors", trees=20, task=task),
        "mlp": FingerprintMLP(epochs=2, task=task),
        "frozen": FrozenEncoder("small/random", task=task),
        "finetuned": FinetunedEncoder("small/random", epochs=1, task=task),
    }


NAMES = list(models())
SOME = Molecules(SMILES)  # shared, so that they are drawn once


@pytest.mark.parametrize("name", NAMES)
def test_they_clone_pickle_and_predict_again(name):
    model = models()[name]
    assert clone(model).get_params() == model.get_params()
    found = model.fit(SOME[:20], ACTIVITY[:20]).predict(SOME[20:])
    assert found.shape == (10,)
    assert np.isfinite(found).all()
    # Last digits depend on the molecules that a network sees together.
    assert pickle.loads(pickle.dumps(model)).predict(SMILES[20:]) == pytest.approx(found, rel=1e-5)
    assert clone(model).fit(SMILES[:20], ACTIVITY[:20]).predict(SMILES[20:]) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_cross_validated_and_stand_in_pipelines(name):
    model = models()[name]
    assert is_regressor(model)
    errors = cross_val_score(make_pipeline(model), SOME, ACTIVITY, cv=3, scoring="neg_mean_absolute_error")
    assert errors.shape == (3,)
    assert (errors < 0).all()
    classifier = models("classification")[name]
    assert is_classifier(classifier)
    areas = cross_val_score(classifier, SOME, CLASSES, cv=3, scoring="roc_auc")
    assert ((areas >= 0) & (areas <= 1)).all()
    assert 0 <= classifier.fit(SOME, CLASSES).score(SOME, CLASSES) <= 1
    assert set(classifier.predict(SOME)) <= {0, 1}
    assert classifier.predict_proba(SOME).sum(axis=1) == pytest.approx(np.ones(30))


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_of_which_some_are_missing(name):
    labels = np.column_stack([ACTIVITY, ACTIVITY**2])
    labels[::3, 1] = np.nan
    labels[4] = np.nan
    found = models()[name].fit(SOME, labels).predict(SOME)
    assert found.shape == (30, 2)
    assert np.isfinite(found).all()
    if name in ("mean", "forest", "descriptors"):  # a label of its own needs no other
        alone = models()[name].fit(SOME[np.isfinite(labels[:, 1])], labels[np.isfinite(labels[:, 1]), 1])
        assert np.array_equal(alone.predict(SOME), found[:, 1])


def test_a_grid_search_of_scikit_learn():
    search = GridSearchCV(FingerprintMLP(epochs=3), {"lr": [1e-3, 1e-30]}, scoring="neg_mean_absolute_error", cv=2)
    assert search.fit(SOME, ACTIVITY).best_params_ == {"lr": 1e-3}


def test_molecules_are_drawn_once(monkeypatch):
    drawn, draw_all = [], drawing.draw_all
    monkeypatch.setattr(drawing, "draw_all", lambda smiles, *rest: drawn.append(len(smiles)) or draw_all(smiles, *rest))
    some = Molecules(SMILES[:12])
    cross_val_score(FinetunedEncoder("small/random", epochs=1), some, ACTIVITY[:12], cv=3, scoring="r2")
    FrozenEncoder("small/random").fit(some[:9], ACTIVITY[:9]).predict(some[9:])
    assert drawn == [12]
    assert np.array_equal(some[[3]].drawings(224)[0], drawing.draw(SMILES[3]))


def test_parts_of_molecules():
    assert list(SOME[[2, 0]]) == [SMILES[2], SMILES[0]]
    assert SOME[5] == SMILES[5]
    assert list(SOME[10:20][np.arange(10) > 7]) == SMILES[18:20]
    assert np.array_equal(SOME[[4]].morgan(), Molecules([SMILES[4]]).morgan())
    assert list(pickle.loads(pickle.dumps(SOME[[1, 3]]))) == [SMILES[1], SMILES[3]]
    with pytest.raises(TypeError, match="not one alone"):
        Molecules.of("CCO")


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("regression", ACTIVITY[:29], "30 molecules, 29 labels"),
        ("regression", np.full(30, np.nan), r"label columns \[0\] have no known value"),
        ("regression", np.append(ACTIVITY[:29], np.inf), "infinite"),
        ("classification", ACTIVITY, "must be 0 or 1"),
    ],
)
def test_bad_labels(task, labels, message):
    with pytest.raises(ValueError, match=message):
        Mean(task=task).fit(SMILES, labels)


def test_a_molecule_that_cannot_be_read_is_named():
    with pytest.raises(ValueError, match="C1CC"):
        FinetunedEncoder("small/random", epochs=1).fit(["CCO", "CCC", "C1CC"], [1.0, 2.0, 3.0])
    with pytest.raises(AttributeError, match="the task is regression"):
        Mean().fit(SMILES, ACTIVITY).predict_proba(SMILES)


def test_a_divergence_is_said():
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        FingerprintMLP(lr=1e30, epochs=2).fit(SOME, ACTIVITY)
