"""From labels to a kept model: the comparison, what is kept, and predictions that speak up."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import RepeatedKFold

import moleclip
from moleclip import FinetunedEncoder, Forest, MoleCLIPPredictor, baselines, datasets, encoder, finetune
from moleclip.apply import cli, training
from moleclip.apply.predictor import DomainWarning
from moleclip.estimator import Molecules

SERIES = datasets.load("chembl2321810")
SMILES = list(dict.fromkeys(Chem.CanonSmiles(text) for text in SERIES.smiles[::20]))[:40]
SIZES = np.array([Chem.MolFromSmiles(text).GetNumHeavyAtoms() for text in SMILES], float) / 3


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    for name, features in (("ecfp4_forest", "ecfp4"), ("descriptor_forest", "descriptors")):
        monkeypatch.setitem(
            baselines.BY_NAME, name, lambda features=features, **shared: Forest(features, trees=20, **shared)
        )


@pytest.fixture
def sheet(tmp_path):
    table = pd.DataFrame({"Entry": range(1, 41), "Smiles": SMILES, "size (nm)": SIZES, "other": SIZES**2})
    table.to_excel(tmp_path / "my.xlsx", index=False)
    return tmp_path / "my.xlsx"


def test_scores_are_those_of_a_plain_cross_validation(sheet, tmp_path):
    found = moleclip.train(sheet, "size (nm)", out=tmp_path / "model", method="ecfp4_forest")
    folds = list(RepeatedKFold(n_splits=5, n_repeats=2, random_state=0).split(SIZES))
    errors, predicted = [], found.predictions[found.predictions["encoder"] == "mean"]
    assert predicted.groupby("split_seed")["row"].apply(sorted).tolist() == [list(range(40))] * 2
    np.testing.assert_allclose(predicted["label"], SIZES[predicted["row"]])
    for number, (train, test) in enumerate(folds):
        model = DummyRegressor().fit(train[:, None], SIZES[train])
        rows = predicted[(predicted["split_seed"] == 1 + number // 5) & predicted["row"].isin(test)]
        assert rows["prediction"].to_numpy() == pytest.approx(SIZES[train].mean())
        errors.append(np.abs(model.predict(test[:, None]) - SIZES[test]).mean())
    table = found.table.set_index("method")
    assert table.loc["mean", "score"] == pytest.approx(np.mean(errors))
    assert table.loc["mean", "sd"] == pytest.approx(np.std(errors, ddof=1))
    gain = table.loc["mean", "score"] - table.loc["ecfp4_forest", "score"]
    assert table.loc["ecfp4_forest", "gain"] == pytest.approx(gain)
    assert found.sentence.startswith("The ECFP4 forest: MAE of ")
    assert "cross-validation of 40 molecules (10 test parts)" in found.sentence


def test_a_kept_forest_predicts_as_one_trained_on_all_labels(sheet, tmp_path):
    moleclip.train(sheet, "size (nm)", out=tmp_path / "model", method="descriptor_forest")
    predictor = MoleCLIPPredictor(tmp_path / "model")
    with pytest.warns(DomainWarning, match="1 of 5 molecules are unlike"):
        found = predictor.predict([*SMILES[:2], Chem.MolFromSmiles(SMILES[2]), "C1CC", "CCP(CC)CC"])
    seed = json.loads((tmp_path / "model/config.json").read_text())["seed"]
    expected = Forest("descriptors", trees=20, seed=seed).fit(SMILES, SIZES).predict([*SMILES[:3], "CCP(CC)CC"])
    np.testing.assert_allclose(found["size (nm)"].to_numpy()[[0, 1, 4]], expected[[0, 1, 3]], rtol=1e-5)
    # Some descriptors depend on the order of the bonds.
    np.testing.assert_allclose(found["size (nm)"][2], expected[2], rtol=1e-2)
    assert found["problem"].tolist() == ["", "", "", "not a SMILES string", ""]
    assert found["in_domain"].tolist() == [True, True, True, pd.NA, False]
    assert found["similarity"][0] == 1
    assert list(found.columns[:3]) == ["molecule", "size (nm)", "in_domain"]
    picture = predictor.predict([np.zeros((9, 9, 3), np.uint8)])
    assert "predicts from structures" in picture["problem"][0]


def test_a_kept_linear_model_stands_alone(sheet, tmp_path):
    encoder.load("small/random", 3).save(tmp_path / "encoder")
    moleclip.train(
        sheet, "size (nm)", out=tmp_path / "model", method="frozen_linear", encoder=tmp_path / "encoder", keep=True
    )
    expected = baselines.FrozenEncoder(tmp_path / "encoder").fit(SMILES, SIZES).predict(SMILES[:5])
    (tmp_path / "encoder").rename(tmp_path / "moved")
    found = MoleCLIPPredictor(tmp_path / "model", views=1).predict(SMILES[:5])
    np.testing.assert_allclose(found["size (nm)"], expected, rtol=1e-3)


def test_a_kept_finetuned_encoder_was_trained_on_all_labels(sheet, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "fitting", lambda molecules: (16, 1))
    seen, fit = [], FinetunedEncoder.fit
    monkeypatch.setattr(
        FinetunedEncoder, "fit", lambda self, given, *rest: seen.append(len(given)) or fit(self, given, *rest)
    )
    moleclip.train(sheet, ["size (nm)", "other"], out=tmp_path / "model", method="finetuned", keep=True)
    assert seen == [32] * 5 + [40] * training.MODELS
    predictor = MoleCLIPPredictor(tmp_path / "model", views=1)
    found = predictor.predict(SMILES[:3])
    each = np.array([model.predict_values(Molecules(SMILES[:3])) for model in predictor.models])
    np.testing.assert_allclose(found[["size (nm)", "other"]], each.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found["other_sd_repeats"], each[..., 1].std(axis=0, ddof=1), rtol=1e-2)


def test_the_best_is_kept_an_interruption_costs_nothing_and_another_model_is_refused(sheet, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "methods", lambda task: ["mean", "ecfp4_forest", "descriptor_forest"])
    fitted, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda model, *given: fitted.append(1) or fit(model, *given))
    found = training.train(sheet, "size (nm)", out=tmp_path / "model")
    assert found.method == found.table["method"][0] == "descriptor_forest"  # which knows sizes
    assert "the best of 2 methods" in found.sentence
    assert len(fitted) == 30
    again = training.train(sheet, "size (nm)", out=tmp_path / "model")
    assert len(fitted) == 30
    named = moleclip.train(sheet, "size (nm)", out=tmp_path / "named", method=["descriptor_forest", "ecfp4_forest"])
    for other in (again, named):
        pd.testing.assert_frame_equal(other.table, found.table)
    with pytest.raises(
        ValueError, match=r"of a finished run with other settings \(molecules was .*choose another folder"
    ):
        training.train(sheet, "other", out=tmp_path / "model")


class Wrong(baselines.Mean):
    def _values(self, given):
        return super()._values(given) + 100


def test_what_does_not_beat_the_mean_is_kept_on_request_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(baselines.BY_NAME, "ecfp4_forest", Wrong)
    file = tmp_path / "my.csv"
    pd.DataFrame({"smiles": SMILES, "y": SIZES}).to_csv(file, index=False)
    arguments = ["train", str(file), "--out", str(tmp_path / "model"), "--method", "ecfp4_forest", "--quiet"]
    assert cli.main(arguments) == 1
    assert "no better than the training mean" in (text := capsys.readouterr().err)
    assert "Nothing is kept" in text
    assert not (tmp_path / "model/config.json").exists()
    assert cli.main([*arguments, "--keep"]) == 0
    assert cli.main(["predict", str(file), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "p.csv")]) == 0
    assert "warning: the model is no better than the training mean" in capsys.readouterr().err
    assert set(pd.read_csv(tmp_path / "p.csv")["note"]) == {"no better than the training mean"}


def test_from_a_spreadsheet_to_predictions(sheet, tmp_path, capsys):
    model, out = str(tmp_path / "model"), tmp_path / "predictions.csv"
    train = ["train", str(sheet), "--smiles", "SMILES", "--out", model, "--method", "descriptor_forest"]
    assert cli.main(train) == 1
    assert "several columns hold numbers: 'size (nm)', 'other'" in capsys.readouterr().err
    assert cli.main([*train, "--target", "size (nm)"]) == 0
    assert "better than the mean by" in capsys.readouterr().out
    assert cli.main(["predict", str(sheet), "--model", model, "--out", str(out)]) == 0
    found = pd.read_csv(out, dtype=str)
    assert found["in_domain"].eq("True").mean() == 1
    assert found["size (nm)"].str.fullmatch(r"\d+\.\d{1,2}").all()  # the error is about .2
    assert cli.main(["models", str(tmp_path)]) == 0
    assert f"{model}  descriptor_forest on my: size (nm)" in capsys.readouterr().out


def test_classes_of_ones_own(tmp_path):
    table = pd.DataFrame({"smiles": SMILES, "large": (np.median(SIZES) < SIZES).astype(int)})
    table.to_csv(tmp_path / "my.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        found = training.train(tmp_path / "my.csv", out=tmp_path / "model", method="descriptor_forest")
        predicted = MoleCLIPPredictor(found.folder).predict(SMILES)
    assert found.table.set_index("method")["score"]["mean"] == 0.5
    assert predicted["large"].between(0, 1).all()
    assert ((predicted["large"] > 0.5) == table["large"]).mean() > 0.9


def test_too_few_molecules(tmp_path):
    pd.DataFrame({"smiles": SMILES[:9], "y": SIZES[:9]}).to_csv(tmp_path / "my.csv", index=False)
    with pytest.raises(ValueError, match="9 different readable molecules with a label; at least 10 are needed"):
        training.train(tmp_path / "my.csv", out=tmp_path / "model")
