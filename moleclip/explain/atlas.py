"""Maps of the latent space to look at: a figure, and a page part whose points show their molecules."""

import base64
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib import colormaps, colors
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from moleclip import clustering, datasets, drawing
from moleclip.apply.featurizer import MoleCLIPPredictor
from moleclip.io import seeds

PROPERTY = colormaps["viridis"]
SHOWN = 8  # clusters that stand out
SIDE = 200  # of a small drawing, pixels
PLOT, MARGIN, PANEL = 420, 12, 230  # of the page part, pixels


class Atlas(NamedTuple):
    """Molecules with what they are coloured by.

    Attributes
    ----------
    smiles : list of str, length N
    clusters : ndarray of int64, shape [N]
    labels : ndarray of float64, shape [N]
        NaN where unknown.
    name, unit : str
        Of the label.
    """

    smiles: list[str]
    clusters: NDArray[np.int64]
    labels: NDArray[np.float64]
    name: str
    unit: str = ""

    @property
    def title(self) -> str:
        """Name and unit of the label."""
        return f"{self.name.replace('_', ' ')} ({self.unit})" if self.unit else self.name.replace("_", " ")

    @property
    def scale(self) -> colors.Normalize:
        """Colours of labels: the most extreme 2 % at either end share one."""
        low, high = np.nanquantile(self.labels, [0.02, 0.98])
        return colors.Normalize(low, high, clip=True)


def choose(p: Any, predictor: MoleCLIPPredictor | None = None) -> Atlas:
    """Choose molecules of a set, and cluster them by their MACCS keys.

    Of a finetuned encoder, only its test molecules: near those that it was trained on, it knows the labels.

    Raises
    ------
    ValueError
        The set has no such label, or the model was finetuned on another set or label; what is there is named.
    """
    dataset = datasets.read_csv(p.dataset) if p.dataset.endswith(".csv") else datasets.load(p.dataset)
    label = p.label or next(iter(dataset.label_names), "")
    if label not in dataset.label_names:
        raise ValueError(f"{p.dataset}: has no label {label!r}; it has {', '.join(dataset.label_names) or 'none'}")
    if predictor is None:
        table = datasets.readable(dataset, p.sample, p.seed)
    else:
        known = predictor.molecules
        if predictor.card["dataset"] != dataset.name or label not in predictor.label_names:
            of = f"{predictor.card['dataset']} ({', '.join(predictor.label_names)})"
            raise ValueError(f"{p.model}: was finetuned on {of}, not on {dataset.name} ({label})")
        tested = known[known["part"] == "test"]
        table = tested.iloc[seeds.sample(len(tested), p.sample, p.seed)]
    table = table.drop_duplicates("canonical_smiles")
    smiles = list(table["smiles"])
    clusters, _ = clustering.kmeans(clustering.maccs(smiles), p.clusters, p.seed)
    return Atlas(smiles, clusters, table[label].to_numpy(np.float64), label, dataset.unit)


def figure(
    atlas: Atlas, places: Mapping[str, NDArray[np.float32]], measures: pd.DataFrame, width: float, method: str = "t-SNE"
) -> Figure:
    """Draw molecules in the plane, one column per encoder: above in the colours of clusters, below of their label.

    Parameters
    ----------
    atlas : Atlas
    places : mapping of str to ndarray, shape [N, 2]
        By encoder.
    measures : DataFrame
        From `latent.neighbours`.
    width : float
        Inches, at most.
    """
    columns = len(places)
    panel = min((width - 1.3) / columns, 2.4)
    size = (panel * columns + 1.3, 2 * panel + 1.35)
    drawn, axes = plt.subplots(2, columns, figsize=size, squeeze=False)
    lines = measures.set_index("encoder").to_dict("index")
    for (above, below), (name, place) in zip(axes.T, places.items(), strict=True):
        numbers = lines[name]
        _clusters(above, atlas, place)
        known = ~np.isnan(atlas.labels)
        below.plot(*place[~known].T, ".", color="0.8", markersize=3)
        style = {"c": atlas.labels[known], "cmap": PROPERTY, "norm": atlas.scale, "s": 7, "linewidth": 0}
        points = below.scatter(*place[known].T, **style)
        above.set_title(f"{name}\n{_percent(numbers['purity'])} (chance {_percent(numbers['purity_chance'])})")
        below.set_title(f"{numbers['difference']:.3g} (chance {numbers['difference_chance']:.3g})")
        below.set_xlabel(f"{method} (no unit)")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], box_aspect=1)
    axes[0][0].set_ylabel("cluster; of neighbours\nin the same one", size=7)
    axes[1][0].set_ylabel("label; difference\nto neighbours", size=7)
    drawn.colorbar(points, ax=axes[1], label=atlas.title, shrink=0.9, aspect=25)
    handles = axes[0][0].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=5, frameon=False, handletextpad=0.1)
    return drawn


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _largest(clusters: NDArray[np.int64]) -> list[int]:
    """Largest clusters, those that stand out."""
    return sorted(int(cluster) for cluster in pd.Series(clusters).value_counts().index[:SHOWN])


def _clusters(ax: Axes, atlas: Atlas, place: NDArray[np.float32]) -> None:
    shown = _largest(atlas.clusters)
    others = ~np.isin(atlas.clusters, shown)
    if others.any():
        ax.plot(*place[others].T, ".", color="0.8", markersize=3, label="others")
    for number, (kind, marker) in enumerate(zip(shown, "osD^v<>P", strict=False)):
        points = place[atlas.clusters == kind]
        ax.plot(*points.T, marker, color=f"C{number}", markersize=3, markeredgewidth=0, label=f"cluster {kind}")


def hover(atlas: Atlas, place: NDArray[np.float32], columns: Mapping[str, Sequence[object]] | None = None) -> HTML:
    """Draw a map whose points show their molecule when the pointer, or the keyboard's focus, is on them.

    Pure SVG and CSS with the drawings inside: it works in JupyterLab (a notebook that came from elsewhere, once it is
    trusted) and on a static page, without scripts and without network. About 3 kB a molecule: meant for a few hundred.

    Parameters
    ----------
    atlas : Atlas
        Points have the colour of their label.
    place : ndarray of float32, shape [N, 2]
    columns : mapping of str to sequence of length N, optional
        Further values to be shown, by name.
    """
    low, high = place.min(axis=0), place.max(axis=0)
    points = MARGIN + (place - low) / np.maximum(high - low, 1e-9) * (PLOT - 2 * MARGIN)
    hues = ["#bbb" if np.isnan(label) else colors.to_hex(PROPERTY(atlas.scale(label))) for label in atlas.labels]
    further = {name: list(values) for name, values in (columns or {}).items()}
    marks = []
    for number, (text, (x, y), hue) in enumerate(zip(atlas.smiles, points, hues, strict=True)):
        label = "unknown" if np.isnan(atlas.labels[number]) else f"{atlas.labels[number]:.3g}"
        values = {atlas.title: label, "cluster": atlas.clusters[number]}
        values |= {name: column[number] for name, column in further.items()}
        lines = [text, *(f"{name}: {value}" for name, value in values.items())]
        marks.append(_mark(x, PLOT - y, hue, _small_png(text), lines))
    body = "\n".join(marks)
    # Its rules must not reach another map on the same page.
    own = f"atlas-{hashlib.sha256(body.encode()).hexdigest()[:10]}"
    width = PLOT + PANEL
    style = (
        f".{own} .shown {{visibility: hidden; pointer-events: none}} "
        f".{own} g:hover > .shown, .{own} g:focus > .shown {{visibility: visible}} "
        f".{own} g:hover > circle, .{own} g:focus > circle {{stroke: #d00; stroke-width: 2.5}} "
        f".{own} g:focus {{outline: none}} .{own} text {{font: 11px sans-serif; fill: #222}}"
    )
    return HTML(  # type: ignore[no-untyped-call]
        f"<style>{style}</style>\n"
        f'<svg class="{own}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {PLOT}" '
        f'style="max-width: {width}px; width: 100%; background: #fff">\n'
        f'<rect x="0.5" y="0.5" width="{PLOT - 1}" height="{PLOT - 1}" fill="none" stroke="#ccc"/>\n'
        f'<text x="{PLOT + 15}" y="20">Point at a molecule.</text>\n{body}\n{_legend(atlas)}\n</svg>'
    )


def _mark(x: float, y: float, hue: str, png: str, lines: list[str]) -> str:
    """Write a point, and beside the map, where nothing lies over it, what it shows."""
    left = PLOT + 15
    texts = [line for text in lines for line in _wrapped(text)]
    spans = "".join(f'<tspan x="{left}" dy="14">{html.escape(line)}</tspan>' for line in texts)
    return (
        f'<g tabindex="0"><circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{hue}" fill-opacity="0.85"/>'
        f'<g class="shown"><rect x="{PLOT + 5}" y="2" width="{PANEL - 10}" height="{PLOT - 60}" fill="#fff"/>'
        f'<image x="{left}" y="8" width="{SIDE}" height="{SIDE}" href="data:image/png;base64,{png}"/>'
        f'<text y="{SIDE + 18}">{spans}</text></g></g>'
    )


def _wrapped(text: str, characters: int = 32, lines: int = 4) -> list[str]:
    parts = [text[start : start + characters] for start in range(0, len(text), characters)]
    return parts if len(parts) <= lines else [*parts[: lines - 1], "..."]


def _small_png(smiles: str) -> str:
    """Small drawing in few colours, as base64: 2 kB."""
    buffer = io.BytesIO()
    Image.fromarray(drawing.draw(smiles, size=SIDE)).quantize(12).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _legend(atlas: Atlas) -> str:
    """Colours of the label, as a bar with its ends."""
    left, top, width = PLOT + 15, PLOT - 40, PANEL - 30
    steps = 20
    bars = "".join(
        f'<rect x="{left + step * width / steps:.1f}" y="{top}" width="{width / steps + 0.5:.1f}" height="10" '
        f'fill="{colors.to_hex(PROPERTY(step / (steps - 1)))}"/>'
        for step in range(steps)
    )
    low, high = atlas.scale.vmin, atlas.scale.vmax
    return (
        f'<text x="{left}" y="{top - 5}">{html.escape(atlas.title)}</text>{bars}'
        f'<text x="{left}" y="{top + 23}">{low:.3g}</text>'
        f'<text x="{left + width}" y="{top + 23}" text-anchor="end">{high:.3g}</text>'
    )
