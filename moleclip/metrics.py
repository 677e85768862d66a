"""Scores, intervals and paired tests. The unit of replication is the split: its spread belongs in the interval."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn import metrics
from sklearn.neighbors import NearestNeighbors

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
    """Cut an interval where no score can be: an error is not below 0, an area not above 1.

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


class Paired(NamedTuple):
    """Mean difference a - b, the ends of its 95 % confidence interval, and the two-sided p of a paired t-test."""

    difference: float
    low: float
    high: float
    p: float


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


def mean_ci(values_by_split: Sequence[float]) -> Interval:
    """Mean over splits with its 95 % t-interval; NaN ends for a single split.

    Examples
    --------
    >>> [round(x, 3) for x in mean_ci([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values_by_split, float)
    if len(values) < 2:
        return Interval(float(values.mean()), np.nan, np.nan)
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(float(mean), float(mean - half), float(mean + half))


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


def in_percent(found: Interval | Paired, whole: float) -> dict[str, float]:
    """Difference and the ends of its interval, in percent of the score that it is a share of."""
    return dict(zip(("percent", "low", "high"), 100 * np.array(found[:3]) / whole, strict=True))


def welch(a: "pd.Series[Any]", b: "pd.Series[Any]", sign: int) -> Paired:
    """Difference of the repeats of two models on one split, which are no pairs: by Welch's t-test.

    SciPy gives its p of means and spreads, but not its interval.
    """
    (test_a, sd_a, n_a), (test_b, sd_b, n_b) = (x[["test", "sd", "runs"]] for x in (a, b))
    difference = sign * (test_a - test_b)
    if min(n_a, n_b) < 2:
        return Paired(float(difference), np.nan, np.nan, np.nan)
    parts = np.array([sd_a**2 / n_a, sd_b**2 / n_b])
    error = np.sqrt(parts.sum())
    freedom = parts.sum() ** 2 / (parts**2 / [n_a - 1, n_b - 1]).sum()
    half = stats.t.ppf(0.975, freedom) * error
    p = 2 * stats.t.sf(abs(difference) / error, freedom)
    return Paired(float(difference), float(difference - half), float(difference + half), float(p))


def paired(a_by_split: Sequence[float], b_by_split: Sequence[float]) -> Paired:
    """Compare two models on the same splits by a paired t-test.

    Raises
    ------
    ValueError
        The two have different numbers of splits.
    """
    if len(a_by_split) != len(b_by_split):
        raise ValueError(f"{len(a_by_split)} and {len(b_by_split)} splits: pairs need the same splits")
    differences = np.subtract(a_by_split, b_by_split)
    p = stats.ttest_rel(a_by_split, b_by_split).pvalue if len(differences) > 1 else np.nan
    return Paired(*mean_ci(list(differences)), float(p))


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
