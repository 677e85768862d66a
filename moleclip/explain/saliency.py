"""Which atoms an encoder looks at: integrated gradients, and two tests of whether to believe them."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import drawing, metrics
from moleclip.encoder import Encoder, embed_drawings

Array = NDArray[np.float64]
Target = Callable[[Tensor], Tensor]  # of embeddings [B, D]: a number for each, [B]
BLANK = 255
STEPS = 16
MOST_STEPS = 256
TOLERANCE = 0.005  # of what attributions add up to, relative to the sum of their absolute values
STAGES = 11  # of a deletion, from the whole drawing to the blank one
BATCH = 32
ORDERS = ("attribution", "ink", "random")


class Explanation(NamedTuple):
    """What the parts of a drawing add to a number, compared with the blank drawing.

    Attributes
    ----------
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
        return self._by_atom(self.pixels)

    @property
    def ink(self) -> Array:
        """How much is drawn at each atom, in black pixels; shape [atoms]."""
        return self._by_atom(1 - self.image.mean(axis=2) / BLANK)

    def patches(self, side: int) -> Array:
        """Attribution of square patches of so many pixels, the sum over each; the last may reach over the edge."""
        rows = np.add.reduceat(self.pixels, range(0, self.pixels.shape[0], side), axis=0)
        return np.asarray(np.add.reduceat(rows, range(0, self.pixels.shape[1], side), axis=1), np.float64)

    def _by_atom(self, values: Array) -> Array:
        return np.asarray(np.bincount(self.owners.ravel(), values.ravel(), len(self.positions)), np.float64)


def readout(head: nn.Module, column: int = 0, task: str = "regression") -> Target:
    """Read one output of a finetuned head, in the unit of the label; of a classification, the probability of class 1.

    The logits of a classification are had by `task="regression"`: they are what to explain.
    """

    def read(embeddings: Tensor) -> Tensor:
        outputs: Tensor = head(embeddings)[:, column]
        return torch.sigmoid(outputs) if task == "classification" else outputs

    return read


def explain(
    encoder: Encoder, smiles: Sequence[str], target: Target | None = None, steps: int = STEPS
) -> list[Explanation]:
    """Explain what an encoder, or a head on it, makes of molecules, from their plain drawings.

    Parameters
    ----------
    encoder : Encoder
    target : callable, optional
        What to explain, a function of embeddings. By default the cosine to the embedding of the drawing itself: what
        makes the drawing look like itself.
    steps : int
        As of `integrated_gradients`, to begin with: doubled until the attributions add up, within `TOLERANCE`, as
        finetuned heads turn sharply on the way.

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
        itself = embed_drawings(encoder, image[None])
        function = target or functools.partial(F.cosine_similarity, itself)
        value, blank = evaluate(encoder, function, np.stack([image, np.full_like(image, BLANK)]))
        pixels, taken = integrated_gradients(encoder, function, image, steps), steps
        while abs(pixels.sum() - (value - blank)) > TOLERANCE * np.abs(pixels).sum() and 2 * taken <= MOST_STEPS:
            taken *= 2
            pixels = integrated_gradients(encoder, function, image, taken)
        positions = drawing.atom_positions(prepared, size=size)
        found.append(Explanation(image, positions, function, value, blank, pixels))
    return found


def integrated_gradients(encoder: Encoder, target: Target, image: drawing.Image, steps: int = STEPS) -> Array:
    """Attribute a number to the pixels of a drawing by integrated gradients (Sundararajan et al., ICML 2017).

    The gradient is taken along the straight line from the blank drawing to this one, in the tower's normalised input,
    and integrated by the Gauss-Legendre rule, which needs far fewer steps than a sum over equal ones.

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
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(whole, dtype=torch.float64)
    for part in np.array_split(np.arange(steps), -(-steps // BATCH)):
        along = torch.from_numpy((nodes[part] + 1) / 2).to(whole)[:, None, None, None]
        points = (blank + along * (whole - blank)).requires_grad_()
        (gradients,) = torch.autograd.grad(target(encoder.visual(points)).sum(), points)
        total += torch.einsum("b,bchw->chw", torch.from_numpy(weights[part] / 2).to(total), gradients.double())
    return np.asarray((total * (whole - blank).double()).sum(dim=0).cpu().numpy(), np.float64)


def plain_gradient(encoder: Encoder, target: Target, image: drawing.Image, side: int = 16) -> Array:
    """How strongly a number reacts to each patch of a drawing: the saliency maps of the paper's authors.

    They take the gradient of the loss, which is that of the prediction but for its sign and a factor. The gradient says
    how the number would change, and not what it is made of: it does not add up to anything.

    Parameters
    ----------
    encoder : Encoder
    target : callable
        A function of embeddings. The cosine to the drawing itself will not do: it is at its maximum.
    image : ndarray of uint8, shape [H, W, 3]
    side : int
        Of a patch, pixels; 16 in the paper's tower.

    Returns
    -------
    ndarray of float64, shape [H / side, W / side], rounded up
        Mean over the patch of the largest absolute gradient among the three colours.
    """
    encoder.eval()
    weight = next(encoder.visual.parameters())
    planes = encoder.preprocess(torch.from_numpy(image[None]).to(weight.device)).to(weight.dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(target(encoder.visual(planes)).sum(), planes)
    patches = F.avg_pool2d(gradient.abs().amax(dim=1).double(), side, ceil_mode=True)[0]
    return np.asarray(patches.cpu().numpy(), np.float64)


def plain_gradients(
    encoder: Encoder, smiles: Sequence[str], head: nn.Module | None = None, column: int = 0, seed: int = 0
) -> list[tuple[drawing.Image, Array]]:
    """Drawings with their `plain_gradient`: of a head's output, or of the cosine to another drawing of the molecule."""
    found, size = [], encoder.preprocess.size
    for number, text in enumerate(smiles):
        image, style = drawing.draw(text, size=size), drawing.random_style(np.random.default_rng([seed, number]))
        other = embed_drawings(encoder, drawing.draw(text, style, size)[None])
        target = readout(head, column) if head else functools.partial(torch.cosine_similarity, other)
        found.append((image, plain_gradient(encoder, target, image)))
    return found


@torch.no_grad()
def evaluate(encoder: Encoder, target: Target, images: NDArray[np.uint8]) -> list[float]:
    """Compute the number that is explained for drawings [N, H, W, 3]."""
    return [float(value) for value in target(embed_drawings(encoder, images)).double().cpu()]


def deletion(
    encoder: Encoder, found: Sequence[Explanation], rng: np.random.Generator, repeats: int = 5, stages: int = STAGES
) -> pd.DataFrame:
    """Whiten the atoms of drawings one after another, and follow the number that was explained.

    If attributions tell what the encoder looks at, it changes sooner when the atoms with the largest ones go first
    than in a random order. Large labels go early in that order too, hence a third order, by the amount of ink alone.

    Parameters
    ----------
    found : sequence of Explanation
    rng : numpy Generator
        Of the random orders.
    repeats : int
        Random orders per molecule, over which the change is averaged.
    stages : int
        Evenly spaced fractions of the atoms, from none to all.

    Returns
    -------
    DataFrame
        molecule (position), order ("attribution", "ink" or "random"), deleted (fraction of the atoms), change (of the
        number, absolute).
    """
    deleted, parts = np.linspace(0, 1, stages), []
    for number, one in enumerate(found):
        owners, atoms = one.owners, len(one.positions)
        orders = [np.argsort(-np.abs(one.atoms), kind="stable"), np.argsort(-one.ink, kind="stable")]
        orders += [rng.permutation(atoms) for _ in range(repeats)]
        ranks = np.stack([np.argsort(order)[owners] for order in orders])  # of each pixel's atom, [orders, H, W]
        white = ranks[:, None] < np.round(deleted * atoms)[:, None, None]
        images = np.where(white[..., None], np.uint8(BLANK), one.image).reshape(-1, *one.image.shape)
        values = np.reshape(evaluate(encoder, one.target, images), (len(orders), stages))
        changes = np.abs(values - values[:, :1])
        for order, change in zip(ORDERS, [*changes[:2], changes[2:].mean(axis=0)], strict=True):
            parts.append(pd.DataFrame({"molecule": number, "order": order, "deleted": deleted, "change": change}))
    return pd.concat(parts, ignore_index=True)


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Area under each molecule's deletion curve, one column per order: the mean change over the stages."""
    tables = {order: rows.pivot_table("change", "deleted", "molecule") for order, rows in curves.groupby("order")}
    under = {order: np.trapezoid(tables[order], tables[order].index, axis=0) for order in ORDERS}
    return pd.DataFrame(under, tables[ORDERS[0]].columns)


def randomised(encoder: Encoder, seed: int, head: nn.Module | None = None) -> tuple[Encoder, nn.Module | None]:
    """Make a tower of the same architecture and preprocessing with random weights, and a head likewise."""
    device = next(encoder.visual.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower, fresh = Encoder(encoder.tower, encoder.preprocess).to(device).eval(), copy.deepcopy(head)
        for layer in fresh.modules() if fresh is not None else ():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return tower, fresh


def agreement(found: Sequence[Explanation], others: Sequence[Array]) -> Array:
    """Spearman's correlation of absolute attributions with other numbers [atoms] of each molecule; NaN if all equal.

    Weights that have learnt nothing must not give the same explanations (Adebayo et al., NeurIPS 2018).
    """
    pairs = [(np.abs(one.atoms), np.abs(other)) for one, other in zip(found, others, strict=True)]
    return np.array([spearmanr(*pair).statistic if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs])


class Trial(NamedTuple):
    """Explanations of one encoder and the results of the two tests, `deletion` and `agreement`."""

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
        What to explain is its output in `column`; without one, as of `explain`.
    steps, repeats : int
        As of `integrated_gradients` and `deletion`.

    Returns
    -------
    Trial
        The columns of agreements, a row per molecule: "random weights" (with those of a tower, and head, of random
        weights), "two random" (between two of these: what architecture and drawing alone give) and "ink".
    """
    towers = [(encoder, head), randomised(encoder, seed + 1, head), randomised(encoder, seed + 2, head)]
    found, random, another = (
        explain(tower, smiles, readout(layers, column) if layers else None, steps) for tower, layers in towers
    )
    curves = deletion(encoder, found, np.random.default_rng(seed), repeats)
    columns = {
        "random weights": agreement(found, [one.atoms for one in random]),
        "two random": agreement(random, [one.atoms for one in another]),
        "ink": agreement(found, [one.ink for one in found]),
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
    rows: list[tuple[object, ...]] = []
    for name, one in trials.items():
        area = areas(one.curves)
        for other in ORDERS[1:]:
            difference = metrics.paired(list(area["attribution"]), list(area[other]))
            rows.append((name, f"deletion area, attribution - {other}", *difference[:4], len(area)))
        measures = {f"deletion area, {order}": area[order] for order in ORDERS}
        measures |= {f"rank correlation, {other}": values.dropna() for other, values in one.agreements.items()}
        for measure, values in measures.items():
            rows.append((name, measure, *metrics.mean_ci(list(values)), np.nan, len(values)))
        missing = np.mean([abs(found.pixels.sum() / (found.value - found.blank) - 1) for found in one.found])
        rows.append((name, "attributions miss, of the change (mean)", missing, *[np.nan] * 3, len(one.found)))
    return pd.DataFrame(rows, columns=["encoder", "measure", "mean", "low", "high", "p", "molecules"])
