"""The paper's figures and tables, drawn from its released runs, with ours next to them.

The shape of a symbol says whose number it is: open squares are printed, open circles follow from the released runs,
filled diamonds are ours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moleclip import config, metrics
from moleclip.paper import claims, workbook
from moleclip.paper.compare import OTHER_SPLIT
from moleclip.paper.workbook import CATALYSIS, MOLECULENET, lines
from moleclip.plots import style

# Marker, whether it is filled, colour, and place on its line, by whose number it is; and the first three by verdict.
WHO = {"printed": ("s", False, "0.45", -0.2), "released runs": ("o", False, "C0", 0.0), "ours": ("D", True, "C1", 0.2)}
_LOOKS = (("o", True, "C2"), ("o", False, "0.45"), ("X", True, "C3"), ("|", True, "0.6"))
VERDICTS = dict(zip(claims.VERDICTS, _LOOKS, strict=True))

_IN_SHORT = {"released runs": "released", "our runs": "ours", "our baselines": "baselines"}
_BASELINES = {workbook.BASELINE, *(style.MODEL_NAMES[name] for name in config.FORESTS)}

_SHORT = {
    workbook.BASELINE: "Morgan + MLP",
    "MoleCLIPbv": "MoleCLIP, buried volume",
    "Control - I | Phosphines - 4 epochs | K1 = 30, K2 = 300": "I: phosphines, K 30/300",
    "Control - I | Phosphines - 4 epochs | K1 = 300, K2 = 3000": "I: phosphines, K 300/3000",
    "Control - II |": "II: ChEMBL, then phosphines",
    "Control \u2013 III |": "III: CLIP, then Kraken",
}


def panels(points: pd.DataFrame) -> Figure:
    """Draw a panel per data set, with a line per model, both in the order in which they first come.

    Parameters
    ----------
    points : DataFrame
        From the functions of `compare` that make points.
    """
    models, sets = list(dict.fromkeys(points["model"])), list(dict.fromkeys(points["dataset"]))
    figure, axes = style.panels([len(models)] * len(sets), 1.05, 0.22, sharey=True)
    for ax, name in zip(axes, sets, strict=True):
        _panel(ax, points[points["dataset"] == name], models)
    keys, texts = [], []
    for who, part in points.groupby("who", sort=False):
        marker, filled, colour, _ = WHO[str(who)]
        face = colour if filled else "white"
        keys += axes[0].plot([], [], marker=marker, color=colour, markerfacecolor=face, linewidth=0.8, markersize=4)
        texts.append(f"{_whose(part)}: {' or '.join(filter(None, dict.fromkeys(part['bar'])))}")
    figure.legend(keys, texts, loc="outside lower center", frameon=False)
    return figure


def _panel(ax: Axes, table: pd.DataFrame, models: Sequence[str]) -> None:
    for point in lines(table):
        marker, filled, colour, shift = WHO[point.who]
        y = models.index(point.model) + shift
        bar = np.nan_to_num([[point.value - point.low], [point.high - point.value]])
        look: dict[str, Any] = {"color": colour, "markerfacecolor": colour if filled else "white", "markersize": 4}
        ax.errorbar([point.value], [y], xerr=bar, fmt=marker, capsize=2, linewidth=0.8, **look)
        ax.plot(point.by_split, [y] * len(point.by_split), "|", color=colour, markersize=5, markeredgewidth=0.6)
        ax.plot([point.narrow_low, point.narrow_high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
    elsewhere = set(table.loc[table["split"] == OTHER_SPLIT, "model"])
    labels = [_short(model) + f" (split: {OTHER_SPLIT})" * (model in elsewhere) for model in models]
    ax.set(yticks=range(len(models)), yticklabels=labels, ylim=(len(models) - 0.5, -0.5))
    unit = table["unit"].iloc[0]
    known = unit.partition(" ")[0] in metrics.METRICS  # and not a difference
    ax.set_xlabel(style.to_better(unit, metrics.higher_is_better(unit)) if known else unit)
    if not known:
        ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set_title(_title(table[table["split"] != OTHER_SPLIT]))
    ax.grid(axis="y", color="0.93", linewidth=0.6)
    ax.set_axisbelow(True)


def _title(table: pd.DataFrame) -> str:
    """Name the split and the numbers of runs that the scores of a panel are made of."""
    kind, splits = table["split"].iloc[0], table["splits"].max()
    counts = []
    for _, part in table.groupby("who", sort=False):
        least, most = part["runs"].min(), part["runs"].max()
        whose = _whose(part)
        counts.append(f"{_IN_SHORT.get(whose, whose)} {least}{f' to {most}' if most > least else ''}")
    named = f"{splits} {kind} splits" if splits > 1 else f"{kind} split"
    return f"{table['dataset'].iloc[0]}, {named}\nruns: {', '.join(counts)}"


def _whose(part: pd.DataFrame) -> str:
    """Say whose the numbers are; of ours, whether they are those of baselines alone."""
    who = str(part["who"].iloc[0])
    if who != "ours":
        return who
    return "our baselines" if set(part["model"]) <= _BASELINES else "our runs"


def samples(table: pd.DataFrame) -> Figure:
    """Draw how many samples each model saw in pretraining.

    Parameters
    ----------
    table : DataFrame
        From `claims.pretraining`.
    """
    figure, ax = plt.subplots(figsize=(style.COLUMN, 0.55 + 0.28 * len(table)))
    bars = ax.barh(table["model"], table["samples"] / 1e6, color="white", edgecolor="0.2", hatch="//")
    ax.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=7)
    ax.set(xscale="log", xlabel="samples in pretraining (million), as stated", xlim=(1, 2000))
    ax.invert_yaxis()
    return figure


def knees(table: pd.DataFrame) -> Figure:
    """Draw inertia against K of our sweeps; of the paper's curve only the knee is known.

    Parameters
    ----------
    table : DataFrame
        `compare.Ours.knees`.

    Raises
    ------
    FileNotFoundError
        There is no sweep of ours.
    """
    if table.empty:
        raise FileNotFoundError("figures/*/knee.csv: no sweep of ours to draw; run a profile's notebook 09 first")
    figure, ax = plt.subplots(figsize=(style.COLUMN, 2.5))
    for number, (corpus, curve) in enumerate(table.groupby("corpus", sort=False), 1):
        relative, at = curve["inertia"] / curve["inertia"].max(), curve["knee"].astype(bool)
        look: dict[str, Any] = {"color": f"C{number}", "marker": "Dsv^"[number % 4], "markersize": 3}
        ax.plot(curve["k"], relative, label=f"our sweep: {corpus}", **look)
        ax.plot(curve.loc[at, "k"], relative[at], "o", color=look["color"], markersize=9, markerfacecolor="none")
    ax.axvline(300, color="0.45", linestyle="--", linewidth=1, label="paper's knee, ChEMBL-25: 300")
    ax.set(xscale="log", xlabel="number of clusters K", ylabel="inertia (1 at the smallest K)")
    ax.legend(frameon=False)
    return figure


def verdicts(ledger: pd.DataFrame) -> Figure:
    """Draw the verdict on each claim (lines) on each data set (columns).

    Parameters
    ----------
    ledger : DataFrame
        From `claims.ledger`.
    """
    names, sets = list(dict.fromkeys(ledger["claim"])), [*MOLECULENET, *CATALYSIS, "no one set"]
    figure, ax = plt.subplots(figsize=(style.PAGE, 1.5 + 0.19 * len(names)))
    for verdict, part in ledger.groupby("verdict", sort=False):
        marker, filled, colour = VERDICTS[str(verdict)]
        x = [sets.index(name) if name in sets else len(sets) - 1 for name in part["dataset"]]
        y = [names.index(name) for name in part["claim"]]
        look: dict[str, Any] = {"color": colour, "markerfacecolor": colour if filled else "white", "markersize": 6}
        ax.plot(x, y, marker, label=f"{verdict} ({len(part)})", **look)
    ax.set(xticks=range(len(sets)), yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    ax.set_xticklabels(sets, rotation=40, ha="right", rotation_mode="anchor")
    ax.grid(color="0.93", linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def points_table(points: pd.DataFrame) -> pd.DataFrame:
    """Write out the numbers of a figure as text, one line a number."""
    rows, digits = [], points.groupby("dataset")["value"].agg(style.decimals)
    for point in lines(points):
        value, low, high = (f"{number:.{digits[point.dataset]}f}" for number in (point.value, point.low, point.high))
        score = (f"{value}{'' if np.isnan(point.low) else f' ({low} to {high})'}", point.bar, _known(point.optimism))
        of = f"{point.split} split" + f", {style.count(point.runs, 'run')}" * (point.runs > 0)
        rows.append((point.dataset, point.unit, _short(point.model), point.who, *score, of))
    return _by_set(pd.DataFrame(rows, columns=["set", "metric", "model", "whose", "score", "bar", "optimism", "of"]))


def splits_table(scores: pd.DataFrame, ours: pd.DataFrame | None = None) -> pd.DataFrame:
    """Write out scores over random splits as text: as printed, from the same runs with both intervals, and ours.

    Parameters
    ----------
    scores : DataFrame
        Lines of `workbook.recompute`.
    ours : DataFrame, optional
        From `compare.Ours.points`.
    """
    rows, digits = [], scores.groupby("dataset")["mean"].agg(style.decimals)

    def over(dataset: str, *interval: float) -> str:
        mean, low, high = (f"{number:.{digits[dataset]}f}" for number in interval)
        return mean if np.isnan(interval[1]) else f"{mean} ({low} to {high})"

    for line in lines(scores):
        name = f"{_variant(line)} ({line.unit})"
        printed = (line.text, f"{line.mean:.{digits[line.dataset]}f} \u00b1 {line.spread:.{digits[line.dataset]}f}")
        over_splits = over(line.dataset, line.mean, *metrics.possible(line.metric, line.low, line.high))
        of = f"{line.splits} random splits, {line.runs} runs"
        rows.append((name, _short(line.model), "paper", *printed, over_splits, "", of))
    for point in lines(pd.DataFrame() if ours is None else ours):
        name = f"{_variant(point)} {point.unit.removeprefix('MAE ')}"
        over_splits = over(point.dataset, point.value, point.low, point.high)
        of = f"{style.count(point.splits, f'{point.split} split')}, {style.count(point.runs, 'run')}"
        rows.append((name, _short(point.model), "ours", "", "", over_splits, _known(point.optimism), of))
    columns = ["set (unit of the MAE)", "model", "whose", "printed", "paper's interval"]
    return _by_set(pd.DataFrame(rows, columns=[*columns, "t-interval over splits", "optimism", "of"]))


def ablations_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Write out the ablations as text: each score as printed, and the median over the settings of its grid."""
    rows: dict[str, dict[str, str]] = {}
    digits = scores.groupby("dataset")["median"].agg(style.decimals)
    for line in lines(scores):
        median = f"{line.median:.{digits[line.dataset]}f}"
        rows.setdefault(_short(line.model), {}).update(
            {f"{line.dataset}, printed": line.text, f"{line.dataset}, median": median}
        )
    table = pd.DataFrame(rows).T.rename_axis("pretraining").reset_index()
    return table.assign(of="scaffold split, 3 runs a setting")


def _variant(line: Any) -> str:
    return f"{line.dataset}{', R-groups' * (line.variant == 'R-replaced')}"


def _short(model: str) -> str:
    known = (short for name, short in _SHORT.items() if model.startswith(name))
    return next(known, model.removeprefix("control: "))


def _known(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"


def _by_set(table: pd.DataFrame) -> pd.DataFrame:
    """Bring the lines of each set together, ours last, in the order in which sets first come."""
    first = list(dict.fromkeys(table.iloc[:, 0]))
    return table.sort_values(
        table.columns[0], key=lambda names: names.map(first.index), kind="stable", ignore_index=True
    )
