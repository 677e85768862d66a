"""What an encoder has learnt, drawn: maps of molecules, one of them to point at, and attributions on drawings."""

import base64
import hashlib
import html
import io
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib import cm, colormaps, colors
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.spatial import KDTree
from scipy.stats import spearmanr

from moleclip import drawing, metrics, molecules
from moleclip.plots.style import COLUMN, PAGE, letters

SHOWN = 8  # classes that stand out
MARKERS = "osD^v<>P"
ASPECT = 0.7  # height by width of a panel with attributions
SIDE = 200  # of a small drawing, pixels
PLOT, MARGIN, PANEL = 420, 12, 230  # of the map to point at, pixels


def classes(ax: Axes, places: NDArray[np.float32], kinds: NDArray[np.int64], name: str = "class") -> None:
    """Draw molecules in the plane; the most frequent classes stand out by colour and marker.

    Parameters
    ----------
    places : ndarray of float32, shape [N, 2]
    kinds : ndarray of int64, shape [N]
        Class of each molecule.
    name : str
        What the legend calls a class.
    """
    shown = sorted(pd.Series(kinds).value_counts().index[:SHOWN])
    others = ~np.isin(kinds, shown)
    ax.plot(*places[others].T, ".", color="0.8", markersize=3, label="others" if others.any() else None)
    for number, kind in enumerate(shown):
        style: dict[str, Any] = {"color": f"C{number}", "markersize": 3, "markeredgewidth": 0}
        ax.plot(*places[kinds == kind].T, MARKERS[number], label=f"{name} {kind}", **style)


def label_colours(labels: NDArray[np.float64]) -> cm.ScalarMappable:
    """Colours of numeric labels: the most extreme 2 % at either end have the same one, unknown ones are grey."""
    low, high = np.nanquantile(labels, [0.02, 0.98])
    return cm.ScalarMappable(colors.Normalize(low, high, clip=True), colormaps["viridis"].with_extremes(bad="0.75"))


def attribution_colours() -> cm.ScalarMappable:
    """Colours of attributions from -1 to 1, no darker than a drawing over them allows."""
    hues = colormaps["PuOr_r"](np.linspace(0.18, 0.82, 256))
    return cm.ScalarMappable(colors.Normalize(-1, 1), colors.ListedColormap(hues))


def attributions(
    axes: Sequence[Axes],
    image: drawing.Image,
    patches: NDArray[np.float64],
    side: int,
    atoms: NDArray[np.float64],
    positions: NDArray[np.float64],
) -> None:
    """Draw a molecule twice: over the attributions of patches, and over those of atoms.

    Parameters
    ----------
    axes : two Axes
    image : ndarray of uint8, shape [H, W, 3]
    patches : ndarray of float64
        As of `saliency.Explanation.patches`.
    side : int
        Of a patch, pixels.
    atoms : ndarray of float64, shape [atoms]
    positions : ndarray of float64, shape [atoms, 2]
        x and y of the atoms, pixels.
    """
    height, width = image.shape[:2]
    over_patches, over_atoms = (attribution_colours().to_rgba(x / (np.abs(x).max() or 1)) for x in (patches, atoms))
    # The last patches may reach over the edge.
    axes[0].imshow(over_patches, extent=(0, side * patches.shape[1], side * patches.shape[0], 0))
    gaps = KDTree(positions).query(positions, k=min(2, len(positions)))[0]
    radius = 0.55 * np.median(gaps.reshape(len(gaps), -1)[:, -1]) or width / 8
    for place, hue in zip(positions, over_atoms, strict=True):
        axes[1].add_patch(Circle(tuple(place), radius, color=hue, linewidth=0, zorder=0))
    # The drawing lies over them, as transparent as it is white; less is shown of what is blank above and below it.
    ink = 1 - image.min(axis=2) / 255
    low, high = positions[:, 1].min(), positions[:, 1].max()
    half = max(ASPECT * height, high - low + 0.16 * height) / 2
    for ax in axes:
        ax.imshow(np.dstack([np.zeros((*ink.shape, 3)), ink]), extent=(0, width, height, 0))
        ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=((low + high) / 2 + half, (low + high) / 2 - half))
        ax.set_aspect("equal")
        ax.spines[:].set(visible=True, color="0.8", linewidth=0.5)


def saliency_maps(found: Mapping[str, Sequence[Any]], sides: Mapping[str, int], shown: int) -> Figure:
    """Draw attributions to patches and to atoms, a pair of rows for each encoder, a column for each molecule.

    Parameters
    ----------
    found : mapping of str to sequence of Attribution
        From `saliency.trial`, by the name of the encoder.
    sides : mapping of str to int
        Side of a patch of each encoder, pixels.
    shown : int
        Molecules.
    """
    columns = min(shown, *(len(some) for some in found.values()))
    size = (PAGE, 2 * len(found) * (ASPECT * PAGE / columns + 0.1) + 0.6)
    figure, axes = plt.subplots(2 * len(found), columns, figsize=size, squeeze=False)
    for pair, (name, some) in zip(axes.reshape(-1, 2, columns), found.items(), strict=True):
        for ax, one in zip(pair.T, some, strict=False):
            attributions(ax, one.image, one.patches(sides[name]), sides[name], one.atoms, one.positions)
            ax[0].set_title(f"{one.value:.3g} (blank {one.blank:.3g})", size=7, pad=2)
        for ax, kind in zip(pair[:, 0], ("patches", "atoms"), strict=True):
            ax.set_ylabel(f"{name}\n{kind}", size=7)
    bar = figure.colorbar(attribution_colours(), ax=axes, location="bottom", shrink=0.4, aspect=40, pad=0.02)
    bar.set_ticks([-1, 0, 1], labels=["takes away", "0", "adds most"])
    return figure


def gradients(found: Mapping[str, Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]]]) -> Figure:
    """Draw the results of `saliency.plain_gradients`, a row for each encoder; darker patches have larger ones."""
    columns = max(map(len, found.values()))
    size = (PAGE, PAGE / columns * len(found))
    figure, axes = plt.subplots(len(found), columns, figsize=size, squeeze=False)
    for row, (name, pairs) in zip(axes, found.items(), strict=True):
        for ax, (image, patches) in zip(row, pairs, strict=True):
            side, reach = len(image), 16 * len(patches)
            ax.imshow(image)
            ax.imshow(patches, cmap="magma_r", alpha=0.6, extent=(0, reach, reach, 0))
            ax.set(xticks=[], yticks=[], xlim=(0, side), ylim=(side, 0))
        row[0].set_ylabel(name)
    return figure


def errors_by_size(smiles: Sequence[str], errors: NDArray[np.float64], label: str) -> Figure:
    """Draw errors of a prediction against the number of heavy atoms (paper, limitations)."""
    atoms = [molecules.parse(text).GetNumHeavyAtoms() for text in smiles]
    figure, ax = plt.subplots(figsize=(COLUMN, 2.4))
    ax.plot(atoms, errors, "o", markersize=3, alpha=0.5)
    ax.set(xlabel="heavy atoms", ylabel=label, ylim=(0, None))
    ax.set_title(f"rank correlation {spearmanr(atoms, errors).statistic:.2f}")
    return figure


def points(hues: int) -> dict[str, Any]:
    """Style of `seaborn.pointplot` for so many hues: each has a marker, none are joined."""
    style = {"linestyle": "none", "markersize": 4, "capsize": 0.1, "err_kws": {"linewidth": 1}}
    # Of a single hue, seaborn cannot dodge.
    return {**style, "dodge": hues > 1 and 0.4, "markers": list(itertools.islice(itertools.cycle("oD^sv"), hues))}


def moved(moves: Mapping[str, pd.DataFrame], panels: Mapping[str, tuple[str, float]]) -> Figure:
    """Draw how far changes of the drawing move each encoder, one panel per quantity of `robustness.moves`.

    Parameters
    ----------
    moves : mapping of str to DataFrame
        By the name of the encoder.
    panels : mapping of str to (str, float)
        By quantity, the text of the axis and where a line is drawn.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 4), sharey=True)
    table = pd.concat(moves, names=["encoder"]).reset_index()
    for ax, (quantity, (text, line)) in zip(axes, panels.items(), strict=True):
        bars: Any = ("pi", 90) if quantity == "distance" else None
        sns.pointplot(table, x=quantity, y="change", hue="encoder", errorbar=bars, ax=ax, **points(len(moves)))
        ax.axvline(line, color="0.6", linewidth=0.8, zorder=0)
        ax.set(xlabel=text, ylabel="", xlim=(0, None))
        ax.grid(axis="y", color="0.93")
        ax.get_legend().remove()
    letters(axes)
    for ax in axes[:2]:
        ax.xaxis.set_major_formatter("{x:.0%}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def saliency_tests(tests: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Draw both tests of saliency: deletion curves, one panel per encoder, and rank correlations of explanations.

    Parameters
    ----------
    tests : mapping of str to two DataFrames
        By encoder, `curves` and `agreements` of `saliency.trial`.
    """
    count = len(tests)
    figure, axes = plt.subplots(1, count + 1, figsize=(PAGE, 2.9), width_ratios=[1] * count + [1.1])
    for ax, (name, (curves, _)) in zip(axes, tests.items(), strict=False):
        sns.lineplot(curves, x="deleted", y="change", hue="order", style="order", errorbar=_interval, ax=ax)
        ax.set(xlabel="atoms whitened", ylabel="", title=name, xlim=(0, 1), ylim=(0, None))
        ax.xaxis.set_major_formatter("{x:.0%}")
    axes[0].set_ylabel("change of the number explained")
    table = pd.concat({name: agreements for name, (_, agreements) in tests.items()}, names=["encoder"]).reset_index(0)
    table = table.melt("encoder", var_name="with", value_name="correlation")
    style: dict[str, Any] = points(count) | {"palette": [f"C{3 + number}" for number in range(count)]}
    sns.pointplot(table, x="correlation", y="with", hue="encoder", errorbar=_interval, ax=axes[-1], **style)
    axes[-1].axvline(0, color="0.6", linewidth=0.8)
    axes[-1].set(xlabel="rank correlation", ylabel="", title="agreement on atoms")
    legend: dict[str, Any] = {"title_fontsize": 7, "ncols": 3, "frameon": False}
    lines, marks = (axes[number].get_legend_handles_labels() for number in (0, -1))
    figure.legend(*lines, loc="outside upper left", title="whitened first, by", **legend)
    figure.legend(*marks, loc="outside upper right", title="encoder", **legend)
    for ax in axes:
        ax.get_legend().remove()
    letters(axes)
    return figure


def _interval(values: Iterable[float]) -> tuple[float, float]:
    return metrics.mean_ci(list(values))[1:]


def hover(smiles: Sequence[str], places: NDArray[np.float32], values: Mapping[str, ArrayLike]) -> HTML:
    """Draw a map whose points show their molecule when the pointer, or the keyboard's focus, is on them.

    Pure SVG and CSS with the drawings inside: it works in JupyterLab (a notebook that came from elsewhere, once it is
    trusted) and on a static page, without scripts and without network. About 3 kB a molecule: meant for a few hundred.

    Parameters
    ----------
    smiles : list of str, length N
    places : ndarray of float32, shape [N, 2]
    values : mapping of str to array, length N
        To be shown with the molecules, by name. The first one, numbers, gives the colours.
    """
    columns = {name: np.asarray(column) for name, column in values.items()}
    title, labels = next(iter(columns.items()))
    scale = label_colours(labels)
    low, high = places.min(axis=0), places.max(axis=0)
    points = MARGIN + (places - low) / np.maximum(high - low, 1e-9) * (PLOT - 2 * MARGIN)
    marks = []
    for number, (text, (x, y), hue) in enumerate(zip(smiles, points, scale.to_rgba(labels), strict=True)):
        lines = [text, *(f"{name}: {_text(column[number])}" for name, column in columns.items())]
        marks.append(_mark(x, PLOT - y, colors.to_hex(hue), text, lines))
    body = "\n".join([*marks, _legend(title, scale)])
    # Its rules must not reach another map on the same page.
    name = f"map-{hashlib.sha256(body.encode()).hexdigest()[:10]}"
    width = PLOT + PANEL
    style = (
        f".{name} .shown {{visibility: hidden; pointer-events: none}} "
        f".{name} g:hover > .shown, .{name} g:focus > .shown {{visibility: visible}} "
        f".{name} g:hover > circle, .{name} g:focus > circle {{stroke: #d00; stroke-width: 2.5}} "
        f".{name} g:focus {{outline: none}} .{name} text {{font: 11px sans-serif; fill: #222}}"
    )
    return HTML(  # type: ignore[no-untyped-call]
        f"<style>{style}</style>\n"
        f'<svg class="{name}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {PLOT}" '
        f'style="max-width: {width}px; width: 100%; background: #fff">\n'
        f'<rect x="0.5" y="0.5" width="{PLOT - 1}" height="{PLOT - 1}" fill="none" stroke="#ccc"/>\n'
        f'<text x="{PLOT + 15}" y="20">Point at a molecule.</text>\n{body}\n</svg>'
    )


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "unknown" if np.isnan(value) else f"{value:.3g}"


def _mark(x: float, y: float, hue: str, smiles: str, lines: list[str]) -> str:
    """Write a point and what it shows, to the right of the map, where nothing lies over it."""
    buffer, left = io.BytesIO(), PLOT + 15
    # Few colours: 2 kB.
    Image.fromarray(drawing.draw(smiles, size=SIDE)).quantize(12).save(buffer, "png", optimize=True)
    wrapped = [part for line in lines for part in textwrap.wrap(line, 32, max_lines=4, placeholder="...")]
    spans = "".join(f'<tspan x="{left}" dy="14">{html.escape(part)}</tspan>' for part in wrapped)
    png = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<g tabindex="0"><circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{hue}" fill-opacity="0.85"/>'
        f'<g class="shown"><rect x="{PLOT + 5}" y="2" width="{PANEL - 10}" height="{PLOT - 60}" fill="#fff"/>'
        f'<image x="{left}" y="8" width="{SIDE}" height="{SIDE}" href="data:image/png;base64,{png}"/>'
        f'<text y="{SIDE + 18}">{spans}</text></g></g>'
    )


def _legend(title: str, scale: cm.ScalarMappable) -> str:
    """Colours of the label, as a bar with its ends."""
    left, y, step = PLOT + 15, PLOT - 40, (PANEL - 30) / 20
    (low, high), hues = scale.get_clim(), scale.cmap(np.linspace(0, 1, 20))
    bars = "".join(
        f'<rect x="{left + n * step:.1f}" y="{y}" width="{step + 0.5:.1f}" height="10" fill="{colors.to_hex(hue)}"/>'
        for n, hue in enumerate(hues)
    )
    return (
        f'<text x="{left}" y="{y - 5}">{html.escape(title)}</text>{bars}<text x="{left}" y="{y + 23}">{low:.3g}</text>'
        f'<text x="{left + 20 * step}" y="{y + 23}" text-anchor="end">{high:.3g}</text>'
    )
