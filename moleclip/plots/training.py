"""Figures of training: the choice of K, the losses of pretraining, grids and curves of finetuning."""

import functools

import pandas as pd
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from moleclip import metrics
from moleclip.plots.style import COLUMN, MODEL_NAMES, PAGE, decimals, letters, to_better, with_unit


def knee(curve: pd.DataFrame, at: int | None) -> Figure:
    """Inertia against K with its knee (paper, Fig. S2)."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.4))
    ax.plot(curve["k"], curve["inertia"], marker="o", markersize=3)
    if at is not None:
        ax.axvline(at, color="0.4", linestyle="--", linewidth=1)
        ax.annotate(f"knee: K = {at}", (at, curve["inertia"].max()), (4, -4), textcoords="offset points", va="top")
    ax.set(xlabel="number of clusters K", ylabel="inertia (squared bits)")
    return figure


def loss_curves(metrics: pd.DataFrame) -> Figure:
    """Losses of pretraining (left), and what the encoder can do with held-out molecules (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), sharex=True)
    ks = [name.rpartition("_")[2] for name in map(str, metrics) if name.startswith("held_out_accuracy")]
    losses = {"contrastive": ("contrastive", "C0o-")}
    checks = {"held_out_top1": ("retrieval, top 1", "C0o-"), "chance": ("retrieval, chance", "C0:")}
    for number, k in enumerate(ks, 1):
        look = f"C{number}{'os^Dv'[number]}-"
        losses[f"class_{k}"] = checks[f"held_out_accuracy_{k}"] = (f"class, K = {k}", look)
        checks[f"held_out_neighbours_{k}"] = (f"10 neighbours, K = {k}", f"{look}-")
    for ax, curves, scale in ((left, losses, 1), (right, checks, 100)):
        for name in [name for name in curves if name in metrics]:
            rows = metrics.dropna(subset=name)
            label, look = curves[name]
            ax.plot(rows["step"], scale * rows[name], look, markersize=2.5, linewidth=1, label=label)
        low, high = ax.get_ylim()
        ax.set(xlabel="step", ylim=(low, high + 0.4 * (high - low)))  # room for the legend
        if ax.lines:  # before the first step there is no loss yet
            ax.legend(frameon=False, loc="upper left", ncols=2)
    left.set_ylabel(to_better("training loss (nats)", higher=False, vertical=True))
    right.set_ylabel(to_better("held-out accuracy (%)", higher=True, vertical=True))
    letters((left, right))
    return figure


class Live:
    """Losses of a running pretraining: one figure, redrawn in the same place of the notebook."""

    def __init__(self) -> None:
        self.handle: DisplayHandle | None = None

    def __call__(self, metrics: pd.DataFrame) -> None:
        """Draw the metrics so far."""
        figure = loss_curves(metrics)
        if self.handle is None:
            self.handle = display(figure, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self.handle.update(figure)  # type: ignore[no-untyped-call]
        plt.close(figure)


def heat_map(scores: pd.DataFrame, model: str) -> Figure:
    """Draw the mean score over repeats of each setting of a model's grid; a box marks what validation chose."""
    runs = scores[scores["encoder"] == model]
    grid = runs[runs["stage"] == "grid"] if (runs["stage"] == "grid").any() else runs  # of one setting
    chosen = runs[runs["chosen"]].iloc[0]
    metric, unit = grid[["metric", "unit"]].iloc[0]
    levels = list(dict.fromkeys(grid["augmentation"]))
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 0.9 + 0.25 * grid["head_lr"].nunique()), sharey=True)
    higher = metrics.higher_is_better(metric)
    colours, digits = "viridis" if higher else "viridis_r", decimals(grid[["val", "test"]])  # yellow is better
    # A setting with a diverged repeat is empty, as it is for the choice.
    mean = functools.partial(pd.Series.mean, skipna=False)
    for ax, part, title in zip(axes, ("val", "test"), ("validation: chooses", "test: chooses nothing"), strict=True):
        table = grid.pivot_table(part, "head_lr", "augmentation", aggfunc=mean, dropna=False)[levels]
        label = {"label": to_better(with_unit(metric, unit), higher, vertical=True)}
        sns.heatmap(table, ax=ax, annot=True, fmt=f".{digits}f", cmap=colours, cbar_kws=label, annot_kws={"size": 7})
        corner = (levels.index(chosen["augmentation"]), list(table.index).index(chosen["head_lr"]))
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2))
        ax.set(title=title, ylabel="learning rate of the head" if part == "val" else "")
        ax.set_yticklabels([f"{value:g}" for value in table.index], rotation=0)
    letters(axes)
    return figure


def finetuning_curves(curves: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Training and validation loss of the first chosen run of each model; a dot marks the epoch that is tested."""
    runs = scores[scores["chosen"] & (scores["repeat"] == 1) & (scores["epoch"] > 0)]
    if runs.empty:
        figure, ax = plt.subplots(figsize=(COLUMN, 0.5))
        ax.text(0, 0.5, "none of these models is trained in epochs")
        ax.axis("off")
        return figure
    figure, axes = plt.subplots(1, len(runs), figsize=(COLUMN * len(runs), 2.2), squeeze=False)
    for ax, (_, run) in zip(axes[0], runs.iterrows(), strict=True):
        key = ["encoder", "stage", "repeat", "head_lr", "augmentation"]
        rows = curves[(curves[key] == run[key]).all(axis=1)]
        ax.plot(rows["epoch"], rows["train_loss"], label="training")
        ax.plot(rows["epoch"], rows["val_loss"], "--", label="validation")
        best = rows.loc[rows["epoch"] == run["epoch"], "val_loss"]
        ax.plot([run["epoch"]], best, "o", color="0.2", markersize=4, label=f"chosen: epoch {run['epoch']}")
        ax.set(xlabel="epoch", ylabel="loss", title=MODEL_NAMES.get(run["encoder"], run["encoder"]))
        ax.legend(frameon=False)
    letters(axes[0])
    return figure
