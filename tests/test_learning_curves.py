"""The adviser: fair splits, a test that is not too sure, and sentences that say what the numbers say."""

import dataclasses
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error

from moleclip import baselines, datasets, drawing, encoder, metrics, molecules
from moleclip.apply import learning_curves
from moleclip.baselines import Forest, FrozenEncoder, Mean
from moleclip.estimator import MoleculeEstimator, Molecules
from moleclip.finetune import FinetunedEncoder

SERIES = datasets.load("chembl2321810")
CHEAP = ("mean", "ecfp4_forest")
FORESTS = 60  # trees, where their number does not matter


@pytest.fixture
def few_trees(monkeypatch):
    monkeypatch.setitem(Forest.__init__.__kwdefaults__, "trees", FORESTS)


def own(labels=None, count=60, task="regression", step=16):
    """Molecules from all over the series, with its labels or others [N] or [N, T]."""
    rows = slice(0, step * count, step)
    labels = SERIES.labels[rows] if labels is None else np.asarray(labels, float).reshape(count, -1)
    names = tuple("abc"[: labels.shape[1]])
    metric = "MAE" if task == "regression" else "ROC-AUC"
    return datasets.Dataset("own", SERIES.smiles[rows], labels, names, task, metric, "eV" * (task == "regression"))


def random(count=60):
    return np.random.default_rng(5).normal(size=count)


def test_all_methods_get_the_same_molecules_and_never_those_tested(monkeypatch):
    seen = []
    names = {Mean: "mean", Forest: "ecfp4_forest", FrozenEncoder: "frozen + ridge", FinetunedEncoder: "finetuned"}

    def fit(model, some, labels, validation, numbers):
        assert np.array_equal(some.rows, numbers)
        chosen = [] if validation is None else list(validation[0].rows)
        assert not {*some.rows} & {*chosen}
        if isinstance(model, FinetunedEncoder):
            assert len(chosen) == (len(some) + len(chosen)) // 5
        seen.append([names[type(model)], [*some.rows, *chosen], None])
        return model

    def predict_values(model, some):
        seen[-1][2] = list(some.rows)
        return np.zeros((len(some), 1))

    monkeypatch.setattr(MoleculeEstimator, "fit", fit)
    monkeypatch.setattr(MoleculeEstimator, "predict_values", predict_values)
    table = learning_curves.curves(own(), "small/random", repeats=3, seed=4)
    assert list(zip(table["method"], table["size"], strict=True)) == [(name, len(rows)) for name, rows, _ in seen]
    assert sorted(set(table["size"])) == [15, 30, 45]
    assert set(table["tested"]) == {15}
    tests = []
    for start in range(0, len(seen), 12):  # a repeat: four methods at three sizes
        test = seen[start + 3][2]
        sizes = [seen[start + 4 * size : start + 4 * size + 4] for size in range(3)]
        assert all(set(rows) == set(group[0][1]) for group in sizes for _, rows, _ in group)
        given = [set(group[0][1]) for group in sizes]
        assert given[0] < given[1] < given[2]
        assert given[2] | set(test) == set(range(60))
        assert not given[2] & set(test)
        assert all(rows[2] == test for group in sizes for rows in group if rows[2])
        tests.append(frozenset(test))
    assert len(set(tests)) == 3


def test_the_score_is_that_of_the_molecules_set_aside():
    """The mean, by hand."""
    table = learning_curves.curves(own(), "", sizes=[20, 45], repeats=2, seed=1, methods=["mean"])
    labels = own().labels
    for row in table.itertuples():
        test, pool = learning_curves.split(labels, "regression", 20, 1, row.repeat)
        assert row.score == pytest.approx(np.abs(labels[test] - labels[pool[: row.size]].mean()).mean())


def test_classes_are_in_every_part():
    labels = np.zeros((60, 1))
    labels[::10] = 1.0  # six of them
    labels[5] = np.nan
    for repeat in range(20):
        test, pool = learning_curves.split(labels, "classification", 15, 0, repeat)
        counts = [int(np.nansum(labels[rows])) for rows in (test, pool[:15], pool)]
        assert counts[0] in (1, 2)
        assert counts[1] >= 2
        assert counts[2] == 6 - counts[0]


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


def test_what_fingerprints_explain_the_forest_is_advised_for(few_trees):
    bits = molecules.morgan(own().smiles)
    even = np.argsort(np.abs(bits.mean(axis=0) - 0.5), kind="stable")[:2]
    table = learning_curves.curves(
        own(bits[:, even] @ [1.0, 2.0]), "small/random", sizes=[20, 45], methods=learning_curves.METHODS[:3]
    )
    advice = learning_curves.advise(table)
    assert advice.method == "ecfp4_forest"
    assert advice.sentence.startswith("Use the ECFP4 forest: given 45 labelled molecules (5 random splits, 15 others")
    forest = advice.table.set_index("method").loc["ecfp4_forest"]
    assert forest["gain_low"] > 0.3 * advice.table.set_index("method").loc["mean", "score"]


def test_what_embeddings_explain_ridge_is_advised_for(few_trees):
    smiles = own().smiles
    images = drawing.draw_all(list(smiles), 224, "plain", 0)
    network = encoder.load("small/random", seed=3).eval()
    embeddings = encoder.embed_drawings(network, images).double().numpy()
    centred = embeddings - embeddings.mean(axis=0)
    label = np.linalg.svd(centred)[0][:, 0] * 100  # along the widest direction
    advice = learning_curves.advise(
        learning_curves.curves(own(label), "small/random", sizes=[45], seed=3, methods=learning_curves.METHODS[:3])
    )
    assert advice.table["method"].iloc[0] == "frozen + ridge"
    assert advice.table.set_index("method").loc["frozen + ridge", "gain_p"] < 0.01


def test_noise_is_called_noise(few_trees):
    table = learning_curves.curves(own(random()), "small/random", sizes=[30, 45], repeats=3, epochs=1)
    advice = learning_curves.advise(table)
    assert advice.method == "mean"
    assert advice.sentence.startswith("None is surely better than the training mean: ")
    assert "More labels are needed" in advice.sentence


def test_classes_of_ones_own(few_trees):
    labels = np.column_stack([SERIES.labels[: 16 * 60 : 16, 0] > 6.5, random() > 0]).astype(float)
    labels[::9, 1] = np.nan
    dataset = own(labels, task="classification")
    table = learning_curves.curves(dataset, "small/random", sizes=[45], repeats=2, epochs=1)
    assert set(table["metric"]) == {"ROC-AUC"}
    assert table["score"].between(0, 1).all()
    assert (table.loc[table["method"] == "mean", "score"] == 0.5).all()
    assert "chance" in learning_curves.advise(table).sentence


def test_the_scale_of_labels_changes_nothing_but_that_of_scores():
    options = {"sizes": [20], "repeats": 1, "epochs": 2, "methods": ("mean", "frozen + ridge", "finetuned")}
    first = learning_curves.curves(own(), "small/random", **options)
    second = learning_curves.curves(own(own().labels * 1024 + 4096), "small/random", **options)
    assert second["score"].to_numpy() == pytest.approx(1024 * first["score"].to_numpy(), rel=1e-2)


def test_the_same_seed_gives_the_same_scores(few_trees, caplog):
    options = {"sizes": [12], "repeats": 1, "epochs": 1}
    with caplog.at_level("INFO", "moleclip.apply.learning_curves"):
        runs = [learning_curves.curves(own(count=32), "small/random", seed=seed, **options) for seed in (0, 0, 1)]
    assert runs[0].equals(runs[1])
    assert (runs[0]["score"] != runs[2]["score"]).all()
    lines = [record.getMessage() for record in caplog.records if record.name == "moleclip.apply.learning_curves"]
    assert len(lines) == 12
    assert re.fullmatch(r"finetuned, 12 molecules, split 1 of 1: MAE [\d.]+; about 0 s left", lines[3])


def test_a_training_that_diverges_is_left_out_of_the_advice(few_trees):
    wild = {"lr": 1e30, "head_lr": 1e30}
    table = learning_curves.curves(
        own(), "small/random", sizes=[45], repeats=2, epochs=1, methods=(*CHEAP, "finetuned"), **wild
    )
    assert table.loc[table["method"] == "finetuned", "score"].isna().all()
    advice = learning_curves.advise(table)
    assert set(advice.table["method"]) == set(CHEAP)
    assert "Left out, as it diverged: finetuning; try a smaller lr." in advice.sentence


def made(scores, metric="MAE", unit="eV"):
    """Curves of given scores: method to a list of scores by repeat, at sizes 20 and 40."""
    rows = [
        {"method": name, "size": size, "repeat": repeat, "tested": 10, "metric": metric, "unit": unit, "score": value}
        for name, values in scores.items()
        for size, worse in ((20, 0.1 if metric == "MAE" else -0.1), (40, 0.0))
        for repeat, value in enumerate(np.add(values, worse * np.array([1, 1.2, 0.8, 1]) * (name != "mean")), 1)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


MEAN = [1.0, 1.1, 0.9, 1.0]
BETTER = [0.5, 0.62, 0.38, 0.5]


@pytest.mark.parametrize(
    ("scores", "method", "start"),
    [
        ({"finetuned": BETTER, "ecfp4_forest": [0.9, 1.02, 0.79, 0.9]}, "finetuned", "Use finetuning: given 40"),
        ({"ecfp4_forest": [0.51, 0.6, 0.4, 0.52], "frozen + ridge": BETTER}, "ecfp4_forest", "Use the ECFP4 forest: "),
        ({"ecfp4_forest": BETTER, "finetuned": [0.6, 0.6, 0.4, 0.52]}, "ecfp4_forest", "Use the ECFP4 forest: "),
        # Not surely better than the mean: simple, but not to be advised.
        ({"ecfp4_forest": [0.1, 1.3, 0.4, 0.6], "finetuned": BETTER}, "finetuned", "Use finetuning: "),
        ({"ecfp4_forest": [0.8, 1.4, 0.7, 1.0]}, "mean", "None is surely better than the training mean: "),
        ({"ecfp4_forest": [1.2, 1.3, 1.1, 1.2]}, "mean", "None is surely better than the training mean: "),
    ],
)
@pytest.mark.parametrize("metric", ["MAE", "ROC-AUC"])
def test_advice(scores, method, start, metric):
    scores = {"mean": MEAN, **scores}
    if metric == "ROC-AUC":  # the same the other way round
        scores = {name: 1.5 - np.array(values) for name, values in scores.items()}
        start = start.replace("the training mean", "chance")
    table = made(scores, metric, "eV" if metric == "MAE" else "")
    advice = learning_curves.advise(table)
    assert advice.method == method
    assert advice.sentence.startswith(start)
    best = advice.table.set_index("method")
    means = table[table["size"] == 40].groupby("method")["score"].mean()
    assert list(advice.table["method"]) == list(means.sort_values(ascending=metric == "MAE").index)
    assert best["score"].to_dict() == pytest.approx(means.to_dict())
    # Each score and difference in the words is one of the table, rounded; each p too.
    said = advice.sentence.split(" From ")[0]
    numbers = re.findall(r"(?<!p = )(?<!p < )-?\b\d+\.\d+", said)
    known = best.filter(regex="score|behind|gain").filter(regex="^(?!.*_p$)").to_numpy().ravel()
    assert len(numbers) >= 4
    for number in numbers:
        rounding = 0.5 * 10.0 ** -len(number.partition(".")[2])
        assert np.isclose(np.abs(known), abs(float(number)), rtol=1e-9, atol=1.01 * rounding).any()
    (p,) = re.findall(r"corrected p = ([\d.e-]+\d)", said) or ["<"]
    found = best[["behind_p", "gain_p"]].to_numpy().ravel()
    assert (found < 0.001).any() if p == "<" else np.isclose(found, float(p), rtol=0.06).any()


def test_a_clear_advice_word_for_word():
    table = made({"mean": MEAN, "ecfp4_forest": [0.9, 1.02, 0.79, 0.9], "finetuned": BETTER})
    found = metrics.paired([0.9, 1.02, 0.79, 0.9], BETTER, 10 / 40)
    trend = metrics.paired(BETTER, np.add(BETTER, [0.1, 0.12, 0.08, 0.1]), 10 / 20)
    assert learning_curves.advise(table).sentence == (
        "Use finetuning: given 40 labelled molecules (4 random splits, 10 others tested in each), its MAE of 0.500 eV "
        f"is {found.difference:.3f} (95 % {found.low:.3f} to {found.high:.3f}; corrected p < 0.001) lower than that of "
        "the ECFP4 forest, the next best. From 20 to 40, the MAE of finetuning changes by "
        f"{trend.difference:.3f} (95 % {trend.low:.3f} to {trend.high:.3f}; corrected p = {trend.p:.2g}): the curve "
        "still falls, so more labels should help."
    )


def test_whoever_is_sure_someone_tied_is_sure():
    """Whatever the scores, nothing is called unsure that the table calls sure."""
    rng = np.random.default_rng(0)
    advised = set()
    for _ in range(150):
        shared = rng.normal(size=4) * rng.choice([0.0, 0.3])
        scores = {
            name: 1 - rng.uniform(0, 0.6) * (name != "mean") + rng.choice([0.02, 0.1]) * rng.normal(size=4) + shared
            for name in learning_curves.METHODS
        }
        advice = learning_curves.advise(made(scores))
        table = advice.table.set_index("method")
        sure = table.index[(table["gain"] > 0) & (table["gain_p"] < 0.05)]
        assert (advice.method != "mean") == bool(len(sure)) == advice.sentence.startswith("Use ")
        if len(sure):
            assert advice.method in sure
            assert advice.method == table.index[0] or table.loc[advice.method, "behind_p"] >= 0.05
        advised.add(advice.method)
    assert advised == set(learning_curves.METHODS)


def test_one_size_says_nothing_of_a_trend():
    table = made({"mean": MEAN, "ecfp4_forest": BETTER})
    assert " From " in learning_curves.advise(table).sentence
    assert " From " not in learning_curves.advise(table[table["size"] == 40]).sentence


@pytest.mark.parametrize("query", ["method == 'mean'", "method != 'mean'", "repeat == 1"])
def test_nothing_to_compare(query):
    with pytest.raises(ValueError, match="nothing to compare: curves of the mean, of another method, and two repeats"):
        learning_curves.advise(made({"mean": MEAN, "ecfp4_forest": BETTER}).query(query))


def test_figure_shows_every_split_and_the_mean(style):
    table = made({"mean": MEAN, "finetuned": BETTER})
    ax = learning_curves.figure(table).axes[0]
    assert ax.get_ylabel() == "test MAE (eV), \u2193 better"
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["finetuning"].get_ydata() == pytest.approx([0.6, 0.5])
    assert same_color(lines["the training mean"].get_color(), "0.5")
    points = list(itertools.chain(*(line.get_ydata() for line in ax.get_lines() if line.get_linestyle() == "None")))
    assert sorted(points) == pytest.approx(sorted(table["score"]))


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (own(count=29), {}, "own: 29 different readable molecules with a label; at least 30 are needed"),
        (dataclasses.replace(own(), smiles=("C", "CC") * 30), {}, "own: 2 different readable molecules"),
        (own(np.where(np.arange(60) < 20, 1.0, np.nan)), {}, "own: 20 different readable"),
        (own(np.ones(60)), {}, "all labels 'a' are the same"),
        (own(np.ones(60), task="classification"), {}, "all labels 'a' are the same"),
        (own(np.arange(60) == 7, task="classification"), {}, "label column 0: 0 labels of class 1 among"),
        (own(np.column_stack([random(), np.where(np.arange(60) < 3, random(), np.nan)])), {}, "label column 1: "),
        (datasets.load("nci_5k"), {}, "no labels to learn"),
        (own(), {"sizes": [5, 45]}, "10 to 45 molecules can be given"),
        (own(), {"sizes": [46]}, "10 to 45 molecules can be given"),
        (own(), {"methods": ["mean", "forest"]}, "unknown methods .'forest'.: known are mean, ecfp4_forest"),
    ],
)
def test_what_cannot_be_compared_says_why(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        learning_curves.curves(dataset, "small/random", **options)


def test_an_unknown_parameter_of_finetuning():
    with pytest.raises(TypeError, match="learning_rate"):
        learning_curves.curves(own(), "small/random", learning_rate=1e-3)


def test_large_sets_and_repeated_molecules_are_warned_of(caplog):
    large = own(count=210, step=4)
    smiles = (*large.smiles[:-1], large.smiles[0])
    table = learning_curves.curves(dataclasses.replace(large, smiles=smiles), "", methods=["mean"], repeats=1)
    assert "209 molecules; this is for at most about 200" in caplog.text
    assert "0 molecules without a label and 1 that are repeated" in caplog.text
    assert table["size"].max() + table["tested"].max() == 209
    sampled = learning_curves.curves(large, "", methods=["mean"], repeats=1, sample=40)
    assert sampled["size"].max() + sampled["tested"].max() == 40
