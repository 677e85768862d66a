"""Scores, intervals and paired tests. The unit of replication is the split: its spread belongs in the interval.

Random splits of one set share most of their molecules, so that their scores agree more than those of new molecules
would: the variance of a mean over J of them is not s^2 / J but about s^2 (1 / J + tested / given) (Nadeau and
Bengio, Machine Learning 2003, 52, 239). Functions take this ratio, `overlap`; 0 is the test without correction. With
many splits, a corrected interval does not shrink to nothing.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from sklearn import metrics
from sklearn.neighbors import NearestNeighbors

LEVEL = 0.05  # p below which a difference is called sure
POWER = 0.8  # in this share of cases a difference that could have been shown would be

METRICS = {
    "MAE": metrics.mean_absolute_error,
    "RMSE": metrics.root_mean_squared_error,
    "ROC-AUC": metrics.roc_auc_score,
}


def higher_is_better(metric: str) -> bool:
    """Whether a larger score is the better one.

    >>> higher_is_better("ROC-AUC"), higher_is_better("MAE")
    (True, False)
    """
    return metric == "ROC-AUC"


def possible(metric: str, low: float, high: float) -> tuple[float, float]:
    """Clip an interval to possible scores: an error is not below 0, an area not above 1.

    >>> possible("MAE", -0.1, 1.3), possible("ROC-AUC", 0.8, 1.1), possible("gap", -5, 5)
    ((0.0, 1.3), (0.8, 1.0), (-5, 5))
    """
    if metric not in METRICS:
        return low, high
    return max(low, 0.0), min(high, 1.0) if metric == "ROC-AUC" else high


class Interval(NamedTuple):
    """Mean with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """Mean difference a - b, the ends of its 95 % confidence interval, the two-sided p of a t-test, and `detectable`.

    The last is the smallest true difference that such a test would call sure in 80 % of cases, if scores spread as they
    did here: what a difference that is not sure may be, and still not show.
    """

    difference: float
    low: float
    high: float
    p: float
    detectable: float = np.nan

    def times(self, factor: float) -> "Difference":
        """In another unit, such as percent."""
        return self._replace(
            **{name: factor * getattr(self, name) for name in ("difference", "low", "high", "detectable")}
        )

    @classmethod
    def of(cls, mean: float, error: float, freedom: float) -> "Difference":
        """Make it from a mean, its standard error and the degrees of freedom of t."""
        edge = stats.t.ppf(1 - LEVEL / 2, freedom)
        p = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
        shift = special.nctdtrinc(freedom, 1 - POWER, edge)  # in standard errors; the other tail is far away
        half = edge * error
        return cls(float(mean), float(mean - half), float(mean + half), float(p), float(error * shift))


def overlap(holdout: float) -> float:
    """Molecules tested for each one used in training or validation.

    >>> overlap(0.2)
    0.25
    """
    return holdout / (1 - holdout)


def score(metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
    """Score predictions, averaged over the label columns; missing labels (NaN) are left out.

    Parameters
    ----------
    metric : {"MAE", "RMSE", "ROC-AUC"}
    labels, predictions : array_like, shape [N, T]

    Raises
    ------
    ValueError
        A column has no labels, or, for ROC-AUC, only one class.

    Examples
    --------
    >>> score("MAE", [[1.0], [2.0]], [[1.5], [2.0]])
    0.25
    """
    y, z = np.asarray(labels, float), np.asarray(predictions, float)
    values = []
    for column, (known, found) in enumerate(zip(y.T, z.T, strict=True)):
        present = ~np.isnan(known)
        if not present.any():
            raise ValueError(f"label column {column} has no labels to score")
        if metric == "ROC-AUC" and len(np.unique(known[present])) < 2:
            raise ValueError(f"label column {column} has one class only: ROC-AUC is not defined")
        values.append(METRICS[metric](known[present], found[present]))
    return float(np.mean(values))


def mean_ci(values_by_split: ArrayLike, overlap: float = 0.0) -> Interval:
    """Mean over splits with its 95 % t-interval; NaN ends for a single split.

    Examples
    --------
    >>> [round(x, 3) for x in mean_ci([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values_by_split, float)
    return Interval(*paired(values, np.zeros(len(values)), overlap)[:3])


def paper_ci(runs_by_split: Sequence[Sequence[float]]) -> Interval:
    """Interval as the paper prints it: 1.96 x (pooled SD within splits) / sqrt(number of runs).

    The spread between splits is left out of it: it says how well the mean over these very splits is known, not how
    the model would do on another. Only for comparison with the paper's tables; ours is `mean_ci`.
    """
    values = np.concatenate([np.asarray(runs, float) for runs in runs_by_split])
    within = np.concatenate([np.asarray(runs, float) - np.mean(runs) for runs in runs_by_split])
    pooled = np.sqrt((within**2).sum() / (len(values) - len(runs_by_split)))
    mean, half = values.mean(), 1.96 * pooled / np.sqrt(len(values))
    return Interval(float(mean), float(mean - half), float(mean + half))


def welch(a: "pd.Series[Any]", b: "pd.Series[Any]", sign: int) -> Difference:
    """Difference of the repeats of two models on one split, which are no pairs: by Welch's t-test.

    SciPy gives its p of means and spreads, but not its interval.
    """
    (test_a, sd_a, n_a), (test_b, sd_b, n_b) = (x[["test", "sd", "runs"]] for x in (a, b))
    difference = sign * (test_a - test_b)
    if min(n_a, n_b) < 2:
        return Difference(float(difference), np.nan, np.nan, np.nan)
    parts = np.array([sd_a**2 / n_a, sd_b**2 / n_b])
    freedom = parts.sum() ** 2 / (parts**2 / [n_a - 1, n_b - 1]).sum()
    return Difference.of(difference, np.sqrt(parts.sum()), freedom)


def paired(a_by_split: ArrayLike, b_by_split: ArrayLike, overlap: float = 0.0) -> Difference:
    """Compare two models on the same splits by a paired t-test, corrected because the splits overlap.

    Where two ridge regressions are equally good by construction (sets of 30, 60 and 120 molecules, a quarter tested),
    the corrected test calls a difference sure in 5 to 8 % of sets, with 3, 5 or 10 splits; without the correction it is
    10 to 12, 18 to 21, and 32 to 38 %.

    Parameters
    ----------
    overlap : float
        Molecules tested for each one given; 0 where units are independent.

    Raises
    ------
    ValueError
        The two have different numbers of splits.

    Examples
    --------
    >>> [round(x, 3) for x in paired([1.0, 2.0, 4.0], [0.5, 1.0, 2.0], overlap=1 / 3)]
    [1.167, -1.517, 3.85, 0.202, 3.526]
    """
    a, b = np.asarray(a_by_split, float), np.asarray(b_by_split, float)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} splits: pairs need the same splits")
    differences = a - b
    if len(a) < 2:
        return Difference(float(differences.mean()), np.nan, np.nan, np.nan)
    error = np.sqrt((1 / len(a) + overlap) * np.var(differences, ddof=1))
    return Difference.of(differences.mean(), error, len(a) - 1)


def verdict(found: Interval | Difference, margin: float = np.nan) -> str:
    """Judge a difference by its interval; above zero, the first model is better.

    Parameters
    ----------
    margin : float
        Difference that would matter, as the data set states it (region of practical equivalence; Kruschke, Adv. Meth.
        Pract. Psychol. Sci. 2018, 1, 270).

    Returns
    -------
    str
        "equivalent" if the whole interval is within the margin; else "better" or "worse" if it leaves out zero; else
        "inconclusive", and "" without an interval.

    Examples
    --------
    >>> [verdict(Interval(mean, mean - 2, mean + 2), margin=3.0) for mean in (0.5, 5.0, -2.5, 1.5)]
    ['equivalent', 'better', 'worse', 'inconclusive']
    """
    if np.isnan(found.low) or np.isnan(found.high):
        return ""
    if -margin < found.low and found.high < margin:
        return "equivalent"
    if found.low > 0 or found.high < 0:
        return "better" if found.low > 0 else "worse"
    return "inconclusive"


def all_pairs(scores: pd.DataFrame, overlap: float = 0.0) -> pd.DataFrame:
    """Compare each two of several models on the same parts, by Tukey's honestly significant difference.

    Repeated measures: the spread is what is left of scores when the means of parts and of models are taken away. The
    test assumes that all differences spread alike, which `paired` does not, and is right for all pairs together. Of
    two models it is `paired`, and without overlap the textbook's.

    Parameters
    ----------
    scores : DataFrame
        A row per part (of each repeat of a cross-validation), a column per model.
    overlap : float
        As of `paired`.

    Returns
    -------
    DataFrame
        A row per pair: a, b, difference (of means, a - b), low and high (simultaneous 95 % intervals), p, and effect:
        the difference in standard deviations between parts, once the means are taken away.

    Examples
    --------
    >>> scores = pd.DataFrame({"x": [1.0, 2, 3, 4], "y": [1.5, 2.5, 3.5, 4.6], "z": [2.0, 3.2, 3.9, 5.0]})
    >>> all_pairs(scores).round(3).values.tolist()[0]
    ['x', 'y', -0.525, -0.698, -0.352, 0.0, -6.568]
    """
    values = scores.to_numpy(float)
    parts, models = values.shape
    if parts < 2 or models < 2 or np.isnan(values).any():
        raise ValueError(f"{models} models with {parts} scores each: two of both are needed, and none missing")
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    freedom = (parts - 1) * (models - 1)
    spread = np.sqrt((residuals**2).sum() / freedom)
    error = spread * np.sqrt(1 / parts + overlap)
    half, rows = _edge(models, freedom) * error, []
    for a, b in itertools.combinations(scores.columns, 2):
        found = float(scores[a].mean() - scores[b].mean())
        p = stats.studentized_range.sf(abs(found) / error, models, freedom) if error else float(found == 0)
        effect = found / spread if spread else np.nan
        rows.append((a, b, found, found - half, found + half, float(p), effect))
    return pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "effect"])


@functools.cache
def _edge(models: int, freedom: int) -> float:
    """Find Tukey's 95 % quantile, for which SciPy takes a second."""
    return float(stats.studentized_range.ppf(1 - LEVEL, models, freedom))


def labels_needed(given: int, found: Difference, difference: float) -> float:
    """Estimate how many labels would show a difference in 80 % of cases, where `given` would show `found.detectable`.

    Assumes that the spread of differences falls as one over the root of the number of labels.

    >>> labels_needed(40, Difference(0.1, -0.3, 0.5, 0.6, detectable=0.6), 0.3)
    160.0
    """
    return float(given * (found.detectable / difference) ** 2)


def cv_plus(
    tested: NDArray[np.float64],
    labels: NDArray[np.float64],
    folds: NDArray[np.int64],
    predictions: NDArray[np.float64],
    level: float = 0.9,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Make prediction intervals from a cross-validation by CV+ (Barber et al., Ann. Statist. 2021, 49, 486).

    Each molecule of the cross-validation says what a new one may be: what the model that had not seen it predicts for
    the new one, plus or minus the error that it made. Of molecules like those given, intervals hold the label in about
    `level` of cases, and in no fewer than about 2 `level` - 1 whatever the model. With as many folds as molecules it
    is the jackknife+.

    Parameters
    ----------
    tested, labels : ndarray, shape [N]
        Prediction of each molecule by the model that had not seen it, and its label; NaN where there is none.
    folds : ndarray of int64, shape [N]
        Which of the models that is.
    predictions : ndarray, shape [models, M]
        Of the new molecules, by each model.

    Returns
    -------
    low, high : ndarray, shape [M]
        None where there are too few labels for the level (fewer than 9 for 90 %).
    """
    known = ~np.isnan(labels)
    errors, count = np.abs(labels - tested)[known], int(known.sum())
    rank = int(np.ceil(round(level * (count + 1), 9)))  # of the ends, from the inner ones
    if rank > count:
        return None
    by_molecule = predictions[folds[known]]
    low = np.sort(by_molecule - errors[:, None], axis=0)[count - rank]
    high = np.sort(by_molecule + errors[:, None], axis=0)[rank - 1]
    return low, high


def nearest(embeddings: NDArray[Any], count: int, queries: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Find nearest neighbours by the cosine of their embeddings.

    Parameters
    ----------
    embeddings : ndarray, shape [N, D]
        Where to look for neighbours.
    count : int
        Neighbours of each query.
    queries : ndarray, shape [Q, D], optional
        By default the embeddings themselves; then none is its own neighbour.

    Returns
    -------
    ndarray of int64, shape [Q, count]
        Rows of `embeddings`, the nearest first.

    Raises
    ------
    ValueError
        There are not so many neighbours.

    Examples
    --------
    >>> nearest(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]), 1).ravel()
    array([2, 2, 0])
    """
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(embeddings)
    return np.asarray(search.kneighbors(queries, return_distance=False), np.int64)
