"""Embeddings for scikit-learn, and predictions of finetuned models."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import validate_data

from moleclip import MoleCLIPFeaturizer, datasets, drawing, encoder
from moleclip.apply import inference, readers

SMALL = "small/random"
SMILES = list(datasets.load("nci_5k").smiles[:40])


@pytest.fixture(scope="module")
def embeddings():
    return MoleCLIPFeaturizer(SMALL).fit_transform(SMILES)


def test_they_are_those_of_the_encoder(embeddings):
    tower = encoder.load(SMALL).eval()
    drawings = np.stack([drawing.draw(text) for text in SMILES])
    with torch.no_grad():
        expected, last = (compute(torch.from_numpy(drawings)).numpy() for compute in (tower.all_layers, tower))
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
    found = MoleCLIPFeaturizer(SMALL, layers="last").fit_transform(SMILES)
    np.testing.assert_allclose(found, last, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeddings[:, -128:], last / np.linalg.norm(last, axis=1, keepdims=True), atol=1e-5)


def test_rows_are_in_order_and_unreadable_ones_are_nan_and_named(embeddings):
    given = [*SMILES[:2], "C1CC", SMILES[2], None]
    with pytest.warns(
        inference.UnreadableWarning, match=r"2 of 5 .* row 2 \(C1CC\): not a SMILES string; row 4 \(\): missing"
    ):
        found = MoleCLIPFeaturizer(SMALL).fit_transform(given)
    assert np.isnan(found).all(axis=1).tolist() == [False, False, True, False, True]
    np.testing.assert_allclose(found[[0, 1, 3]], embeddings[:3], rtol=1e-4, atol=1e-5)


def test_all_rows_may_be_unreadable():
    with pytest.warns(inference.UnreadableWarning, match="1 of 1"):
        assert np.isnan(MoleCLIPFeaturizer(SMALL).fit_transform(["C1CC"])).all()


def test_many_unreadable_rows_are_all_numbered():
    with pytest.warns(inference.UnreadableWarning, match=r"50 of 51 .*row 20 .*and rows 21, 22, .*, 50"):
        MoleCLIPFeaturizer(SMALL).fit_transform(["C", *["C1CC"] * 50])


def test_an_error_on_request():
    with pytest.raises(ValueError, match=r"1 of 2 molecules cannot be read: row 1 \(C1CC\)"):
        MoleCLIPFeaturizer(SMALL, invalid="raise").fit_transform(["CCO", "C1CC"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"encoder": encoder.Encoder(encoder.SMALL)}, TypeError, r"save it with Encoder\.save and give the folder"),
        ({"encoder": "runs/none"}, FileNotFoundError, "no encoder"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"invalid": "drop"}, ValueError, "expected 'warn', 'raise' or 'ignore'"),
        ({"drawing": "crayon"}, ValueError, "expected 'plain' or 'r_groups'"),
        ({"layers": "first"}, ValueError, "expected 'all' or 'last'"),
        ({"normalize": False}, ValueError, "normalize is for layers='last'"),
    ],
)
def test_wrong_parameters_are_named(options, error, message):
    with pytest.raises(error, match=message):
        MoleCLIPFeaturizer(**{"encoder": SMALL, **options}).fit_transform(["CCO"])


def test_molecules_smiles_and_drawings_of_them_are_the_same(embeddings):
    forms = [[Chem.MolFromSmiles(text) for text in SMILES], [drawing.draw(text) for text in SMILES]]
    for form in forms:
        np.testing.assert_allclose(MoleCLIPFeaturizer(SMALL).transform(form), embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"n_jobs": 2, "batch_size": 7}, {"batch_size": 1}])
def test_processes_and_batches_change_nothing(embeddings, options):
    np.testing.assert_allclose(
        MoleCLIPFeaturizer(SMALL, **options).fit_transform(SMILES), embeddings, rtol=1e-4, atol=1e-5
    )


def test_an_iterator_and_a_file_are_read_once(embeddings, tmp_path, monkeypatch):
    path = tmp_path / "own.smi"
    path.write_text("\n".join(SMILES))
    opened, read = [], readers.read
    monkeypatch.setattr(readers, "read", lambda *arguments: opened.append(1) or read(*arguments))
    for given in (iter(SMILES), path):
        np.testing.assert_allclose(MoleCLIPFeaturizer(SMALL).fit_transform(given), embeddings, rtol=1e-4, atol=1e-5)
    assert len(opened) == 1


def test_r_groups_are_drawn():
    drawn = MoleCLIPFeaturizer(SMALL, drawing="r_groups").fit_transform(["CC(N)C(=O)O"])
    image = drawing.draw("CC(N)C(=O)O", drawing.Style(r_groups=True))
    np.testing.assert_allclose(drawn, MoleCLIPFeaturizer(SMALL).fit_transform([image]), rtol=1e-4, atol=1e-5)


def test_what_is_pickled_holds_no_weights_and_knows_them_again(embeddings, tmp_path):
    folder = encoder.load(SMALL).save(tmp_path / "encoder")
    fitted = MoleCLIPFeaturizer(folder).fit(SMILES)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(SMILES), fitted.transform(SMILES))
    encoder.load(SMALL, seed=1).save(tmp_path / "encoder")
    with pytest.raises(ValueError, match="other weights than"):
        pickle.loads(pickled).transform(SMILES)
    fitted = pickle.loads(pickled).fit(SMILES)
    assert not np.allclose(fitted.transform(SMILES[:1]), embeddings[:1])


def test_other_parameters_load_another_encoder(embeddings):
    other = MoleCLIPFeaturizer(SMALL, seed=1).fit_transform(SMILES[:2])
    featurizer = MoleCLIPFeaturizer(SMALL).fit(SMILES)
    np.testing.assert_allclose(featurizer.transform(SMILES[:2]), embeddings[:2], rtol=1e-4, atol=1e-5)
    featurizer.set_params(seed=1)
    np.testing.assert_array_equal(featurizer.transform(SMILES[:2]), other)
    np.testing.assert_array_equal(featurizer.fit_transform(SMILES[:2]), other)
    assert featurizer.set_params(layers="last").transform(SMILES[:2]).shape == (2, 128)
    with pytest.raises(ValueError, match="expected 'all' or 'last'"):
        featurizer.set_params(layers="first").transform(SMILES[:2])


def counted(monkeypatch):
    """Count the molecules that the small tower embeds; a black image only tells it how many numbers there will be."""
    seen, original = [], encoder.Encoder.all_layers

    def all_layers(self, images):
        seen.append(int(images.flatten(1).any(dim=1).sum()))
        return original(self, images)

    monkeypatch.setattr(encoder.Encoder, "all_layers", all_layers)
    return seen


def test_what_is_cached_is_not_computed_again(embeddings, tmp_path, monkeypatch):
    seen = counted(monkeypatch)
    cached = MoleCLIPFeaturizer(SMALL, cache=tmp_path).fit_transform(SMILES[:30])
    assert sum(seen) == len(set(SMILES[:30]))
    again = MoleCLIPFeaturizer(SMALL, cache=tmp_path).fit_transform(SMILES[::-1])
    assert sum(seen) == len(set(SMILES))
    np.testing.assert_array_equal(again[::-1][:30], cached)
    for other in ({"seed": 1}, {"drawing": "r_groups"}):
        before = sum(seen)
        MoleCLIPFeaturizer(SMALL, cache=tmp_path, **other).fit_transform(SMILES[:2])
        assert sum(seen) == before + 2


def test_a_raised_version_or_another_library_computes_again(tmp_path, monkeypatch):
    seen = counted(monkeypatch)
    featurizer = MoleCLIPFeaturizer(SMALL, cache=tmp_path)
    for expected, (holder, name, value) in enumerate(
        [(inference, "NAMED", 20), (inference, "VERSION", 2), (inference.cv2, "__version__", "0")], 1
    ):
        monkeypatch.setattr(holder, name, value)
        featurizer.transform(["CCO"])
        featurizer.transform(["CCO"])
        assert sum(seen) == expected


def test_an_interrupted_run_keeps_its_whole_batches(tmp_path, monkeypatch):
    seen, draw = counted(monkeypatch), drawing.draw
    limit = iter(range(25))

    def interrupted(*arguments):
        if next(limit, None) is None:
            raise KeyboardInterrupt
        return draw(*arguments)

    featurizer = MoleCLIPFeaturizer(SMALL, batch_size=10, cache=tmp_path / "cache")
    monkeypatch.setattr(drawing, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        featurizer.to_parquet(SMILES, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*.parquet"))
    assert sum(seen) == 20
    monkeypatch.setattr(drawing, "draw", draw)
    featurizer.to_parquet(SMILES, tmp_path / "out.parquet")
    assert sum(seen) == len(set(SMILES))


def test_a_stream_to_parquet_holds_all_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "BLOCK", 16)
    path = tmp_path / "molecules.smi"
    path.write_text("\n".join([*SMILES, "C1CC"]))
    featurizer = MoleCLIPFeaturizer(SMALL)
    with pytest.warns(inference.UnreadableWarning, match="line 41"):
        table = pd.read_parquet(featurizer.to_parquet(path, tmp_path / "out.parquet"))
    assert list(table["molecule"]) == [*SMILES, "C1CC"]
    assert list(table["problem"]) == [*[""] * 40, "not a SMILES string"]
    names = featurizer.get_feature_names_out()
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_allclose(table[names], featurizer.transform([*SMILES, "C1CC"]), rtol=1e-4, atol=1e-5)


def test_a_grid_search_finds_what_it_finds_with_the_embeddings(embeddings, tmp_path):
    labels = [Chem.MolFromSmiles(text).GetNumHeavyAtoms() for text in SMILES]
    options = {"cv": 3, "scoring": "neg_mean_absolute_error"}
    pipeline = make_pipeline(MoleCLIPFeaturizer(SMALL, cache=tmp_path), Ridge())
    search = GridSearchCV(pipeline, {"ridge__alpha": [1e-1, 1e1, 1e3]}, **options).fit(SMILES, labels)
    expected = GridSearchCV(Ridge(), {"alpha": [1e-1, 1e1, 1e3]}, **options).fit(embeddings, labels)
    assert search.best_params_["ridge__alpha"] == expected.best_params_["alpha"]
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-2
    )


def test_output_as_a_table_keeps_the_index(embeddings):
    featurizer = MoleCLIPFeaturizer(SMALL).set_output(transform="pandas")
    table = featurizer.fit_transform(pd.Series(SMILES, index=range(100, 140)))
    assert list(table.index) == list(range(100, 140))
    assert list(table.columns) == [f"moleclipfeaturizer{number}" for number in range(256)]
    np.testing.assert_allclose(table, embeddings, rtol=1e-4, atol=1e-5)


API = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
)


@pytest.mark.parametrize("check", API)
def test_checks_of_scikit_learn_that_need_no_numbers(check):
    getattr(estimator_checks, check)("MoleCLIPFeaturizer", MoleCLIPFeaturizer(SMALL))


class OfNumbers(MoleCLIPFeaturizer):
    """Makes molecules of the numbers that scikit-learn's checks feed, so that they can be run.

    In batches of one: the checks allow 1e-7 between a molecule alone and among others, and numbers near 1 in fp32 have
    no more than that. What the batch size may change is tested above.
    """

    def __init__(self, encoder=SMALL, *, batch_size=1):
        super().__init__(encoder, batch_size=batch_size)

    def fit(self, X, y=None):
        return super().fit(self._smiles(X, True))

    def transform(self, X):
        return super().transform(self._smiles(X, False))

    def _smiles(self, X, reset):
        rows = validate_data(self, X, reset=reset, dtype=np.float64)
        return ["C" * (1 + int(np.abs(row).sum() * 1000) % 9) + "N" * (1 + int(np.abs(row).sum()) % 3) for row in rows]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.allow_nan = tags.input_tags.string = False
        return tags


# No check is expected to fail.
@estimator_checks.parametrize_with_checks([OfNumbers()])
def test_checks_of_scikit_learn_that_feed_numbers(estimator, check):
    check(estimator)
