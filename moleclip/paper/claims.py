"""The paper's quantitative claims, compared with the printed numbers, the released runs and our runs.

Each verdict follows from a rule and a 95 % interval, over splits where there are several:

- a model is *better*: reproduced if the whole interval of the difference is above zero, not supported if the whole is
  below zero, otherwise inconclusive
- a model is *comparable* or better: reproduced if the whole interval excludes a loss larger than the margin of the set
  (a difference that would matter, in `data.yaml`), not supported if the whole is such a loss, otherwise inconclusive
- a score is *below* a limit: reproduced if the whole interval is below it, not supported if the whole is above it,
  otherwise inconclusive
- what no released run tests is not testable yet

Differences are in percent of the other model's mean score, paired by split; above zero, the first model is better.
Random splits of one set share most of their molecules, and intervals over them are corrected for this (`metrics`). Two
more columns give the verdict by other tests: the *plain* paired test lacks this correction; the *printed* intervals
take what is printed after +- at face value, and add the squares of those of both models.
*Detectable* is the smallest true difference that would be detected in 80 % of cases.
On the single scaffold split, printed scores are those of the setting with the best test score. Two grids are compared
over the settings that both have, so that nothing is selected; such an interval says nothing about other splits. A
printed number or a forest is compared with the best and with the median setting, because it is not known which setting
validation would select.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moleclip import config, metrics
from moleclip.paper import compare, workbook
from moleclip.paper.compare import FOCUSED, OURS, PRIMARY
from moleclip.paper.workbook import CATALYSIS, MOLECULENET, SETTING, area, lines

REPRODUCED = "reproduced"
INCONCLUSIVE = "inconclusive"
UNSUPPORTED = "not supported by the released runs"
UNTESTABLE = "not testable yet"
VERDICTS = (REPRODUCED, INCONCLUSIVE, UNSUPPORTED, UNTESTABLE)

# Molecules and epochs of pretraining, as the caption of Fig. 3 has them.
PRETRAINING = {PRIMARY: (1_870_421, 4), "ImageMol": (10_000_000, 12), "GEM": (20_000_000, 20)}

COLUMNS = ["claim", "place", "dataset", "printed", "recomputed", "over", "detectable", "rule", "verdict"]
OTHER_RULES = ("by_plain_test", "by_printed_intervals")
COLUMNS += [*OTHER_RULES, "ours", "evidence"]

Judge = Callable[[metrics.Interval | metrics.Difference, float], str]
Row = dict[str, str]


@dataclass(frozen=True)
class Evidence:
    """Everything that rows are made from."""

    runs: pd.DataFrame
    scores: pd.DataFrame
    ours: compare.Ours

    @functools.cached_property
    def _first(self) -> dict[tuple[str, str], Any]:
        plain = lines(self.scores[self.scores["variant"] == "original"].iloc[::-1])
        return {(line.dataset, line.model): line for line in plain}

    def score(self, dataset: str, model: str) -> Any:
        """Get the printed score of a model on a set with what follows from its runs: the first, of plain drawings."""
        return self._first[dataset, model]

    def grid(self, dataset: str, model: str) -> pd.DataFrame:
        """Select all runs of a model on a set, of the sheet that its score is on."""
        score = self.score(dataset, model)
        return self.runs[(self.runs[workbook.MODEL] == [score.sheet, dataset, "original", model]).all(axis=1)]

    def quote(self, dataset: str, *models: str) -> str:
        """Quote the printed scores of models on a set."""
        return ", ".join(f"{_short(model)} {self.score(dataset, model).text}" for model in models)

    def our_scores(self, dataset: str) -> pd.DataFrame:
        """Select our scores on a set, on splits like the paper's."""
        return self.ours.on(dataset, "scaffold" if dataset in MOLECULENET else "random")


def better(interval: metrics.Interval | metrics.Difference, margin: float = 0.0) -> str:
    """Verdict on "better", from the interval of a difference that is above zero where it is so, by however little.

    >>> better(metrics.Interval(5.0, 1.0, 9.0)), better(metrics.Interval(5.0, -1.0, 11.0))
    ('reproduced', 'inconclusive')
    """
    return _verdict(interval, 0.0)


def comparable(interval: metrics.Interval | metrics.Difference, margin: float) -> str:
    """Verdict on "comparable or better".

    >>> comparable(metrics.Interval(-5.0, -9.0, -1.0), 10), comparable(metrics.Interval(-5.0, -12.0, 2.0), 10)
    ('reproduced', 'inconclusive')
    """
    return _verdict(interval, -margin)


def below(interval: metrics.Interval, limit: float) -> str:
    """Verdict on "below a limit", from the interval of a score.

    >>> below(metrics.Interval(0.95, 0.81, 1.08), 1.0)
    'inconclusive'
    """
    return _verdict(metrics.Interval(-interval.mean, -interval.high, -interval.low), -limit)


def best_and_median(percents: "pd.Series[float]") -> str:
    """Verdict on "better", from the difference of each setting of a grid when the selected one is unknown.

    >>> best_and_median(pd.Series([3.0, 1.0, -2.0])), best_and_median(pd.Series([3.0, -1.0, -2.0]))
    ('reproduced', 'not testable yet')
    """
    if percents.median() > 0:
        return REPRODUCED
    return UNTESTABLE if percents.max() > 0 else UNSUPPORTED


def _verdict(interval: metrics.Interval | metrics.Difference, limit: float) -> str:
    if np.isnan(interval.low) or np.isnan(interval.high):
        return UNTESTABLE
    if interval.low > limit:
        return REPRODUCED
    return UNSUPPORTED if interval.high < limit else INCONCLUSIVE


def pretraining() -> pd.DataFrame:
    """Set out the volume of pretraining: model, molecules, epochs, samples (paper, Fig. 3a)."""
    table = pd.DataFrame([(model, *volume) for model, volume in PRETRAINING.items()])
    table.columns = pd.Index(["model", "molecules", "epochs"])
    return table.assign(samples=table["molecules"] * table["epochs"])


def ledger(runs: pd.DataFrame, scores: pd.DataFrame, ours: compare.Ours) -> pd.DataFrame:
    """Check every claim.

    Parameters
    ----------
    runs, scores : DataFrame
        From `workbook.runs` and `workbook.recompute`.
    ours : Ours
        From `compare.read`.

    Returns
    -------
    DataFrame
        A line per claim and data set; all columns are text.

        - claim, place : in our words, and where the paper makes it
        - dataset
        - printed
        - recomputed, over : what follows from the released runs, and over what the interval is
        - detectable : the smallest difference that this could have shown
        - rule, verdict
        - by_plain_test, by_printed_intervals : what the verdict would be; "" where that makes no sense
        - ours : what follows from our own runs, if there are any
        - evidence : cells of the authors' workbook, and files
    """
    e = Evidence(runs, scores, ours)
    every = (*MOLECULENET, *CATALYSIS)
    claims: list[tuple[str, str, Iterable[Row]]] = [
        ("comparable to the state of the art on MoleculeNet", "abstract; Fig. 2", _state_of_the_art(e)),
        ("better than ImageMol on each catalysis set", "abstract; Fig. 3b", _pairs(e, CATALYSIS, "ImageMol", better)),
        ("comparable to or better than GEM", "p. 10836; Fig. 3b", _pairs(e, CATALYSIS, "GEM", comparable)),
        ("significantly better than GEM on selectivity", "p. 10836; Fig. 3b", _pairs(e, CATALYSIS[3:], "GEM", better)),
        ("better than fingerprints and an MLP", "Figs. 2 and 3b", _pairs(e, every, workbook.BASELINE, better)),
    ]
    # The paper has no forests: its runs are compared with ours, on the same splits.
    for words, candidates in (
        ("an untuned random forest on ECFP4", ["ecfp4_forest"]),
        ("the forest that validation chooses of four", config.FORESTS),
    ):
        rows = _forests(e, every, candidates)
        claims.append((f"better than {words} (our comparison)", "fixed representations: p. 10836", rows))
    domain, phosphines = "domain-focused pretraining improves it", CATALYSIS[2:]
    claims += [
        (domain, "p. 10837; Fig. 4a", _pairs(e, phosphines, PRIMARY, better, FOCUSED)),
        (f"{domain} by 4.2 %", "caption of Fig. 4", [_improvement(e, phosphines[0])]),
        (f"{domain} by 13.7 %", "caption of Fig. 4", [_improvement(e, phosphines[1])]),
        (f"error below 1 kcal/mol: {PRIMARY}", "p. 10837", [_chemical_accuracy(e, PRIMARY)]),
        (f"error below 1 kcal/mol: {FOCUSED}", "p. 10837", [_chemical_accuracy(e, FOCUSED)]),
        ("loses less than ImageMol if ends are drawn as R-groups", "p. 10837; Fig. 4b", _r_groups(e)),
    ]
    for task in ("Only contrastive task", "Only classification task"):
        rows = _pairs(e, MOLECULENET, f"control: {task}", better)
        claims.append((f"both tasks together better than {task.lower()}", "p. 10835; ESI 4c", rows))
    fewer = _pairs(e, MOLECULENET, "control: K values: 30, 300", comparable)
    claims += [
        ("the knee of the inertia is at K = 300", "p. 10839; Fig. S2", [_knee(e)]),
        ("K = 300 and 3000 at least as good as 30 and 300", "p. 10839; ESI 4c", fewer),
    ]
    for other, times in (("ImageMol", 16), ("GEM", 53)):
        words = f"a score comparable to {other}'s with {times} times fewer samples"
        claims += [
            (f"pretrained on {times} times fewer samples than {other}", "Fig. 3a; Table S4", [_samples(other, times)]),
            (words, "abstract; Fig. 3", _pairs(e, CATALYSIS, other, comparable)),
            (words, "abstract; Fig. 2", _on_other_splits(e, other)),
        ]
    claims.append(("starting from CLIP's weights helps", "title; abstract; p. 10836", [_foundation(e)]))
    found = [{"claim": claim, "place": place} | row for claim, place, part in claims for row in part]
    return pd.DataFrame(found, columns=COLUMNS).fillna({"verdict": UNTESTABLE}).fillna("")


def _pairs(e: Evidence, datasets: Iterable[str], other: str, judge: Judge, model: str = PRIMARY) -> Iterator[Row]:
    """Compare two models on each set: split by split, or setting by setting of their grids on the scaffold split."""
    for name in datasets:
        first, second = (e.score(name, which) for which in (model, other))
        if name in MOLECULENET:
            grids = [e.grid(name, which) for which in (model, other)]
            # A model that has no augmentation has settings by rate only.
            setting = SETTING if set(grids[0][SETTING[0]]) & set(grids[1][SETTING[0]]) else SETTING[1:]
            mine, theirs = (grid.groupby(setting)["value"].mean() for grid in grids)
            over, evidence = "settings of a grid", " ".join(map(area, grids))
        else:
            mine, theirs = pd.Series(first.by_split), pd.Series(second.by_split)
            over, evidence = "splits", f"{first.run_cells} {second.run_cells}"
        mine, theirs = mine.align(theirs, join="inner")
        design, own = workbook.design(name), e.our_scores(name)
        margin = 100 * design.margin / theirs.mean()
        row = _judged(compare.percent(mine, theirs, first.metric), judge, over, design.overlap, margin)
        row["by_printed_intervals"] = _printed(first, second, judge, margin)
        ours, lite = (
            _our_pair(own, names.get(other, ""), names.get(model, ""), design.overlap) for names in (OURS, compare.LITE)
        )
        ours = ours or (f"lite, not CLIP: {lite}" if lite else "")
        yield row | {"dataset": name, "printed": e.quote(name, model, other), "ours": ours, "evidence": evidence}


def _judged(percents: "pd.Series[float]", judge: Judge, over: str, overlap: float, margin: float = np.nan) -> Row:
    """Give the verdict on differences, and say what they are; only splits overlap."""
    none = np.zeros(len(percents))
    found, plain = (metrics.paired(percents, none, shared) for shared in (overlap * (over == "splits"), 0.0))
    text = f"{_percents(found)}, {(percents > 0).sum()} of {len(percents)} better, p = {found.p:.2g}"
    if found.p != plain.p:
        text += f" (plain test: {plain.p:.2g})"
    rule = getattr(judge, "__name__", "") + (f", margin {margin:.1f} %" if judge is comparable else "")
    row = {"recomputed": text, "over": f"{len(percents)} {over}", "detectable": f"{found.detectable:.1f} %"}
    return row | {"rule": rule, "verdict": judge(found, margin), "by_plain_test": judge(plain, margin)}


def _printed(mine: Any, theirs: Any, judge: Judge, margin: float) -> str:
    """Give the verdict by what is printed after +-; "" where nothing is."""
    difference = float(compare.percent(mine.value, theirs.value, mine.metric))  # type: ignore[arg-type]
    half = 100 * float(np.hypot(mine.error, theirs.error)) / theirs.value
    return "" if np.isnan(half) else judge(metrics.Interval(difference, difference - half, difference + half), margin)


def _our_pair(table: pd.DataFrame, other: str, model: str, overlap: float) -> str:
    """Make the same comparison of our own runs, where both models are there."""
    if not {model, other} <= set(table["encoder"]):
        return ""
    wide = table.pivot_table(index="seed", columns="encoder", values="test")[[model, other]].dropna()
    percents = compare.percent(wide[model], wide[other], table["metric"].iloc[0])
    splits = "one split" if len(wide) == 1 else f"{len(wide)} splits"
    return f"{_percents(metrics.mean_ci(percents, overlap))}, {splits}"


def _state_of_the_art(e: Evidence) -> Iterator[Row]:
    for name in MOLECULENET:
        score, grid = e.score(name, PRIMARY), e.grid(name, PRIMARY)
        quoted = (e.scores["sheet"] == "MoleculeNet") & (e.scores["dataset"] == name) & (e.scores["runs"] == 0)
        others = e.scores.loc[quoted, "value"]
        worst = others.min() if metrics.higher_is_better(score.metric) else others.max()
        means = grid.groupby(SETTING)["value"].mean()
        best = f"best setting by test {score.mean:.3g}, median {score.median:.3g}"
        yield {
            "dataset": name,
            "printed": e.quote(name, PRIMARY),
            "recomputed": f"{best}; others {others.min()} to {others.max()}",
            "over": f"{len(means)} settings of a grid; the others on splits of their own",
            "rule": "best and median setting better than the worst of the others' printed scores",
            "verdict": best_and_median(compare.percent(means, worst, score.metric)),
            "evidence": area(grid),
        }


def _forests(e: Evidence, datasets: Iterable[str], candidates: Sequence[str]) -> Iterator[Row]:
    """Compare the paper's runs with the forest of ours, on each split, that validation selects of the candidates."""
    for name in datasets:
        row = {"dataset": name, "printed": e.quote(name, PRIMARY)}
        table, score = e.our_scores(name), e.score(name, PRIMARY)
        ascending = not metrics.higher_is_better(score.metric)
        table = table[table["encoder"].isin(candidates)].sort_values("val", ascending=ascending, kind="stable")
        chosen = table.drop_duplicates("seed").set_index("seed").sort_index()
        if chosen.empty:
            yield row
            continue
        if name in MOLECULENET:
            grid = e.grid(name, PRIMARY)
            percents = compare.percent(grid.groupby(SETTING)["value"].mean(), chosen["test"].iloc[0], score.metric)
            row["recomputed"] = (
                f"{percents.max():+.1f} % (best setting by test), {percents.median():+.1f} % (median setting)"
            )
            row |= {"over": f"{len(percents)} settings of a grid", "rule": "better: best and median setting"}
            row |= {"verdict": best_and_median(percents), "evidence": area(grid)}
        else:
            theirs = chosen["test"].rename(lambda seed: f"seed-{seed}")
            mine, theirs = pd.Series(score.by_split).align(theirs, join="inner")
            overlap = workbook.design(name).overlap
            row |= _judged(compare.percent(mine, theirs, score.metric), better, "splits", overlap)
            row["evidence"] = score.run_cells
        row["ours"] = f"{', '.join(sorted(set(chosen['encoder'])))}: {chosen['test'].mean():.3g}"
        row["evidence"] += f" {', '.join(sorted(set(chosen['file'])))}"
        yield row


def _improvement(e: Evidence, name: str) -> Row:
    after, before = (e.score(name, model) for model in (FOCUSED, PRIMARY))
    gap, error = workbook.difference(after.difference)
    found = 100 * (1 - after.mean / before.mean)
    return {
        "dataset": name,
        "printed": after.difference,
        "recomputed": f"{found:.1f} % of the mean",
        "over": f"{after.runs} runs",
        "rule": "within the printed \u00b1",
        "verdict": REPRODUCED if abs(found - gap) <= error else UNSUPPORTED,
        "evidence": f"{after.sheet}!{after.cell} {after.run_cells} {before.run_cells}",
    }


def _chemical_accuracy(e: Evidence, model: str) -> Row:
    name = "Phosphines-selectivity"
    score = e.score(name, model)
    return {
        "dataset": name,
        "printed": e.quote(name, model),
        "recomputed": f"{score.mean:.2f} ({score.low:.2f} to {score.high:.2f}) kcal/mol",
        "over": f"{score.splits} splits",
        "rule": "below 1 kcal/mol",
        "verdict": below(metrics.Interval(score.mean, score.low, score.high), 1.0),
        "evidence": score.run_cells,
    }


def _r_groups(e: Evidence) -> Iterator[Row]:
    for name, table in e.scores[e.scores["sheet"] == "R-replacement"].groupby("dataset", sort=False):
        gaps = table[table["difference"] != ""].set_index("variant")["difference"]
        mine, theirs = (compare.growth(table, model) for model in (PRIMARY, "ImageMol"))
        row = _judged(theirs - mine, better, "splits", workbook.design(str(name)).overlap)
        row["recomputed"] = f"loses {mine.mean():.1f} %, ImageMol {theirs.mean():.1f} %: {row['recomputed']}"
        row["printed"] = f"gap to ImageMol {gaps['original']} plain, {gaps['R-replaced']} with R-groups"
        if len(own := e.ours.growth(str(name), compare.LITE[PRIMARY])):
            loss = metrics.mean_ci(own, workbook.design(str(name)).overlap)
            row["ours"] = f"lite, not CLIP: error {_percents(loss)} with R-groups, {len(own)} splits"
        yield row | {"dataset": str(name), "evidence": " ".join(table["run_cells"])}


def _knee(e: Evidence) -> Row:
    row = {"dataset": "ChEMBL-25", "printed": "K = 300", "recomputed": "no curve is released"}
    knees = e.ours.knees[e.ours.knees["knee"].astype(bool)]
    row["ours"] = ", ".join(f"{line.corpus}: K = {line.k}" for line in lines(knees))
    return row | {"evidence": ", ".join(sorted(set(knees["file"]))) if len(knees) else ""}


def _samples(other: str, times: int) -> Row:
    samples = pretraining().set_index("model")["samples"]
    text = f"{samples[PRIMARY] / 1e6:.3g} million samples, {other} {samples[other] / 1e6:.3g} million"
    verdict = REPRODUCED if round(samples[other] / samples[PRIMARY]) == times else UNSUPPORTED
    row = {"printed": text, "recomputed": text, "rule": "molecules x epochs", "verdict": verdict}
    return row | {"evidence": "caption of Fig. 3"}


def _on_other_splits(e: Evidence, other: str) -> Iterator[Row]:
    for name in MOLECULENET:
        found = f"no run of {other} on the paper's split is released"
        yield {"dataset": name, "printed": e.quote(name, PRIMARY, other), "recomputed": found, "rule": "comparable"}


def _foundation(e: Evidence) -> Row:
    row = {"recomputed": "no released run starts without CLIP's weights", "rule": "better"}
    table = e.ours.contrasts
    if table.empty:
        return row
    # A study with CLIP's weights comes before the one with those of a CNN.
    clip = table[table["model"] == OURS[PRIMARY]]
    shown = clip if len(clip) else table
    first = shown[shown["contrast"] == shown["contrast"].iloc[0]]
    found = "; ".join(
        f"{line.set} {line.percent:+.0f} % ({line.low:+.0f} to {line.high:+.0f} over {line.n} {line.over})"
        for line in lines(first)
    )
    row["ours"] = f"{'' if len(clip) else 'not CLIP but a small CNN, '}{first['contrast'].iloc[0]}: {found}"
    return row | {"evidence": first["file"].iloc[0]}


def _percents(interval: metrics.Interval | metrics.Difference) -> str:
    """Write the interval after the difference; there is none of a single one."""
    known = f" ({interval.low:+.1f} to {interval.high:+.1f})" if np.isfinite(interval.low) else ""
    return f"{interval[0]:+.1f} %{known}"


def _short(model: str) -> str:
    return "fingerprints" if model == workbook.BASELINE else model.removeprefix("control: ")
