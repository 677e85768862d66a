"""Predict the properties of molecules with finetuned encoders, and how far to trust each prediction."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rdkit import DataStructs
from rdkit.Chem import rdFingerprintGenerator
from torch import Tensor

from moleclip import drawing, encoder, molecules
from moleclip.apply import readers
from moleclip.apply.inference import Computation, report
from moleclip.apply.readers import Item
from moleclip.finetune import FinetunedEncoder
from moleclip.io import files, seeds
from moleclip.io.seeds import Stream

MOLECULES = "molecules.parquet"  # what models were trained on, beside their card
VIEWS = 8  # drawings over which the spread of a prediction is taken


class MoleCLIPPredictor:
    """Predict with what a finetuning job has kept, and show how much repeats and redrawn molecules differ.

    Parameters
    ----------
    model : str or Path
        Folder of a finetuning job that ran with `keep_models` (notebook 04).
    views : int
        Randomised drawings (`drawing.random_style`) of each molecule, besides the plain one; 0 for none. The same ones
        for every molecule.
    batch_size, device, n_jobs, invalid, cache, verbose
        As of `MoleCLIPFeaturizer`.

    Attributes
    ----------
    models : list of FinetunedEncoder, length R
        One per repeat of the training.
    label_names : tuple of str, length T
    task, metric, unit, drawing : str
    molecules : DataFrame
        What it was finetuned on: smiles, part ("train", "val" or "test"), and one column per label.

    Raises
    ------
    FileNotFoundError
        The folder holds no models.
    ValueError
        They are damaged.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        views: int = VIEWS,
        batch_size: int = 64,
        device: str | None = None,
        n_jobs: int | None = None,
        invalid: Literal["warn", "raise"] = "warn",
        cache: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        if batch_size < 1 or views < 0:
            raise ValueError(f"batch_size={batch_size}, views={views}: expected at least 1, and 0")
        self.views, self.batch_size, self.n_jobs = views, batch_size, n_jobs
        self.device, self.invalid, self.verbose = encoder.device(device), invalid, verbose
        self.cache = Path(cache) if cache else None
        folder, self.card = _card(Path(model))
        self.task, self.metric, self.unit = (str(self.card[name]) for name in ("task", "metric", "unit"))
        self.label_names = tuple(self.card["label_names"])
        if files.sha256(folder / MOLECULES) != self.card["molecules"]:
            raise ValueError(f"{folder / MOLECULES}: not the file that {encoder.CARD} describes; the folder is damaged")
        self.molecules = pd.read_parquet(folder / MOLECULES)
        self.models = [FinetunedEncoder.load(folder / name) for name in self.card["models"]]
        self.drawing = self.models[0].drawing
        for model in self.models:
            model.network_.to(self.device)

    def predict(self, X: Any) -> pd.DataFrame:  # noqa: N803
        """Predict the properties of molecules.

        Parameters
        ----------
        X
            As of `MoleCLIPFeaturizer.transform`.

        Returns
        -------
        DataFrame, length N
            In the order of X, NaN where a molecule cannot be read: molecule; problem, which says why not ("" where it
            can); and for each label the prediction from the plain drawing (mean over repeats, in the unit of the label,
            or the probability of class 1) under the label's name, its standard deviations `<label>_sd_repeats` over
            the repeats (NaN for a single one) and `<label>_sd_views` over the randomised drawings. Then nearest, the
            molecule of those it was trained on with the highest Tanimoto similarity of Morgan fingerprints (radius 2,
            2048 bits), and similarity: far from all of them, a prediction is a guess, whatever its spread. Pictures
            have neither.
        """
        items = readers.items(X)
        return pd.concat(self.tables(items, len(items)), ignore_index=True)

    def tables(self, items: Iterable[Item], total: int | None = None) -> Iterator[pd.DataFrame]:
        """Predict for any number of molecules, block by block, into tables as of `predict`."""
        start, shape = 0, (len(self.models), 1 + self.views, len(self.label_names))
        for block, values, reasons in self._computation().blocks(items, total):
            report(block, reasons, self.invalid, start)
            start += len(block)
            table = pd.DataFrame({"molecule": [readers.name(item) for item in block], "problem": reasons})
            table = pd.concat([table, self._spread(values.reshape(-1, *shape).astype(np.float64))], axis=1)
            nearest = [self._nearest(item, reason) for item, reason in zip(block, reasons, strict=True)]
            yield table.assign(
                nearest=[smiles for smiles, _ in nearest], similarity=[similarity for _, similarity in nearest]
            )

    def _computation(self) -> Computation:
        plain = drawing.drawing_style(self.drawing)
        generators = [seeds.generator(Stream.REDRAWN, 0, view) for view in range(self.views)]
        redrawn = [dataclasses.replace(drawing.random_style(rng), r_groups=plain.r_groups) for rng in generators]
        return Computation(
            self._outputs,
            len(self.models) * (1 + self.views) * len(self.label_names),
            [plain, *redrawn],
            self.models[0].image_encoder.preprocess.size,
            self.batch_size,
            self.n_jobs,
            self.cache,
            {"model": self.card["models"]},
            self.verbose,
        )

    def _outputs(self, images: NDArray[np.uint8]) -> Tensor:
        """Predict by all repeats from all drawings, [B, R * styles * T]."""
        styles = range(images.shape[1])
        values = [model.predict_drawings(images[:, style]) for model in self.models for style in styles]
        return torch.from_numpy(np.concatenate(values, axis=1)).float()

    def _spread(self, outputs: NDArray[np.float64]) -> pd.DataFrame:
        """Mean and spread of outputs [B, R, styles, T], by label."""
        plain, redrawn = outputs[:, :, 0], outputs[:, :, 1:].mean(axis=1)
        columns = {}
        for number, label in enumerate(self.label_names):
            columns[label] = plain[:, :, number].mean(axis=1)
            columns[f"{label}_sd_repeats"] = _sd(plain[:, :, number])
            columns[f"{label}_sd_views"] = _sd(redrawn[:, :, number])
        return pd.DataFrame(columns)

    def _nearest(self, item: Item, reason: str) -> tuple[str, float]:
        molecule = None if reason else readers.molecule(item)
        if molecule is None:
            return "", np.nan
        smiles, fingerprints = self._trained_on
        similarities = DataStructs.BulkTanimotoSimilarity(_fingerprint(molecule), fingerprints)
        best = int(np.argmax(similarities))
        return smiles[best], similarities[best]

    @cached_property
    def _trained_on(self) -> tuple[list[str], list[Any]]:
        smiles = list(self.molecules.loc[self.molecules["part"] == "train", "smiles"])
        return smiles, [_fingerprint(molecules.parse(text)) for text in smiles]


def _card(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and card of the models of a finetuning job."""
    for place in (folder / "model", folder):
        if (place / encoder.CARD).is_file() and (place / MOLECULES).is_file():
            return place, json.loads((place / encoder.CARD).read_text())
    raise FileNotFoundError(
        f"{folder}: holds no finetuned models; notebook 04 keeps those of a job, in a folder 'model' below its "
        "own, with `keep_models`"
    )


def _sd(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the standard deviations of rows; NaN for rows of less than two."""
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)


def _fingerprint(molecule: Any) -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(molecule)
