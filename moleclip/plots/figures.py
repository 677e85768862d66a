"""Plots."""

import functools
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import DisplayHandle, display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, ScalarFormatter
from pandas.io.formats.style import Styler
from sklearn import metrics as sklearn_metrics

from moleclip import augmentation, gridsearch, metrics
from moleclip.drawing import PLAIN, Style, draw, prepare, random_style

COLUMN = 3.3  # inches: width of one journal column
PAGE = 6.9  # inches: width of two

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "moleclip",
    "pdf.fonttype": 42,
}

_ENCODERS = {
    "pretrained": "pretrained encoder",
    "clip": "CLIP encoder",
    "random": "random encoder",
    "imagenet": "ImageNet's weights",
    "random_pretrained": "random, then molecules",
    "imagenet_pretrained": "ImageNet, then molecules",
    "domain": "domain-focused encoder",
    "buried_volume": "domain-focused, 300 epochs",
    "buried_volume_100": "domain-focused, 100 epochs",
    "imagemol": "ImageMol",
}
_OTHERS = {
    "fingerprint_mlp": "Morgan + MLP",
    "ecfp4_forest": "ECFP4 + random forest",
    "ecfp4_extra_trees": "ECFP4 + extra trees",
    "descriptor_forest": "descriptors + random forest",
    "descriptor_extra_trees": "descriptors + extra trees",
    "chemprop": "chemprop's D-MPNN",
    "mean": "training mean",
}
# Models as figures and tables call them, in the order in which they stand there: an encoder, then it frozen.
MODEL_NAMES = {
    name: text
    for encoder, title in _ENCODERS.items()
    for name, text in (
        (encoder, title),
        (f"{encoder}_frozen", f"{title.removesuffix(' encoder')}, frozen + linear"),
    )
} | _OTHERS


# A stereocentre, charges, a metal, a salt, fused rings, halogens: what drawings must get right.
GALLERY = {
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "penicillin G": "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "IMes": "Cc1cc(C)c(c(C)c1)N1C=CN([C]1)c1c(C)cc(C)cc1C",
    "halothane": "FC(F)(F)C(Cl)Br",
    "sodium nitrobenzenesulfonate": "[Na+].O=[N+]([O-])c1cccc(c1)S(=O)(=O)[O-]",
}


def set_style() -> None:
    """Use the project's one look: seaborn's ticks, colour-blind safe, sized for a journal column."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc=_STYLE)


def gallery(molecules: Sequence[str], seed: int) -> Figure:
    """Draw molecules (rows) in every depiction and augmentation variant (columns)."""
    rng = np.random.default_rng(seed)
    styles = [("plain", PLAIN)]
    styles += [(f"randomised {number}", random_style(rng)) for number in (1, 2, 3)]
    styles += [("R-groups", Style(r_groups=True))]
    levels = [level for level in augmentation.LEVELS if level != "none"]
    titles = [name for name, _ in styles] + [f"plain,\n{level}" for level in levels]
    titles += [f"randomised 1,\n{level}" for level in levels[:1]]
    figure, axes = plt.subplots(
        len(molecules), len(titles), figsize=(PAGE, PAGE / len(titles) * len(molecules) + 0.4), squeeze=False
    )
    for row, smiles in zip(axes, molecules, strict=True):
        prepared = prepare(smiles)
        drawings = [draw(prepared, style) for _, style in styles]
        drawings += [augmentation.augment(drawings[0], level, rng) for level in levels]
        drawings += [augmentation.augment(drawings[1], levels[0], rng)]
        for ax, drawing in zip(row, drawings, strict=True):
            ax.imshow(drawing)
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, top=False, right=False)
            ax.spines[:].set(color="0.8", linewidth=0.5)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, size=7)
    return figure


def grid(rows: Mapping[str, Sequence[Any]]) -> Figure:
    """Images [H, W, 3] in named rows."""
    columns = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(len(rows), columns, figsize=(min(PAGE, 1.2 * columns), 1.2 * len(rows)), squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for ax in line:
            ax.axis("off")
        for ax, image in zip(line, images, strict=False):
            ax.imshow(image)
        line[0].set_title(name, loc="left", size=7)
    return figure


def sizes(molecules: Mapping[str, pd.DataFrame]) -> Figure:
    """Box plot of heavy atoms per molecule, one row per set; whiskers from the 1st to the 99th percentile."""
    figure, ax = plt.subplots(figsize=(COLUMN, 0.7 + 0.25 * len(molecules)))
    table = pd.concat([frame.assign(set=name) for name, frame in molecules.items()], ignore_index=True)
    sns.boxplot(table, x="heavy_atoms", y="set", whis=(1, 99), fliersize=1, linewidth=0.8, color="0.85", ax=ax)
    ax.set(xlabel="heavy atoms per molecule", ylabel="", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    return figure


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
        losses[f"class_{k}"] = (f"class, K = {k}", f"C{number}{'os^Dv'[number]}-")
        checks[f"held_out_accuracy_{k}"] = (f"class, K = {k}", f"C{number}{'os^Dv'[number]}-")
        checks[f"held_out_neighbours_{k}"] = (f"10 neighbours, K = {k}", f"C{number}{'os^Dv'[number]}--")
    for ax, curves, scale in ((left, losses, 1), (right, checks, 100)):
        for name in [name for name in curves if name in metrics]:
            rows = metrics.dropna(subset=name)
            label, style = curves[name]
            ax.plot(rows["step"], scale * rows[name], style, markersize=2.5, linewidth=1, label=label)
        ax.set_xlabel("step")
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.4 * (high - low))  # room for the legend
        ax.legend(frameon=False, fontsize=7, loc="upper left", ncols=2)
    left.set_ylabel("training loss (nats)")
    right.set_ylabel("held-out accuracy (%)")
    return figure


class Live:
    """Losses of a pretraining that runs: one figure, drawn again in its place in the notebook."""

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
    """Draw the score of each cell of a model's grid, mean over repeats; a box marks the cell that validation chose."""
    runs = scores[scores["encoder"] == model]
    grid = runs[runs["stage"] == "grid"] if (runs["stage"] == "grid").any() else runs  # of one cell
    chosen = scores.loc[(scores["encoder"] == model) & scores["chosen"], ["head_lr", "augmentation"]].iloc[0]
    metric, unit = grid[["metric", "unit"]].iloc[0]
    levels = list(dict.fromkeys(grid["augmentation"]))
    size = (PAGE, 0.9 + 0.25 * grid["head_lr"].nunique())
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True)
    colours = "viridis" if metrics.higher_is_better(metric) else "viridis_r"  # yellow is better
    for ax, part, title in zip(axes, ("val", "test"), ("validation: chooses", "test: chooses nothing"), strict=True):
        # A cell of which one repeat diverged is empty, as it is for the choice.
        mean = functools.partial(pd.Series.mean, skipna=False)
        table = grid.pivot_table(index="head_lr", columns="augmentation", values=part, aggfunc=mean, dropna=False)[
            levels
        ]
        label = {"label": with_unit(metric, unit)}
        sns.heatmap(table, ax=ax, annot=True, fmt=".3g", cmap=colours, cbar_kws=label, annot_kws={"size": 7})
        corner = (levels.index(chosen["augmentation"]), list(table.index).index(chosen["head_lr"]))
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2))
        ax.set(title=title, ylabel="learning rate of the head" if part == "val" else "")
        ax.set_yticklabels([f"{value:g}" for value in table.index], rotation=0)
    return figure


def with_unit(quantity: str, unit: str) -> str:
    """Label of an axis."""
    return f"{quantity} ({unit})" if unit else quantity


def finetuning_curves(curves: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Training and validation loss of the first chosen run of each model; a dot marks the epoch that is tested."""
    runs = scores[scores["chosen"] & (scores["repeat"] == 1) & (scores["epoch"] > 0)]
    if runs.empty:
        figure, ax = plt.subplots(figsize=(COLUMN, 0.5))
        ax.text(0, 0.5, "none of these models is trained in epochs")
        ax.axis("off")
        return figure
    figure, axes = plt.subplots(1, len(runs), figsize=(COLUMN * len(runs), 2.2), squeeze=False)
    for ax, run in zip(axes[0], runs.itertuples(), strict=True):
        same = (curves["encoder"] == run.encoder) & (curves["stage"] == run.stage) & (curves["repeat"] == 1)
        rows = curves[same & (curves["head_lr"] == run.head_lr) & (curves["augmentation"] == run.augmentation)]
        ax.plot(rows["epoch"], rows["train_loss"], label="training")
        ax.plot(rows["epoch"], rows["val_loss"], "--", label="validation")
        best = rows.loc[rows["epoch"] == run.epoch, "val_loss"]
        ax.plot([run.epoch], best, "o", color="0.2", markersize=4, label=f"chosen: epoch {run.epoch}")
        ax.set(xlabel="epoch", ylabel="loss", title=MODEL_NAMES.get(str(run.encoder), str(run.encoder)))
        ax.legend(frameon=False)
    return figure


def panels(lines: Sequence[int], margin: float, line: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Make a panel for each number of lines, two a row at most; `margin` and `line` are their heights in inches."""
    columns = min(2, len(lines))
    rows = [max(lines[start : start + columns]) for start in range(0, len(lines), columns)]
    size = (PAGE / 2 * columns, margin * len(rows) + line * sum(rows))
    ratios = {"height_ratios": [row + 1 for row in rows]}
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, gridspec_kw=ratios, **shared)
    for ax in axes.flat[len(lines) :]:
        ax.axis("off")
    return figure, list(axes.flat[: len(lines)])


def scores(table: pd.DataFrame) -> Figure:
    """Test scores, one panel per data set: each split a dot, the mean over splits with its 95 % interval.

    Parameters
    ----------
    table : DataFrame
        From `gridsearch.by_split`. With one split only, the bar is the standard deviation of its repeats. A tick shows
        where the mean would be if the test molecules chose the cell of the grid, unless it is the same.
    """
    sets = list(table.groupby("set" if "set" in table else "dataset", sort=False))
    order = [name for name in MODEL_NAMES if name in set(table["encoder"])]
    order += sorted(set(table["encoder"]) - set(order))
    same = len({frozenset(part["encoder"]) for _, part in sets}) == 1
    figure, axes = panels([part["encoder"].nunique() for _, part in sets], 0.75, 0.22, sharey=same)
    for ax, (name, part) in zip(axes, sets, strict=True):
        _scores_panel(ax, str(name), part, order)
    return figure


def _scores_panel(ax: Axes, title: str, table: pd.DataFrame, order: Sequence[str]) -> None:
    metric, unit, kind, drawing = table[["metric", "unit", "split", "drawing"]].iloc[0]
    splits = table.groupby("encoder")["seed"].nunique().min()
    sign, ticks = 1 if metrics.higher_is_better(metric) else -1, False
    shown = [name for name in order if name in set(table["encoder"])]
    for y, name in enumerate(shown):
        rows = table[table["encoder"] == name].sort_values("seed")
        interval = metrics.mean_ci(list(rows["test"]))
        half = interval.high - interval.mean if splits > 1 else rows["sd"].fillna(0.0).iloc[0]
        if splits > 1:
            ax.plot(rows["test"], np.full(len(rows), y), "o", markersize=3, color="0.6", zorder=2)
        look = _look(name, order)
        ax.errorbar([interval.mean], [y], xerr=[half], fmt="D", markersize=4, capsize=3, zorder=3, **look)
        if (optimism := rows["optimism"].mean()) > 0:  # NaN of a single cell: nothing was chosen
            ax.plot([interval.mean + sign * optimism], [y], "|", markersize=9, markeredgewidth=1.5, color="0.2")
            ticks = True
    least, most = table["runs"].min(), table["runs"].max()
    runs = f"mean and SD of {most if least == most else f'{least} to {most}'} runs" if most > 1 else "one run"
    ax.set(
        yticks=range(len(shown)),
        yticklabels=[MODEL_NAMES.get(name, name) for name in shown],
        ylim=(len(shown) - 0.5, -0.5),
        xlabel=with_unit(f"test {metric}", unit) + "; tick: if test chose" * ticks,
    )
    spread = f"mean and 95 % interval of {splits} splits" if splits > 1 else f"one split: {runs}"
    # From the right: the names of the models leave room on the other side.
    ax.set_title(f"{title}{', R-groups' * (drawing == 'r_groups')}, {kind} split\n{spread}", loc="right")


def _look(name: str, models: Sequence[str]) -> dict[str, Any]:
    """Give each encoder a colour, hollow where it is frozen; what sees no drawings is grey."""
    if name in _OTHERS:
        return {"color": "0.3"}
    encoders = list(dict.fromkeys(model.removesuffix("_frozen") for model in models if model not in _OTHERS))
    colour = f"C{encoders.index(name.removesuffix('_frozen'))}"
    return {"color": colour, "markerfacecolor": "white" if name.endswith("_frozen") else colour}


def caption(figure: Figure, text: str) -> Figure:
    """Write a sentence below a figure, if there is one."""
    if text:
        figure.supxlabel(textwrap.fill(text, int(18 * figure.get_figwidth())), size=7, color="0.3")
    return figure


def baseline(table: pd.DataFrame) -> Figure:
    """Our runs of the fingerprint baseline beside the released ones, one panel per set, one line per split.

    Parameters
    ----------
    table : DataFrame
        From `released.beside`. Bars are the standard deviation over runs.
    """
    sets = list(dict.fromkeys(table["set"]))
    figure, axes = panels([int(table["set"].eq(name).sum()) for name in sets], 0.75, 0.14)
    for ax, name in zip(axes, sets, strict=True):
        part = table[table["set"] == name]
        y = np.arange(len(part))
        for who, marker, colour, shift in (("theirs", "o", "0.5", -0.12), ("ours", "D", "C0", 0.12)):
            style: dict[str, Any] = {"markerfacecolor": "white" if who == "theirs" else colour, "label": who}
            ax.errorbar(
                *(part[who], y + shift),
                xerr=part[f"{who}_sd"],
                fmt=marker,
                color=colour,
                markersize=4,
                capsize=2,
                **style,
            )
        metric, unit, batch_size, head_lr = part[["metric", "unit", "batch_size", "head_lr"]].iloc[0]
        split = [f"seed {seed}" for seed in part["seed"]] if len(part) > 1 else ["one split"]
        ax.set(yticks=y, yticklabels=split, ylim=(len(part) - 0.5, -0.5))
        ax.set_xlabel(with_unit(f"test {metric}", unit))
        ax.set_title(f"{name}, lr {head_lr:g}, batch {batch_size}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def parity(predictions: pd.DataFrame, unit: str, models: Sequence[str] | None = None) -> Figure:
    """Predicted against measured values of the test molecules, one panel per model.

    Parameters
    ----------
    predictions : DataFrame
        From `gridsearch.mean_predictions`.
    """
    test = predictions[predictions["part"] == "test"]
    shown = [name for name in models or MODEL_NAMES if name in set(test["encoder"])]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(min(PAGE, COLUMN * len(shown)), 3.0), sharex=True, sharey=True, squeeze=False
    )
    limits = np.array([test[["label", "prediction"]].min().min(), test[["label", "prediction"]].max().max()])
    # Markers tell the splits apart or, within one, the labels.
    told = "split_seed" if "split_seed" in test and len(set(test["split_seed"])) > 1 else "target"
    for ax, name in zip(axes[0], shown, strict=True):
        rows = test[test["encoder"] == name]
        _parity_panel(ax, rows, limits, told)
        error = (rows["label"] - rows["prediction"]).abs().mean()
        title = f"{rows['dataset'].iloc[0]}\n{MODEL_NAMES.get(name, name)}\nMAE{_of_mean(rows)} {error:.3g}"
        ax.set(title=title, xlabel=f"measured ({unit})")
    axes[0][0].set_ylabel(f"predicted ({unit})")
    if len(set(test[told])) > 1:
        meaning = "split" if told == "split_seed" else None
        axes[0][-1].legend(frameon=False, title=meaning, fontsize=7, title_fontsize=7, handletextpad=0)
    return figure


def _parity_panel(ax: Axes, rows: pd.DataFrame, limits: np.ndarray, told: str) -> None:
    ax.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)
    for (value, part), marker in zip(rows.groupby(told), "os^Dv" * len(rows), strict=False):
        ax.plot(part["label"], part["prediction"], marker, markersize=2.5, alpha=0.6, linewidth=0, label=value)
    ax.set_aspect("equal")


def _of_mean(rows: pd.DataFrame) -> str:
    """Say it where predictions are means of runs: their error is less than the mean of the runs' errors."""
    runs = rows["runs"].max()
    return f" of {runs} runs' mean" if runs > 1 else ""


def roc(predictions: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Receiver operating characteristic of the test molecules: a panel per label column, a line per model.

    Parameters
    ----------
    predictions : DataFrame
        From `gridsearch.mean_predictions`.
    """
    test = predictions[(predictions["part"] == "test") & predictions["label"].notna()]
    targets = list(dict.fromkeys(test["target"]))
    figure, axes = plt.subplots(len(targets), 1, figsize=(COLUMN, COLUMN * len(targets)), squeeze=False)
    for ax, target in zip(axes[:, 0], targets, strict=True):
        for name, style in zip(models, itertools.cycle(["-", "--", "-.", ":"]), strict=False):
            rows = test[(test["encoder"] == name) & (test["target"] == target)]
            false, true, _ = sklearn_metrics.roc_curve(rows["label"], rows["prediction"])
            area = sklearn_metrics.roc_auc_score(rows["label"], rows["prediction"])
            ax.plot(false, true, style, linewidth=1, label=f"{MODEL_NAMES.get(name, name)}{_of_mean(rows)}: {area:.2f}")
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        title = f"{test['dataset'].iloc[0]}: {target}, area"
        ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
        ax.legend(frameon=False, fontsize=7)
    return figure


def in_digits(frame: pd.DataFrame) -> Styler:
    """Show a table's numbers with three significant digits: scores are anything from .01 e to 12 %."""
    numbers = frame.select_dtypes("float").columns
    return frame.style.format(dict.fromkeys(numbers, _in_digits), na_rep="")


def _in_digits(value: Any) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def tested(predictions: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Parity plot of a regression's models, or ROC curves of a classification's."""
    means = gridsearch.mean_predictions(predictions, scores)
    models = list(dict.fromkeys(scores["encoder"]))
    if scores["metric"].iloc[0] == "ROC-AUC":
        return roc(means, models)
    return parity(means, scores["unit"].iloc[0], models[:3])


def training_curve(curves: pd.DataFrame) -> Figure:
    """Training loss against the epoch."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.2))
    ax.plot(curves["epoch"], curves["loss"])
    ax.set(xlabel="epoch", ylabel="training loss (L1)")
    return figure


def known(predictions: pd.DataFrame) -> Figure:
    """Predicted against true labels of molecules that were trained on, one panel per label."""
    targets = list(dict.fromkeys(predictions["target"]))
    figure, axes = plt.subplots(1, len(targets), figsize=(min(PAGE, COLUMN * len(targets)), 2.6), squeeze=False)
    for ax, target in zip(axes[0], targets, strict=True):
        rows = predictions[predictions["target"] == target]
        limits = np.array([rows[["label", "prediction"]].min().min(), rows[["label", "prediction"]].max().max()])
        _parity_panel(ax, rows, limits, "target")
        ax.set(title=target, xlabel="label", ylabel="prediction" if ax is axes[0][0] else "")
    return figure


def robustness(gaps: pd.DataFrame, model: str, rival: str) -> Figure:
    """Relative gap between two models on plain and R-group drawings, and what each loses by them.

    Parameters
    ----------
    gaps : DataFrame
        From `gridsearch.robustness`.
    """
    sets = list(dict.fromkeys(gaps["dataset"]))
    names = [f"{name} ({gaps.loc[gaps['dataset'] == name, 'splits'].min()} splits)" for name in sets]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 1.1 + 0.5 * len(sets)), sharey=True)
    panels = {
        left: (f"{MODEL_NAMES.get(rival, rival)} errs more by (%)", ("gap, plain", "gap, R-groups")),
        right: ("error grows with R-groups by (%)", (f"loss, {model}", f"loss, {rival}")),
    }
    for ax, (label, quantities) in panels.items():
        ax.axvline(0, color="0.6", linewidth=0.8)
        for quantity, marker, shift in zip(quantities, "oD", (-0.12, 0.12), strict=True):
            rows = gaps[gaps["quantity"] == quantity]
            y = [sets.index(name) + shift for name in rows["dataset"]]
            bars = np.nan_to_num([rows["percent"] - rows["low"], rows["high"] - rows["percent"]])
            name = quantity.partition(", ")[2]
            name = MODEL_NAMES.get(name, name)
            ax.errorbar(rows["percent"], y, xerr=bars, fmt=marker, markersize=4, capsize=2, label=name)
        ax.set(xlabel=label, yticks=range(len(sets)), yticklabels=names, ylim=(len(sets) - 0.5, -0.5))
        ax.legend(frameon=False, fontsize=7)
    return figure


def contrasts(table: pd.DataFrame) -> Figure:
    """How much better one model is than another, one panel per contrast, one line per set.

    Parameters
    ----------
    table : DataFrame
        From `gridsearch.contrasts`. Open symbols: repeats on one split, whose bars say nothing of other splits.
    """
    names, sets = list(dict.fromkeys(table["contrast"])), list(dict.fromkeys(table["set"]))
    figure, axes = panels([len(sets)] * len(names), 0.9, 0.22, sharex=True, sharey=True)
    counted = table.drop_duplicates("set").set_index("set")
    labels = [f"{name} ({counted.loc[name, 'n']} {counted.loc[name, 'over']})" for name in sets]
    for number, (ax, name) in enumerate(zip(axes, names, strict=True)):
        ax.axvline(0, color="0.6", linewidth=0.8)
        for line in table[table["contrast"] == name].itertuples():
            bar = [[line.percent - line.low], [line.high - line.percent]]
            face = f"C{number}" if line.over == "splits" else "white"
            y, marker = sets.index(str(line.set)), "oD^sv"[number % 5]
            style: dict[str, Any] = {"color": f"C{number}", "markerfacecolor": face, "markersize": 4, "capsize": 2}
            ax.errorbar([line.percent], [y], xerr=np.nan_to_num(bar), fmt=marker, **style)
        ax.set(yticks=range(len(sets)), yticklabels=labels, ylim=(len(sets) - 0.5, -0.5), title=name)
    for ax in axes[(len(axes) - 1) // 2 * 2 :]:
        ax.set_xlabel("better by (% of the other's score)")
    return figure


def maps(table: pd.DataFrame) -> Figure:
    """Draw molecules in the plane, one panel per encoder; the most frequent structural classes stand out.

    Parameters
    ----------
    table : DataFrame
        From `latent.maps`.
    """
    encoders = list(dict.fromkeys(table["encoder"]))
    classes = list(table.loc[table["encoder"] == encoders[0], "class"].value_counts().index[:8])
    figure, axes = plt.subplots(1, len(encoders), figsize=(PAGE, 1.1 + PAGE / len(encoders)), squeeze=False)
    for ax, name in zip(axes[0], encoders, strict=True):
        rows = table[table["encoder"] == name]
        others = rows[~rows["class"].isin(classes)]
        ax.plot(others["x"], others["y"], ".", color="0.8", markersize=3, label="other classes")
        for number, (kind, marker) in enumerate(zip(classes, "osD^v<>P", strict=False)):
            part = rows[rows["class"] == kind]
            ax.plot(part["x"], part["y"], marker, color=f"C{number}", markersize=3.5, label=f"class {kind}")
        share, chance = rows[["purity", "chance"]].iloc[0]
        ax.set(xticks=[], yticks=[], xlabel="t-SNE (no unit)", box_aspect=1)
        ax.set_title(f"{name}\n{100 * share:.0f} % (chance {100 * chance:.0f} %)")
    handles = axes[0][0].get_legend_handles_labels()
    title = "in %: how many of a molecule's 10 nearest neighbours are of its class"
    style = {"ncols": 5, "frameon": False, "handletextpad": 0.1, "title_fontsize": 7}
    figure.legend(*handles, loc="outside lower center", title=title, **style)
    return figure


def table(frame: pd.DataFrame) -> Figure:
    """Draw a table of text as in a journal: rules above and below, and below its head.

    Parameters
    ----------
    frame : DataFrame
        Of text.
    """
    head, rows = list(map(str, frame.columns)), [[str(cell) for cell in row] for row in frame.to_numpy()]
    widths = [max(len(row[column]) for row in [head, *rows]) + 2 for column in range(len(head))]
    inches = 0.062 * sum(widths)  # of 7 pt text
    figure, ax = plt.subplots(figsize=(max(COLUMN, inches), 0.17 * (len(rows) + 1) + 0.15))
    ax.axis("off")
    ax.set(xlim=(0, sum(widths)), ylim=(len(rows) + 0.6, -0.6))
    for column, left in enumerate(np.cumsum([0, *widths[:-1]])):
        for y, row in enumerate([head, *rows]):
            ax.text(left, y, row[column], va="center", size=7, weight="bold" if y == 0 else "normal")
    for rule, width in ((-0.5, 0.8), (0.5, 0.5), (len(rows) + 0.5, 0.8)):
        ax.axhline(rule, color="0.2", linewidth=width)
    return figure
