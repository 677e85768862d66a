"""From labels to a kept model: the advice, what is kept, and predictions that speak up."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from sklearn.model_selection import KFold

import moleclip
from moleclip import (
    FinetunedEncoder,
    Forest,
    MoleCLIPPredictor,
    baselines,
    datasets,
    encoder,
    finetune,
    metrics,
    tables,
)
from moleclip.apply import cli, training
from moleclip.apply.cross_validation import CrossValidation
from moleclip.apply.predictor import DomainWarning
from moleclip.estimator import Molecules
from moleclip.plots.scores import all_pairs

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
    assert list(found.columns[4:6]) == ["in_domain", "similarity"]
    picture = predictor.predict([np.zeros((9, 9, 3), np.uint8)])
    assert "predicts from structures" in picture["problem"][0]


def test_a_kept_linear_model_stands_alone(sheet, tmp_path):
    encoder.load("small/random", 3).save(tmp_path / "encoder")
    moleclip.train(
        sheet, "size (nm)", out=tmp_path / "model", method="frozen_linear", encoder=tmp_path / "encoder", keep=True
    )
    expected = baselines.FrozenEncoder(tmp_path / "encoder").fit(SMILES, SIZES).predict(SMILES[:5])
    of_last = baselines.FrozenEncoder(tmp_path / "encoder", layers="last").fit(SMILES, SIZES).predict(SMILES[:5])
    (tmp_path / "encoder").rename(tmp_path / "moved")
    found = MoleCLIPPredictor(tmp_path / "model", views=1).predict(SMILES[:5])
    np.testing.assert_allclose(found["size (nm)"], expected, rtol=1e-3)
    card = json.loads((tmp_path / "model/config.json").read_text())
    assert card.pop("layers") == "all"  # cards did not say so when only the last was read
    (tmp_path / "model/config.json").write_text(json.dumps(card))
    found = MoleCLIPPredictor(tmp_path / "model", views=1).predict(SMILES[:5])
    np.testing.assert_allclose(found["size (nm)"], of_last, rtol=1e-3)


def test_a_kept_finetuned_encoder_is_the_mean_of_the_folds(sheet, tmp_path, monkeypatch):
    """Each label has trained four of five models, and the interval is of the fifth."""
    monkeypatch.setattr(finetune, "fitting", lambda molecules: (16, 1))
    seen, fit = [], FinetunedEncoder.fit
    monkeypatch.setattr(
        FinetunedEncoder, "fit", lambda self, given, *rest: seen.append(len(given)) or fit(self, given, *rest)
    )
    labels = ["size (nm)", "other"]
    found = moleclip.train(sheet, labels, out=tmp_path / "model", method="finetuned", keep=True)
    assert seen == [32] * 5
    predictor = MoleCLIPPredictor(tmp_path / "model", views=1)
    predicted = predictor.predict(SMILES[:3])
    each = np.array([model.predict_values(Molecules(SMILES)) for model in predictor.models])
    np.testing.assert_allclose(predicted[labels], each[:, :3].mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(predicted["other_sd_repeats"], each[:, :3, 1].std(axis=0, ddof=1), rtol=1e-2)
    tested = found.predictions.query("encoder == 'finetuned' and target == 'other'").sort_values("row")
    of_fold = each[tested["fold"] - 1, tested["row"], 1]
    np.testing.assert_allclose(tested["prediction"], of_fold, rtol=1e-3)
    ends = metrics.cv_plus(of_fold, SIZES**2, tested["fold"].to_numpy() - 1, each[:, :3, 1])
    np.testing.assert_allclose(predicted[["other_low", "other_high"]].to_numpy().T, ends, rtol=1e-3)
    assert len(list((tmp_path / "model/parts").glob("*/config.json"))) == 5
    moleclip.train(sheet, labels, out=tmp_path / "model", method="finetuned", keep=True)
    assert seen == [32] * 5


def test_the_advised_one_is_kept_an_interruption_costs_nothing_and_another_model_is_refused(
    sheet, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "methods", lambda task: ["mean", "ecfp4_forest", "descriptor_forest"])
    fitted, fit = [], CrossValidation.fitted
    monkeypatch.setattr(CrossValidation, "fitted", lambda *given: fitted.append(1) or fit(*given))
    found = training.train(sheet, "size (nm)", out=tmp_path / "model")
    assert found.method == found.table["method"][0] == "descriptor_forest"  # which knows sizes
    assert found.sure
    assert len(fitted) == 30 + 5 * training.SHUFFLES
    again = training.train(sheet, "size (nm)", out=tmp_path / "model")
    assert len(fitted) == 30 + 5 * training.SHUFFLES
    named = moleclip.train(sheet, "size (nm)", out=tmp_path / "named", method=["descriptor_forest", "ecfp4_forest"])
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.remarks == found.remarks
    pd.testing.assert_frame_equal(named.table, found.table)
    with pytest.raises(
        ValueError, match=r"of a finished run with other settings \(other molecules\).*choose another folder"
    ):
        training.train(sheet, "other", out=tmp_path / "model")
    with pytest.raises(ValueError, match="repeats was 2, is 3"):
        training.train(sheet, "size (nm)", out=tmp_path / "model", repeats=3)


def test_intervals_are_those_of_the_cross_validation(sheet, tmp_path):
    found = moleclip.train(sheet, "size (nm)", out=tmp_path / "model", method="ecfp4_forest", repeats=1, keep=True)
    predictor = MoleCLIPPredictor(tmp_path / "model")
    tested = found.predictions.query("encoder == 'ecfp4_forest'").sort_values("row")
    each = np.array([model.predict(SMILES)[:, 0] for model in predictor.folds])
    np.testing.assert_allclose(tested["prediction"], each[tested["fold"] - 1, tested["row"]])  # fitted anew, the same
    predicted = predictor.predict(SMILES[:7])
    ends = metrics.cv_plus(tested["prediction"].to_numpy(), SIZES, tested["fold"].to_numpy() - 1, each[:, :7])
    np.testing.assert_allclose(predicted[["size (nm)_low", "size (nm)_high"]].to_numpy().T, ends)
    assert list(predicted.columns[1:4]) == ["size (nm)", "size (nm)_low", "size (nm)_high"]


def test_a_label_with_few_values_has_no_interval_and_says_so(tmp_path, caplog):
    tests = [test for _, test in KFold(5, shuffle=True, random_state=0).split(SIZES)]
    rows = [*(test[0] for test in tests), *(test[1] for test in tests[:3])]
    table = pd.DataFrame({"smiles": SMILES, "all": SIZES, "few": np.where(np.isin(np.arange(40), rows), SIZES, np.nan)})
    table.to_csv(tmp_path / "my.csv", index=False)
    given = {"method": "ecfp4_forest", "keep": True, "repeats": 1}
    moleclip.train(tmp_path / "my.csv", ["all", "few"], out=tmp_path / "model", **given)
    found = MoleCLIPPredictor(tmp_path / "model").predict(SMILES[:2])
    assert "few: 8 labels are too few for 90 % intervals" in caplog.text
    assert "all_low" in found
    assert "few_low" not in found


def test_a_folder_of_an_earlier_version_is_refused(sheet, tmp_path):
    moleclip.train(sheet, "size (nm)", out=tmp_path / "model", method="mean")
    card = tmp_path / "model/config.json"
    card.write_text(json.dumps({key: value for key, value in json.loads(card.read_text()).items() if key != "tested"}))
    with pytest.raises(ValueError, match="written by an earlier version"):
        MoleCLIPPredictor(tmp_path / "model")


def test_labels_that_predictions_would_hide(tmp_path):
    pd.DataFrame({"smiles": SMILES, "y": SIZES, "y_low": SIZES}).to_csv(tmp_path / "my.csv", index=False)
    with pytest.raises(ValueError, match="predictions of 'y' have the column 'y_low'"):
        training.compare(tmp_path / "my.csv", ["y", "y_low"])


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
    assert "better than the mean by" in text  # the comparison, too
    assert not (tmp_path / "model/config.json").exists()
    assert cli.main([*arguments, "--keep"]) == 0
    assert cli.main(["predict", str(file), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "p.csv")]) == 0
    assert "warning: the model is no better than the training mean" in capsys.readouterr().err
    assert set(pd.read_csv(tmp_path / "p.csv")["note"]) == {"the model is no better than the training mean"}


def test_from_a_spreadsheet_to_predictions(sheet, tmp_path, capsys):
    model, out = str(tmp_path / "model"), tmp_path / "predictions.csv"
    train = ["train", str(sheet), "--smiles", "SMILES", "--out", model, "--method", "descriptor_forest"]
    assert cli.main(train) == 1
    assert "several columns hold numbers: 'size (nm)', 'other'" in capsys.readouterr().err
    assert cli.main([*train, "--target", "size (nm)"]) == 0
    shown = capsys.readouterr().out
    assert "MAE, nm better than the mean by" in shown
    assert "- descriptors + random forest is better than on each of 5 shuffles of labels." in shown
    assert "- The molecules tested have a median similarity of 0." in shown
    assert cli.main(["predict", str(sheet), "--model", model, "--out", str(out)]) == 0
    found = pd.read_csv(out, dtype=str)
    assert found["in_domain"].eq("True").mean() == 1
    assert found["size (nm)"].str.fullmatch(r"\d+\.\d{1,2}").all()  # the error is about .2
    assert cli.main(["models", str(tmp_path)]) == 0
    assert f"{model}  descriptor_forest on my: size (nm)" in capsys.readouterr().out


def test_each_of_several_labels_counts_and_is_judged(tmp_path):
    """A label without a signal on a scale a thousand times as large does not hide the other one."""
    noise = 1000 * np.random.default_rng(0).random(40)
    table = pd.DataFrame({"smiles": SMILES, "size": SIZES, "noise": noise})
    table.to_csv(tmp_path / "my.csv", index=False)
    found = training.train(tmp_path / "my.csv", ["size", "noise"], out=tmp_path / "model", method="descriptor_forest")
    assert set(found.scores["unit"]) == {"standard deviations"}
    chosen, mean = found.table.set_index("method").loc[["descriptor_forest", "mean"], "score"]
    parts = [part.test for part in found.job.parts]
    deviations = np.column_stack([SIZES / SIZES.std(), noise / noise.std()])
    expected = [np.abs(deviations[test] - np.delete(deviations, test, axis=0).mean(axis=0)).mean() for test in parts]
    assert mean == pytest.approx(np.mean(expected))
    assert chosen < mean
    assert found.note == "not surely better than the training mean for noise"
    of_size, of_noise = found.remarks[:2]
    assert re.fullmatch(r"size: MAE of 0\.\d+, that of the training mean is \d\.\d+\.", of_size)
    assert of_noise.startswith("noise: MAE of ")
    assert of_noise.endswith(", not surely better.")
    # Labels of a set that share a unit, as those of the carbenes, are compared in it.
    alike = dataclasses.replace(found.job, dataset=dataclasses.replace(found.job.dataset, unit="e"))
    assert (alike.scale.tolist(), alike.unit) == ([1, 1], "e")


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
    assert "large_low" not in predicted


def test_too_few_molecules(tmp_path):
    pd.DataFrame({"smiles": SMILES[:9], "y": SIZES[:9]}).to_csv(tmp_path / "my.csv", index=False)
    with pytest.raises(ValueError, match="9 different readable molecules with a label; at least 10 are needed"):
        training.train(tmp_path / "my.csv", out=tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"repeats": 0}, ValueError, "repeats = 0: expected 1 or more"),
        ({"difference": -0.5}, ValueError, "difference = -0.5: expected a number above 0"),
        ({"out": "my.xlsx"}, ValueError, r"my\.xlsx: is a file, and a model is kept in a folder"),
        ({"source": pd.DataFrame({"smiles": SMILES})}, TypeError, r"a DataFrame is no file .* \.csv file first"),
    ],
)
def test_what_training_cannot_use_is_named(sheet, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        training.train(**{"source": sheet, "target": "size (nm)", "out": "model", "method": "mean", **options})


def test_salts_are_named(tmp_path):
    salts = [f"{smiles}.Cl" for smiles in SMILES[:7]]
    table = pd.DataFrame({"smiles": [*SMILES[:20], *salts], "y": [*SIZES[:20], *SIZES[:7]]})
    table.to_csv(tmp_path / "my.csv", index=False)
    remarks = training.compare(tmp_path / "my.csv", method="mean").remarks
    # The header is line 1.
    assert remarks[-1] == (
        "Salts or mixtures, which count as other molecules than their parts: 7 "
        "(line 22, line 23, line 24, line 25, line 26, 2 more)."
    )


def made(scores, metric="MAE", unit="eV", folds=2, seed=0):
    """A cross-validation of given scores: method to a list of scores by part."""
    rows = [
        {"method": name, "repeat": 1 + part // folds, "fold": 1 + part % folds, "score": value, "epoch": 0}
        for name, values in scores.items()
        for part, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(given=40, tested=10, metric=metric, unit=unit)


MEAN = [1.0, 1.1, 0.9, 1.0]
BETTER = [0.5, 0.62, 0.38, 0.5]


@pytest.mark.parametrize(
    ("scores", "method", "start"),
    [
        (
            {"finetuned": BETTER, "ecfp4_forest": [0.9, 1.02, 0.79, 0.9]},
            "finetuned",
            "Use finetuned encoder (finetuned): MAE",
        ),
        ({"ecfp4_forest": [0.51, 0.6, 0.4, 0.52], "frozen_linear": BETTER}, "ecfp4_forest", "Use ECFP4"),
        ({"ecfp4_forest": BETTER, "finetuned": [0.6, 0.6, 0.4, 0.52]}, "ecfp4_forest", "Use ECFP4"),
        # Not surely better than the mean: simple, but not to be advised.
        (
            {"ecfp4_forest": [0.1, 1.3, 0.4, 0.6], "finetuned": BETTER},
            "finetuned",
            "Use finetuned encoder (finetuned): ",
        ),
        ({"ecfp4_forest": [0.8, 1.4, 0.7, 1.0]}, "ecfp4_forest", "Use none yet: ECFP4"),
        ({"ecfp4_forest": [1.2, 1.3, 1.1, 1.2]}, "ecfp4_forest", "Use none: ECFP4"),
    ],
)
@pytest.mark.parametrize("metric", ["MAE", "ROC-AUC"])
def test_advice(scores, method, start, metric):
    scores = {"mean": MEAN, **scores}
    if metric == "ROC-AUC":  # the same the other way round
        scores = {name: 1.5 - np.array(values) for name, values in scores.items()}
        start = start.replace("MAE", metric)
    found = training.advise(made(scores, metric, "eV" if metric == "MAE" else ""))
    assert found.method == method
    assert found.sentence.startswith(start)
    assert found.sure == (not found.note) == (not start.startswith("Use none"))
    table = found.table.set_index("method")
    means = {name: np.mean(values) for name, values in scores.items()}
    assert list(table.index) == sorted(means, key=means.get, reverse=metric == "ROC-AUC")
    assert table["score"].to_dict() == pytest.approx(means)
    sign, best = (1 if metric == "ROC-AUC" else -1), next(name for name in table.index if name != "mean")
    for name in table.index:
        for key, (a, b) in {"gain": (name, "mean"), "behind": (best, name)}.items():
            expected = metrics.paired(sign * np.array(scores[a]), sign * np.array(scores[b]), 10 / 40)
            assert table.loc[name, f"{key}" : f"{key}_detectable"].tolist() == pytest.approx(
                list(expected), nan_ok=True
            )
    # Each score and difference in the words is one of the table, rounded; each p too.
    numbers = re.findall(r"(?<!p = )(?<!p < )-?\b\d+\.\d+", found.sentence)
    known = table.filter(regex="score|behind|gain").filter(regex="^(?!.*_p$)").to_numpy().ravel()
    assert len(numbers) >= 2
    for number in numbers:
        rounding = 0.5 * 10.0 ** -len(number.partition(".")[2])
        assert np.isclose(np.abs(known), abs(float(number)), rtol=1e-9, atol=1.01 * rounding).any()
    every = table[["behind_p", "gain_p"]].to_numpy().ravel()
    for p in re.findall(r"corrected p = ([\d.e-]+\d)", found.sentence):
        assert np.isclose(every, float(p), rtol=0.06).any()


def test_a_forest_that_is_better_and_simpler_wins_over_finetuning_that_surely_beats_the_mean():
    """As it was recommended the other way round: finetuning 1.30 over a forest that was better in all of three."""
    mean, forest = np.array([1.5, 1.7, 1.9]), np.array([0.75, 1.3, 1.01])
    finetuned = mean - [0.40, 0.38, 0.42]
    found = training.advise(made({"mean": mean, "finetuned": finetuned, "ecfp4_forest": forest}, folds=3))
    table = found.table.set_index("method")
    assert table.loc["finetuned", "gain_p"] < 0.05 < table.loc["ecfp4_forest", "gain_p"]
    assert found.method == "ecfp4_forest"
    assert not found.sure
    assert found.sentence.startswith("Use none yet: ECFP4 + random forest is not surely better than the training mean")


def test_a_clear_advice_word_for_word():
    found = training.advise(
        made({"mean": MEAN, "ecfp4_forest": [0.9, 1.02, 0.79, 0.9], "finetuned": BETTER}),
        difference=0.01,
        shuffled=("ecfp4_forest", 0.9, [1.0, 1.1]),
    )
    gain = metrics.paired(MEAN, BETTER, 10 / 40)
    next_ = metrics.paired([0.9, 1.02, 0.79, 0.9], BETTER, 10 / 40)
    ends, further = (f"{one.difference:.3f} (95 % {one.low:.3f} to {one.high:.3f}" for one in (gain, next_))
    assert found.sentence == (
        "Use finetuned encoder (finetuned): MAE of 0.500 eV in cross-validation of 50 molecules (4 test parts), "
        f"{ends}; corrected p < 0.001) lower than that of the training mean. It is better than ECFP4 + random forest, "
        f"the next best, by {further}; corrected p < 0.001)."
    )
    needed = 50 * (next_.detectable / 0.01) ** 2
    assert found.remarks == [
        "ECFP4 + random forest is better than on each of 2 shuffles of labels.",
        f"Between these two, 50 labels would show a difference of {next_.detectable:.3f} eV (in 80 % of cases). One of "
        f"0.010 eV takes about {float(f'{needed:.2g}'):.0f}, if the spread of differences falls as one over the root "
        "of their number.",
        "2 repeats agree on the best: finetuned encoder in 2.",
    ]
    (shown, _) = training.advise(found.scores, difference=1.01 * next_.detectable).remarks
    assert shown.endswith(f"One of {1.01 * next_.detectable:.3f} eV would have been seen.")


def test_what_is_chosen_is_the_best_or_simpler_and_sure_if_the_best_is():
    """Whatever the scores."""
    rng, advised = np.random.default_rng(0), set()
    names = ["mean", "ecfp4_forest", "frozen_linear", "finetuned"]
    for _ in range(100):
        shared = rng.normal(size=4) * rng.choice([0.0, 0.3])
        scores = {
            name: 1 - rng.uniform(-0.1, 0.6) * (name != "mean") + rng.choice([0.02, 0.1]) * rng.normal(size=4) + shared
            for name in names
        }
        found = training.advise(made(scores))
        table = found.table.set_index("method")
        best = next(name for name in table.index if name != "mean")
        assert names.index(found.method) <= names.index(best)
        sure = (table["gain"] > 0) & (table["gain_p"] < 0.05)
        assert found.sure == sure[found.method] == sure[best] or not sure[best]
        assert found.sentence.startswith("Use none") != found.sure
        tied = [name for name in names[1:] if name == best or table.loc[name, "behind_p"] >= 0.05]
        assert found.method in tied
        advised.add(found.method)
    assert advised == set(names[1:])


def test_repeats_that_disagree_and_shuffles_that_are_as_good_say_so():
    scores = {"mean": [1.0] * 4, "ecfp4_forest": [0.1, 0.11, 0.3, 0.31], "finetuned": [0.2, 0.21, 0.25, 0.22]}
    found = training.advise(made(scores), shuffled=("ecfp4_forest", 0.2, [0.3, 0.19]))
    assert "2 repeats do NOT agree on the best: ECFP4 + random forest in 1, finetuned encoder in 1." in found.remarks
    assert "ECFP4 + random forest is NOT better than on each of 2 shuffles of labels." in found.remarks
    assert not found.sure
    assert "is not surely better than on shuffled labels" in found.sentence


def test_noise_is_called_noise(tmp_path):
    noise = np.random.default_rng(5).normal(size=40)
    dataset = datasets.Dataset("noise", tuple(SMILES), noise[:, None], ("y",), "regression", "MAE", "")
    found = training.compare(dataset, method=["ecfp4_forest", "tanimoto_gp"])
    assert not found.sure
    assert found.sentence.startswith("Use none")


def test_methods_that_were_tested_less_often_are_compared_where_both_were(caplog):
    scores = made({"mean": MEAN, "ecfp4_forest": BETTER, "finetuned": [0.7, 0.6], "frozen_linear": [0.1, np.nan]})
    table = training.ranked(scores)
    assert "frozen_linear diverged" in caplog.text
    assert "frozen_linear" not in table.index
    assert table.loc["finetuned", "parts"] == 2
    expected = metrics.paired([0.7, 0.6], BETTER[:2], 10 / 40)
    assert table.loc["finetuned", "behind":"behind_p"].tolist() == pytest.approx(list(expected[:4]))
    assert table["wins"].to_dict() == {"ecfp4_forest": 2, "finetuned": 0, "mean": 0}


def test_the_figure_shows_what_differs_surely(style):
    scores = made({"mean": MEAN, "ecfp4_forest": BETTER, "finetuned": [0.52, 0.6, 0.4, 0.5]})
    left, right = all_pairs(scores).axes
    pairs = metrics.all_pairs(*tables.by_part(scores))
    sure = {frozenset(pair) for pair in pairs.loc[pairs["p"] < 0.05, ["a", "b"]].to_numpy()}
    assert sure == {frozenset(("mean", "ecfp4_forest")), frozenset(("mean", "finetuned"))}
    assert [text.get_text() for text in left.get_yticklabels()][-1] == "training mean (rank 3.0)"
    bold = {text.get_position() for text in right.texts if text.get_text()[0] in "+-" and text.get_weight() == "bold"}
    assert bold == {(0, 2), (2, 0), (1, 2), (2, 1)}
    bars = [path.vertices[:, 0] for path in left.collections[0].get_paths()]
    assert (bars[0][1] > bars[1][0], bars[0][1] > bars[2][0], bars[1][1] > bars[2][0]) == (True, False, False)
    percent = 100 * (1.0 - 0.5) / 0.5
    assert any(text.get_text() == f"{percent:+.0f}" for text in right.texts)
    assert right.get_title().endswith(f"each \u00b1 {100 * (pairs['high'] - pairs['low'])[0] / 2 / 0.5:.0f}")
