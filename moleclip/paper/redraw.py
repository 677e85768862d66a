"""The paper's figures and tables, drawn again from its released runs, with ours beside them.

Whose a number is, its shape says: open squares are printed, open circles follow from the released runs, filled
diamonds are ours.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moleclip import config, metrics
from moleclip.paper import claims, own, printed, released
from moleclip.paper.printed import CELL, MODEL, behind, lines
from moleclip.plots import style

# Marker, whether it is filled, colour, and place on its line, by whose number it is.
WHO = {"printed": ("s", False, "0.45", -0.2), "released runs": ("o", False, "C0", 0.0), "ours": ("D", True, "C1", 0.2)}
OTHER_SPLIT = "its own"  # of models whose scores are taken from elsewhere

_MODELS = {
    released.BASELINE: "Morgan + MLP",
    "MoleCLIPbv": "MoleCLIP, buried volume",
    "Control - I | Phosphines - 4 epochs | K1 = 30, K2 = 300": "I: phosphines, K 30/300",
    "Control - I | Phosphines - 4 epochs | K1 = 300, K2 = 3000": "I: phosphines, K 300/3000",
    "Control - II |": "II: ChEMBL, then phosphines",
    "Control \u2013 III |": "III: CLIP, then Kraken",
}
# Our models that belong beside the paper's, and on which line.
_OURS = {name: theirs for theirs, name in claims.OURS.items()}
_OURS |= {name: style.MODEL_NAMES[name] for name in config.FORESTS}

_PRINTED = "SD as printed"
_GRID = "median cell of the grid, from worst to best"
_SPLITS = "95 % t-interval over splits, ticks: splits"


class Point(NamedTuple):
    """One number of a figure.

    Attributes
    ----------
    dataset, model, who : str
        Panel, line, and whose number it is: a key of `WHO`.
    value, low, high : float
        With the ends of its bar.
    bar : str
        What the bar is.
    unit : str
        Metric and unit.
    split, splits, runs
        Of what the number is the mean.
    narrow_low, narrow_high : float
        The paper's own interval, where that is another one.
    by_split : tuple of float
        Mean on each split.
    optimism : float
        How much better it would look if the test molecules chose the cell of the grid; NaN where that is not known, or
        there was one cell.
    """

    dataset: str
    model: str
    who: str
    value: float
    low: float
    high: float
    bar: str
    unit: str
    split: str
    splits: int
    runs: int
    narrow_low: float = np.nan
    narrow_high: float = np.nan
    by_split: tuple[float, ...] = ()
    optimism: float = np.nan


class Paper:
    """The released runs, what is printed, and ours; each method gives a figure and the table that it shows."""

    def __init__(self, runs: pd.DataFrame, scores: pd.DataFrame, ours: own.Own) -> None:
        self.runs, self.scores, self.ours = runs, scores, ours

    @cached_property
    def beside(self) -> pd.DataFrame:
        """Printed scores beside recomputed ones."""
        return printed.recomputed(self.runs, self.scores)

    def fig_2(self) -> tuple[pd.DataFrame, Figure]:
        """Draw MoleculeNet: all models as printed, the released grid, and ours."""
        table = self.scores[self.scores["sheet"] == "MoleculeNet"]
        points = [point for line in lines(table) for point in self._on_scaffold(line)]
        return _panels([*points, *self._own(claims.MOLECULENET, "MoleculeNet")], claims.MOLECULENET)

    def fig_3a(self) -> tuple[pd.DataFrame, Figure]:
        """Draw the samples seen in pretraining."""
        rows = [(model, molecules, epochs) for model, (molecules, epochs) in claims.PRETRAINING.items()]
        table = pd.DataFrame(rows, columns=["model", "molecules", "epochs"])
        table["samples"] = table["molecules"] * table["epochs"]
        figure, ax = plt.subplots(figsize=(style.COLUMN, 0.55 + 0.28 * len(table)))
        ax.barh(table["model"], table["samples"] / 1e6, color="white", edgecolor="0.2", hatch="//")
        for y, samples in enumerate(table["samples"] / 1e6):
            ax.annotate(f"{samples:.3g}", (samples, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
        ax.set(xscale="log", xlabel="samples in pretraining (million), as stated", xlim=(1, 2000))
        ax.invert_yaxis()
        return table, figure

    def fig_3b(self) -> tuple[pd.DataFrame, Figure]:
        """Draw the catalysis sets."""
        table = self.beside[self.beside["sheet"].isin(claims.CATALYSIS)]
        points = [self._on_splits(line) for line in lines(table)]
        return _panels([*points, *self._own(claims.CATALYSIS, "")], claims.CATALYSIS)

    def fig_4a(self) -> tuple[pd.DataFrame, Figure]:
        """Draw domain-focused pretraining and its controls on the phosphine sets."""
        sets = claims.CATALYSIS[2:]
        primary = self.beside["sheet"].isin(sets) & (self.beside["model"] == claims.PRIMARY)
        table = self.beside[primary | (self.beside["sheet"] == "Domain-focused pretraining")]
        points = [self._on_splits(line) for line in lines(table)]
        return _panels([*points, *self._own(sets, "", ("pretrained", "buried_volume"))], sets)

    def fig_4b(self) -> tuple[pd.DataFrame, Figure]:
        """Draw the relative gap to ImageMol on plain drawings and with R-groups."""
        table = self.scores[(self.scores["sheet"] == "R-replacement") & (self.scores["difference"] != "")]
        points = [point for line in lines(table) for point in self._gap(line)]
        return _panels(points, claims.R_GROUPS)

    def fig_s2(self) -> tuple[pd.DataFrame, Figure]:
        """Draw inertia against K of our sweeps; of the paper's curve only the knee is known."""
        table = self.ours.knees
        if table.empty:
            raise FileNotFoundError("figures/*/knee.csv: no sweep of ours to draw; run a profile's page first")
        figure, ax = plt.subplots(figsize=(style.COLUMN, 2.5))
        for number, (corpus, curve) in enumerate(table.groupby("corpus", sort=False), 1):
            share, at = curve["inertia"] / curve["inertia"].max(), curve["knee"].astype(bool)
            look: dict[str, Any] = {"color": f"C{number}", "marker": "Dsv^"[number % 4], "markersize": 3}
            ax.plot(curve["k"], share, label=f"ours: {corpus}", **look)
            ax.plot(curve.loc[at, "k"], share[at], "o", color=look["color"], markersize=9, markerfacecolor="none")
        ax.axvline(300, color="0.45", linestyle="--", linewidth=1, label="paper's knee, ChEMBL-25: 300")
        ax.set(xscale="log", xlabel="number of clusters K", ylabel="inertia (share of that at the least K)")
        ax.legend(frameon=False)
        return table.drop(columns="file"), figure

    def ablations(self) -> tuple[pd.DataFrame, Figure]:
        """Draw what each part of pretraining brings, on MoleculeNet."""
        table = self._ablations()
        return _panels([point for line in lines(table) for point in self._on_scaffold(line)], claims.MOLECULENET)

    def _ablations(self) -> pd.DataFrame:
        """Lines of the primary model and its controls; rivals have no grid."""
        sheets = self.beside["sheet"].str.startswith("MoleculeNet")
        return self.beside[sheets & (self.beside["model"] != released.BASELINE)]

    def _on_scaffold(self, line: Any) -> Iterator[Point]:
        """Score as printed, and the grid that it is the best cell of."""
        other = line.sheet == "MoleculeNet" and line.model not in (claims.PRIMARY, released.BASELINE)
        split = OTHER_SPLIT if other else "scaffold"
        place, unit = (line.dataset, line.model), _unit(line.sheet, line.dataset)
        ends = (line.value - line.error, line.value + line.error)
        # Of how many runs the others' scores are, is not printed.
        yield Point(*place, "printed", line.value, *ends, _PRINTED, unit, split, 1, 0 if other else 3)
        if not other:
            grid = self._runs(line)
            means = grid.groupby(CELL)["value"].mean()
            ends = (means.min(), means.max())
            yield Point(*place, "released runs", means.median(), *ends, _GRID, unit, split, 1, len(grid))

    def _on_splits(self, line: Any) -> Point:
        """Score over random splits, with the paper's interval inside ours."""
        factor = released.quantity(line.sheet, line.dataset).factor
        means = factor * behind(self._runs(line)).groupby("split")["value"].mean()
        return Point(
            *(line.dataset, line.model, "released runs", line.mean, line.low, line.high),
            *(f"{_SPLITS}, thick: the paper's", _unit(line.sheet, line.dataset), "random", line.splits, line.runs),
            *(line.mean - line.spread, line.mean + line.spread, tuple(means)),
        )

    def _gap(self, line: Any) -> Iterator[Point]:
        """Gap to ImageMol, of whose line it is, as printed and over splits."""
        gap, error = printed.difference(line.difference)
        rival = behind(self._runs(line))
        mine = behind(self._runs(line._replace(model=claims.PRIMARY)))
        means = [part.groupby("split")["value"].mean() for part in (mine, rival)]
        shares = 100 * (means[1] - means[0]) / means[0].mean()
        place = (line.dataset, {"original": "plain"}.get(line.variant, "R-groups"))
        made_of: tuple[Any, ...] = ("gap, (ImageMol - MoleCLIP) / MoleCLIP (%)", "random", len(shares), len(mine))
        yield Point(*place, "printed", gap, gap - error, gap + error, "+- as printed", *made_of)
        yield Point(*place, "released runs", *metrics.mean_ci(list(shares)), _SPLITS, *made_of)._replace(
            by_split=tuple(shares)
        )

    def _own(self, sets: Sequence[str], sheet: str, only: Sequence[str] = tuple(_OURS)) -> Iterator[Point]:
        """Our scores, mean over splits; of one split, with the deviation of the runs."""
        split = "scaffold" if sheet == "MoleculeNet" else "random"
        parts = [(name, self.ours.on(key, split)) for key, name in released.NAMES.items() if name in sets]
        models = [(name, *group) for name, part in parts for group in part.groupby("encoder", sort=False)]
        for name, model, part in models:
            if model not in only:
                continue
            quantity = released.quantity(sheet, name)
            values, bar = quantity.factor * part["test"], _SPLITS
            interval = metrics.mean_ci(list(values))
            if len(part) == 1:
                half, bar = quantity.factor * part["sd"].fillna(0.0).iloc[0], "SD of the runs"
                interval = metrics.Interval(interval.mean, interval.mean - half, interval.mean + half)
            made_of: tuple[Any, ...] = (
                bar,
                _unit(sheet, name),
                part["split"].iloc[0],
                len(part),
                int(part["runs"].sum()),
            )
            optimism = quantity.factor * part["optimism"].mean()
            yield Point(name, _OURS[str(model)], "ours", *interval, *made_of)._replace(
                by_split=tuple(values), optimism=optimism
            )

    def _runs(self, line: Any) -> pd.DataFrame:
        return self.runs[(self.runs[MODEL] == [getattr(line, name) for name in MODEL]).all(axis=1)]

    def table_2(self) -> tuple[pd.DataFrame, Figure]:
        """Set out the numbers of Fig. 2."""
        return _table(self.fig_2()[0])

    def table_s4(self) -> tuple[pd.DataFrame, Figure]:
        """Set out the volumes of pretraining."""
        table, _ = self.fig_3a()
        return table, style.table(table.map(lambda cell: f"{cell:,}" if isinstance(cell, int) else cell))

    def table_s5(self) -> tuple[pd.DataFrame, Figure]:
        """Set out the catalysis sets: as printed, the same runs with the spread between splits, and ours."""
        return self._beside(claims.CATALYSIS, self._own(claims.CATALYSIS, ""))

    def table_s6(self) -> tuple[pd.DataFrame, Figure]:
        """Set out plain drawings and R-groups."""
        return self._beside(["R-replacement"], ())

    def _beside(self, sheets: Sequence[str], ours: Iterator[Point] | tuple[()]) -> tuple[pd.DataFrame, Figure]:
        rows = []
        for line in lines(self.beside[self.beside["sheet"].isin(sheets)]):
            name = f"{line.dataset}{', R-groups' * (line.variant == 'R-replaced')} ({line.unit})"
            of = f"{line.splits} random splits, {line.runs} runs"
            over_splits = f"{line.mean:.3g} ({line.low:.3g} to {line.high:.3g})"
            paper = f"{line.mean:.3g} \u00b1 {line.spread:.2g}"
            rows.append((name, _label(line.model), "paper", line.text, paper, over_splits, "", of))
        for point in ours:
            name = f"{point.dataset} {point.unit.removeprefix('MAE ')}"
            over_splits = f"{point.value:.3g} ({point.low:.3g} to {point.high:.3g})"
            of = f"{point.splits} {point.split} splits, {point.runs} runs"
            rows.append((name, _label(point.model), "ours", "", "", over_splits, _known(point.optimism), of))
        columns = ["set (unit of the MAE)", "model", "whose", "printed", "paper's interval"]
        table = pd.DataFrame(rows, columns=[*columns, "t-interval over splits", "optimism", "of"])
        table = _by_set(table, columns[0])
        return table, style.table(table)

    def table_ablations(self) -> tuple[pd.DataFrame, Figure]:
        """Set out the ablations: each score as printed, and the median cell of its grid."""
        table = self._ablations()
        rows: dict[str, dict[str, str]] = {}
        for line in lines(table):
            row = rows.setdefault(_label(line.model), {})
            row |= {f"{line.dataset}, printed": line.text, f"{line.dataset}, median": f"{line.median:.3g}"}
            row["of"] = "scaffold split, 3 runs a cell"
        found = pd.DataFrame(rows).T.rename_axis("pretraining").reset_index()
        found["of"] = found.pop("of")  # to the end
        return found, style.table(found)


# Marker, whether it is filled, and colour of a verdict.
_VERDICTS = dict(
    zip(claims.VERDICTS, (("o", True, "C2"), ("o", False, "0.45"), ("X", True, "C3"), ("|", True, "0.6")), strict=True)
)


def verdicts(ledger: pd.DataFrame) -> Figure:
    """Draw the verdict on each claim (lines) on each data set (columns).

    Parameters
    ----------
    ledger : DataFrame
        From `claims.ledger`.
    """
    names, sets = list(dict.fromkeys(ledger["claim"])), [*claims.MOLECULENET, *claims.CATALYSIS, "no one set"]
    figure, ax = plt.subplots(figsize=(style.PAGE, 1.5 + 0.19 * len(names)))
    for verdict, part in ledger.groupby("verdict", sort=False):
        marker, filled, colour = _VERDICTS[str(verdict)]
        x = [sets.index(name) if name in sets else len(sets) - 1 for name in part["dataset"]]
        y = [names.index(name) for name in part["claim"]]
        label, face = f"{verdict} ({len(part)})", colour if filled else "white"
        ax.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=6, label=label)
    ax.set(xticks=range(len(sets)), yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    ax.set_xticklabels(sets, rotation=40, ha="right", rotation_mode="anchor")
    ax.grid(color="0.93", linewidth=0.6)
    ax.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _label(model: str) -> str:
    known = (short for name, short in _MODELS.items() if model.startswith(name))
    return next(known, model.removeprefix("control: "))


def _unit(sheet: str, dataset: str) -> str:
    quantity = released.quantity(sheet, dataset)
    return style.with_unit(quantity.metric, quantity.unit)


def _known(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"


def _table(points: pd.DataFrame) -> tuple[pd.DataFrame, Figure]:
    """Set out the numbers of a figure, one line a number."""
    rows = []
    for point in lines(points):
        bar = "" if np.isnan(point.low) else f" ({point.low:.3g} to {point.high:.3g})"
        of = f"{point.split} split{f', {point.runs} runs' if point.runs else ''}"
        score = (f"{point.value:.3g}{bar}", point.bar, _known(point.optimism))
        rows.append((point.dataset, point.unit, _label(point.model), point.who, *score, of))
    table = pd.DataFrame(rows, columns=["set", "metric", "model", "whose", "score", "bar", "optimism", "of"])
    table = _by_set(table, "set")
    return table, style.table(table)


def _by_set(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Bring the lines of each set together, ours last, in the order in which sets first come."""
    order = list(dict.fromkeys(table[column]))
    return table.sort_values(column, key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _panels(points: Sequence[Point], sets: Sequence[str]) -> tuple[pd.DataFrame, Figure]:
    """Draw a panel per set, with a line per model."""
    table = pd.DataFrame(points)
    models = list(dict.fromkeys(table["model"]))
    figure, axes = style.panels([len(models)] * len(sets), 1.05, 0.22, sharey=True)
    for ax, name in zip(axes, sets, strict=True):
        _panel(ax, table[table["dataset"] == name], models)
    keys, texts = [], []
    for who, part in table.groupby("who", sort=False):
        marker, filled, colour, _ = WHO[str(who)]
        face = colour if filled else "white"
        keys += axes[0].plot([], [], marker=marker, color=colour, markerfacecolor=face, linewidth=0.8, markersize=4)
        texts.append(f"{who}: {' or '.join(dict.fromkeys(part['bar']))}")
    figure.legend(keys, texts, loc="outside lower center", frameon=False)
    return table.drop(columns="by_split"), figure


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
    labels = [f"{_label(model)} (split: {OTHER_SPLIT})" if model in elsewhere else _label(model) for model in models]
    ax.set(yticks=range(len(models)), yticklabels=labels, ylim=(len(models) - 0.5, -0.5))
    ax.set(xlabel=table["unit"].iloc[0], title=_title(table))
    ax.grid(axis="y", color="0.93", linewidth=0.6)
    ax.set_axisbelow(True)


def _title(table: pd.DataFrame) -> str:
    """Name the split and the number of runs that the scores of a panel are made of."""
    rows = table[table["split"] != OTHER_SPLIT]
    splits = int(rows["splits"].max())
    named = f"{splits} {rows['split'].iloc[0]} splits" if splits > 1 else f"{rows['split'].iloc[0]} split"
    counts = []
    for who, part in rows.groupby("who", sort=False):
        least, most = part["runs"].min(), part["runs"].max()
        counts.append(f"{str(who).split()[0]} {least}{f' to {most}' if least < most else ''}")
    return f"{table['dataset'].iloc[0]}, {named}\nruns: {', '.join(counts)}"


FIGURES: dict[str, Callable[[Paper], tuple[pd.DataFrame, Figure]]] = {
    "fig_2": Paper.fig_2,
    "fig_3a": Paper.fig_3a,
    "fig_3b": Paper.fig_3b,
    "fig_4a": Paper.fig_4a,
    "fig_4b": Paper.fig_4b,
    "fig_s2": Paper.fig_s2,
    "ablations": Paper.ablations,
    "table_2": Paper.table_2,
    "table_s4": Paper.table_s4,
    "table_s5": Paper.table_s5,
    "table_s6": Paper.table_s6,
    "table_ablations": Paper.table_ablations,
}
