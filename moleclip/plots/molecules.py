"""Molecules in figures: their drawings, the sizes of sets, and maps of a latent space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from moleclip import augmentation
from moleclip.drawing import PLAIN, Style, draw, prepare, random_style
from moleclip.plots.explanations import classes
from moleclip.plots.style import COLUMN, PAGE, letters


def gallery(molecules: Sequence[str], seed: int) -> Figure:
    """Draw molecules (rows) in every style and with every image augmentation (columns)."""
    rng = np.random.default_rng(seed)
    styles = {"plain": PLAIN} | {f"randomised {number}": random_style(rng) for number in (1, 2, 3)}
    styles["R-groups"] = Style(r_groups=True)
    levels = [level for level in augmentation.LEVELS if level != "none"]
    titles = [*styles, *(f"plain,\n{level}" for level in levels), f"randomised 1,\n{levels[0]}"]
    size = (PAGE, PAGE / len(titles) * len(molecules) + 0.4)
    figure, axes = plt.subplots(len(molecules), len(titles), figsize=size, squeeze=False)
    for row, smiles in zip(axes, molecules, strict=True):
        prepared = prepare(smiles)
        drawings = [draw(prepared, style) for style in styles.values()]
        augmented = [augmentation.augment(drawings[0], level, rng) for level in levels]
        augmented.append(augmentation.augment(drawings[1], levels[0], rng))
        for ax, drawing in zip(row, drawings + augmented, strict=True):
            ax.imshow(drawing)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color="0.8", linewidth=0.5)
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


def maps(table: pd.DataFrame) -> Figure:
    """Draw molecules in the plane, one panel per encoder; the most frequent structural classes stand out.

    Parameters
    ----------
    table : DataFrame
        From `explain.maps.table`.
    """
    encoders = list(table.groupby("encoder", sort=False))
    figure, axes = plt.subplots(1, len(encoders), figsize=(PAGE, 1.1 + PAGE / len(encoders)), squeeze=False)
    for ax, (name, rows) in zip(axes[0], encoders, strict=True):
        classes(ax, rows[["x", "y"]].to_numpy(), rows["class"].to_numpy())
        agreement, chance = rows[["agreement", "chance"]].iloc[0]
        ax.set(xticks=[], yticks=[], xlabel="t-SNE (no unit)", box_aspect=1)
        ax.set_title(f"{name}\n{100 * agreement:.0f} % (chance {100 * chance:.0f} %)")
    letters(axes[0])
    handles = axes[0][0].get_legend_handles_labels()
    title = "in %: how many of a molecule's 10 nearest neighbours are of its class"
    style = {"ncols": 5, "frameon": False, "handletextpad": 0.1, "title_fontsize": 7}
    figure.legend(*handles, loc="outside lower center", title=title, **style)
    return figure
