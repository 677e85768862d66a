"""The paper's figures show the released runs and ours, with split and number of runs."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from test_claims import NOTHING

from moleclip import metrics
from moleclip.io import files
from moleclip.paper import claims, compare, figures, workbook
from moleclip.paper.compare import POINTS
from moleclip.plots import style

pytestmark = pytest.mark.usefixtures("style")

TESTS = (0.010, 0.011, 0.012, 0.013, 0.014)


@pytest.fixture(scope="module")
def ours():
    place = {
        "set": "NHCs",
        "dataset": "NHCs",
        "drawing": "plain",
        "split": "random",
        "runs": 10,
        "sd": 0.001,
        "optimism": 0.0005,
    }
    place |= {"metric": "MAE", "val": 0.0, "file": "scores.csv", "encoder": "ecfp4_extra_trees"}
    scores = pd.DataFrame([{**place, "seed": seed, "test": test} for seed, test in enumerate(TESTS, 1)])
    sweep = pd.DataFrame({"k": [3, 30, 300], "inertia": [9.0, 4.0, 3.0], "knee": [False, True, False]})
    return compare.Ours(scores, pd.DataFrame(), sweep.assign(corpus="made", file="knee.csv"), [])


@pytest.fixture(scope="module")
def scores(released_runs, printed_scores):
    return workbook.recompute(released_runs, printed_scores)


@pytest.fixture(scope="module")
def catalysis(scores):
    return scores[scores["sheet"].isin(workbook.CATALYSIS)]


@pytest.fixture(scope="module")
def tables(scores, catalysis, ours):
    """What the figures show: points of both kinds of split, gaps, and text."""
    replaced = scores[scores["sheet"] == "R-replacement"]
    controls = scores[scores["sheet"].str.startswith("MoleculeNet") & (scores["runs"] > 0)]
    controls = controls[controls["model"] != workbook.BASELINE]
    fig_2 = compare.on_scaffold(scores[scores["sheet"] == "MoleculeNet"])
    return {
        "fig_2": pd.concat([fig_2, ours.points(workbook.MOLECULENET, "scaffold")]),
        "fig_3a": claims.pretraining(),
        "fig_3b": pd.concat([compare.on_splits(catalysis), ours.points(workbook.CATALYSIS, "random")]),
        "fig_4b": compare.gaps(replaced),
        "fig_s2": ours.knees,
        "ablations": compare.on_scaffold(controls),
        "table_s6": figures.splits_table(replaced),
        "table_ablations": figures.ablations_table(controls),
    }


def draw(tables, name):
    special = {"fig_3a": figures.samples, "fig_s2": figures.knees}
    return special.get(name, style.table if name.startswith("table") else figures.panels)(tables[name])


@pytest.mark.parametrize("name", ["fig_2", "fig_3a", "fig_3b", "fig_4b", "fig_s2", "ablations", "table_s6"])
def test_figures_are_legible(tables, name):
    figure = draw(tables, name)
    texts = [text for text in figure.findobj(plt.Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert figure.get_figwidth() <= style.PAGE or name.startswith("table")


@pytest.mark.parametrize("name", ["fig_3a", "fig_4b", "ablations", "table_s6", "table_ablations"])
def test_published_numbers_are_found_again(tables, tmp_path, name):
    """Those that hang on no run of ours: of Table S6, the paper's lines."""
    table = tables[name][POINTS] if "by_split" in tables[name] else tables[name]
    published = (files.ROOT / "figures" / "paper" / f"{name}.csv").read_text().splitlines()
    found = files.write_csv(tmp_path / "found.csv", table).read_text().splitlines()
    assert found == [line for line in published if ",ours," not in line]


def test_optimism_is_given_with_our_scores(catalysis, ours):
    table = figures.splits_table(catalysis, ours.points(workbook.CATALYSIS, "random")).set_index("whose")
    assert table.loc["ours", "optimism"] == "0.0005"
    assert set(table.loc["paper", "optimism"]) == {""}  # no validation score is released


@pytest.mark.parametrize(
    ("runs", "sd", "score", "bar", "of"),
    [(1, np.nan, "0.0120", "", "1 run"), (3, 0.001, "0.0120 (0.0110 to 0.0130)", "SD of the runs", "3 runs")],
)
def test_a_single_run_has_no_interval(ours, runs, sd, score, bar, of):
    place = {"dataset": "esol", "set": "esol", "split": "scaffold", "metric": "RMSE", "runs": runs, "sd": sd}
    one = compare.Ours(ours.scores[ours.scores["seed"] == 3].assign(**place), pd.DataFrame(), pd.DataFrame(), [])
    points = one.points(workbook.MOLECULENET, "scaffold")
    line = figures.points_table(points).iloc[0]
    assert line[["score", "bar"]].tolist() == [score, bar]
    assert line["of"] == f"scaffold split, {of}"
    figures.panels(points)


def test_catalysis_panel_shows_both_intervals_and_ours(tables):
    table, figure = tables["fig_3b"], draw(tables, "fig_3b")
    assert [ax.get_title().partition(",")[0] for ax in figure.axes] == list(workbook.CATALYSIS)
    assert figure.axes[1].get_title() == "NHCs, 5 random splits\nruns: released 50, baselines 50"
    rows = table[table["dataset"] == "NHCs"].set_index(["model", "who"])
    mine = rows.loc[("ECFP4 + extra trees", "ours")]
    assert (mine["value"], mine["low"]) == pytest.approx(metrics.mean_ci(TESTS, 1 / 9)[:2])
    theirs = rows.loc[("MoleCLIP", "released runs")]
    assert theirs["value"] - theirs["narrow_low"] == pytest.approx(0.00092, abs=5e-6)
    shown = {
        line.get_marker(): line.get_markerfacecolor() for line in figure.axes[1].lines if line.get_marker() in "oD"
    }
    assert shown == {"o": "white", "D": "C1"}  # told from each other without colour


def test_printed_and_recomputed_gap_agree(tables):
    """Printed gaps are of rounded means; recomputed ones of the runs."""
    values = tables["fig_4b"].pivot_table(index=["dataset", "model"], columns="who", values="value")
    assert np.abs(values["printed"] - values["released runs"]).max() < 0.6


def test_quoted_scores_name_their_other_split(tables):
    labels = [label.get_text() for label in draw(tables, "fig_2").axes[0].get_yticklabels()]
    assert [label for label in labels if "its own" in label] == [
        f"{name} (split: its own)" for name in ("ChemBERTa-2", "MolCLR", "Uni-Mol", "GEM", "ImageMol")
    ]


def test_every_number_of_a_figure_is_a_line_of_its_table(tables):
    table = figures.points_table(tables["fig_2"])
    assert len(table) == len(tables["fig_2"])
    line = table[(table["set"] == "BBBP") & (table["model"] == "MoleCLIP") & (table["whose"] == "printed")].iloc[0]
    assert (line["score"], line["of"]) == ("0.747 (0.738 to 0.756)", "scaffold split, 3 runs")


def test_no_sweep_of_ours_is_said():
    with pytest.raises(FileNotFoundError, match=r"no sweep of ours"):
        figures.knees(NOTHING.knees)


def test_verdicts_stand_where_they_belong(released_runs, scores):
    ledger = claims.ledger(released_runs, scores, NOTHING)
    ax = figures.verdicts(ledger).axes[0]
    shown = {line.get_label().rpartition(" (")[0]: len(line.get_xdata()) for line in ax.lines}
    assert shown == ledger["verdict"].value_counts().to_dict()
