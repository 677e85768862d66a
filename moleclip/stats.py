"""Scores, intervals and paired tests. The unit of replication is the split: its spread belongs in the interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from sklearn import metrics

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


CELL = ("head_lr", "augmentation")  # what a grid varies
# Columns that name a model of a job in tables of scores; "set" only in those of several jobs.
JOB = ["set", "dataset", "drawing", "split", "encoder", "seed"]


def by_split(scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each model on each split: the mean over the repeats of the cell chosen on validation.

    Parameters
    ----------
    scores : DataFrame
        Rows of `scores.parquet` of any number of jobs.

    Returns
    -------
    DataFrame
        dataset, drawing, split, encoder, seed, metric, unit, head_lr, augmentation, val, test, sd (over repeats),
        runs, optimism: how much better the test score of the grid would look if its cell were chosen by it.
    """
    rows = []
    names = [name for name in JOB if name in scores]
    for key, job in scores.groupby(names, sort=False):
        chosen = job[job["chosen"]]
        first = chosen.iloc[0]
        rows.append(
            {
                **dict(zip(names, key, strict=True)),
                **{name: first[name] for name in ("metric", "unit", *CELL)},
                # A run without a score makes a mean without one, rather than a mean of fewer runs.
                "val": chosen["val"].mean(skipna=False),
                "test": chosen["test"].mean(skipna=False),
                "sd": chosen["test"].std(skipna=False),
                "runs": len(chosen),
                "optimism": _optimism(job),
            }
        )
    return pd.DataFrame(rows)


def _optimism(job: pd.DataFrame) -> float:
    if cells(job[job["stage"] == "grid"]).nunique() < 2:  # of one cell nothing was chosen
        return np.nan
    means = _cell_means(job, "test")
    return float(abs(means[choose(job, by="test")] - means[cells(job[job["chosen"]]).iloc[0]]))


def choose(scores: pd.DataFrame, by: str = "val") -> tuple[float, str]:
    """Cell (head_lr, augmentation) of one model's grid with the best mean over repeats; of equal ones the first.

    A cell of which one repeat diverged (its scores are NaN) is not chosen. DEVIATION: by validation, in
    each split anew; the paper's MoleculeNet scores are the best test means of its grid, and its final runs have one
    cell for all splits of a set.

    Parameters
    ----------
    scores : DataFrame
        Rows of `scores.parquet` of one model of one job.
    by : {"val", "test"}
        The score of a study is that of the cell chosen by "val". "test" is only for the optimism of `by_split`.
    """
    means = _cell_means(scores, by).dropna()
    if means.empty:
        raise FloatingPointError("no training of the grid had a finite validation loss; try a smaller learning rate")
    best = means.idxmax() if higher_is_better(scores["metric"].iloc[0]) else means.idxmin()
    return best  # type: ignore[return-value]


def _cell_means(scores: pd.DataFrame, by: str) -> "pd.Series[float]":
    grid = scores[scores["stage"] == "grid"]
    return grid.groupby(cells(grid), sort=False)[by].agg(lambda values: values.mean(skipna=False))


def cells(scores: pd.DataFrame) -> "pd.Series[Any]":
    """Cell of the grid that each row is of."""
    return pd.Series(list(zip(scores["head_lr"].fillna(0.0), scores["augmentation"], strict=True)), scores.index)


def contrasts(table: pd.DataFrame, pairs: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How much better one model is than another, in percent of the other's mean test score.

    Of the mean, and not split by split: the mean of such shares leans to one side, as a split on which the other does
    well counts more than one on which it does badly.

    Parameters
    ----------
    table : DataFrame
        From `by_split`, with the column set.
    pairs : mapping of str to (str, str)
        Name of the contrast, to the model and the other.

    Returns
    -------
    DataFrame
        set, metric, split, contrast, model, other, percent (above zero: the model is better), low, high (95 %
        t-interval of the differences, paired by split), p (paired t-test), n and over: how many of what, "splits". On
        one split, "repeats": of these the smaller number, by Welch's test; its interval says nothing of other splits.
    """
    rows = []
    for name, part in table.groupby("set", sort=False):
        sign = 1 if higher_is_better(part["metric"].iloc[0]) else -1
        by_model = dict(list(part.set_index("seed").groupby("encoder")))
        for contrast, (model, other) in pairs.items():
            if not {model, other} <= set(by_model):
                continue
            a, b = by_model[model].align(by_model[other], join="inner", axis=0)
            if a.empty:
                continue
            if len(a) > 1:
                found = paired(list(sign * a["test"]), list(sign * b["test"]))
                counted = {"n": len(a), "over": "splits"}
            else:
                found = _welch(a.iloc[0], b.iloc[0], sign)
                counted = {"n": min(a["runs"].iloc[0], b["runs"].iloc[0]), "over": "repeats"}
            place = {"set": name, "metric": part["metric"].iloc[0], "split": part["split"].iloc[0]}
            interval = _in_percent(found, b["test"].mean()) | {"p": found.p}
            rows.append({**place, "contrast": contrast, "model": model, "other": other, **interval, **counted})
    return pd.DataFrame(rows)


def _in_percent(found: Interval | Paired, whole: float) -> dict[str, float]:
    """Difference and the ends of its interval, in percent of the score that it is a share of."""
    return dict(zip(("percent", "low", "high"), 100 * np.array(found[:3]) / whole, strict=True))


def _welch(a: "pd.Series[Any]", b: "pd.Series[Any]", sign: int) -> Paired:
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


def mean_predictions(predictions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction for each molecule over the repeats that make a model's score, and their number (`runs`).

    The error of the mean is smaller than the score, which is the mean of the errors.

    Parameters
    ----------
    predictions, scores : DataFrame
        Rows of `predictions.parquet` and `scores.parquet` of the same jobs.
    """
    run = ["dataset", "encoder", "stage", "repeat", *CELL]
    extra = [name for name in ("set", "split_seed", "drawing") if name in predictions]
    chosen = scores[scores["chosen"]].rename(columns={"seed": "split_seed"})[run + extra].drop_duplicates()
    kept = predictions.merge(chosen, on=run + extra)
    key = ["dataset", "encoder", *extra, "part", "row", "smiles", "target"]
    means = kept.groupby(key, sort=False).agg(
        label=("label", "mean"), prediction=("prediction", "mean"), runs=("prediction", "size")
    )
    return means.reset_index()


def robustness(table: pd.DataFrame, model: str, rival: str) -> pd.DataFrame:
    """Relative gap between two models on plain and on R-group drawings, and what each loses (paper, Fig. 4b).

    Parameters
    ----------
    table : DataFrame
        From `by_split`; errors, of which lower is better.

    Returns
    -------
    DataFrame
        dataset, quantity, percent, low, high (95 % t-interval over splits), splits. Splits that lack a job are left
        out of the quantities that need it, and so show in the number of splits.
    """
    rows = []
    for dataset, part in table.groupby("dataset", sort=False):
        wide = part.pivot_table(index="seed", columns=["encoder", "drawing"], values="test")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([(model, rival), ("plain", "r_groups")]))
        pairs = {
            "gap, plain": ((rival, "plain"), (model, "plain")),
            "gap, R-groups": ((rival, "r_groups"), (model, "r_groups")),
            f"loss, {model}": ((model, "r_groups"), (model, "plain")),
            f"loss, {rival}": ((rival, "r_groups"), (rival, "plain")),
        }
        for quantity, (a, b) in pairs.items():
            both = wide[[a, b]].dropna()
            if len(both):
                # Of the mean error, as the paper's are; see `contrasts`.
                interval = _in_percent(mean_ci(list(both[a] - both[b])), both[b].mean())
                rows.append({"dataset": dataset, "quantity": quantity, **interval, "splits": len(both)})
    return pd.DataFrame(rows)


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
