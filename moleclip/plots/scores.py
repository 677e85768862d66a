"""Figures of scores: models against each other, predictions against labels, our runs against released ones."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from moleclip import metrics, tables
from moleclip.plots.style import COLUMN, MODEL_NAMES, PAGE, count, in_order, letters, look, panels, to_better, with_unit


def scores(table: pd.DataFrame) -> Figure:
    """Test scores, one panel per data set: each split a dot, the mean over splits with its 95 % interval.

    Parameters
    ----------
    table : DataFrame
        From `tables.by_split`. With one split only, the bar is the standard deviation of its repeats. A tick shows
        where the mean would be if the test molecules chose the setting, unless it is the same. Sets that have one
        model only are left out, where others have several.
    """
    every = list(table.groupby("set" if "set" in table else "dataset", sort=False))
    sets = [(name, part) for name, part in every if len(set(part["encoder"])) > 1] or every
    order = in_order(table["encoder"])
    same = len({frozenset(part["encoder"]) for _, part in sets}) == 1
    figure, axes = panels([part["encoder"].nunique() for _, part in sets], 0.8, 0.22, title_lines=2, sharey=same)
    for ax, (name, part) in zip(axes, sets, strict=True):
        _scores_panel(ax, str(name), part, order)
    return figure


def _scores_panel(ax: Axes, title: str, table: pd.DataFrame, order: Sequence[str]) -> None:
    metric, unit, kind, drawing = table[["metric", "unit", "split", "drawing"]].iloc[0]
    splits = table.groupby("encoder")["seed"].nunique().min()
    higher, ticks = metrics.higher_is_better(metric), False
    shown, overlap = in_order(table["encoder"]), tables.overlap(table)
    for y, name in enumerate(shown):
        rows = table[table["encoder"] == name].sort_values("seed")
        mean, _, high = metrics.mean_ci(rows["test"], overlap)
        half = high - mean if splits > 1 else rows["sd"].fillna(0.0).iloc[0]
        if splits > 1:
            ax.plot(rows["test"], np.full(len(rows), y), "o", markersize=3, color="0.6", zorder=2)
        low, high = metrics.possible(metric, mean - half, mean + half)
        bar = [[mean - low], [high - mean]]
        ax.errorbar([mean], [y], xerr=bar, fmt="D", markersize=4, capsize=3, zorder=3, **look(name, order))
        if (optimism := rows["optimism"].mean()) > 0:  # NaN of a single setting: nothing was chosen
            chosen_by_test = mean + (optimism if higher else -optimism)
            ax.plot([chosen_by_test], [y], "|", markersize=9, markeredgewidth=1.5, color="0.2")
            ticks = True
    least, most = table["runs"].min(), table["runs"].max()
    runs = f"SD of {most if least == most else f'{least} to {most}'} runs" if most > 1 else "one run"
    spread = f"{splits} {kind} splits, 95 % interval" if splits > 1 else f"one {kind} split, {runs}"
    _lines(ax, [MODEL_NAMES.get(name, name) for name in shown])
    ax.set_xlabel(to_better(with_unit(f"test {metric}", unit), higher, wrap=True) + "; tick: if test chose" * ticks)
    how = "" if drawing == "plain" else "\nR-groups" + drawing.removeprefix("r_groups").replace("_", " ")
    # From the right: the names of the models leave room on the other side.
    ax.set_title(f"{title}{how}\n{spread}", loc="right")


def _lines(ax: Axes, labels: Sequence[str]) -> None:
    """Give each line of a panel its label, the first one at the top."""
    ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))


def _percents(ax: Axes, rows: pd.DataFrame, y: Sequence[float], marker: str, **style: Any) -> None:
    """Draw percentages at the heights `y`, with their intervals where they have one."""
    bars = np.nan_to_num([rows["percent"] - rows["low"], rows["high"] - rows["percent"]])
    ax.errorbar(rows["percent"], y, xerr=bars, fmt=marker, markersize=4, capsize=2, **style)


def contrasts(table: pd.DataFrame) -> Figure:
    """How much better one model is than another, one panel per contrast, one line per set.

    Parameters
    ----------
    table : DataFrame
        From `tables.contrasts`. Open symbols: repeats on one split, whose bars say nothing of other splits. Grey bands:
        differences too small to matter on the set.
    """
    names, sets = list(dict.fromkeys(table["contrast"])), list(dict.fromkeys(table["set"]))
    figure, axes = panels([len(sets)] * len(names), 0.9, 0.22, sharex=True, sharey=True)
    counts = [count(n, over.removesuffix("s")) for n, over in zip(table["n"], table["over"], strict=True)]
    counted = table.assign(counts=counts).groupby("set")["counts"].unique()  # contrasts may differ in them
    labels = [f"{name} ({' or '.join(counted[name])})" for name in sets]
    for number, (ax, name) in enumerate(zip(axes, names, strict=True)):
        ax.axvline(0, color="0.6", linewidth=0.8)
        band = table[table["contrast"] == name].dropna(subset="margin")
        places = [sets.index(line) for line in band["set"]]
        ax.barh(places, 2 * band["margin"], left=-band["margin"], height=0.8, color="0.92", zorder=0)
        for over, rows in table[table["contrast"] == name].groupby("over"):
            face = f"C{number}" if over == "splits" else "white"
            style = {"color": f"C{number}", "markerfacecolor": face}
            _percents(ax, rows, [sets.index(line) for line in rows["set"]], "oD^sv"[number % 5], **style)
        _lines(ax, labels)
        ax.set_title(name)
    for ax in axes[-2:]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("better by (% of the other's score) \u2192")
    return figure


def all_pairs(scores: pd.DataFrame) -> Figure:
    """Methods of a cross-validation against each other: mean scores, and all differences.

    On the left, bars of two methods overlap unless they differ surely, by `metrics.all_pairs`; mean ranks are beside
    the names. On the right, how much better the method of the line is than that of the column, in percent of the
    best score; all simultaneous 95 % intervals are equally wide, as the title says, and sure differences are bold.

    Parameters
    ----------
    scores : DataFrame
        Of a cross-validation. Parts in which a method was not tested are left out.
    """
    wide, overlap = tables.by_part(scores)
    wide = wide.dropna()
    metric, unit = scores[["metric", "unit"]].iloc[0]
    higher = metrics.higher_is_better(metric)
    order = list(map(str, wide.mean().sort_values(ascending=not higher).index))
    pairs, ranks = metrics.all_pairs(wide[order], overlap), wide.rank(axis=1, ascending=not higher).mean()
    sign, count = 1 if higher else -1, len(order)
    percent = np.full((count, count), np.nan)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE, 1.0 + 0.36 * count), sharey=True, width_ratios=[1, 0.8 + 0.28 * count]
    )
    unit_percent, width = 100 / wide[order[0]].mean(), (pairs["high"] - pairs["low"]).iloc[0] / 2
    for pair in pairs.to_dict("records"):
        row, column = order.index(pair["a"]), order.index(pair["b"])
        sure = "bold" if pair["p"] < metrics.LEVEL else "normal"
        for y, x, value in ((row, column, sign * pair["difference"]), (column, row, -sign * pair["difference"])):
            percent[y, x] = unit_percent * value
            right.text(x, y, f"{percent[y, x]:+.0f}", ha="center", va="center", size=6, weight=sure)
    edge = np.nanmax(np.abs(percent))
    right.imshow(percent, cmap="PiYG", vmin=-1.5 * edge, vmax=1.5 * edge, aspect="auto")
    right.set(xticks=range(count), title=f"better by (% of the best score), each \u00b1 {unit_percent * width:.0f}")
    right.tick_params(left=False)
    right.set_xticklabels([MODEL_NAMES.get(name, name) for name in order], rotation=30, ha="right", size=6)
    # Two bars touch where methods differ by the width of the interval.
    left.errorbar(wide[order].mean(), range(count), xerr=width / 2, fmt="D", markersize=4, capsize=3, color="0.2")
    _lines(left, [f"{MODEL_NAMES.get(name, name)} (rank {ranks[name]:.1f})" for name in order])
    left.set_xlabel(to_better(with_unit(f"test {metric}", unit), higher))
    left.set_title(f"{len(wide)} test parts", loc="right")
    letters((left, right))
    return figure


def r_groups(gaps: pd.DataFrame, model: str, competitor: str) -> Figure:
    """Relative gap between two models on plain and R-group drawings, and what each loses by them (paper, Fig. 4b).

    Parameters
    ----------
    gaps : DataFrame
        From `tables.robustness`.
    """
    sets = list(dict.fromkeys(gaps["dataset"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 1.1 + 0.5 * len(sets)), sharey=True)
    titles = {
        left: (f"{MODEL_NAMES.get(competitor, competitor)} errs more by (%)", ("gap, plain", "gap, R-groups")),
        right: ("error grows with R-groups by (%)", (f"loss, {model}", f"loss, {competitor}")),
    }
    for ax, (label, quantities) in titles.items():
        ax.axvline(0, color="0.6", linewidth=0.8)
        for quantity, marker, shift in zip(quantities, "oD", (-0.12, 0.12), strict=True):
            rows, name = gaps[gaps["quantity"] == quantity], quantity.partition(", ")[2]
            y = [sets.index(dataset) + shift for dataset in rows["dataset"]]
            _percents(ax, rows, y, marker, label=MODEL_NAMES.get(name, name))
        _lines(ax, [f"{name} ({gaps.loc[gaps['dataset'] == name, 'splits'].min()} splits)" for name in sets])
        ax.set_xlabel(label)
        ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)  # above: no bar is hidden
    letters((left, right))
    return figure


def baseline(table: pd.DataFrame) -> Figure:
    """Our runs of the fingerprint baseline and the released ones, one panel per set, one line per split.

    Parameters
    ----------
    table : DataFrame
        From `compare.baseline`. Bars are the standard deviation over runs.
    """
    sets = list(table.groupby("set", sort=False))
    figure, axes = panels([len(part) for _, part in sets], 0.75, 0.14)
    for ax, (name, part) in zip(axes, sets, strict=True):
        y = np.arange(len(part))
        for who, label, marker, colour, face, shift in (
            ("theirs", "released runs", "o", "0.5", "white", -0.12),
            ("ours", "our runs of the baseline", "D", "C0", "C0", 0.12),
        ):
            style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "label": label}
            ax.errorbar(part[who], y + shift, xerr=part[f"{who}_sd"], fmt=marker, markersize=4, capsize=2, **style)
        metric, unit, batch_size = part[["metric", "unit", "batch_size"]].iloc[0]
        rates = "/".join(f"{rate:g}" for rate in sorted(set(part["head_lr"])))  # several where validation chose
        _lines(ax, [f"seed {seed}" for seed in part["seed"]] if len(part) > 1 else ["one split"])
        xlabel = to_better(with_unit(f"test {metric}", unit), metrics.higher_is_better(metric))
        ax.set(xlabel=xlabel, title=f"{name}, lr {rates}, batch {batch_size}")
        ax.locator_params(axis="x", nbins=5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def tested(predictions: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Parity plot of a regression's models, or ROC curves of a classification's."""
    means = tables.mean_predictions(predictions, scores)
    metric, unit = scores[["metric", "unit"]].iloc[0]
    return against_labels(means, metric, unit, list(dict.fromkeys(scores["encoder"])))


def against_labels(means: pd.DataFrame, metric: str, unit: str, models: Sequence[str]) -> Figure:
    """Parity plot of the first three models, or ROC curves of all; predictions as of `tables.mean_predictions`."""
    return roc(means, models) if metric == "ROC-AUC" else parity(means, unit, models[:3])


def parity(predictions: pd.DataFrame, unit: str, models: Sequence[str] | None = None) -> Figure:
    """Predicted against measured values of the test molecules, one panel per model.

    Parameters
    ----------
    predictions : DataFrame
        From `tables.mean_predictions`.
    """
    test = predictions[predictions["part"] == "test"]
    shown = [name for name in models or MODEL_NAMES if name in set(test["encoder"])]
    size = (min(PAGE, COLUMN * len(shown)), 3.0)
    figure, axes = plt.subplots(1, len(shown), figsize=size, sharex=True, sharey=True, squeeze=False)
    values = test[["label", "prediction"]]
    limits = [values.min(axis=None), values.max(axis=None)]
    # Markers stand for the splits or, within one, for the labels.
    kinds = "split_seed" if "split_seed" in test and len(set(test["split_seed"])) > 1 else "target"
    for ax, name in zip(axes[0], shown, strict=True):
        rows = test[test["encoder"] == name]
        ax.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)
        for (kind, part), marker in zip(rows.groupby(kinds), itertools.cycle("os^Dv"), strict=False):
            ax.plot(part["label"], part["prediction"], marker, markersize=2.5, alpha=0.6, label=kind)
        error = (rows["label"] - rows["prediction"]).abs().mean()
        title = f"{rows['dataset'].iloc[0]}\n{MODEL_NAMES.get(name, name)}\nMAE{_of_mean(rows)} {error:.3g}"
        ax.set(title=title, xlabel=f"measured ({unit})", aspect="equal")
    axes[0][0].set_ylabel(f"predicted ({unit})")
    letters(axes[0])
    if len(set(test[kinds])) > 1:
        meaning = "split" if kinds == "split_seed" else None
        axes[0][-1].legend(frameon=False, title=meaning, title_fontsize=7, handletextpad=0)
    return figure


def _of_mean(rows: pd.DataFrame) -> str:
    """Say it where predictions are means of runs: their error is less than the mean of the runs' errors."""
    runs = rows["runs"].max()
    return f" of {runs} runs' mean" if runs > 1 else ""


def roc(predictions: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Receiver operating characteristic of the test molecules: a panel per label column, a line per model.

    Parameters
    ----------
    predictions : DataFrame
        From `tables.mean_predictions`.
    """
    test = predictions[(predictions["part"] == "test") & predictions["label"].notna()]
    targets = list(dict.fromkeys(test["target"]))
    figure, axes = plt.subplots(len(targets), 1, figsize=(COLUMN, COLUMN * len(targets)), squeeze=False)
    for ax, target in zip(axes[:, 0], targets, strict=True):
        for name, style in zip(models, itertools.cycle(["-", "--", "-.", ":"]), strict=False):
            rows = test[(test["encoder"] == name) & (test["target"] == target)]
            false, true, _ = roc_curve(rows["label"], rows["prediction"])
            area = roc_auc_score(rows["label"], rows["prediction"])
            ax.plot(false, true, style, linewidth=1, label=f"{MODEL_NAMES.get(name, name)}{_of_mean(rows)}: {area:.2f}")
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        title = f"{test['dataset'].iloc[0]}: {target}, area"
        ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
        ax.legend(frameon=False)
    letters(axes[:, 0])
    return figure
