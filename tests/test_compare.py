"""Our results: read from where notebook 09 leaves them, each once; and compared with the released runs."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from moleclip.paper import compare, workbook

LINE = {
    "set": "esol",
    "dataset": "esol",
    "encoder": "mean",
    "seed": 1,
    "split": "scaffold",
    "drawing": "plain",
    "val": 1.0,
    "metric": "RMSE",
}


@pytest.fixture
def folder(tmp_path):
    def scores(place, *lines):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(tmp_path / place / "scores.csv", index=False)

    scores("studies/b_later", LINE | {"test": 3.0}, LINE | {"test": 4.0, "seed": 2})
    scores("studies/a_first", LINE | {"test": 2.0}, LINE | {"test": 5.0, "split": "random"})
    scores("demo", LINE | {"test": 9.0})  # on bundled molecules: not the paper's
    for place in ("demo", "rehearsal_demo"):  # those of a smoke test are no results
        (tmp_path / place).mkdir(exist_ok=True)
        sweep = pd.DataFrame({"corpus": [place], "k": [3], "inertia": [1.0], "knee": [True]})
        sweep.to_csv(tmp_path / place / "knee.csv", index=False)
    return tmp_path


def test_a_model_on_a_set_is_read_whole_from_one_study(folder):
    """Another study's further splits may have other parameters: no mean mixes the two."""
    found = compare.read(folder)
    assert found.scores[["seed", "split", "test"]].to_numpy().tolist() == [[1, "scaffold", 2.0], [1, "random", 5.0]]
    assert found.knees["corpus"].tolist() == ["demo"]
    assert [file.parent.name for file in found.files] == ["a_first", "b_later", "demo"]


def test_splits_and_drawings_are_not_mixed(folder):
    found = compare.read(folder)
    assert found.on("ESOL", "scaffold")["test"].tolist() == [2.0]
    assert found.on("ESOL", "random")["test"].tolist() == [5.0]
    assert found.on("BACE", "scaffold").empty


def test_nothing_is_empty_tables(tmp_path):
    found = compare.read(tmp_path)
    assert found.files == []
    assert found.on("ESOL", "scaffold").empty


def test_scores_are_in_printed_units():
    line = {**LINE, **dict.fromkeys(("set", "dataset"), "Phosphines_yield"), "split": "random", "metric": "MAE"}
    line |= {"val": 0.05, "sd": 0.01, "runs": 10}
    scores = pd.DataFrame([line | {"seed": seed, "test": 0.1, "optimism": 0.02, "file": "a.csv"} for seed in (1, 2)])
    ours = compare.Ours(scores.assign(encoder="fingerprint_mlp"), pd.DataFrame(), pd.DataFrame(), [])
    assert ours.on("Phosphines-yield", "random")["test"].tolist() == pytest.approx([10.0, 10.0])
    point = ours.points(workbook.CATALYSIS, "random").iloc[0]
    assert point[["dataset", "model", "unit", "file"]].tolist() == [
        "Phosphines-yield",
        workbook.BASELINE,
        "MAE (%)",
        "a.csv",
    ]
    assert point[["value", "optimism", "runs"]].tolist() == pytest.approx([10.0, 2.0, 20])


def test_our_baseline_is_compared_split_by_split(released_runs):
    """Against the printed scores of the baseline: 1.20 for selectivity's final runs, 1.58 for ESOL's best cell."""
    ours = {"encoder": "fingerprint_mlp", "unit": "", "batch_size": 4}
    final = [
        {**ours, "set": "lr_1e-3", "dataset": "Phosphines_selectivity", "metric": "MAE", "stage": "final"}
        | {"seed": seed, "head_lr": 1e-3, "test": 1.0 + step}
        for seed in range(1, 6)
        for step in (0.0, 0.2)
    ]
    grid = [
        {**ours, "set": "esol", "dataset": "esol", "metric": "RMSE", "stage": "grid", "seed": 1}
        | {"head_lr": lr, "test": test}
        for lr, test in ((1e-3, 1.5), (1e-3, 1.7), (1e-5, 9.0))
    ]
    others = [line | {"encoder": "mean", "test": 9.0} for line in final]
    table = compare.baseline(pd.DataFrame(final + grid + others), released_runs)
    found = table[table["stage"] == "score"].set_index("set")
    selectivity, esol = found.loc["lr_1e-3"], found.loc["esol"]
    assert selectivity["theirs"].mean() == pytest.approx(1.20, abs=0.005)
    assert set(selectivity["theirs_head_lr"]) == {1e-5}
    assert set(selectivity["theirs_runs"]) == {10}
    assert selectivity["ours"].tolist() == pytest.approx([1.1] * 5)
    assert (esol["theirs"], esol["ours"], esol["ours_runs"]) == (pytest.approx(1.58, abs=0.005), pytest.approx(1.6), 2)
    assert esol["difference"] == pytest.approx(1.6 - esol["theirs"])
    error = math.hypot(esol["theirs_sd"] / math.sqrt(3), np.std([1.5, 1.7], ddof=1) / math.sqrt(2))
    assert esol["standard_error"] == pytest.approx(error)
    search = table[table["stage"] == "search"]
    assert search["head_lr"].tolist() == search["theirs_head_lr"].tolist() == [1e-5, 1e-3]
    assert search["ours"].tolist() == pytest.approx([9.0, 1.6])
    assert search["theirs"].min() == esol["theirs"]  # the printed one is the best


def test_agreement_is_the_test_that_scipy_has_for_one_split_and_sees_nothing_in_noise():
    def described(split, theirs, ours):
        line = {"stage": "score", "set": "a", "metric": "MAE", "unit": "", "batch_size": 4, "theirs_head_lr": 1e-3}
        for who, runs in (("theirs", theirs), ("ours", ours)):
            line |= {who: np.mean(runs), f"{who}_sd": np.std(runs, ddof=1), f"{who}_runs": len(runs)}
        return {**line, "seed": split, "difference": np.mean(ours) - np.mean(theirs)}

    rng = np.random.default_rng(0)
    theirs, ours = rng.normal(size=10), rng.normal(0.8, size=4)
    (one,) = compare.agreement(pd.DataFrame([described(1, theirs, ours)])).to_dict("records")
    assert one["p"] == pytest.approx(scipy.stats.ttest_ind(theirs, ours).pvalue)
    assert one["rmsd"] == pytest.approx(abs(ours.mean() - theirs.mean()))
    found = []
    for _ in range(400):
        splits = [described(split, *rng.normal(split, 1, size=(2, 3))) for split in range(5)]
        found.append(compare.agreement(pd.DataFrame(splits)).iloc[0][["p", "rmsd", "rmsd_by_chance"]].astype(float))
    p, rmsd, by_chance = np.array(found).T
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert np.mean(rmsd**2) == pytest.approx(np.mean(by_chance**2), rel=0.15)


def test_our_growth_with_r_groups_is_of_the_same_splits():
    place = {"set": "Phosphines_yield", "dataset": "Phosphines_yield", "encoder": "lite", "split": "random"}
    plain = [LINE | place | {"seed": seed, "test": error} for seed, error in ((1, 0.1), (2, 0.3), (3, 9.0))]
    drawn = {"set": "Phosphines_yield_r", "drawing": "r_groups_new_layout"}
    replaced = [LINE | place | drawn | {"seed": seed, "test": error} for seed, error in ((2, 0.3), (1, 0.2))]
    ours = compare.Ours(pd.DataFrame(plain + replaced), pd.DataFrame(), pd.DataFrame(), [])
    assert ours.growth("Phosphines-yield", "lite").round(6).to_dict() == {1: 50.0, 2: 0.0}
    assert ours.growth("Phosphines-yield", "imagenet").empty
    assert ours.on("Phosphines-yield", "random")["seed"].tolist() == [1, 2, 3]


def test_a_set_that_the_paper_lacks_is_named(released_runs):
    job = {"set": "a", "seed": 1, "encoder": "fingerprint_mlp", "dataset": "Kraken_buried"}
    with pytest.raises(KeyError, match=r"Kraken_buried.*some on bace"):
        compare.baseline(pd.DataFrame([job]), released_runs)


def test_growth_is_per_split(released_runs, printed_scores):
    table = workbook.recompute(released_runs, printed_scores)
    table = table[(table["sheet"] == "R-replacement") & (table["dataset"] == "Phosphines-yield")]
    found = compare.growth(table, "ImageMol")
    assert sorted(found.index) == [f"seed-{seed}" for seed in range(1, 6)]
    # Printed: 11.3 and 14.4.
    assert found.mean() == pytest.approx(100 * (14.4 - 11.3) / 11.3, abs=1)
    assert set(table["unit"]) == {"%"}
