"""Scores, intervals and paired tests. The unit of replication is the split: its spread belongs in the interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn import metrics

METRICS = {
    "MAE": metrics.mean_absolute_error,
    "RMSE": metrics.root_mean_squared_error,
    "ROC-AUC": metrics.roc_auc_score,
}


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
