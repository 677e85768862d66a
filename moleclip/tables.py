"""Tables of scores: the setting that validation selected, scores by split, differences between models."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from moleclip import metrics
from moleclip.datasets import Dataset
from moleclip.io import downloads
from moleclip.metrics import higher_is_better, paired, welch

SETTING = ("head_lr", "augmentation")  # what a grid varies


# Columns that name a model of a job in tables of scores; "set" only in those of several jobs.
JOB = ["set", "dataset", "drawing", "split", "encoder", "seed"]


class Design(NamedTuple):
    """What a comparison of models needs to know about a data set.

    Attributes
    ----------
    overlap : float
        Of its random splits, see `metrics`.
    margin : float
        Difference of test scores that would matter; NaN where the set states none.
    """

    overlap: float
    margin: float


def design(dataset: str, holdout: float | None = None) -> Design:
    """Look up the design of a data set by name, for another fraction held out if there is one.

    >>> design("Phosphines_selectivity")
    Design(overlap=0.25, margin=0.15)
    """
    stated = downloads.table().get(dataset, {})
    held_out = holdout or stated.get("holdout", Dataset.holdout)
    return Design(metrics.overlap(held_out), stated.get("margin", Dataset.margin))


def overlap(table: pd.DataFrame) -> float:
    """Overlap of the random splits of one set, from rows of `by_split`."""
    held_out = [*table["holdout"].dropna()] if "holdout" in table else []  # older tables do not say
    return design(table["dataset"].iloc[0], held_out[0] if held_out else None).overlap


def by_split(scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each model on each split: the mean over the repeats of the setting selected on validation.

    Parameters
    ----------
    scores : DataFrame
        Rows of `scores.parquet` of any number of jobs.

    Returns
    -------
    DataFrame
        dataset, drawing, split, encoder, seed, holdout, metric, unit, head_lr, augmentation, val, test, sd (over
        repeats), runs, optimism: how much better the test score of the grid would look if it chose the setting.
    """
    rows = []
    names = [name for name in JOB if name in scores]
    for key, job in scores.groupby(names, sort=False):
        chosen = job[job["chosen"]]
        first = chosen.iloc[0]
        rows.append(
            {
                **dict(zip(names, key, strict=True)),
                **{name: first[name] for name in ("holdout", "metric", "unit", *SETTING)},
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
    if setting_of(job[job["stage"] == "grid"]).nunique() < 2:  # of one setting nothing was chosen
        return np.nan
    means = _setting_means(job, "test")
    return float(abs(means[choose(job, by="test")] - means[setting_of(job[job["chosen"]]).iloc[0]]))


def choose(scores: pd.DataFrame, by: str = "val") -> tuple[float, str]:
    """Find the setting (head_lr, augmentation) with the best mean over repeats; of equal ones the first.

    A setting of which one repeat diverged (its scores are NaN) is not chosen. DEVIATION: by validation, in
    each split anew; the paper's MoleculeNet scores are the best test means of its grid, and its final runs have one
    setting for all splits of a set.

    Parameters
    ----------
    scores : DataFrame
        Rows of `scores.parquet` of one model of one job.
    by : {"val", "test"}
        The score of a study is that of the setting chosen by "val". "test" is only for the optimism of `by_split`.
    """
    means = _setting_means(scores, by).dropna()
    if means.empty:
        raise FloatingPointError("no training of the grid had a finite validation loss; try a smaller learning rate")
    best = means.idxmax() if higher_is_better(scores["metric"].iloc[0]) else means.idxmin()
    return best  # type: ignore[return-value]


def _setting_means(scores: pd.DataFrame, by: str) -> "pd.Series[float]":
    grid = scores[scores["stage"] == "grid"]
    return grid.groupby(setting_of(grid), sort=False)[by].agg(lambda values: values.mean(skipna=False))


def setting_of(scores: pd.DataFrame) -> "pd.Series[Any]":
    """Get the setting of the grid that each row belongs to."""
    return pd.Series(list(zip(scores["head_lr"].fillna(0.0), scores["augmentation"], strict=True)), scores.index)


def by_part(scores: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Arrange scores of a cross-validation by part (repeat and fold) and method, and tell how much parts overlap.

    Parameters
    ----------
    scores : DataFrame
        From `apply.cross_validation`.

    Returns
    -------
    wide : DataFrame
        A row per part and a column per method; NaN where a method was not tested, or diverged.
    overlap : float
        Molecules tested for each one trained on, for `metrics.paired`.
    """
    wide = scores.pivot(index=["repeat", "fold"], columns="method", values="score")  # noqa: PD010 (nothing to aggregate)
    return wide[list(dict.fromkeys(scores["method"]))], float((scores["tested"] / scores["given"]).mean())


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
        t-interval of the differences, paired by split and corrected for what splits share: `metrics.paired`), p,
        detectable (the smallest difference that would show), margin (the one that would matter), verdict
        (`metrics.verdict`), n and over: how many of what, "splits". On one split, "repeats": of these the smaller
        number, by Welch's test; its interval says nothing of other splits.
    """
    rows = []
    for name, part in table.groupby("set", sort=False):
        sign = 1 if higher_is_better(part["metric"].iloc[0]) else -1
        by_model = dict(list(part.set_index("seed").groupby("encoder")))
        shared, margin = overlap(part), design(part["dataset"].iloc[0]).margin
        for contrast, (model, other) in pairs.items():
            if not {model, other} <= set(by_model):
                continue
            a, b = by_model[model].align(by_model[other], join="inner", axis=0)
            if a.empty:
                continue
            if len(a) > 1:
                found = paired(sign * a["test"], sign * b["test"], shared)
                counted = {"n": len(a), "over": "splits"}
            else:
                found = welch(a.iloc[0], b.iloc[0], sign)
                counted = {"n": min(a["runs"].iloc[0], b["runs"].iloc[0]), "over": "repeats"}
            place = {"set": name, "metric": part["metric"].iloc[0], "split": part["split"].iloc[0]}
            percent = 100 / b["test"].mean()
            numbers = zip(("percent", "low", "high", "p", "detectable"), found.times(percent), strict=True)
            result: dict[str, Any] = dict(numbers)
            result |= {"margin": margin * percent, "verdict": metrics.verdict(found, margin), **counted}
            rows.append({**place, "contrast": contrast, "model": model, "other": other, **result})
    return pd.DataFrame(rows)


def mean_predictions(predictions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction for each molecule over the repeats that make a model's score, and their number (`runs`).

    The error of the mean is smaller than the score, which is the mean of the errors.

    Parameters
    ----------
    predictions, scores : DataFrame
        Rows of `predictions.parquet` and `scores.parquet` of the same jobs.
    """
    run = ["dataset", "encoder", "stage", "repeat", *SETTING]
    extra = [name for name in ("set", "split_seed", "drawing") if name in predictions]
    chosen = scores[scores["chosen"]].rename(columns={"seed": "split_seed"})[run + extra].drop_duplicates()
    kept = predictions.merge(chosen, on=run + extra)
    key = ["dataset", "encoder", *extra, "part", "row", "smiles", "target"]
    means = kept.groupby(key, sort=False).agg(
        label=("label", "mean"), prediction=("prediction", "mean"), runs=("prediction", "size")
    )
    return means.reset_index()


def robustness(table: pd.DataFrame, model: str, competitor: str) -> pd.DataFrame:
    """Relative gap between two models on plain and on R-group drawings, and what each loses (paper, Fig. 4b).

    Parameters
    ----------
    table : DataFrame
        From `by_split`; errors, of which lower is better.

    Returns
    -------
    DataFrame
        dataset (further R-group drawings than "r_groups" are named with it), quantity, percent, low, high (95 %
        t-interval over splits, corrected for what they share), splits. Splits that lack a job are left
        out of the quantities that need it, and so show in the number of splits.
    """
    rows = []
    replaced = sorted({"r_groups", *table["drawing"]} - {"plain"})
    for (dataset, part), r_groups in itertools.product(table.groupby("dataset", sort=False), replaced):
        if r_groups not in (others := set(part["drawing"]) - {"plain"}) and (others or r_groups != "r_groups"):
            continue
        variant = r_groups.removeprefix("r_groups").replace("_", " ")
        wide = part.pivot_table(index="seed", columns=["encoder", "drawing"], values="test")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([(model, competitor), ("plain", r_groups)]))
        pairs = {
            "gap, plain": ((competitor, "plain"), (model, "plain")),
            "gap, R-groups": ((competitor, r_groups), (model, r_groups)),
            f"loss, {model}": ((model, r_groups), (model, "plain")),
            f"loss, {competitor}": ((competitor, r_groups), (competitor, "plain")),
        }
        for quantity, (a, b) in pairs.items():
            both = wide[[a, b]].dropna()
            if len(both):
                # Of the mean error, as the paper's are; see `contrasts`.
                found = paired(both[a], both[b], overlap(part)).times(100 / both[b].mean())
                rows.append(
                    {
                        "dataset": f"{dataset}{variant and ','}{variant}",
                        "quantity": quantity,
                        **dict(zip(("percent", "low", "high"), found[:3], strict=True)),
                        "splits": len(both),
                    }
                )
    return pd.DataFrame(rows)
