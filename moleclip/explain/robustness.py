"""What moves an encoder: how far embeddings and predictions move when a molecule is drawn in another way."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from rdkit import Chem
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from sklearn.metrics.pairwise import cosine_distances
from torch import Tensor

from moleclip import drawing, molecules
from moleclip.drawing import PLAIN, Image
from moleclip.encoder import Encoder, embed_drawings

Change = Callable[[str, int], Image]  # of SMILES and the side of the tower's images
Predict = Callable[[Tensor], Tensor]  # of embeddings [B, D]: predictions [B], in the unit of the label
# Drawings are at one place for an encoder if their cosines differ by no more than rounding.
TIE = 1e-6


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
        if molecules.chiral(isomer):
            found.append(isomer)
    return found


def _styled(**values: object) -> Change:
    style = dataclasses.replace(PLAIN, **values)  # type: ignore[arg-type]
    return lambda smiles, size: drawing.draw(smiles, style, size)


def _resized(factor: float) -> Change:
    """Draw at another size, and resize to the tower's as any picture is."""
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    return lambda smiles, size: np.asarray(
        cv2.resize(drawing.draw(smiles, size=round(factor * size)), (size, size), interpolation=method), np.uint8
    )


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
    ENANTIOMER: lambda smiles, size: drawing.draw(molecules.mirror(smiles), size=size),
}


def moves(
    encoder: Encoder, smiles: Sequence[str], handed: Sequence[str] | None = None, predict: Predict | None = None
) -> pd.DataFrame:
    """Measure how far each change of the drawing moves each molecule.

    Parameters
    ----------
    encoder : Encoder
    smiles : sequence of str
        Different molecules, at least two.
    handed : sequence of str, optional
        Molecules for the swap of enantiomers, which needs at least two; by default those of `smiles` that are chiral.
    predict : callable, optional
        From embeddings to predictions in the unit of the label, such as `saliency.readout`.

    Returns
    -------
    DataFrame
        change; smiles; distance (cosine, between changed and plain drawing, as a fraction of the mean distance
        between different molecules); retrieved (whether the nearest plain drawing is of the same molecule); shift
        (absolute change of the prediction; NaN without `predict`). A molecule whose drawing does not change has no row.

    Raises
    ------
    ValueError
        There are less than two molecules, or one that cannot be drawn.
    """
    if len(set(smiles)) < 2:
        raise ValueError(f"{len(set(smiles))} molecules: distances between different ones need at least 2")
    encoder.eval()
    handed = [text for text in smiles if molecules.chiral(text)] if handed is None else handed
    changes = {name: change for name, change in CHANGES.items() if name != ENANTIOMER}
    parts = _moved(encoder, smiles, changes, predict)
    if len(handed) > 1:
        parts += _moved(encoder, handed, {ENANTIOMER: CHANGES[ENANTIOMER]}, predict)
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def _moved(
    encoder: Encoder, smiles: Sequence[str], changes: Mapping[str, Change], predict: Predict | None
) -> list[pd.DataFrame]:
    size, parts = encoder.preprocess.size, []
    images = np.stack([drawing.draw(text, size=size) for text in smiles])
    plain = embed_drawings(encoder, images)
    vectors = plain.double().cpu().numpy()
    mean = cosine_distances(vectors)[~np.eye(len(vectors), dtype=bool)].mean()
    for name, change in changes.items():
        redrawn = np.stack([change(text, size) for text in smiles])
        rows = np.flatnonzero((redrawn != images).any(axis=(1, 2, 3)))
        if not len(rows):
            continue
        changed = embed_drawings(encoder, redrawn[rows])
        distances = cosine_distances(changed.double().cpu().numpy(), vectors)
        moved = distances[np.arange(len(rows)), rows]
        shift = predict(changed) - predict(plain[rows]) if predict else None
        columns = {
            "change": name,
            "smiles": np.array(smiles)[rows],
            "distance": moved / mean,
            "retrieved": moved <= distances.min(axis=1) + TIE,
            "shift": np.nan if shift is None else shift.abs().double().cpu().numpy(),
        }
        parts.append(pd.DataFrame(columns))
    return parts


def card(table: pd.DataFrame) -> pd.DataFrame:
    """Sum up over molecules what `moves` found for an encoder, one row per change.

    Returns
    -------
    DataFrame
        change; molecules (whose drawing is another one for it); distance (mean over molecules); low, high (5th and
        95th percentile of the distance); retrieved (fraction of the molecules); shift (mean over molecules). A change
        that changes no drawing has a row of NaN with 0 molecules.
    """
    changes = table.groupby("change")
    columns = {
        "molecules": changes.size(),
        "distance": changes["distance"].mean(),
        "low": changes["distance"].quantile(0.05),
        "high": changes["distance"].quantile(0.95),
        "retrieved": changes["retrieved"].mean(),
        "shift": changes["shift"].mean(),
    }
    found = pd.DataFrame(columns).reindex(pd.Index(CHANGES, name="change")).reset_index()
    return found.fillna({"molecules": 0}).astype({"molecules": int})
