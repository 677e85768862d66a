"""A card of robustness: how far embeddings and predictions move when a molecule is drawn in another way."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import drawing, gridsearch, molecules
from moleclip.drawing import PLAIN, Image
from moleclip.encoder import Encoder, embed_drawings

Change = Callable[[str, int], Image]  # of SMILES and the side of the tower's images
Predict = Callable[[Tensor], Tensor]  # of embeddings [B, D]: predictions [B], in the unit of the label
# Drawings are at one place for an encoder if their cosines differ by no more than rounding.
TIE = 1e-6


def readout(head: nn.Module, column: int = 0, task: str = "regression") -> Predict:
    """Prediction of a finetuned head: in the unit of the label, or the probability of class 1."""

    def predict(embeddings: Tensor) -> Tensor:
        outputs: Tensor = head(embeddings)[:, column]
        return torch.sigmoid(outputs) if task == "classification" else outputs

    return predict


def _styled(**values: object) -> Change:
    style = dataclasses.replace(PLAIN, **values)  # type: ignore[arg-type]
    return lambda smiles, size: drawing.draw(smiles, style, size)


def _resized(factor: float) -> Change:
    """Draw at another size, and resize to the tower's."""
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR

    def change(smiles: str, size: int) -> Image:
        image = drawing.draw(smiles, size=round(factor * size))
        return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)

    return change


def mirror(smiles: str) -> Chem.Mol:
    """Mirror a molecule: every tetrahedral centre is inverted.

    Its layout stays, as the order of the atoms does; only wedges change.

    Raises
    ------
    ValueError
        It is its own mirror image, as far as its configuration is known.

    Examples
    --------
    >>> Chem.MolToSmiles(mirror("C[C@H](N)C(=O)O"))
    'C[C@@H](N)C(=O)O'
    """
    molecule = molecules.parse(smiles)
    other = Chem.Mol(molecule)
    for atom in other.GetAtoms():
        atom.InvertChirality()
    if Chem.MolToSmiles(other) == Chem.MolToSmiles(molecule):
        raise ValueError(f"{smiles}: is its own mirror image, or no stereocentre has a configuration")
    return other


def chiral(smiles: str) -> bool:
    """Whether a molecule has a mirror image that is another one, by the configuration that is known of it."""
    try:
        mirror(smiles)
    except ValueError:
        return False
    return True


def configured(smiles: Iterable[str], count: int, rng: np.random.Generator) -> list[str]:
    """Take chiral molecules, in their order; centres of unknown configuration get one at random.

    Parameters
    ----------
    smiles : iterable of str
        Those that cannot be read are passed over.
    count : int
        At most so many are returned.
    rng : numpy Generator

    Examples
    --------
    >>> configured(["CCO", "CC(N)C(=O)O"], 2, np.random.default_rng(0))
    ['C[C@H](N)C(=O)O']
    """
    found: list[str] = []
    for text in smiles:
        if len(found) == count:
            break
        try:
            molecule = molecules.parse(text)
        except ValueError:
            continue
        options = StereoEnumerationOptions(maxIsomers=1, rand=int(rng.integers(2**31)))
        isomer = Chem.MolToSmiles(next(iter(EnumerateStereoisomers(molecule, options))))
        if chiral(isomer):
            found.append(isomer)
    return found


ENANTIOMER = "other enantiomer"
CHANGES: dict[str, Change] = {
    "font: serif": _styled(font="DejaVuSerif"),
    "font: bold mono": _styled(font="DejaVuSansMono-Bold"),
    "lines: 1 pixel": _styled(bond_width=1),
    "lines: 4 pixels": _styled(bond_width=4),
    "rotated by 15 degrees": _styled(rotation=15.0),
    "rotated by 90 degrees": _styled(rotation=90.0),
    "rotated by 180 degrees": _styled(rotation=180.0),
    "drawn at twice the size": _resized(2),
    "drawn at half the size": _resized(0.5),
    "R-groups": _styled(r_groups=True),
    ENANTIOMER: lambda smiles, size: drawing.draw(mirror(smiles), size=size),
}


def card(
    encoder: Encoder, smiles: Sequence[str], handed: Sequence[str] | None = None, predict: Predict | None = None
) -> pd.DataFrame:
    """Measure how far each change of the drawing moves molecules.

    Parameters
    ----------
    encoder : Encoder
    smiles : sequence of str
        Different molecules, at least two.
    handed : sequence of str, optional
        Molecules for the swap of enantiomers; by default those of `smiles` that are chiral.
    predict : callable, optional
        From embeddings to predictions in the unit of the label.

    Returns
    -------
    DataFrame
        change; molecules (whose drawing is another one for it); distance (cosine, between changed and plain drawing,
        mean over molecules, as a share of the mean distance between different molecules); low, high (the 5th and
        95th percentile of that share); own (share of the changed drawings whose nearest plain drawing is their own);
        shift (mean absolute change of the prediction; NaN without `predict`). A change that changes no drawing has
        a row of NaN with 0 molecules.

    Raises
    ------
    ValueError
        There are less than two molecules, or one that cannot be drawn.
    """
    if len(set(smiles)) < 2:
        raise ValueError(f"{len(set(smiles))} molecules: distances between different ones need at least 2")
    encoder.eval()
    handed = [text for text in smiles if chiral(text)] if handed is None else handed
    plain, rows = _Plain.of(encoder, smiles), []
    for name, change in CHANGES.items():
        among = plain if name != ENANTIOMER else _Plain.of(encoder, handed) if len(handed) > 1 else None
        rows.append({"change": name, **(_Plain.moved(among, encoder, change, predict) if among else _NOTHING)})
    return pd.DataFrame(rows)


_NOTHING = {"molecules": 0, **dict.fromkeys(("distance", "low", "high", "own", "shift"), np.nan)}


@dataclasses.dataclass(frozen=True)
class _Plain:
    """Plain drawings of molecules and their embeddings."""

    smiles: list[str]
    images: NDArray[np.uint8]
    embeddings: Tensor

    @classmethod
    def of(cls, encoder: Encoder, smiles: Sequence[str]) -> "_Plain":
        images = np.stack([drawing.draw(text, size=encoder.preprocess.size) for text in smiles])
        return cls(list(smiles), images, embed_drawings(encoder, images))

    def moved(self, encoder: Encoder, change: Change, predict: Predict | None) -> dict[str, float]:
        """Row of the card for one change."""
        images = np.stack([change(text, encoder.preprocess.size) for text in self.smiles])
        rows = np.flatnonzero((images != self.images).any(axis=(1, 2, 3)))
        if not len(rows):
            return _NOTHING
        changed = embed_drawings(encoder, images[rows])
        alike = _cosines(changed, self.embeddings)
        own = alike[np.arange(len(rows)), rows]
        between = 1 - _cosines(self.embeddings, self.embeddings)
        shares = (1 - own) / between[~np.eye(len(between), dtype=bool)].mean()
        return {
            "molecules": len(rows),
            "distance": shares.mean(),
            "low": np.quantile(shares, 0.05),
            "high": np.quantile(shares, 0.95),
            "own": (own >= alike.max(axis=1) - TIE).mean(),
            "shift": _shift(predict, changed, self.embeddings[rows]) if predict else np.nan,
        }


def _cosines(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    one, other = (F.normalize(embeddings.double(), dim=1) for embeddings in (first, second))
    return np.asarray((one @ other.T).cpu().numpy())


@torch.no_grad()
def _shift(predict: Predict, changed: Tensor, plain: Tensor) -> float:
    return float((predict(changed) - predict(plain)).abs().double().mean())


def held_out_error(job: str | Path, label: str) -> float:
    """Mean absolute error of a finetuning job's encoder on its test molecules, of the mean over repeats.

    Parameters
    ----------
    job : str or Path
        Folder of the job.
    label : str
        Name of the label column.
    """
    scores, predictions = (pd.read_parquet(Path(job) / f"{name}.parquet") for name in ("scores", "predictions"))
    trained = scores.loc[scores["encoder"] == json.loads((Path(job) / "model" / "config.json").read_text())["name"]]
    means = gridsearch.mean_predictions(predictions, trained)
    rows = means[(means["part"] == "test") & (means["target"] == label)]
    return float((rows["prediction"] - rows["label"]).abs().mean())


def figure(cards: pd.DataFrame, width: float, unit: str = "", error: float | None = None) -> Figure:
    """Draw the cards of encoders: how far, whether still found, and how far predictions move.

    Parameters
    ----------
    cards : DataFrame
        Of `card`, with the column encoder.
    width : float
        Inches.
    unit : str
        Of the prediction.
    error : float, optional
        Test error of the model, for scale.
    """
    changes, encoders = list(dict.fromkeys(cards["change"])), list(dict.fromkeys(cards["encoder"]))
    predicted = cards["shift"].notna().any()
    ratios = [1.3, 1, 1][: 2 + predicted]
    drawn, axes = plt.subplots(
        *(1, len(ratios)), figsize=(width, 1.2 + 0.26 * len(changes)), sharey=True, width_ratios=ratios
    )
    for number, name in enumerate(encoders):
        rows = cards[cards["encoder"] == name]
        y = [changes.index(change) + 0.22 * (number - (len(encoders) - 1) / 2) for change in rows["change"]]
        style: dict[str, Any] = {"fmt": "oD^sv"[number % 5], "color": f"C{number}", "markersize": 4, "label": name}
        bars = np.array([rows["distance"] - rows["low"], rows["high"] - rows["distance"]]).clip(0)
        axes[0].errorbar(100 * rows["distance"], y, xerr=100 * bars, capsize=2, linewidth=0.8, **style)
        for ax, values in zip(axes[1:], (100 * rows["own"], rows["shift"]), strict=False):
            ax.errorbar(values, y, **style)
    _label(axes, cards, changes, unit, error)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(encoders), frameon=False)
    return drawn


def _label(axes: Sequence[Axes], cards: pd.DataFrame, changes: list[str], unit: str, error: float | None) -> None:
    counts = cards.groupby("change")["molecules"].max()
    names = [f"{change} ({counts[change]})" for change in changes]
    axes[0].set(yticks=range(len(changes)), yticklabels=names, ylim=(len(changes) - 0.5, -0.5))
    axes[0].axvline(100, color="0.6", linewidth=0.8)
    axes[0].set(xlim=(0, None), xlabel="moved by (% of the mean distance\nbetween different molecules)")
    axes[1].set(xlim=(-4, 104), xlabel="nearest plain drawing\nis its own (%)")
    if len(axes) > 2:
        if error is not None:
            axes[2].axvline(error, color="0.6", linewidth=0.8)
            axes[2].set_title("line: test error", size=7, color="0.4")
        axes[2].set(xlim=(0, None), xlabel=f"prediction moves by\n({unit or 'probability'})")
    for ax in axes:
        ax.grid(axis="y", color="0.93", linewidth=0.6)
        ax.set_axisbelow(True)
