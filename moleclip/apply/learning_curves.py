"""Which method for your labels: learning curves on 30 to 200 molecules, and what follows from them in a sentence."""

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.base import clone

from moleclip import datasets, metrics
from moleclip.baselines import Forest, FrozenEncoder, Mean
from moleclip.datasets import Dataset, Task
from moleclip.estimator import Labels, MoleculeEstimator, Molecules
from moleclip.finetune import FinetunedEncoder
from moleclip.io import seeds
from moleclip.io.seeds import Stream
from moleclip.plots.style import COLUMN, decimals, to_better, with_unit
from moleclip.splits import Indices

log = logging.getLogger(__name__)

# From simple to complex: of methods between which nothing is sure, the first is the one to use.
METHODS = ("mean", "ecfp4_forest", "frozen + ridge", "finetuned")
NAMES = {
    "mean": "the training mean",
    "ecfp4_forest": "the ECFP4 forest",
    "descriptor_forest": "the descriptor forest",
    "frozen + ridge": "frozen embeddings + ridge",
    "frozen_linear": "the linear model on frozen embeddings",
    "frozen_gaussian_process": "the Gaussian process on frozen embeddings",
    "frozen_svm": "the support vector machine on frozen embeddings",
    "finetuned": "finetuning",
}

LEAST, MOST = 30, 200  # molecules
LEAST_GIVEN = 10  # labelled molecules: eight to train on and two to choose the epoch
TEST = 0.25  # share of the molecules
DRAWS = 1000  # of a random order, until all of its parts can be used


def curves(
    dataset: Dataset,
    source: str,
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
    seed: int = 0,
    epochs: int = 20,
    methods: Sequence[str] = METHODS,
    sample: int | None = None,
    **finetuning: Any,
) -> pd.DataFrame:
    """Measure learning curves of simple and less simple methods on one small set, all under the same splits.

    In each repeat, a quarter of the molecules is set aside for the score and used for nothing else. The others are
    put in random order, of which every method is given the first n: what is given at one size is at larger ones too.

    Parameters
    ----------
    dataset : Dataset
        Your own (`datasets.read_csv`) or one by name (`datasets.load`), with one label column or more. Molecules that
        are unreadable, repeated or without any label are left out with a warning.
    source : str
        The encoder, as of `encoder.load`.
    sizes : sequence of int, optional
        How many labelled molecules the methods are given, to train and to choose with; by default three sizes, from a
        third of what the test part leaves to all of it.
    repeats : int
        Random splits.
    epochs : int
        Of finetuning.
    methods : sequence of str
        Of "mean" (of the given labels, or the frequency of class 1: what a model must beat), "ecfp4_forest", "frozen +
        ridge" (on the embeddings of the encoder as it is) and "finetuned" (encoder and fresh head; every fifth of the
        given molecules chooses the epoch).
    sample : int, optional
        Use so many molecules of the set, drawn at random.
    **finetuning
        Parameters of `FinetunedEncoder` to use in place of its defaults, such as lr=5e-6 for CLIP's weights. A batch
        has 16 molecules, and labels are scaled.

    Returns
    -------
    DataFrame
        method, size, repeat, tested (molecules of the test part), metric, unit, score: the mean over label columns;
        NaN where finetuning diverged.

    Raises
    ------
    ValueError
        There are fewer than 30 molecules, a size does not fit, a method is unknown, or labels are too few.
    """
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"unknown methods {sorted(unknown)}: known are {', '.join(METHODS)}")
    molecules = labelled(dataset, sample, seed, LEAST)
    if len(molecules) > MOST:
        advice = "notebook 04 serves so many better; or use a sample"
        log.warning("%s: %d molecules; this is for at most about %d: %s", dataset.name, len(molecules), MOST, advice)
    labels = molecules[list(dataset.label_names)].to_numpy(np.float64)
    models, some = estimators(dataset.task, source, seed, epochs, **finetuning), Molecules(molecules["smiles"])
    tested = round(TEST * len(molecules))
    sizes = _sizes(sizes, len(molecules) - tested)
    orders = {n: split(labels, dataset.task, sizes[0], seed, n) for n in range(1, repeats + 1)}
    todo = [(repeat, size, method) for repeat in orders for size in sizes for method in methods]
    rows, seconds = [], dict.fromkeys(methods, (0.0, 0))  # time taken, and for how many molecules
    for number, (repeat, size, method) in enumerate(todo, 1):
        (test, pool), start = orders[repeat], time.monotonic()
        own = int(seeds.generator(Stream.REPEAT, seed, repeat, size).integers(2**31))
        found = _predicted(method, models[method], some, labels, pool[:size], test, own)
        score = metrics.score(dataset.metric, labels[test], found) if np.isfinite(found).all() else np.nan
        rows.append((method, size, repeat, tested, dataset.metric, dataset.unit, score))
        seconds[method] = (seconds[method][0] + time.monotonic() - start, seconds[method][1] + size)
        result = f"{dataset.metric} {score:.3g}" if np.isfinite(score) else "diverged; try a smaller lr"
        left = _left(seconds, [(name, given) for _, given, name in todo[number:]])
        log.info("%s, %d molecules, split %d of %d: %s; %s", method, size, repeat, repeats, result, left)
    return pd.DataFrame(rows, columns=["method", "size", "repeat", "tested", "metric", "unit", "score"])


def _left(seconds: dict[str, tuple[float, int]], todo: list[tuple[str, int]]) -> str:
    """Estimate the time of what is to do, once each method has been timed."""
    if not all(count for _, count in seconds.values()):
        return "time left not known yet"
    return f"about {sum(seconds[name][0] / seconds[name][1] * size for name, size in todo):.0f} s left"


def labelled(dataset: Dataset, sample: int | None, seed: int, least: int) -> pd.DataFrame:
    """Readable, labelled molecules, each once: a repeated one might be given and tested."""
    name, columns = dataset.name, list(dataset.label_names)
    if not columns:
        raise ValueError(f"{name}: has no labels to learn: no column of plain numbers")
    readable = datasets.readable(dataset, None, seed)
    known = readable[readable[columns].notna().any(axis=1)]
    kept = known.drop_duplicates("canonical_smiles")
    without, repeated = len(readable) - len(known), len(known) - len(kept)
    if without or repeated:
        log.warning("%s: left out, %d molecules without a label and %d that are repeated", name, without, repeated)
    if len(kept) < least:
        raise ValueError(
            f"{name}: {len(kept)} different readable molecules with a label; at least {least} are needed, as fewer "
            f"cannot tell methods apart. Label more"
        )
    kept = kept.iloc[seeds.sample(len(kept), sample, seed)].reset_index(drop=True)
    for column in columns:
        if kept[column].nunique() < 2:
            raise ValueError(f"{name}: all labels {column!r} are the same: there is nothing to learn; leave it out")
    return kept


def _sizes(sizes: Sequence[int] | None, available: int) -> list[int]:
    if sizes is None:
        return [round(size) for size in np.linspace(max(LEAST_GIVEN, available / 3), available, 3)]
    found = sorted({int(size) for size in sizes})
    if not found or found[0] < LEAST_GIVEN or found[-1] > available:
        raise ValueError(f"sizes {list(sizes)}: of this set, {LEAST_GIVEN} to {available} molecules can be given")
    return found


def estimators(task: Task, source: str, seed: int, epochs: int, **finetuning: Any) -> dict[str, MoleculeEstimator]:
    """Make the estimator of each method; labels are scaled for finetuning.

    In a few dozen steps a head would not reach a mean that is far from zero.
    """
    shared: dict[str, Any] = {"task": task, "seed": seed}
    chosen = {"batch_size": 16, "scale_labels": True, **finetuning}
    return {
        "mean": Mean(**shared),
        "ecfp4_forest": Forest(**shared),
        "frozen + ridge": FrozenEncoder(source, **shared),
        "finetuned": FinetunedEncoder(source, epochs=epochs, **shared, **chosen),
    }


def _predicted(
    method: str, model: MoleculeEstimator, some: Molecules, labels: Labels, given: Indices, test: Indices, seed: int
) -> Labels:
    """Fit a method on the molecules given, and predict those to test; NaN if it diverged."""
    if method != "frozen + ridge":  # whose encoder is the same in all repeats
        model = clone(model).set_params(seed=seed)
    train, validation = given, None
    if method == "finetuned":
        chooses = np.arange(len(given)) % 5 == 4  # nested too
        train, held_out = given[~chooses], given[chooses]
        validation = some[held_out], labels[held_out]
    try:
        return model.fit(some[train], labels[train], validation, train).predict_values(some[test])
    except FloatingPointError:
        return np.full((len(test), labels.shape[1]), np.nan)


def split(labels: NDArray[np.float64], task: Task, least: int, seed: int, repeat: int) -> tuple[Indices, Indices]:
    """Set a quarter of the molecules aside and put the others in random order; classes are stratified in both.

    Parameters
    ----------
    labels : ndarray of float64, shape [N, T]
        NaN where missing.
    least : int
        How many of the others are given at the smallest size.

    Returns
    -------
    test, pool : ndarray of int64
        Positions of the molecules set aside, and of the others in the order in which they are given.

    Raises
    ------
    ValueError
        In no random order are there enough labels: of each column, one to test and five given at the smallest size,
        or, for classification, one of each class to test and two given.

    Examples
    --------
    >>> test, pool = split(np.arange(40.0)[:, None], "regression", 10, seed=0, repeat=1)
    >>> len(test), len(pool), len({*test, *pool})
    (10, 30, 40)
    """
    tested = round(TEST * len(labels))
    for draw in range(DRAWS):
        order = _order(labels, task, seeds.generator(Stream.HELD_OUT, seed, repeat, draw))
        test, pool = order[:tested], order[tested:]
        lack = _lack(labels[test], task, 1, 1, "set aside") or _lack(labels[pool[:least]], task, 5, 2, "given")
        if not lack:
            return test, pool
    raise ValueError(f"{lack} (the last of {DRAWS} random orders): label more, or give only larger sizes")


def _order(labels: NDArray[np.float64], task: Task, rng: np.random.Generator) -> Indices:
    """Order molecules at random; each combination of classes has about its share of every stretch."""
    patterns = np.nan_to_num(labels, nan=-1.0) if task == "classification" else np.zeros((len(labels), 1))
    stratum = np.unique(patterns, axis=0, return_inverse=True)[1].reshape(-1)
    places = np.empty(len(labels))
    for number in range(stratum.max() + 1):
        rows = rng.permutation(np.flatnonzero(stratum == number))
        places[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(places)


def _lack(labels: NDArray[np.float64], task: Task, values: int, of_each_class: int, part: str) -> str:
    """Say what labels lack to be scored or learnt from; "" if nothing."""
    for column, known in enumerate(labels.T):
        counts = {"of any value": (int(np.isfinite(known).sum()), values)}
        if task == "classification":
            counts = {f"of class {value}": (int((known == value).sum()), of_each_class) for value in (0, 1)}
        for what, (count, needed) in counts.items():
            if count < needed:
                return (
                    f"label column {column}: {count} labels {what} among {len(labels)} molecules {part}, not {needed}"
                )
    return ""


class Advice(NamedTuple):
    """What learning curves say.

    Attributes
    ----------
    sentence : str
    method : str
        The one to use; "mean" where nothing is surely better.
    table : DataFrame
        A row per method at the largest size, the best first: method, score (mean over splits), sd, and how much worse
        than the best (behind) and better than the mean (gain) it is, each with the ends of its 95 % interval and its
        p (behind_low, behind_high, behind_p, gain_low, ...) by `metrics.paired`.
    """

    sentence: str
    method: str
    table: pd.DataFrame


def advise(curves: pd.DataFrame) -> Advice:
    """Say which method to use, and how sure that is.

    The method with the best mean score at the largest size is compared with each other one, and all with the mean, by
    `metrics.paired`, at p < 0.05. What is not surely better than the mean is not advised; of those that are, the
    simplest that is not surely worse than the best. The p are of single comparisons; of methods that are as good as
    each other, the best of a few splits is more often called better than they say.

    Parameters
    ----------
    curves : DataFrame
        From `curves`, with "mean", another method and two repeats at least.
    """
    last = curves[curves["size"] == curves["size"].max()]
    wide = last.set_index(["repeat", "method"])["score"].unstack()  # noqa: PD010 (nothing to aggregate)
    diverged = list(wide.columns[wide.isna().any()])
    wide = wide.drop(columns=diverged)
    if "mean" not in wide or wide.shape[1] < 2 or len(wide) < 2:
        raise ValueError("nothing to compare: curves of the mean, of another method, and two repeats are needed")
    size, tested, metric = last[["size", "tested", "metric"]].iloc[0]
    table, say = _compare(wide, metrics.higher_is_better(metric), tested / size), Words.of(last)
    sure = table.index[(table["gain"] > 0) & (table["gain_p"] < metrics.LEVEL)]
    tied = table.index[(table["behind_p"] >= metrics.LEVEL) | (table.index == table.index[0])]
    # Where any method is sure, one that is tied is: what is surely worse than the best makes the best sure too, as the
    # SD of a sum of differences is at most the sum of their SDs.
    chosen = next((name for name in METHODS if name in sure.intersection(tied)), "mean")
    given = f"given {size} labelled molecules ({len(wide)} random splits, {tested} others tested in each)"
    shown = chosen if len(sure) else next(name for name in table.index if name != "mean")
    sentence = say.use(table, chosen, list(tied), given) if len(sure) else say.none(table, shown, given)
    lost = f" Left out, as it diverged: {', '.join(map(say.name, diverged))}; try a smaller lr." if diverged else ""
    return Advice(sentence + say.trend(curves, shown) + lost, chosen, table.reset_index())


def _compare(wide: pd.DataFrame, higher: bool, ratio: float) -> pd.DataFrame:
    """Make the table of `Advice` from scores by repeat (rows) and method (columns)."""
    better = wide if higher else -wide
    table = pd.DataFrame({"score": wide.mean(), "sd": wide.std()}).loc[better.mean().sort_values()[::-1].index]
    for key, (a, b) in {"behind": (table.index[0], None), "gain": (None, "mean")}.items():
        found = [metrics.paired(better[a or name], better[b or name], ratio)[:4] for name in table.index]
        table[[f"{key}{end}" for end in ("", "_low", "_high", "_p")]] = found
    return table.rename_axis("method")


class Words(NamedTuple):
    """How scores and differences are said."""

    metric: str
    unit: str
    better: str
    decimals: int

    @classmethod
    def of(cls, scores: pd.DataFrame) -> "Words":
        """Take as many decimals as give a typical score three digits."""
        metric, unit = scores[["metric", "unit"]].iloc[0]
        better = "higher" if metrics.higher_is_better(metric) else "lower"
        return cls(metric, unit, better, decimals(scores["score"]))

    def name(self, method: str) -> str:
        """Name a method."""
        return "chance" if (method, self.metric) == ("mean", "ROC-AUC") else NAMES[method]

    def than(self, method: str) -> str:
        """Name a method behind "than"."""
        return "chance" if self.name(method) == "chance" else f"that of {self.name(method)}"

    def score(self, table: pd.DataFrame, method: str) -> str:
        """Say the score of a method, with its unit."""
        return f"{self.metric} of {float(table['score'][method]):.{self.decimals}f} {self.unit}".strip()

    def interval(self, found: metrics.Difference) -> str:
        """Say a difference with its interval and p."""
        mean, low, high = (f"{value:.{self.decimals}f}" for value in found[:3])
        return f"{mean} (95 % {low} to {high}; corrected p {f'= {found.p:.2g}' if found.p >= 0.001 else '< 0.001'})"

    def use(self, table: pd.DataFrame, chosen: str, tied: Sequence[str], given: str) -> str:
        """Say what to use, where something is surely better than the mean."""
        best = table.index[0]
        rival = chosen if chosen != best else next((name for name in tied if name != best), table.index[1])
        own, by = self.score(table, best), self.interval(metrics.Difference(*table.loc[rival, "behind":"behind_p"]))
        if chosen != best:
            return (
                f"Use {self.name(chosen)}: {given}, the {own} of {self.name(best)} is the best, but it is not sure "
                f"that the {self.score(table, chosen)} of the simpler method is worse; the difference is {by}."
            )
        if rival in tied:
            ending = f"the best, though not surely {self.better} than {self.than(rival)}; the difference is {by}"
        else:
            ending = f"{by} {self.better} than {self.than(rival)}, the next best"
        return f"Use {self.name(best)}: {given}, its {own} is {ending}."

    def none(self, table: pd.DataFrame, best: str, given: str) -> str:
        """Say that nothing is surely better than the mean."""
        found, direction = metrics.Difference(*table.loc[best, "gain":"gain_p"]), self.better
        if found.difference < 0:
            found = metrics.Difference(-found.difference, -found.high, -found.low, found.p)
            direction = "lower" if self.better == "higher" else "higher"
        return (
            f"None is surely better than {self.name('mean')}: {given}, the best other method is {self.name(best)}, "
            f"whose {self.score(table, best)} is {self.interval(found)} {direction} than {self.than('mean')}. More "
            f"labels are needed, or at least more splits."
        )

    def trend(self, curves: pd.DataFrame, method: str) -> str:
        """Say whether the curve of a method still gets better from the second-largest to the largest size."""
        scores = curves[curves["method"] == method].set_index(["repeat", "size"])["score"].unstack()  # noqa: PD010
        less, more = scores.columns[[-2, -1]] if scores.shape[1] > 1 else (0, 0)
        if not less or scores[[less, more]].isna().any(axis=None):
            return ""
        larger = curves["tested"].iloc[0] / less  # of the ratios of the two sizes
        found = metrics.paired(scores[more], scores[less], larger)
        helps = found.p < metrics.LEVEL and (found.difference > 0) == (self.better == "higher")
        verb = "rises" if self.better == "higher" else "falls"
        sure = f"the curve still {verb}, so more labels should help"
        change = f"the {self.metric} of {self.name(method)} changes by {self.interval(found)}"
        return f" From {less} to {more}, {change}: {sure if helps else 'whether more labels help is not sure'}."


def figure(curves: pd.DataFrame) -> Figure:
    """Draw learning curves: each split a faint point, the mean over splits a line; in grey what a model must beat.

    Parameters
    ----------
    curves : DataFrame
        From `curves`.
    """
    drawing, ax = plt.subplots(figsize=(1.5 * COLUMN, 2.4))
    metric, unit, tested = curves[["metric", "unit", "tested"]].iloc[0]
    say, apart = Words.of(curves), 0.008 * curves["size"].max()
    for number, name in enumerate(METHODS):
        rows = curves[curves["method"] == name]
        colour, style = ("0.5", "--") if name == "mean" else (f"C{number - 1}", f"{'osD'[number - 1]}-")
        at, means = apart * (number - 1.5), rows.groupby("size")["score"].mean()
        if len(rows):
            ax.plot(rows["size"] + at, rows["score"], "o", color=colour, markersize=3, markeredgewidth=0, alpha=0.35)
            ax.plot(means.index + at, means, style, color=colour, markersize=4, linewidth=1.2, label=say.name(name))
    ax.set(
        xticks=sorted(set(curves["size"])),
        xlabel="labelled molecules given",
        ylabel=to_better(with_unit(f"test {metric}", unit), say.better == "higher", vertical=True),
        title=f"{curves['repeat'].nunique()} random splits, {tested} molecules tested in each",
    )
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return drawing
