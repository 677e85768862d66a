"""The paper's figures show the released runs and ours, with split and number of runs, the same bytes each time."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from test_claims import NOTHING

from moleclip import metrics
from moleclip.paper import claims, own, redraw
from moleclip.plots import figures
from moleclip.workflow import params, provenance

pytestmark = pytest.mark.usefixtures("style")


@pytest.fixture(scope="module")
def ours():
    place = {
        "set": "NHCs",
        "drawing": "plain",
        "split": "random",
        "runs": 10,
        "sd": 0.001,
        "optimism": 0.0005,
        "metric": "MAE",
        "val": 0.0,
        "file": "scores.csv",
    }
    tests = (0.010, 0.011, 0.012, 0.013, 0.014)
    scores = pd.DataFrame(
        [{**place, "encoder": "ecfp4_extra_trees", "seed": n, "test": x} for n, x in enumerate(tests, 1)]
    )
    sweep = pd.DataFrame(
        {"corpus": "made", "k": [3, 30, 300], "inertia": [9.0, 4.0, 3.0], "knee": [False, True, False]}
    )
    return own.Own(scores, pd.DataFrame(), sweep.assign(file="knee.csv"), [])


@pytest.fixture(scope="module")
def drawn(released_runs, printed_scores, ours):
    return redraw.Paper(released_runs, printed_scores, ours)


@pytest.mark.parametrize("name", redraw.FIGURES)
def test_every_figure_is_drawn_twice_with_the_same_bytes(drawn, tmp_path, name):
    record = provenance.collect("09_draw_figures", params.read("09_draw_figures"))
    for folder in ("first", "second"):
        table, figure = redraw.FIGURES[name](drawn)
        assert len(table)
        provenance.save_figure(figure, name, tmp_path / folder, record)
    for ending in ("png", "pdf"):
        first, second = ((tmp_path / folder / f"{name}.{ending}").read_bytes() for folder in ("first", "second"))
        assert first == second


@pytest.mark.parametrize("name", [name for name in redraw.FIGURES if not name.startswith("table")])
def test_text_is_seven_points_at_least(drawn, name):
    _, figure = redraw.FIGURES[name](drawn)
    texts = [text for text in figure.findobj(plt.Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert figure.get_figwidth() <= figures.PAGE


def test_optimism_stands_beside_our_scores(drawn):
    table = drawn.table_s5()[0].set_index("whose")
    assert table.loc["ours", "optimism"] == "0.0005"
    assert set(table.loc["paper", "optimism"]) == {""}  # no validation score is released


def test_catalysis_panel_shows_both_intervals_and_ours(drawn, released_runs):
    table, figure = drawn.fig_3b()
    assert [ax.get_title().partition(",")[0] for ax in figure.axes] == list(claims.CATALYSIS)
    assert figure.axes[1].get_title() == "NHCs, 5 random splits\nruns: released 50, ours 50"
    rows = table[table["dataset"] == "NHCs"].set_index(["model", "who"])
    mine = rows.loc[("ECFP4 + extra trees", "ours")]
    assert (mine["value"], mine["low"]) == pytest.approx(metrics.mean_ci([0.010, 0.011, 0.012, 0.013, 0.014])[:2])
    theirs = rows.loc[("MoleCLIP", "released runs")]
    assert theirs["value"] - theirs["narrow_low"] == pytest.approx(0.00092, abs=5e-6)
    shown = {
        line.get_marker(): line.get_markerfacecolor() for line in figure.axes[1].lines if line.get_marker() in "oD"
    }
    assert shown == {"o": "white", "D": "C1"}  # told apart without colour


def test_printed_and_recomputed_gap_agree(drawn):
    """Printed gaps are of rounded means; recomputed ones of the runs."""
    table, _ = drawn.fig_4b()
    values = table.pivot_table(index=["dataset", "model"], columns="who", values="value")
    assert np.abs(values["printed"] - values["released runs"]).max() < 0.6


def test_rivals_scores_name_their_own_split(drawn):
    _, figure = drawn.fig_2()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [label for label in labels if "its own" in label] == [
        f"{name} (split: its own)" for name in ("ChemBERTa-2", "MolCLR", "Uni-Mol", "GEM", "ImageMol")
    ]


def test_no_sweep_of_ours_is_said(released_runs, printed_scores):
    with pytest.raises(FileNotFoundError, match=r"no sweep of ours"):
        redraw.Paper(released_runs, printed_scores, NOTHING).fig_s2()


def test_verdicts_stand_where_they_belong(released_runs, printed_scores):
    ledger = claims.ledger(released_runs, printed_scores, NOTHING)
    ax = redraw.verdicts(ledger).axes[0]
    shown = {line.get_label().rpartition(" (")[0]: len(line.get_xdata()) for line in ax.lines}
    assert shown == ledger["verdict"].value_counts().to_dict()
