"""Figures show the numbers they were given."""

import numpy as np
import pandas as pd
import pytest

from moleclip import metrics, tables
from moleclip.plots import molecules, style, training
from moleclip.plots import scores as plots

PLACE = {"dataset": "made", "drawing": "plain", "split": "random", "holdout": 0.1, "metric": "MAE", "unit": "eV"}
SETTING = {"stage": "grid", "repeat": 1, "head_lr": 1e-3, "augmentation": "none", "epoch": 2, "chosen": True}
SCORES = pd.DataFrame(
    [
        {**PLACE, **SETTING, "encoder": name, "seed": seed, "val": test, "test": test}
        for name, tests in {"pretrained": (0.5, 0.6, 0.4), "mean": (0.9, 1.0, 0.8)}.items()
        for seed, test in enumerate(tests, 1)
    ]
)


pytestmark = pytest.mark.usefixtures("style")


def test_a_table_shows_every_cell():
    frame = pd.DataFrame({"model": ["a", "b"], "score": ["0.1 (0.0 to 0.2)", "1"]})
    texts = [text.get_text() for text in style.table(frame).axes[0].texts]
    assert sorted(texts) == sorted(["model", "score", "a", "b", "0.1 (0.0 to 0.2)", "1"])


def test_scores_show_means_and_intervals():
    ax = plots.scores(tables.by_split(SCORES)).axes[0]
    shown = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert shown == pytest.approx([0.5, 0.9])
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx(metrics.mean_ci([0.5, 0.6, 0.4], 1 / 9)[1:])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["pretrained encoder", "training mean"]
    assert ax.get_title(loc="right") == "made\n3 random splits, 95 % interval"


def test_each_data_set_has_its_own_panel_if_it_compares_models():
    other = SCORES.assign(dataset="other", metric="ROC-AUC", unit="")
    alone = SCORES[SCORES["encoder"] == "mean"].assign(dataset="alone")
    figure = plots.scores(tables.by_split(pd.concat([SCORES, other, alone])))
    assert [ax.get_xlabel() for ax in figure.axes] == ["test MAE (eV)\n\u2190 better", "test ROC-AUC\nbetter \u2192"]
    assert len(plots.scores(tables.by_split(alone)).axes) == 1


def test_a_frozen_encoder_is_hollow_in_its_encoders_colour_and_baselines_are_grey():
    models = ["mean", "clip", "clip_frozen", "imagemol"]
    table = pd.concat([SCORES[SCORES["encoder"] == "pretrained"].assign(encoder=model) for model in models])
    containers = plots.scores(tables.by_split(table)).axes[0].containers
    shown = [container.lines[0] for container in containers]
    assert [line.get_color() for line in shown] == ["C0", "C0", "C1", "0.3"]
    assert [line.get_markerfacecolor() for line in shown] == ["C0", "white", "C1", "0.3"]


def test_parity_shows_test_molecules_only():
    table = pd.DataFrame(
        {"part": ["test", "test", "val"], "encoder": "mean", "label": [1.0, 2.0, 9.0], "prediction": [1.5, 1.5, 9.0]}
    ).assign(dataset="made", target="gap", runs=1)
    ax = plots.parity(table, "eV").axes[0]
    assert ax.lines[1].get_xdata().tolist() == [1.0, 2.0]
    assert ax.get_title().endswith("\nMAE 0.5")
    assert plots.parity(table.assign(runs=3), "eV").axes[0].get_title().endswith("\nMAE of 3 runs' mean 0.5")


def test_predictions_are_means_over_the_chosen_runs():
    rows = [(repeat, chosen, value) for repeat, (chosen, value) in enumerate([(True, 1.0), (True, 3.0), (False, 99.0)])]
    scores = pd.DataFrame(
        [{**PLACE, **SETTING, "encoder": "a", "seed": 1, "repeat": r, "chosen": c} for r, c, _ in rows]
    )
    molecule = {"part": "test", "row": 7, "smiles": "C", "target": "gap", "label": 2.5}
    run = {"dataset": "made", "encoder": "a", "stage": "grid", "head_lr": 1e-3, "augmentation": "none"}
    predictions = pd.DataFrame([{**molecule, **run, "repeat": r, "prediction": value} for r, _, value in rows])
    found = tables.mean_predictions(predictions, scores)
    assert found[["row", "label", "prediction", "runs"]].to_numpy().tolist() == [[7, 2.5, 2.0, 2]]


def test_the_heat_map_marks_the_chosen_setting():
    settings = [(lr, level) for lr in (1e-4, 1e-3) for level in ("none", "default")]
    rows = [
        {
            **PLACE,
            **SETTING,
            "encoder": "a",
            "head_lr": lr,
            "augmentation": level,
            "val": n,
            "test": -n,
            "chosen": n == 1,
        }
        for n, (lr, level) in enumerate(settings)
    ]
    axes = training.heat_map(pd.DataFrame(rows), "a").axes
    assert [text.get_text() for text in axes[0].texts] == ["0.00", "1.00", "2.00", "3.00", "a"]
    assert [ax.patches[0].get_xy() for ax in axes[:2]] == [(1, 0), (1, 0)]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0.0001", "0.001"]


def test_the_heat_map_leaves_out_what_diverged():
    """One repeat that diverged leaves its setting empty, a level of which all did is still there."""
    rows = [
        {**PLACE, **SETTING, "encoder": "a", "augmentation": level, "repeat": repeat, "val": value, "test": value}
        for level, values in {"none": (1.0, 3.0), "default": (1.0, np.nan), "intense": (np.nan, np.nan)}.items()
        for repeat, value in enumerate(values, 1)
    ]
    table = pd.DataFrame(rows).assign(chosen=lambda table: table["augmentation"] == "none")
    left = training.heat_map(table, "a").axes[0]
    assert [text.get_text() for text in left.texts] == ["2.00", "a"]
    assert [label.get_text() for label in left.get_xticklabels()] == ["none", "default", "intense"]


def test_a_tick_shows_what_choosing_by_test_would_print():
    """Errors of 2 and 1 in the settings that validation and test choose: the mark is at 1."""
    rows = [
        {**PLACE, **SETTING, "encoder": "a", "seed": 1, "head_lr": lr, "val": val, "test": test, "chosen": val == 1.0}
        for lr, val, test in ((1e-3, 1.0, 2.0), (1e-4, 2.0, 1.0))
    ]
    (ax,) = plots.scores(tables.by_split(pd.DataFrame(rows))).axes
    ticks = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "|"]
    assert [1.0] in ticks
    assert ax.get_xlabel() == "test MAE (eV)\n\u2190 better; tick: if test chose"
    (ax,) = plots.scores(tables.by_split(SCORES)).axes
    assert ax.get_xlabel() == "test MAE (eV)\n\u2190 better"


def test_roc_shows_the_area():
    test = {"part": "test", "dataset": "made", "target": "class", "label": [0.0, 0.0, 1.0, 1.0]}
    table = pd.DataFrame({**test, "encoder": "a", "prediction": [0.1, 0.6, 0.5, 0.9], "runs": 2})
    (ax,) = plots.roc(table, ["a"]).axes
    assert ax.lines[0].get_label() == "a of 2 runs' mean: 0.75"
    other = table.assign(target="other", label=[0.0, 1.0, np.nan, 1.0], runs=1)  # one panel per label column
    first, second = plots.roc(pd.concat([table, other]), ["a"]).axes
    assert (first.get_title(), second.get_title()) == ("made: class, area", "made: other, area")
    assert second.lines[0].get_label() == "a: 1.00"


def test_numbers_of_a_column_have_the_same_digits_within_a_set():
    columns = {"test": [0.0138, 0.01, 12.25, 9.5, np.nan], "head_lr": [1e-3, 1e-4, 1e-3, 1e-4, 1e-3]}
    table = pd.DataFrame({"set": list("aabbb"), **columns, "seed": range(5)}, index=list("vwxyz"))
    shown = style.in_digits(table).data
    assert list(shown["test"]) == ["0.0138", "0.0100", "12.2", "9.5", ""]
    assert list(shown["head_lr"]) == ["0.001", "0.0001", "0.001", "0.0001", "0.001"]
    assert ">4<" in style.in_digits(table).to_html()


def test_no_bar_reaches_where_no_score_can_be():
    rows = {"dataset": "a", "drawing": "plain", "split": "random", "encoder": "mean", "metric": "MAE", "unit": "eV"}
    table = pd.DataFrame({**rows, "seed": [1, 2], "test": [0.1, 0.9], "sd": 0.0, "runs": 1, "optimism": 0.0})
    for metric, edge in (("MAE", 0.0), ("ROC-AUC", 1.0)):
        ax = plots.scores(table.assign(metric=metric)).axes[0]
        (bar,) = ax.collections[0].get_segments()
        assert edge in bar[:, 0]
        assert "better" in ax.get_xlabel()


def test_panels_have_letters_if_there_are_several():
    assert [text.get_text() for ax in style.panels([1, 2, 1], 0.5, 0.2)[1] for text in ax.texts] == ["a", "b", "c"]
    assert not style.panels([1], 0.5, 0.2)[1][0].texts


def test_gallery_has_every_variant():
    figure = molecules.gallery(["CCO", "c1ccccc1"], seed=0)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert {"plain", "R-groups", "plain,\ndefault", "plain,\nintense", "plain,\nintense_2024"} <= set(titles)
    assert len(figure.axes) == 2 * len(titles)


def test_loss_curves_show_chance():
    metrics = pd.DataFrame(
        {
            "epoch": [0, 1, 1],
            "step": [0, 5, 10],
            "loss": [np.nan, 3.0, 2.0],
            "class_30": [np.nan, 2.0, 1.0],
            "held_out_top1": [0.01, np.nan, 0.2],
            "chance": [0.01, np.nan, 0.01],
        }
    )
    metrics["contrastive"] = metrics["loss"] - metrics["class_30"]
    metrics["held_out_accuracy_30"] = 2 * metrics["held_out_top1"]
    metrics["held_out_neighbours_30"] = 3 * metrics["held_out_top1"]
    left, right = training.loss_curves(metrics).axes
    assert {line.get_label(): line.get_ydata().tolist() for line in left.lines} == {
        "contrastive": [1.0, 1.0],
        "class, K = 30": [2.0, 1.0],
    }
    assert {line.get_label(): line.get_ydata().tolist() for line in right.lines} == {
        "retrieval, top 1": [1.0, 20.0],
        "retrieval, chance": [1.0, 1.0],
        "class, K = 30": [2.0, 40.0],
        "10 neighbours, K = 30": [3.0, pytest.approx(60.0)],
    }
    assert right.lines[0].get_xdata().tolist() == [0, 10]


def test_contrasts_tell_splits_from_repeats():
    one_split = SCORES[SCORES["seed"] == 1]
    repeats = pd.concat([one_split.assign(set="one", repeat=n, test=one_split["test"] * n) for n in (1, 2)])
    scores = tables.by_split(pd.concat([SCORES.assign(set="three"), repeats]))
    table = tables.contrasts(scores, {"a pair": ["pretrained", "mean"]})
    ax = plots.contrasts(table).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["three (3 splits)", "one (2 repeats)"]
    fewer = table.query("set == 'three'").assign(contrast="another", n=2)
    ax = plots.contrasts(pd.concat([table, fewer])).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["three (3 splits or 2 splits)", "one (2 repeats)"]
    shown = {line.get_ydata()[0]: line for line in ax.lines if line.get_marker() == "o"}
    assert shown[0].get_xdata()[0] == pytest.approx(100 * 4 / 9)
    assert (shown[0].get_markerfacecolor(), shown[1].get_markerfacecolor()) == ("C0", "white")


def test_r_groups_show_gaps_and_losses_with_their_intervals():
    errors = {("a", "plain"): [1.0, 1.0], ("a", "r_groups"): [1.0, 2.0], ("b", "plain"): [1.5, 1.5]}
    rows = [
        {"dataset": "made", "encoder": encoder, "drawing": drawing, "seed": seed, "test": test}
        for (encoder, drawing), tests in errors.items()
        for seed, test in enumerate(tests)
    ]
    gaps = tables.robustness(pd.DataFrame(rows), "a", "b")
    left, right = plots.r_groups(gaps, "a", "b").axes
    shown = {container.get_label(): container.lines[0].get_xdata().tolist() for container in left.containers}
    assert shown == {"plain": [pytest.approx(50)], "R-groups": []}
    (loss,) = [container for container in right.containers if container.get_label() == "a"]
    assert loss.lines[0].get_xdata() == pytest.approx([50])
    ends = loss.lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([100 * end for end in metrics.mean_ci([0.0, 1.0], 1 / 9)[1:]])
    assert [label.get_text() for label in left.get_yticklabels()] == ["made (2 splits)"]


@pytest.mark.parametrize(("metric", "panels"), [("MAE", ["measured (eV)"]), ("ROC-AUC", ["false positive rate"])])
def test_predictions_of_a_job_are_drawn_by_its_metric(metric, panels):
    scores = pd.DataFrame([{**PLACE, **SETTING, "metric": metric, "encoder": "mean", "seed": 1}])
    run = {name: scores[name].iloc[0] for name in ("dataset", "encoder", "stage", "repeat", "head_lr", "augmentation")}
    molecule = {"part": "test", "smiles": "C", "target": "gap"}
    table = pd.DataFrame({"row": [0, 1], **run, **molecule, "label": [0.0, 1.0], "prediction": [0.2, 0.7]})
    assert [ax.get_xlabel() for ax in plots.tested(table, scores).axes] == panels


def test_finetuning_curves_mark_the_tested_epoch():
    scores = pd.DataFrame([{**PLACE, **SETTING, "encoder": "mean", "seed": 1}])
    curves = scores[["encoder", "stage", "repeat", "head_lr", "augmentation"]].merge(
        pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.5, 4.0]}), how="cross"
    )
    others = curves.assign(head_lr=1e-4, train_loss=9.0)
    (ax,) = training.finetuning_curves(pd.concat([curves, others]), scores).axes
    assert ax.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert ax.lines[-1].get_xydata().tolist() == [[2, 1.5]]
    (ax,) = training.finetuning_curves(curves, scores.assign(epoch=0)).axes
    assert ax.texts[0].get_text() == "none of these models is trained in epochs"


def test_maps_have_a_panel_per_encoder_with_every_molecule():
    place = {"smiles": "C", "class": [n % 4 for n in range(40)], "x": range(40), "y": 0.0}
    table = pd.DataFrame({**place, "agreement": 0.25, "chance": 0.1})
    figure = molecules.maps(pd.concat([table.assign(encoder=name) for name in ("one", "two")]))
    assert [ax.get_title() for ax in figure.axes] == ["one\n25 % (chance 10 %)", "two\n25 % (chance 10 %)"]
    assert [sum(len(line.get_xdata()) for line in ax.lines) for ax in figure.axes] == [40, 40]
