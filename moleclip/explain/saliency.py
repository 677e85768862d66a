"""Which atoms an encoder looks at: integrated gradients, and two tests of whether to believe them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import drawing, metrics
from moleclip.encoder import Encoder, embed_drawings

Array = NDArray[np.float64]
Target = Callable[[Tensor], Tensor]  # of embeddings [B, D]: what is explained, [B]
BLANK = 255
STEPS = 16
MOST_STEPS = 256
TOLERANCE = 0.005  # of what attributions add up to, as a share of the sum of their absolute values
STAGES = 11  # of a deletion, from the whole drawing to the blank one
BATCH = 32
ORDERS = ("attribution", "ink", "random")
# No darker than a drawing over it allows.
COLOURS = colors.LinearSegmentedColormap.from_list("", ["#6a51a3", "#b2abd2", "#f7f7f7", "#fdb863", "#e66101"])


class Explanation(NamedTuple):
    """What the parts of a drawing add to a number, from the blank drawing on.

    Attributes
    ----------
    smiles : str
    image : ndarray of uint8, shape [H, W, 3]
    positions : ndarray of float64, shape [atoms, 2]
        x and y of the atoms in the drawing, pixels.
    target : callable
        What is explained, a function of embeddings.
    value, blank : float
        Of the drawing, and of the blank one.
    pixels : ndarray of float64, shape [H, W]
        Attributions; their sum is value - blank, but for the error of the quadrature.
    """

    smiles: str
    image: drawing.Image
    positions: Array
    target: Target
    value: float
    blank: float
    pixels: Array

    @property
    def owners(self) -> NDArray[np.int64]:
        """Atom that each pixel belongs to, the nearest one; shape [H, W]."""
        rows, columns = np.indices(self.pixels.shape)
        centres = np.stack([columns, rows], axis=-1) + 0.5
        return np.asarray(KDTree(self.positions).query(centres)[1], np.int64)

    @property
    def atoms(self) -> Array:
        """Attribution of each atom, the sum over its pixels; shape [atoms]."""
        return _sums(self.owners, self.pixels, len(self.positions))

    @property
    def ink(self) -> Array:
        """How much is drawn at each atom, in black pixels; shape [atoms]."""
        return _sums(self.owners, 1 - self.image.mean(axis=2) / BLANK, len(self.positions))


def _sums(owners: NDArray[np.int64], values: Array, atoms: int) -> Array:
    return np.asarray(np.bincount(owners.ravel(), values.ravel(), atoms), np.float64)


def likeness(own: Tensor) -> Target:
    """Explain an embedding [D] by the cosine to it: what makes the drawing look like itself, to an encoder as it is."""
    return lambda embeddings: F.cosine_similarity(embeddings, own[None], dim=1)


def prediction(head: nn.Module, column: int = 0) -> Callable[[Tensor], Target]:
    """Explain one output of a head; logits, where it is a classification."""

    def target(embeddings: Tensor) -> Tensor:
        outputs: Tensor = head(embeddings)
        return outputs[:, column]

    return lambda own: target


def explain(
    encoder: Encoder,
    smiles: Sequence[str],
    target: Callable[[Tensor], Target] = likeness,
    steps: int = STEPS,
) -> list[Explanation]:
    """Explain what an encoder, or a head on it, makes of molecules, from their plain drawings.

    Parameters
    ----------
    encoder : Encoder
    target : callable
        Gives what to explain for the embedding [D] of a drawing: `likeness`, or a `prediction`.
    steps : int
        As of `integrated_gradients`, to begin with: doubled until the attributions add up, within `TOLERANCE`.

    Raises
    ------
    ValueError
        A molecule cannot be drawn.

    Examples
    --------
    >>> from moleclip import encoder
    >>> found = explain(encoder.load("small/random"), ["CCO"])[0]
    >>> found.atoms.shape, bool(abs(found.atoms.sum() - (found.value - found.blank)) < 1e-3)
    ((3,), True)
    """
    encoder.eval()
    size, found = encoder.preprocess.size, []
    for text in smiles:
        prepared = drawing.prepare(text)
        image = drawing.draw(prepared, size=size)
        function = target(embed_drawings(encoder, image[None])[0])
        value, blank = evaluate(encoder, function, np.stack([image, np.full_like(image, BLANK)]))
        pixels = _complete(encoder, function, image, value - blank, steps)
        positions = drawing.atom_positions(prepared, size=size)
        found.append(Explanation(text, image, positions, function, value, blank, pixels))
    return found


def _complete(encoder: Encoder, target: Target, image: drawing.Image, change: float, steps: int) -> Array:
    """Take as many steps as the attributions need to add up: finetuned heads turn sharply on the way."""
    while True:
        pixels = integrated_gradients(encoder, target, image, steps)
        if abs(pixels.sum() - change) <= TOLERANCE * np.abs(pixels).sum() or 2 * steps > MOST_STEPS:
            return pixels
        steps *= 2


def integrated_gradients(encoder: Encoder, target: Target, image: drawing.Image, steps: int = STEPS) -> Array:
    """Attribute a number to the pixels of a drawing (Sundararajan et al., ICML 2017): integrated gradients.

    The gradient is taken along the straight line from the blank drawing to this one, in the tower's normalised input,
    and integrated by Gauss and Legendre's rule, which needs far fewer steps than a sum over equal ones.

    Parameters
    ----------
    image : ndarray of uint8, shape [H, W, 3]
    steps : int
        Points at which the gradient is taken.

    Returns
    -------
    ndarray of float64, shape [H, W]
        Summed over colours. Of a white pixel it is 0: nothing changes there.
    """
    weight = next(encoder.visual.parameters())
    ends = torch.from_numpy(np.stack([np.full_like(image, BLANK), image])).to(weight.device)
    blank, whole = encoder.preprocess(ends).to(weight.dtype)
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(whole, dtype=torch.float64)
    for part in np.array_split(np.arange(steps), -(-steps // BATCH)):
        along = torch.from_numpy((nodes[part] + 1) / 2).to(whole)[:, None, None, None]
        points = (blank + along * (whole - blank)).requires_grad_()
        (gradients,) = torch.autograd.grad(target(encoder.visual(points)).sum(), points)
        total += torch.einsum("b,bchw->chw", torch.from_numpy(shares[part] / 2).to(total), gradients.double())
    return np.asarray((total * (whole - blank).double()).sum(dim=0).cpu().numpy(), np.float64)


@torch.no_grad()
def evaluate(encoder: Encoder, target: Target, images: NDArray[np.uint8]) -> list[float]:
    """Compute the number that is explained for drawings [N, H, W, 3]."""
    return [float(value) for value in target(embed_drawings(encoder, images)).double().cpu()]


def patch_side(encoder: Encoder) -> int:
    """Side of a tower's patches, pixels; of a network without patches, of the cells of its last feature map."""
    return int(encoder.tower.vision.get("patch_size", 32))


def patches(pixels: Array, side: int) -> Array:
    """Sum attributions over the patches that a tower sees.

    Parameters
    ----------
    pixels : ndarray of float64, shape [H, W]
    side : int
        Of a patch, pixels.

    Examples
    --------
    >>> patches(np.ones((4, 4)), 2)
    array([[4., 4.], [4., 4.]])
    """
    rows = np.add.reduceat(pixels, range(0, pixels.shape[0], side), axis=0)
    return np.asarray(np.add.reduceat(rows, range(0, pixels.shape[1], side), axis=1), np.float64)


def deletion(
    encoder: Encoder, found: Sequence[Explanation], rng: np.random.Generator, repeats: int = 5, stages: int = STAGES
) -> pd.DataFrame:
    """Whiten the atoms of drawings one after another, and follow the number that was explained.

    If attributions tell what the encoder looks at, it changes sooner when the atoms with the largest ones go first
    than in a random order. Large labels go early in that order too, so that a third one is by the amount of ink alone.

    Parameters
    ----------
    found : sequence of Explanation
    rng : numpy Generator
        Of the random orders.
    repeats : int
        Random orders per molecule, over which the change is averaged.
    stages : int
        At equal shares of the atoms, from none to all.

    Returns
    -------
    DataFrame
        molecule (position), order ("attribution", "ink" or "random"), deleted (share of the atoms), change (of the
        number, absolute).
    """
    shares, parts = np.linspace(0, 1, stages), []
    for number, one in enumerate(found):
        owners, atoms = one.owners, len(one.positions)
        orders = [np.argsort(-np.abs(one.atoms), kind="stable"), np.argsort(-one.ink, kind="stable")]
        orders += [rng.permutation(atoms) for _ in range(repeats)]
        counts = np.round(shares * atoms).astype(int)
        images = np.concatenate([_deleted(one.image, owners, order, counts) for order in orders])
        values = np.array(evaluate(encoder, one.target, images)).reshape(len(orders), stages)
        changes = np.abs(values - values[:, :1])
        curves = [changes[0], changes[1], changes[2:].mean(axis=0)]
        for order, curve in zip(ORDERS, curves, strict=True):
            parts.append(pd.DataFrame({"molecule": number, "order": order, "deleted": shares, "change": curve}))
    return pd.concat(parts, ignore_index=True)


def _deleted(
    image: drawing.Image, owners: NDArray[np.int64], order: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Copy a drawing without the first atoms of an order, for each of these counts."""
    rank = np.argsort(order)[owners]  # of each pixel's atom
    gone = rank[None] < counts[:, None, None]
    return np.where(gone[..., None], np.uint8(BLANK), image)


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Area under each molecule's deletion curve, one column per order: the mean change over the stages."""
    table = curves.pivot_table(index="deleted", columns=["molecule", "order"], values="change")
    under = np.trapezoid(table, table.index, axis=0)
    rows = table.columns.to_frame(index=False).assign(area=under)
    return rows.pivot_table(index="molecule", columns="order", values="area")[list(ORDERS)]


def randomised(encoder: Encoder, seed: int, head: nn.Module | None = None) -> tuple[Encoder, nn.Module | None]:
    """Make a tower of the same architecture and preprocessing with random weights, and a head likewise."""
    here = next(encoder.visual.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh, top = Encoder(encoder.tower, encoder.preprocess).to(here).eval(), copy.deepcopy(head)
        for layer in top.modules() if top is not None else ():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return fresh, top


def agreement(first: Sequence[Explanation], second: Sequence[Explanation]) -> Array:
    """Spearman's correlation of the absolute attributions of atoms, for each molecule; NaN where all are equal.

    Weights that have learnt nothing must not give the same explanations (Adebayo et al., NeurIPS 2018).
    """
    pairs = [(np.abs(one.atoms), np.abs(other.atoms)) for one, other in zip(first, second, strict=True)]
    return _ranks(pairs)


def _ranks(pairs: Sequence[tuple[Array, Array]]) -> Array:
    ranked = (spearmanr(*pair).statistic if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs)
    return np.array(list(ranked), np.float64)


class Trial(NamedTuple):
    """Explanations of one encoder and what the two tests make of them."""

    found: list[Explanation]
    curves: pd.DataFrame
    agreements: pd.DataFrame


def trial(
    encoder: Encoder,
    smiles: Sequence[str],
    seed: int,
    head: nn.Module | None = None,
    column: int = 0,
    steps: int = STEPS,
    repeats: int = 5,
) -> Trial:
    """Explain molecules and test the explanations: by deletion, and against random weights.

    Parameters
    ----------
    encoder : Encoder
    seed : int
        Of the random orders and weights.
    head : Module, optional
        What to explain is its output in `column`; without one, the likeness to the drawing's own embedding.
    steps, repeats : int
        As of `integrated_gradients` and `deletion`.

    Returns
    -------
    Trial
        The columns of agreements, a row per molecule: "random weights" (with those of a tower, and head, of random
        weights), "two random" (between two of these: what architecture and drawing alone give) and "ink".
    """

    def explained(tower: Encoder, top: nn.Module | None) -> list[Explanation]:
        return explain(tower, smiles, likeness if top is None else prediction(top, column), steps)

    found = explained(encoder, head)
    random = [explained(*randomised(encoder, number, head)) for number in (seed + 1, seed + 2)]
    curves = deletion(encoder, found, np.random.default_rng(seed), repeats)
    columns = {
        "random weights": agreement(found, random[0]),
        "two random": agreement(*random),
        "ink": _ranks([(np.abs(one.atoms), one.ink) for one in found]),
    }
    return Trial(found, curves, pd.DataFrame(columns))


def verdicts(trials: Mapping[str, Trial]) -> pd.DataFrame:
    """Put both tests in numbers, one row per encoder and measure.

    Returns
    -------
    DataFrame
        encoder, measure, mean, low, high (95 % t-interval over molecules), p (of a paired t-test, where two are
        compared), molecules.
    """
    rows = []
    for name, one in trials.items():
        area = areas(one.curves)
        for other in ORDERS[1:]:
            found = metrics.paired(list(area["attribution"]), list(area[other]))
            row = {"measure": f"deletion area, attribution - {other}", "molecules": len(area)}
            rows.append({"encoder": name, **row, **found._asdict()})
        for other in ORDERS:
            row = {"measure": f"deletion area, {other}", "molecules": len(area)}
            rows.append({"encoder": name, **row, **metrics.mean_ci(list(area[other]))._asdict()})
        for measure, values in one.agreements.items():
            known = values.dropna()
            row = {"measure": f"rank correlation, {measure}", "molecules": len(known)}
            rows.append({"encoder": name, **row, **metrics.mean_ci(list(known))._asdict()})
        gaps = [abs(found.pixels.sum() / (found.value - found.blank) - 1) for found in one.found]
        measure = "attributions miss, of the change (mean)"
        rows.append({"encoder": name, "measure": measure, "molecules": len(gaps), "mean": np.mean(gaps)})
    table = pd.DataFrame(rows)
    table["mean"] = table["mean"].fillna(table.pop("difference"))
    return table[["encoder", "measure", "mean", "low", "high", "p", "molecules"]]


def figure(found: Mapping[str, Sequence[Explanation]], sides: Mapping[str, int], width: float) -> Figure:
    """Draw molecules (columns), with patches and atoms in the colour of what they add: two rows per encoder.

    Parameters
    ----------
    found : mapping of str to sequence of Explanation
        The same molecules for each encoder.
    sides : mapping of str to int
        Side of each encoder's patches, pixels.
    width : float
        Inches.
    """
    columns = len(next(iter(found.values())))
    top, bottom = _rows([one for explanations in found.values() for one in explanations])
    height = 2 * len(found) * ((width - 0.4) / columns * (bottom - top) + 0.12) + 0.6
    drawn, axes = plt.subplots(2 * len(found), columns, figsize=(width, height), squeeze=False)
    for row, (name, explanations) in enumerate(found.items()):
        for column, one in enumerate(explanations):
            above, below = axes[2 * row : 2 * row + 2, column]
            _show_patches(above, one, sides[name])
            _show_atoms(below, one)
            above.set_title(f"{one.value:.3g} (blank {one.blank:.3g})", size=7, pad=2)
        for ax, kind in zip(axes[2 * row : 2 * row + 2, 0], ("patches", "atoms"), strict=True):
            ax.set_ylabel(f"{name}\n{kind}", size=7)
    for ax in axes.flat:
        side = ax.get_ylim()[0]
        ax.set(xticks=[], yticks=[], ylim=(side * bottom, side * top))
        ax.spines[:].set(visible=True, color="0.8", linewidth=0.5)
    scale = plt.cm.ScalarMappable(colors.Normalize(-1, 1), COLOURS)
    bar = drawn.colorbar(scale, ax=axes, location="bottom", shrink=0.4, aspect=40, pad=0.02, ticks=[-1, 0, 1])
    bar.ax.set_xticklabels(["takes away", "0", "adds most"])
    return drawn


def _rows(found: Sequence[Explanation]) -> tuple[float, float]:
    """Top and bottom of what is drawn in any of these drawings, with a margin, as shares of their height."""
    places = np.concatenate([one.positions[:, 1] / len(one.image) for one in found])
    return max(0.0, float(places.min()) - 0.08), min(1.0, float(places.max()) + 0.08)


def _show_patches(ax: Axes, one: Explanation, side: int) -> None:
    values = patches(one.pixels, side)
    height, width = one.pixels.shape
    # The last patches may reach over the edge.
    extent = (0, side * values.shape[1], side * values.shape[0], 0)
    ax.imshow(values / (np.abs(values).max() or 1), COLOURS, vmin=-1, vmax=1, extent=extent)
    _show_drawing(ax, one)
    ax.set(xlim=(0, width), ylim=(height, 0))


def _show_atoms(ax: Axes, one: Explanation) -> None:
    height, width = one.pixels.shape
    gaps = KDTree(one.positions).query(one.positions, k=min(2, len(one.positions)))[0]
    radius = 0.55 * np.median(gaps.reshape(len(gaps), -1)[:, -1]) or width / 8
    values = one.atoms / (np.abs(one.atoms).max() or 1)
    for place, value in zip(one.positions, values, strict=True):
        ax.add_patch(Circle(tuple(place), radius, color=COLOURS((value + 1) / 2), linewidth=0, zorder=0))
    _show_drawing(ax, one)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")


def _show_drawing(ax: Axes, one: Explanation) -> None:
    """Lay the drawing over what is there, as transparent as it is white."""
    ink = 1 - one.image.min(axis=2) / BLANK
    layer = np.dstack([np.zeros((*ink.shape, 3)), ink])
    ax.imshow(layer, extent=(0, ink.shape[1], ink.shape[0], 0))


def trial_figure(trials: Mapping[str, Trial], width: float) -> Figure:
    """Draw both tests: deletion curves, one panel per encoder, and rank correlations with other explanations."""
    drawn, axes = plt.subplots(1, len(trials) + 1, figsize=(width, 2.9), width_ratios=[1] * len(trials) + [1.1])
    for ax, (name, one) in zip(axes, trials.items(), strict=False):
        for order, line in zip(ORDERS, ("C0-", "C1--", "C2:"), strict=True):
            rows = one.curves[one.curves["order"] == order]
            table = rows.pivot_table(index="deleted", columns="molecule", values="change")
            intervals = np.array([metrics.mean_ci(list(row)) for row in table.to_numpy()])
            ax.plot(table.index, intervals[:, 0], line, label=order)
            ax.fill_between(table.index, *intervals[:, 1:].T, color=line[:2], alpha=0.12, linewidth=0)
        ax.set(xlabel="atoms whitened (share)", title=name, xlim=(0, 1), ylim=(0, None))
    axes[0].set_ylabel("change of what is explained")
    _show_agreements(axes[-1], trials)
    style: dict[str, Any] = {"ncols": 3, "frameon": False, "title_fontsize": 7}
    orders, encoders = (axes[number].get_legend_handles_labels() for number in (0, -1))
    drawn.legend(*orders, loc="outside upper left", title="whitened first, by", **style)
    drawn.legend(*encoders, loc="outside upper right", title="encoder", **style)
    return drawn


def _show_agreements(ax: Axes, trials: Mapping[str, Trial]) -> None:
    names = [str(name) for name in next(iter(trials.values())).agreements]
    for number, (name, one) in enumerate(trials.items()):
        shift = 0.2 * (number - (len(trials) - 1) / 2)
        intervals = np.array([metrics.mean_ci(list(one.agreements[column].dropna())) for column in names])
        bars = np.abs(intervals[:, 1:] - intervals[:, :1]).T
        style: dict[str, Any] = {"fmt": "oD^sv"[number % 5], "markersize": 4, "capsize": 2, "color": f"C{number + 3}"}
        ax.errorbar(intervals[:, 0], np.arange(len(names)) + shift, xerr=np.nan_to_num(bars), label=name, **style)
    ax.axvline(0, color="0.6", linewidth=0.8)
    labels = {"random weights": "with random\nweights", "two random": "between two\nrandom", "ink": "with ink"}
    ax.set(yticks=range(len(names)), yticklabels=[labels[name] for name in names], ylim=(len(names) - 0.5, -0.5))
    ax.set(xlabel="rank correlation", title="agreement on atoms")
