"""The paper's quantitative claims, each held against what is printed, the released runs, and our own.

Verdicts are given by rule, from 95 % intervals over the units of replication:

- a model is *better*: reproduced if the whole interval of the difference is on its side, not supported if the whole is
  on the other side, else within noise
- a model is *comparable* or better: reproduced if the whole interval says that it is less than `MARGIN` worse, not
  supported if the whole says that it is more, else within noise
- a score is *below* a limit: reproduced if the whole interval is, not supported if none of it is, else within noise
- what no released run tests is not testable yet

A difference is in percent of the other's mean score, above zero where the first model is better; pairs are splits.
On the one scaffold split, printed scores are those of the cell with the best test score. Two grids are compared over
the cells that they share, so that nothing is chosen: such an interval says nothing of other splits. A printed number
or a forest is compared with the best and with the median cell: which one validation would choose, is not released.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from moleclip import config, metrics
from moleclip.paper import own, printed, released
from moleclip.paper.printed import CELL, area, behind, lines

MARGIN = 10.0  # percent of the other's score: how much worse is still comparable

REPRODUCED = "reproduced"
NOISE = "within noise"
UNSUPPORTED = "not supported by the released runs"
UNTESTABLE = "not testable yet"
VERDICTS = (REPRODUCED, NOISE, UNSUPPORTED, UNTESTABLE)

MOLECULENET = ("BACE", "BBBP", "FreeSolv", "ESOL")
CATALYSIS = ("DHBDs", "NHCs", "Phosphines-yield", "Phosphines-selectivity")
R_GROUPS = ("ESOL", "FreeSolv", "DHBDs", "Phosphines-yield")
PRIMARY = "MoleCLIP"
FOCUSED = "MoleCLIPbv"
ONE_TASK = ("control: Only contrastive task", "control: Only classification task")
FEWER_CLASSES = "control: K values: 30, 300"

# Molecules and epochs of pretraining, as the caption of Fig. 3 has them.
PRETRAINING = {PRIMARY: (1_870_421, 4), "ImageMol": (10_000_000, 12), "GEM": (20_000_000, 20)}

# What our tables call the models of the paper.
OURS = {PRIMARY: "pretrained", FOCUSED: "buried_volume", "ImageMol": "imagemol", released.BASELINE: "fingerprint_mlp"}

Judge = Callable[[metrics.Interval], str]


@dataclass
class Row:
    """One claim on one data set: a line of the ledger.

    Attributes
    ----------
    claim, place : str
        In our words, and where the paper makes it.
    dataset, printed, recomputed, over, rule, verdict : str
        What is printed; what follows from the released runs, and over what the interval is; the rule and its verdict.
    ours : str
        What follows from our own runs, if there are any.
    evidence : str
        Cells of the authors' workbook, and files.
    """

    claim: str
    place: str
    dataset: str
    printed: str = ""
    recomputed: str = ""
    over: str = ""
    rule: str = ""
    verdict: str = UNTESTABLE
    ours: str = ""
    evidence: str = ""

    def judge(self, shares: "pd.Series[float]", judge: Judge, over: str) -> None:
        """Give the verdict on differences, and say what they are."""
        found = metrics.paired(list(shares), [0.0] * len(shares))
        interval = metrics.Interval(found.difference, found.low, found.high)
        self.recomputed = f"{_percents(interval)}, {(shares > 0).sum()} of {len(shares)} better, p = {found.p:.2g}"
        self.verdict, self.rule, self.over = judge(interval), judge.__name__, f"{len(shares)} {over}"


@dataclass(frozen=True)
class Evidence:
    """Everything that rows are made from."""

    runs: pd.DataFrame
    printed: pd.DataFrame
    ours: own.Own

    @cached_property
    def beside(self) -> pd.DataFrame:
        """Printed scores beside recomputed ones."""
        return printed.recomputed(self.runs, self.printed)

    def text(self, dataset: str, models: Sequence[str]) -> str:
        """Quote the printed scores of models on a set."""
        table = self.printed[(self.printed["dataset"] == dataset) & (self.printed["variant"] == "original")]
        found = table.drop_duplicates("model").set_index("model")["text"]
        return ", ".join(f"{_short(model)} {found[model]}" for model in models if model in found)

    def all(self, dataset: str, model: str) -> pd.DataFrame:
        """Take all runs of a model on a set, from its own sheet where a second one repeats them."""
        table = self.runs[(self.runs["dataset"] == dataset) & (self.runs["model"] == model)]
        table = table[table["variant"] == "original"]
        own_sheet: pd.DataFrame = table[table["sheet"] == table["sheet"].iloc[0]]
        return own_sheet

    def scores(self, dataset: str, model: str) -> pd.DataFrame:
        """Take the runs behind a model's score on a set."""
        return behind(self.all(dataset, model))

    def own(self, dataset: str) -> pd.DataFrame:
        """Take our scores on a set, on splits like the paper's."""
        key = next(key for key, value in released.NAMES.items() if value == dataset)
        return self.ours.on(key, "scaffold" if dataset in MOLECULENET else "random")


def better(interval: metrics.Interval) -> str:
    """Verdict on "better", from the interval of a difference that is above zero where it is so.

    >>> better(stats.Interval(5.0, 1.0, 9.0)), better(stats.Interval(5.0, -1.0, 11.0))
    ('reproduced', 'within noise')
    """
    return _verdict(interval, 0.0)


def comparable(interval: metrics.Interval) -> str:
    """Verdict on "comparable or better".

    >>> comparable(stats.Interval(-5.0, -9.0, -1.0)), comparable(stats.Interval(-5.0, -12.0, 2.0))
    ('reproduced', 'within noise')
    """
    return _verdict(interval, -MARGIN)


def below(interval: metrics.Interval, limit: float) -> str:
    """Verdict on "below a limit", from the interval of a score.

    >>> below(stats.Interval(0.95, 0.81, 1.08), 1.0)
    'within noise'
    """
    return _verdict(metrics.Interval(-interval.mean, -interval.high, -interval.low), -limit)


def best_and_median(shares: "pd.Series[float]") -> str:
    """Verdict on "better", from the difference of each cell of a grid of which the chosen one is not known.

    >>> best_and_median(pd.Series([3.0, 1.0, -2.0])), best_and_median(pd.Series([3.0, -1.0, -2.0]))
    ('reproduced', 'not testable yet')
    """
    if shares.median() > 0:
        return REPRODUCED
    return UNTESTABLE if shares.max() > 0 else UNSUPPORTED


def _verdict(interval: metrics.Interval, limit: float) -> str:
    if np.isnan(interval.low) or np.isnan(interval.high):
        return UNTESTABLE
    if interval.low > limit:
        return REPRODUCED
    return UNSUPPORTED if interval.high < limit else NOISE


def ledger(runs: pd.DataFrame, scores: pd.DataFrame, ours: own.Own) -> pd.DataFrame:
    """Check every claim.

    Parameters
    ----------
    runs, scores : DataFrame
        From `released.runs` and `printed.scores`.
    ours : Own
        From `own.read`.

    Returns
    -------
    DataFrame
        A line per claim and data set, with the columns of `Row`.
    """
    evidence = Evidence(runs, scores, ours)
    parts = (
        _state_of_the_art,
        _rivals,
        _fixed_representations,
        _domain,
        _chemical_accuracy,
        _r_groups,
        _tasks,
        _classes,
        _less_data,
        _foundation,
    )
    return pd.DataFrame([dataclasses.asdict(row) for part in parts for row in part(evidence)])


def _state_of_the_art(e: Evidence) -> Iterator[Row]:
    for name in MOLECULENET:
        row = Row(
            "comparable to the state of the art on MoleculeNet", "abstract; Fig. 2", name, e.text(name, [PRIMARY])
        )
        table = e.printed[(e.printed["sheet"] == "MoleculeNet") & (e.printed["dataset"] == name)]
        others = table.loc[~table["model"].isin((PRIMARY, released.BASELINE)), "value"]
        grid = e.all(name, PRIMARY)
        metric = released.quantity("MoleculeNet", name).metric
        worst = others.min() if metrics.higher_is_better(metric) else others.max()
        means = grid.groupby(CELL)["value"].mean()
        row.verdict = best_and_median(_percent(means, worst, metric))
        row.rule = "best and median cell better than the worst of the others' printed scores"
        best = behind(grid)["value"].mean()
        row.recomputed = (
            f"best cell by test {best:.3g}, median {means.median():.3g}; others {others.min()} to {others.max()}"
        )
        row.over, row.evidence = f"{len(means)} cells of a grid; the others on splits of their own", area(grid)
        yield row


def _rivals(e: Evidence) -> Iterator[Row]:
    for name in CATALYSIS:
        row = Row("better than ImageMol on each catalysis set", "abstract; Fig. 3b", name)
        yield _pair(e, row, PRIMARY, "ImageMol", better)
    for name in CATALYSIS:
        yield _pair(e, Row("comparable to or better than GEM", "p. 10836; Fig. 3b", name), PRIMARY, "GEM", comparable)
    row = Row("significantly better than GEM on selectivity", "p. 10836; Fig. 3b", CATALYSIS[3])
    yield _pair(e, row, PRIMARY, "GEM", better)


def _fixed_representations(e: Evidence) -> Iterator[Row]:
    for name in (*MOLECULENET, *CATALYSIS):
        row = Row("better than fingerprints and an MLP", "Figs. 2 and 3b", name)
        yield _pair(e, row, PRIMARY, released.BASELINE, better)
    # The paper has no forests: its runs stand against ours, on the same splits.
    for words, choose in (
        ("better than an untuned random forest on ECFP4 (ours)", lambda _: "ecfp4_forest"),
        ("better than the forest that validation chooses of four (ours)", _by_validation),
    ):
        for name in (*MOLECULENET, *CATALYSIS):
            yield _forest(e, Row(words, "fixed representations: p. 10836", name), choose)


def _by_validation(table: pd.DataFrame) -> str:
    order = table.sort_values("val", ascending=not metrics.higher_is_better(table["metric"].iloc[0]))
    return str(order["encoder"].iloc[0])


def _forest(e: Evidence, row: Row, choose: Callable[[pd.DataFrame], str]) -> Row:
    """Hold the paper's runs against a forest of ours on the same splits."""
    table = e.own(row.dataset)
    table = table[table["encoder"].isin(config.FORESTS)]
    row.printed = e.text(row.dataset, [PRIMARY])
    if table.empty:
        return row
    chosen = pd.concat([part[part["encoder"] == choose(part)] for _, part in table.groupby("seed")])
    grid = e.all(row.dataset, PRIMARY)
    quantity = released.quantity(grid["sheet"].iloc[0], row.dataset)
    if grid["split"].iloc[0] == "scaffold":
        shares = _percent(grid.groupby(CELL)["value"].mean(), chosen["test"].iloc[0], quantity.metric)
        row.verdict, row.rule = best_and_median(shares), "better: best and median cell"
        row.recomputed = f"{shares.max():+.1f} % (best cell by test), {shares.median():+.1f} % (median cell)"
        row.over, row.evidence = f"{len(shares)} cells of a grid", area(grid)
    else:
        theirs, scores = chosen.set_index("seed")["test"].rename(lambda seed: f"seed-{seed}"), behind(grid)
        mine, theirs = scores.groupby("split")["value"].mean().align(theirs, join="inner")
        row.judge(_percent(mine, theirs, quantity.metric), better, "splits")
        row.evidence = area(scores)
    row.ours = f"{', '.join(sorted(set(chosen['encoder'])))}: {quantity.factor * chosen['test'].mean():.3g}"
    row.evidence += f" {', '.join(sorted(set(chosen['file'])))}"
    return row


def _domain(e: Evidence) -> Iterator[Row]:
    for name in CATALYSIS[2:]:
        row = Row("domain-focused pretraining improves it", "p. 10837; Fig. 4a", name)
        yield _pair(e, row, FOCUSED, PRIMARY, better)
    for name in CATALYSIS[2:]:
        line = e.printed[(e.printed["model"] == FOCUSED) & (e.printed["dataset"] == name)].iloc[0]
        gap, error = printed.difference(line["difference"])
        after, before = (e.scores(name, model) for model in (FOCUSED, PRIMARY))
        found = 100 * (1 - after["value"].mean() / before["value"].mean())
        row = Row(f"domain-focused pretraining improves it by {gap} %", "caption of Fig. 4", name, line["difference"])
        row.recomputed, row.rule = f"{found:.1f} % of the mean", "within the printed +-"
        row.verdict = REPRODUCED if abs(found - gap) <= error else UNSUPPORTED
        row.over, row.evidence = f"{len(after)} runs", f"{line.sheet}!{line.cell} {area(after)} {area(before)}"
        yield row


def _chemical_accuracy(e: Evidence) -> Iterator[Row]:
    for model in (PRIMARY, FOCUSED):
        scores = e.scores(CATALYSIS[3], model)
        means = scores.groupby("split")["value"].mean()
        found = metrics.mean_ci(list(means))
        row = Row(f"error below 1 kcal/mol: {model}", "p. 10837", CATALYSIS[3], e.text(CATALYSIS[3], [model]))
        row.recomputed = f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f}) kcal/mol"
        row.verdict, row.rule, row.over = below(found, 1.0), "below 1 kcal/mol", f"{len(means)} splits"
        row.evidence = area(scores)
        yield row


def losses(runs: pd.DataFrame, dataset: str, model: str) -> "pd.Series[float]":
    """By how much a model's error grows on each split if ends are drawn as R-groups, in percent of its mean error."""
    table = runs[(runs["sheet"] == "R-replacement") & (runs["dataset"] == dataset) & (runs["model"] == model)]
    parts = [behind(table[table["variant"] == variant]) for variant in ("original", "R-replaced")]
    plain, replaced = (part.groupby("split")["value"].mean() for part in parts)
    return 100 * (replaced - plain) / plain.mean()


def _r_groups(e: Evidence) -> Iterator[Row]:
    for name in R_GROUPS:
        table = e.printed[(e.printed["sheet"] == "R-replacement") & (e.printed["dataset"] == name)]
        gaps = table[table["difference"] != ""].set_index("variant")["difference"]
        row = Row("loses less than ImageMol if ends are drawn as R-groups", "p. 10837; Fig. 4b", name)
        row.printed = f"gap to ImageMol {gaps['original']} plain, {gaps['R-replaced']} with R-groups"
        mine, rival = (losses(e.runs, name, model) for model in (PRIMARY, "ImageMol"))
        row.judge(rival - mine, better, "splits")
        row.recomputed = f"loses {mine.mean():.1f} %, ImageMol {rival.mean():.1f} %: {row.recomputed}"
        lines = e.beside[(e.beside["sheet"] == "R-replacement") & (e.beside["dataset"] == name)]
        row.evidence = " ".join(lines["run_cells"])
        yield row


def _tasks(e: Evidence) -> Iterator[Row]:
    for control in ONE_TASK:
        words = f"both tasks together better than {_short(control).lower()}"
        for name in MOLECULENET:
            yield _pair(e, Row(words, "p. 10835; ESI 4c", name), PRIMARY, control, better)


def _classes(e: Evidence) -> Iterator[Row]:
    row = Row(
        "the knee of the inertia is at K = 300", "p. 10839; Fig. S2", "ChEMBL-25", "K = 300", "no curve is released"
    )
    knees = e.ours.knees[e.ours.knees["knee"].astype(bool)] if len(e.ours.knees) else e.ours.knees
    row.ours = ", ".join(f"{line.corpus}: K = {line.k}" for line in lines(knees))
    row.evidence = ", ".join(sorted(set(knees["file"]))) if len(knees) else ""
    yield row
    for name in MOLECULENET:
        row = Row("K = 300 and 3000 at least as good as 30 and 300", "p. 10839; ESI 4c", name)
        yield _pair(e, row, PRIMARY, FEWER_CLASSES, comparable)


def _less_data(e: Evidence) -> Iterator[Row]:
    samples = {model: molecules * epochs for model, (molecules, epochs) in PRETRAINING.items()}
    for rival in ("ImageMol", "GEM"):
        ratio = samples[rival] / samples[PRIMARY]
        text = f"{samples[PRIMARY] / 1e6:.3g} million samples, {rival} {samples[rival] / 1e6:.3g} million"
        words = f"pretrained on {ratio:.0f} times fewer samples than {rival}"
        yield Row(
            words, "Fig. 3a; Table S4", "", text, text, "", "molecules x epochs", REPRODUCED, "", "caption of Fig. 3"
        )
        words = f"a score comparable to {rival}'s with {ratio:.0f} times fewer samples"
        for name in CATALYSIS:
            yield _pair(e, Row(words, "abstract; Fig. 3", name), PRIMARY, rival, comparable)
        for name in MOLECULENET:
            row = Row(words, "abstract; Fig. 2", name, e.text(name, [PRIMARY, rival]), rule="comparable")
            row.recomputed = f"no run of {rival} on the paper's split is released"
            yield row


def _foundation(e: Evidence) -> Iterator[Row]:
    row = Row("starting from CLIP's weights helps", "title; abstract; p. 10836", "", rule="better")
    row.recomputed = "no released run starts without CLIP's weights"
    table = e.ours.contrasts
    if len(table):
        # A study with CLIP's weights comes before the one with those of a CNN.
        clip = table[table["model"] == OURS[PRIMARY]]
        shown = clip if len(clip) else table
        first = shown[shown["contrast"] == shown["contrast"].iloc[0]]
        found = "; ".join(
            f"{line.set} {line.percent:+.0f} % ({line.low:+.0f} to {line.high:+.0f} over {line.n} {line.over})"
            for line in lines(first)
        )
        row.ours = f"{'' if len(clip) else 'not CLIP but a small CNN, '}{first['contrast'].iloc[0]}: {found}"
        row.evidence = first["file"].iloc[0]
    yield row


def _pair(e: Evidence, row: Row, model: str, other: str, judge: Judge) -> Row:
    """Hold one model against another on a set: split by split, or cell by cell of their grids on the scaffold split."""
    grids = [e.all(row.dataset, which) for which in (model, other)]
    scaffold = grids[0]["split"].iloc[0] == "scaffold"
    parts = grids if scaffold else [behind(grid) for grid in grids]
    # A model that has no augmentation has cells by rate only.
    cell = CELL if set(grids[0][CELL[0]]) & set(grids[1][CELL[0]]) else CELL[1:]
    mine, theirs = (part.groupby(cell if scaffold else "split")["value"].mean() for part in parts)
    metric = released.quantity(grids[0]["sheet"].iloc[0], row.dataset).metric
    mine, theirs = mine.align(theirs, join="inner")
    row.judge(_percent(mine, theirs, metric), judge, "cells of a grid" if scaffold else "splits")
    row.printed, row.evidence = e.text(row.dataset, [model, other]), " ".join(area(part) for part in parts)
    row.ours = _our_pair(e.own(row.dataset), OURS.get(model, ""), OURS.get(other, ""))
    return row


def _our_pair(table: pd.DataFrame, model: str, other: str) -> str:
    """Make the same comparison of our own runs, where both models are there."""
    if not {model, other} <= set(table["encoder"]):
        return ""
    wide = table.pivot_table(index="seed", columns="encoder", values="test")[[model, other]].dropna()
    shares = _percent(wide[model], wide[other], table["metric"].iloc[0])
    return f"{_percents(metrics.mean_ci(list(shares)))}, {len(wide)} splits"


def _percent(mine: "pd.Series[float]", theirs: "pd.Series[float] | float", metric: str) -> "pd.Series[float]":
    """Differences, above zero where the first is better, in percent of the mean of the second."""
    sign = 1 if metrics.higher_is_better(metric) else -1
    return sign * 100 * (mine - theirs) / float(np.mean(theirs))


def _percents(interval: metrics.Interval) -> str:
    return f"{interval.mean:+.1f} % ({interval.low:+.1f} to {interval.high:+.1f})"


def _short(model: str) -> str:
    return "fingerprints" if model == released.BASELINE else model.removeprefix("control: ")
