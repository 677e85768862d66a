"""Statistics by hand, from textbook formulas."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from moleclip import metrics, tables
from moleclip.io import downloads
from moleclip.paper import workbook

T_975 = {2: 4.302653, 4: 2.776445}  # two-sided 95 % quantiles of Student's t by degrees of freedom


def test_interval_of_five_splits():
    values = [0.9, 1.1, 1.0, 1.3, 0.7]
    mean = sum(values) / 5
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 4 / 5)
    assert metrics.mean_ci(values) == pytest.approx((mean, mean - T_975[4] * error, mean + T_975[4] * error), rel=1e-6)


def test_one_split_has_no_interval():
    mean, low, high = metrics.mean_ci([0.5])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


def test_equal_splits_have_an_interval_without_width():
    assert metrics.mean_ci([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_paired_is_the_interval_of_the_differences():
    a, b = [1.0, 2.0, 4.0], [0.5, 1.9, 3.0]
    found = metrics.paired(a, b)
    assert found[:3] == pytest.approx(metrics.mean_ci([0.5, 0.1, 1.0]))
    # p at t = 0.5333 / (sd / sqrt 3) with 2 degrees of freedom: 1 - t / sqrt(2 + t^2).
    t = np.mean([0.5, 0.1, 1.0]) / (np.std([0.5, 0.1, 1.0], ddof=1) / math.sqrt(3))
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)


def test_the_corrected_test_by_hand():
    a, b = [1.0, 2.0, 4.0, 3.0, 2.5], [0.5, 1.9, 3.0, 3.1, 2.0]
    differences = np.array([0.5, 0.1, 1.0, -0.1, 0.5])
    error = math.sqrt((1 / 5 + 15 / 45) * differences.var(ddof=1))
    found = metrics.paired(a, b, 15 / 45)
    half = 2.776445 * error  # the quantile of Student's t with 4 degrees of freedom
    assert found[:3] == pytest.approx((0.4, 0.4 - half, 0.4 + half), rel=1e-6)
    # 1 - p of Student's t with 4 degrees of freedom has a closed form.
    x = 0.4 / error
    inner = x / math.sqrt(4 + x * x)
    assert found.p == pytest.approx(1 - (1.5 * inner - 0.5 * inner**3), rel=1e-6)


def test_without_correction_it_is_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    naive = metrics.paired(a, b, 0.0)
    assert naive == metrics.paired(a, b)
    assert naive.p == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert metrics.paired(a, b, 1 / 3).p > naive.p
    assert metrics.paired([1.0, 2.0], [1.0, 2.0], 0.3) == (0, 0, 0, 1, 0)


def test_of_methods_that_are_as_good_the_corrected_test_is_seldom_sure():
    """Two regressions, each on its own half of the inputs, equally good by construction: 60 molecules, 10 splits."""
    rng, sure, sets = np.random.default_rng(0), np.zeros(2), 300

    def error(inputs, labels, train, test):
        normal = inputs[train].T @ inputs[train] + 3 * np.eye(inputs.shape[1])
        found = inputs[test] @ np.linalg.solve(normal, inputs[train].T @ labels[train])
        return np.abs(found - labels[test]).mean()

    for _ in range(sets):
        halves, slopes = rng.normal(size=(2, 60, 8)), rng.normal(size=8)
        labels = halves.sum(axis=0) @ slopes + rng.normal(size=60)
        orders = [rng.permutation(60) for _ in range(10)]
        scores = [[error(half, labels, order[15:], order[:15]) for order in orders] for half in halves]
        sure += [metrics.paired(*scores, ratio).p < 0.05 for ratio in (0.0, 15 / 45)]
    assert sure[0] / sets > 0.2
    assert sure[1] / sets < 0.1


@pytest.mark.parametrize(("n", "delta"), [(2, 11.5499), (5, 1.6820), (10, 0.9960), (31, 0.5200)])
def test_what_could_have_been_seen(n, delta):
    """As R's power.t.test(n=, sd=1, power=.8, type="paired") has it; and SciPy's simulated power agrees."""
    values = np.linspace(-1, 1, n)
    found = metrics.paired(values / values.std(ddof=1), np.zeros(n))
    assert found.detectable == pytest.approx(delta, abs=2e-4)
    assert found.times(100).detectable == pytest.approx(100 * delta, abs=2e-2)
    seen = scipy_stats.ttest_1samp(np.random.default_rng(n).normal(delta, 1, (4000, n)), 0, axis=1).pvalue < 0.05
    assert seen.mean() == pytest.approx(0.8, abs=0.02)


def test_robustness_by_hand():
    errors = {
        ("a", "plain"): [1.0, 2.0],
        ("a", "r_groups"): [1.5, 2.0],
        ("b", "plain"): [2.0, 2.0],
        ("b", "r_groups"): [3.0, 5.0],
    }
    table = pd.DataFrame(
        [
            {"dataset": "made", "encoder": encoder, "drawing": drawing, "seed": seed, "test": value}
            for (encoder, drawing), values in errors.items()
            for seed, value in enumerate(values)
        ]
    )
    found = tables.robustness(table, "a", "b").set_index("quantity")
    # Differences on the two splits, and the mean error that they are shares of.
    expected = {
        "gap, plain": ([1, 0], 1.5),
        "gap, R-groups": ([1.5, 3], 1.75),
        "loss, a": ([0.5, 0], 1.5),
        "loss, b": ([1, 3], 2),
    }
    for quantity, (differences, mean) in expected.items():
        shares = [100 * value / mean for value in differences]
        assert found.loc[quantity, ["percent", "low", "high"]].tolist() == pytest.approx(
            list(metrics.mean_ci(shares, 1 / 9))
        )
    laid_out = table.replace({"drawing": {"r_groups": "r_groups_new_layout"}})
    both = tables.robustness(pd.concat([table, laid_out]).drop_duplicates(), "a", "b")
    assert both["dataset"].tolist() == ["made"] * 4 + ["made, new layout"] * 4
    assert both["percent"][:4].tolist() == both["percent"][4:].tolist()
    alone = tables.robustness(table[(table["encoder"] == "a") | (table["seed"] == 0)], "a", "b").set_index("quantity")
    assert alone["splits"].to_dict() == {"gap, plain": 1, "gap, R-groups": 1, "loss, a": 2, "loss, b": 1}


def test_neither_of_two_models_gains_by_being_named_first():
    """Means of shares, split by split, would find each 25 % worse than the other."""
    errors = {"a": [1.0, 2.0], "b": [2.0, 1.0]}
    rows = [(name, seed, value) for name, values in errors.items() for seed, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["encoder", "seed", "test"])
    table = table.assign(set="made", dataset="made", drawing="plain", metric="MAE", split="random", sd=0.0, runs=1)
    found = tables.contrasts(table, {"a over b": ["a", "b"], "b over a": ["b", "a"]})
    assert found["percent"].tolist() == [0.0, 0.0]
    assert tables.robustness(table, "a", "b").set_index("quantity").loc["gap, plain", "percent"] == 0.0


@pytest.mark.parametrize("values", [([1.0, 2.0, 4.0], [0.5, 1.9, 3.0]), ([1.0, 1.5], [3.0, 3.5, 5.5, 4.0])])
def test_repeats_on_one_split_are_compared_as_scipy_does(values):
    a, b = values
    rows = [
        {"encoder": name, "seed": 1, "test": np.mean(x), "sd": np.std(x, ddof=1), "runs": len(x)}
        for name, x in (("a", a), ("b", b))
    ]
    table = pd.DataFrame(rows).assign(set="made", dataset="made", metric="MAE", split="scaffold")
    found = tables.contrasts(table, {"a over b": ["a", "b"]}).iloc[0]
    expected = scipy_stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval()
    shares = 100 * np.array([np.mean(b) - np.mean(a), interval.low, interval.high]) / np.mean(b)
    assert found[["percent", "low", "high"]].tolist() == pytest.approx(list(shares))
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["n"], found["over"]) == (min(len(a), len(b)), "repeats")


def test_contrasts_by_hand():
    made = {
        ("random_split", "MAE", "a"): {(1, 1): 1.0, (2, 1): 1.5, (3, 1): 2.0},
        ("random_split", "MAE", "b"): {(1, 1): 2.0, (2, 1): 2.0, (3, 1): 2.0, (4, 1): 9.0},  # a has no fourth
        ("one_split", "ROC-AUC", "a"): {(1, 1): 0.9, (1, 2): 0.8},
        ("one_split", "ROC-AUC", "b"): {(1, 1): 0.8, (1, 2): 0.8},
        ("alone", "MAE", "a"): {(1, 1): 1.0},
    }
    place = {"dataset": "made", "drawing": "plain", "split": "random", "unit": "", "stage": "final", "chosen": True}
    place |= {"holdout": 0.1, "val": 0.0, "head_lr": 1e-3, "augmentation": "none"}
    table = pd.DataFrame(
        [
            {"set": name, "metric": metric, "encoder": model, "seed": seed, "repeat": repeat, "test": value, **place}
            for (name, metric, model), values in made.items()
            for (seed, repeat), value in values.items()
        ]
    )
    worse = table.assign(chosen=False, test=99.0)  # cells that were not chosen
    scores = tables.by_split(pd.concat([table, worse]))
    found = tables.contrasts(scores, {"a over b": ["a", "b"]}).set_index("set")
    assert list(found.index) == ["random_split", "one_split"]
    splits, repeats = found.loc["random_split"], found.loc["one_split"]
    assert (splits["n"], splits["over"]) == (3, "splits")
    assert splits[["percent", "low", "high"]].tolist() == pytest.approx(list(metrics.mean_ci([50.0, 25.0, 0.0], 1 / 9)))
    assert splits["p"] == pytest.approx(metrics.paired([50.0, 25.0, 0.0], np.zeros(3), 1 / 9).p)
    assert (repeats["n"], repeats["over"]) == (2, "repeats")
    assert repeats["percent"] == pytest.approx(6.25)


@pytest.mark.parametrize(
    ("runs", "printed"),
    [
        # Printed intervals, and the runs behind them (final runs of the released workbook, by split).
        ("Phosphines_yield", (12.2e-2, 0.2e-2)),
        ("Phosphines_selectivity", (1.20, 0.02)),
        ("DHBDs", (0.275, 0.003)),
    ],
)
def test_the_papers_interval_is_what_it_prints(runs, printed):
    if downloads.mirrored("paper_results") is None:
        pytest.skip("needs the released runs (MOLECLIP_DATA_DIR)")
    table = workbook.runs()
    table = table[(table["dataset"] == workbook.NAMES[runs]) & (table["model"] == workbook.BASELINE)]
    final = table[table["stage"].str.startswith("final")]
    found = metrics.paper_ci([list(part["value"]) for _, part in final.groupby("split")])
    digits = 3 if printed[1] < 0.01 else 2
    assert found.mean == pytest.approx(printed[0], abs=0.5 * 10**-digits)
    assert found.high - found.mean == pytest.approx(printed[1], abs=0.6 * 10**-digits)


def test_pairs_need_the_same_splits():
    with pytest.raises(ValueError, match="3 and 2 splits"):
        metrics.paired([1, 2, 3], [1, 2])


def test_scores_by_hand():
    y, z = np.array([[1.0, np.nan], [2.0, 0.0], [4.0, 3.0]]), np.array([[2.0, 9.0], [2.0, 1.0], [2.0, 1.0]])
    assert metrics.score("MAE", y, z) == pytest.approx(((1 + 0 + 2) / 3 + (1 + 2) / 2) / 2)
    assert metrics.score("RMSE", y, z) == pytest.approx((math.sqrt(5 / 3) + math.sqrt(5 / 2)) / 2)
    ranked = metrics.score("ROC-AUC", [[0.0], [0.0], [1.0], [1.0]], [[0.1], [0.6], [0.5], [0.9]])
    assert ranked == 0.75  # three of four (negative, positive) pairs are in order


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="no labels"):
        metrics.score("MAE", [[np.nan]], [[1.0]])
    with pytest.raises(ValueError, match="one class only"):
        metrics.score("ROC-AUC", [[1.0], [1.0]], [[0.2], [0.3]])


# Yield of penicillin: five blends of corn steep liquor (blocks), four treatments. Box, Hunter & Hunter, Statistics for
# Experimenters, Table 4.4; their residual mean square is 18.83 with 12 degrees of freedom.
PENICILLIN = pd.DataFrame(
    [[89, 88, 97, 94], [84, 77, 92, 79], [81, 87, 87, 85], [87, 92, 89, 84], [79, 81, 80, 88]], columns=list("ABCD")
)


def test_all_pairs_is_tukeys_test_after_blocks():
    """Differences, intervals and p from the contrasts of statsmodels' least squares, whose error is the textbook's."""
    expected = {
        ("A", "B"): (-1, -9.148719, 7.148719, 0.982668),
        ("A", "C"): (-5, -13.148719, 3.148719, 0.310509),
        ("A", "D"): (-2, -10.148719, 6.148719, 0.883755),
        ("B", "C"): (-4, -12.148719, 4.148719, 0.490519),
        ("B", "D"): (-1, -9.148719, 7.148719, 0.982668),
        ("C", "D"): (3, -5.148719, 11.148719, 0.700227),
    }
    found = metrics.all_pairs(PENICILLIN).set_index(["a", "b"])
    for pair, values in expected.items():
        assert found.loc[pair, ["difference", "low", "high", "p"]].tolist() == pytest.approx(values, abs=2e-6)
        assert found.loc[pair, "effect"] == pytest.approx(values[0] / np.sqrt(18.8333333))
    # The printed table of the studentised range: q(.05; 4, 12) = 4.20.
    assert found["high"].iloc[0] + 1 == pytest.approx(4.20 * np.sqrt(18.8333333 / 5), rel=1e-3)


def test_what_blocks_share_is_no_spread():
    shifted = PENICILLIN.add([0, 100, -40, 7, 3], axis=0)
    pd.testing.assert_frame_equal(metrics.all_pairs(PENICILLIN), metrics.all_pairs(shifted))


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_two_models_are_a_paired_test(overlap):
    a, b = PENICILLIN["A"], PENICILLIN["C"]
    found = metrics.all_pairs(PENICILLIN[["A", "C"]], overlap)[["difference", "low", "high", "p"]].iloc[0]
    assert found.tolist() == pytest.approx(list(metrics.paired(a, b, overlap)[:4]), rel=1e-5)


def test_all_pairs_needs_whole_rows():
    with pytest.raises(ValueError, match="none missing"):
        metrics.all_pairs(PENICILLIN.where(PENICILLIN > 77))
    with pytest.raises(ValueError, match="1 models with 5 scores"):
        metrics.all_pairs(PENICILLIN[["A"]])


def test_the_labels_that_are_needed_would_show_the_difference():
    """By the power of the t-test itself, where the spread falls as assumed."""
    differences = np.random.default_rng(1).normal(0.1, 1.0, 10)
    found = metrics.paired(differences, np.zeros(10), 0.25)
    more = metrics.labels_needed(50, found, 0.4)
    shrunk = metrics.paired(differences * np.sqrt(50 / more), np.zeros(10), 0.25)
    assert shrunk.detectable == pytest.approx(0.4)


def test_cv_plus_with_a_fold_for_each_molecule_is_the_jackknife_plus():
    """By the definition of Barber et al., equation 1.2, for least squares through the origin."""
    rng = np.random.default_rng(2)
    x, new = rng.normal(size=29), rng.normal(size=7)
    y = 2 * x + rng.normal(size=29)
    slopes = np.array([(x[keep] @ y[keep]) / (x[keep] @ x[keep]) for keep in ~np.eye(29, dtype=bool)])
    found = metrics.cv_plus(slopes * x, y, np.arange(29), slopes[:, None] * new, level=0.9)
    for place, value in enumerate(new):
        errors = [abs(y[i] - slopes[i] * x[i]) for i in range(29)]
        lower = sorted(slopes[i] * value - errors[i] for i in range(29))
        upper = sorted(slopes[i] * value + errors[i] for i in range(29))
        assert found[0][place] == pytest.approx(lower[math.floor(0.1 * 30) - 1])
        assert found[1][place] == pytest.approx(upper[math.ceil(0.9 * 30 - 1e-9) - 1])


def test_intervals_hold_nine_labels_in_ten():
    rng, held = np.random.default_rng(3), []
    for _ in range(300):
        x = rng.normal(size=(60, 3))
        y = x.sum(axis=1) + rng.standard_t(3, size=60)
        folds, tested, slopes = np.arange(40) % 5, np.empty(40), []
        for fold in range(5):
            rest = folds != fold
            slopes.append(np.linalg.lstsq(x[:40][rest], y[:40][rest])[0])
            tested[~rest] = x[:40][~rest] @ slopes[-1]
        low, high = metrics.cv_plus(tested, y[:40], folds, np.array(slopes) @ x[40:].T)
        held.append(((low <= y[40:]) & (y[40:] <= high)).mean())
    assert np.mean(held) == pytest.approx(0.91, abs=0.02)


def test_too_few_labels_make_no_interval():
    labels = np.array([*range(9), np.nan, np.nan], float)
    given = (np.zeros(11), labels, np.zeros(11, np.int64), np.zeros((1, 2)))
    low, high = metrics.cv_plus(*given)
    assert (low.tolist(), high.tolist()) == ([-8, -8], [8, 8])
    labels[0] = np.nan
    assert metrics.cv_plus(*given) is None
