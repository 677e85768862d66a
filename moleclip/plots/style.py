"""One look for all figures: sizes, fonts, the names and colours of models, and the digits of tables."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

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
    "lite": "lite",
    "lite_buried_volume": "lite/domain",
    "pretrained": "pretrained encoder",
    "released": "the authors' encoder",
    "clip": "CLIP encoder",
    "random": "random encoder",
    "imagenet": "ImageNet's weights",
    "random_pretrained": "random, then molecules",
    "imagenet_pretrained": "ImageNet, then molecules",
    "imagenet_10000": "ImageNet, then 10,000 molecules",
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
    "count_forest": "Morgan counts + random forest",
    "tuned_forest": "Morgan counts + tuned forest",
    "gradient_boosting": "Morgan counts + gradient boosting",
    "tanimoto_gp": "Morgan counts + Gaussian process",
    "chemprop": "chemprop's D-MPNN",
    "chemeleon": "chemprop from CheMeleon",
    "mean": "training mean",
}
# Of a cross-validation, which has one encoder.
_BY_METHOD = {
    "finetuned": "finetuned encoder",
    "frozen_linear": "frozen encoder + linear",
    "frozen_pls": "frozen encoder + PLS",
    "frozen_gaussian_process": "frozen encoder + Gaussian process",
    "frozen_svm": "frozen encoder + SVM",
}
# Models as figures and tables call them, and in their order: each encoder, finetuned and then frozen; then the others.
MODEL_NAMES = (
    {
        name: text
        for encoder, title in _ENCODERS.items()
        for name, text in (
            (encoder, title),
            (f"{encoder}_frozen", f"{title.removesuffix(' encoder')}, frozen + linear"),
            (f"{encoder}_frozen_best", f"{title.removesuffix(' encoder')}, frozen + best of five"),
        )
    }
    | _BY_METHOD
    | _OTHERS
)


def set_style() -> None:
    """Use the project's one look: seaborn's ticks, colour-blind safe, sized for a journal column."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", rc=_STYLE)


def in_order(models: Iterable[str]) -> list[str]:
    """Sort models as in `MODEL_NAMES`; unknown ones come last, by name."""
    found = sorted(set(models))
    return sorted(found, key=[*MODEL_NAMES, *found].index)


def look(model: str, models: Sequence[str]) -> dict[str, Any]:
    """Give each encoder among `models` a colour, hollow if it is frozen; models without drawings are grey."""
    if model in _OTHERS:
        return {"color": "0.3"}
    encoders = list(dict.fromkeys(name.partition("_frozen")[0] for name in models if name not in _OTHERS))
    colour = f"C{encoders.index(model.partition('_frozen')[0])}"
    return {"color": colour, "markerfacecolor": "white" if "_frozen" in model else colour}


def with_unit(quantity: str, unit: str) -> str:
    """Label of an axis.

    >>> with_unit("MAE", "eV"), with_unit("ROC-AUC", ""), with_unit("gap (eV)", "eV")
    ('MAE (eV)', 'ROC-AUC', 'gap (eV)')
    """
    return f"{quantity} ({unit})" if unit and not quantity.endswith(f"({unit})") else quantity


def to_better(label: str, higher: bool, vertical: bool = False, wrap: bool = False) -> str:
    r"""Label of an axis of scores, with an arrow to where they are better, on a line of its own with `wrap`.

    >>> ascii(to_better("MAE (eV)", higher=False)), ascii(to_better("ROC-AUC", higher=True))
    ("'MAE (eV), \\u2190 better'", "'ROC-AUC, better \\u2192'")
    """
    arrow = ("\u2190\u2192", "\u2193\u2191")[vertical][higher]
    end = f"better {arrow}" if higher else f"{arrow} better"
    return f"{label}\n{end}" if wrap else f"{label}, {end}"


def decimals(values: Any, digits: int = 3) -> int:
    """Decimals that give a typical one of these numbers three digits, or another number of them.

    >>> decimals([0.0138, 0.0102]), decimals([12.1, 9.5, float("nan")]), decimals([]), decimals(0.12, digits=2)
    (4, 1, 2, 2)
    """
    known = np.abs(np.asarray(values, float)).ravel()
    known = known[np.isfinite(known)]
    typical = (float(np.median(known)) if len(known) else 0.0) or 1.0
    return max(0, digits - 1 - int(np.floor(np.log10(typical))))


def count(number: int, noun: str) -> str:
    """Say how many there are.

    >>> count(1, "run"), count(5, "run")
    ('1 run', '5 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_digits(frame: pd.DataFrame) -> Styler:
    """Show a table's numbers with the same decimals in a column, `decimals`; each set has a unit of its own."""
    text = frame.astype(object).where(frame.notna(), "")
    found = next((name for name in ("set", "dataset") if name in [*frame.columns, *frame.index.names]), None)
    sets = frame.reset_index()[found].to_numpy() if found else np.full(len(frame), "")
    for place, column in enumerate(frame.columns):
        values = frame.iloc[:, place]
        for name in dict.fromkeys(sets) if values.dtype.kind == "f" else ():
            rows = (sets == name) & values.notna().to_numpy()
            form = "g" if column == "head_lr" else f".{decimals(values[rows])}f"
            text.iloc[rows, place] = [f"{value:{form}}" for value in values[rows]]
    return text.style


def letters(axes: Iterable[Axes], title_lines: int = 1) -> None:
    """Call the panels of a figure a, b, ..., if there are several, beside the first line of their titles."""
    panels = list(axes)
    look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "weight": "bold", "size": 9}
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", panels if len(panels) > 1 else (), strict=False):
        ax.annotate(letter, (0, 1), (-14, 11 * title_lines - 6), ha="right", va="bottom", annotation_clip=False, **look)


def panels(
    lines: Sequence[int], margin: float, line: float, title_lines: int = 1, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Make a panel for each number of lines, two a row at most; `margin` and `line` are their heights in inches."""
    columns = min(2, len(lines))
    rows = [max(lines[start : start + columns]) for start in range(0, len(lines), columns)]
    size = (PAGE / 2 * columns, margin * len(rows) + line * sum(rows))
    ratios = {"height_ratios": [row + 1 for row in rows]}
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, gridspec_kw=ratios, **shared)
    for ax in axes.flat[len(lines) :]:
        ax.axis("off")
    letters(axes.flat[: len(lines)], title_lines)
    return figure, list(axes.flat[: len(lines)])


def caption(figure: Figure, text: str) -> Figure:
    """Write a sentence below a figure, if there is one."""
    if text:
        lines = textwrap.wrap(text, int(18 * figure.get_figwidth()))
        figure.supxlabel("\n".join([*lines, ""]), size=7, color="0.3")  # the last line is for the record's footer
    return figure


def table(frame: pd.DataFrame) -> Figure:
    """Draw a table of text as in a journal: rules above and below, and below its head."""
    head, rows = list(map(str, frame.columns)), [[str(value) for value in row] for row in frame.to_numpy()]
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
