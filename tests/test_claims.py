"""Verdicts follow from their rules; on the released runs, from an independent count."""

import dataclasses
import re
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from moleclip import config, metrics
from moleclip.io import files
from moleclip.paper import claims, compare, workbook
from moleclip.paper.claims import INCONCLUSIVE, REPRODUCED, UNSUPPORTED, UNTESTABLE
from moleclip.workflow import params

NOTHING = compare.Ours(
    pd.DataFrame(columns=["set", "encoder", "seed", "split", "drawing", "val", "test", "metric", "file"]),
    pd.DataFrame(),
    pd.DataFrame(columns=["corpus", "knee"]),
    [],
)

# Two-sided p of a paired t-test by split, by an independent count, without correction.
P_VALUES = {
    ("comparable to or better than GEM", "Phosphines-yield"): 0.94,
    ("significantly better than GEM on selectivity", "Phosphines-selectivity"): 0.60,
    ("comparable to or better than GEM", "NHCs"): 0.55,
    ("better than ImageMol on each catalysis set", "Phosphines-yield"): 0.21,
    ("better than ImageMol on each catalysis set", "Phosphines-selectivity"): 0.02,
    ("better than ImageMol on each catalysis set", "NHCs"): 0.075,
    ("domain-focused pretraining improves it", "Phosphines-selectivity"): 0.025,
    ("domain-focused pretraining improves it", "Phosphines-yield"): 0.33,
}


@pytest.fixture(scope="module")
def check(released_runs, printed_scores):
    """Make the ledger of the released runs with ours, or of other runs."""
    scores = workbook.recompute(released_runs, printed_scores)

    def make(ours=NOTHING, runs=None):
        other = [] if runs is None else [runs, workbook.recompute(runs, printed_scores)]
        return claims.ledger(*(other or [released_runs, scores]), ours)

    return make


@pytest.fixture(scope="module")
def ledger(check):
    return check()


def verdict(ledger, claim, dataset):
    rows = ledger[(ledger["claim"] == claim) & (ledger["dataset"] == dataset)]
    assert len(rows) == 1
    return rows["verdict"].iloc[0]


@pytest.mark.parametrize(
    ("low", "high", "better", "comparable"),
    [
        (1, 9, REPRODUCED, REPRODUCED),
        (-1, 9, INCONCLUSIVE, REPRODUCED),
        (-9, -1, UNSUPPORTED, REPRODUCED),
        (-11, 9, INCONCLUSIVE, INCONCLUSIVE),
        (-11, -1, UNSUPPORTED, INCONCLUSIVE),
        (-19, -11, UNSUPPORTED, UNSUPPORTED),
        (np.nan, np.nan, UNTESTABLE, UNTESTABLE),
    ],
)
def test_rules_on_differences(low, high, better, comparable):
    interval = metrics.Interval((low + high) / 2, low, high)
    assert claims.better(interval) == better
    assert claims.comparable(interval, 10.0) == comparable


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.7, 0.9, REPRODUCED), (0.9, 1.1, INCONCLUSIVE), (1.1, 2, UNSUPPORTED)]
)
def test_rule_on_a_limit(low, high, expected):
    assert claims.below(metrics.Interval((low + high) / 2, low, high), 1.0) == expected


@pytest.mark.parametrize(
    ("percents", "expected"), [([2, 1, 1], REPRODUCED), ([2, -1, -1], UNTESTABLE), ([-2, -1, -1], UNSUPPORTED)]
)
def test_rule_on_a_grid_whose_selected_setting_is_unknown(percents, expected):
    assert claims.best_and_median(pd.Series(percents)) == expected


def test_paired_tests_agree_with_an_independent_count(ledger):
    """Corrected by Nadeau and Bengio's formula from the plain p; of selectivity a fifth is tested, else a tenth."""
    table = ledger.set_index(["claim", "dataset"])["recomputed"]
    for key, p in P_VALUES.items():
        corrected, plain = map(float, re.search(r"p = ([\d.]+) \(plain test: ([\d.]+)\)", table[key]).groups())
        assert plain == pytest.approx(p, abs=0.011)
        overlap = 0.2 / 0.8 if key[1].endswith("selectivity") else 0.1 / 0.9
        t = scipy_stats.t.isf(plain / 2, 4) / (1 + 5 * overlap) ** 0.5
        assert corrected == pytest.approx(2 * scipy_stats.t.sf(t, 4), abs=0.011)


def test_differences_agree_with_scipy(released_runs, ledger):
    final = released_runs[(released_runs["sheet"] == "NHCs") & (released_runs["stage"] == "final300")]
    means = final.pivot_table(index="split", columns="model", values="value")
    test = scipy_stats.ttest_rel(means["ImageMol"], means["MoleCLIP"])
    middle, half = np.mean(test.confidence_interval()), np.ptp(test.confidence_interval()) / 2
    half *= (1 + 5 / 9) ** 0.5  # as the splits overlap
    low, high = middle - half, middle + half
    expected = [100 * x / means["ImageMol"].mean() for x in ((means["ImageMol"] - means["MoleCLIP"]).mean(), low, high)]
    row = ledger[(ledger["claim"] == "better than ImageMol on each catalysis set") & (ledger["dataset"] == "NHCs")]
    assert row["recomputed"].iloc[0].startswith("{:+.1f} % ({:+.1f} to {:+.1f}), 5 of 5".format(*expected))


def test_every_claim_has_rule_evidence_and_a_known_verdict(ledger):
    assert set(ledger["verdict"]) <= set(claims.VERDICTS)
    judged = ledger[ledger["verdict"] != UNTESTABLE]
    assert (judged[["rule", "evidence", "printed", "recomputed"]] != "").all(axis=None)
    assert not ledger.duplicated(["claim", "dataset"]).any()
    assert verdict(ledger, "starting from CLIP's weights helps", "") == UNTESTABLE


# Runs of a model on a set are multiplied by a factor; of R-groups, only those with them.
ALTERED = [
    ("better than ImageMol on each catalysis set", "NHCs", "MoleCLIP", 0.2, REPRODUCED),
    ("better than ImageMol on each catalysis set", "Phosphines-selectivity", "ImageMol", 0.5, UNSUPPORTED),
    ("comparable to or better than GEM", "DHBDs", "MoleCLIP", 2.0, UNSUPPORTED),
    ("domain-focused pretraining improves it by 13.7 %", "Phosphines-selectivity", "MoleCLIPbv", 1.2, UNSUPPORTED),
    ("better than fingerprints and an MLP", "BBBP", "Morgan2048-MLP", 2.0, UNSUPPORTED),
    ("comparable to the state of the art on MoleculeNet", "BACE", "MoleCLIP", 0.5, UNSUPPORTED),
    ("loses less than ImageMol if ends are drawn as R-groups", "ESOL", "ImageMol", 5.0, REPRODUCED),
    ("error below 1 kcal/mol: MoleCLIP", "Phosphines-selectivity", "MoleCLIP", 0.5, REPRODUCED),
]


@pytest.fixture(scope="module")
def altered(check, released_runs):
    """Ledgers of altered runs: all but the last at once, as they do not meet; and the last."""

    def check_with(changes):
        runs = released_runs.copy()
        for claim, dataset, model, factor, _ in changes:
            rows = (runs["dataset"] == dataset) & (runs["model"] == model)
            if "R-groups" in claim:
                rows &= runs["variant"] == "R-replaced"
            runs.loc[rows, "value"] *= factor
        return check(runs=runs)

    return [check_with(ALTERED[:-1]), check_with(ALTERED[-1:])]


@pytest.mark.parametrize("change", ALTERED, ids=lambda change: change[0])
def test_altered_runs_change_the_verdict(ledger, altered, change):
    claim, dataset, _, _, expected = change
    assert verdict(ledger, claim, dataset) != expected
    assert verdict(altered[change == ALTERED[-1]], claim, dataset) == expected


def test_our_names_are_those_of_the_profile_and_its_studies():
    """A model of another name would never be compared with the paper's."""
    fan_outs = [("paper", study) for study in (None, "baseline", "domain", "r_groups")] + [("laptop", "lite")]
    read = [params.read_profile(files.ROOT / "params" / profile, study)[1] for profile, study in fan_outs]
    models = {name for fan_out in read for name in fan_out.models} | set(get_args(config.Baseline))
    assert {*compare.OURS.values(), *compare.LITE.values()} <= models


def test_the_built_in_encoder_stands_in_for_the_papers_and_is_named(check):
    """Its error falls by a tenth on each split, so that the claim holds for it; nothing of CLIP's is ours."""
    place = {"set": "Phosphines_yield", "split": "random", "drawing": "plain", "metric": "MAE", "file": "a.csv"}
    errors = {"lite": 0.1, "lite_buried_volume": 0.09}
    scores = [
        {**place, "encoder": name, "seed": n, "val": 0.1, "test": errors[name]} for name in errors for n in range(1, 6)
    ]
    found = check(dataclasses.replace(NOTHING, scores=pd.DataFrame(scores)))
    row = found[(found["claim"].str.contains("domain")) & (found["dataset"] == "Phosphines-yield")]
    assert "lite, not CLIP: +10.0 % (+10.0 to +10.0), 5 splits" in set(row["ours"])


def test_our_forests_are_compared_with_the_released_runs(check):
    """On selectivity, a forest that never errs by more than .1 is better than any of their splits; one by 9, worse."""
    claim, name = "better than an untuned random forest on ECFP4 (our comparison)", "Phosphines-selectivity"
    for error, expected in ((0.1, UNSUPPORTED), (9.0, REPRODUCED)):
        place = {
            "set": "Phosphines_selectivity",
            "split": "random",
            "drawing": "plain",
            "encoder": "ecfp4_forest",
            "metric": "MAE",
            "file": "a.csv",
        }
        scores = pd.DataFrame([{**place, "seed": seed, "val": 1.0, "test": error} for seed in range(1, 6)])
        found = check(dataclasses.replace(NOTHING, scores=scores))
        assert verdict(found, claim, name) == expected
        row = found[(found["claim"] == claim) & (found["dataset"] == name)].iloc[0]
        assert (row["ours"], row["over"]) == (f"ecfp4_forest: {error:.3g}", "5 splits")
        assert "a.csv" in row["evidence"]


def test_our_comparison_of_initial_weights_is_quoted_with_the_claim(check):
    line = {
        "set": "esol",
        "contrast": "photographs",
        "model": "imagenet",
        "percent": 10.4,
        "low": -13.6,
        "high": 34.5,
        "file": "a.csv",
    }
    contrasts = pd.DataFrame([line | {"n": 3, "over": "repeats"}, line | {"contrast": "another", "n": 5}])
    found = check(dataclasses.replace(NOTHING, contrasts=contrasts))
    row = found[found["claim"] == "starting from CLIP's weights helps"].iloc[0]
    assert row["ours"] == "not CLIP but a small CNN, photographs: esol +10 % (-14 to +34 over 3 repeats)"
    assert (row["verdict"], row["evidence"]) == (UNTESTABLE, "a.csv")
    clip = pd.DataFrame([line | {"n": 3, "over": "repeats", "contrast": "CLIP against random", "model": "pretrained"}])
    ours = dataclasses.replace(NOTHING, contrasts=pd.concat([contrasts, clip]))
    found = check(ours)
    row = found[found["claim"] == "starting from CLIP's weights helps"].iloc[0]
    assert row["ours"] == "CLIP against random: esol +10 % (-14 to +34 over 3 repeats)"
