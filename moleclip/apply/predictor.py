"""Predict the properties of molecules with a kept model, and say how far to trust each prediction."""

import dataclasses
import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rdkit import Chem, DataStructs
from torch import Tensor
from tqdm.auto import tqdm

from moleclip import baselines, drawing, encoder, metrics, molecules
from moleclip.apply import readers, training
from moleclip.apply.cross_validation import CrossValidation, Part
from moleclip.apply.inference import BLOCK, Block, Computation, batched, beside_fields, report
from moleclip.apply.readers import Item
from moleclip.apply.training import MOLECULES, TESTED
from moleclip.datasets import Dataset
from moleclip.estimator import Molecules, values_of
from moleclip.finetune import FinetunedEncoder
from moleclip.io import files, seeds
from moleclip.io.molecule_files import Record
from moleclip.io.seeds import Stream
from moleclip.plots.style import decimals

log = logging.getLogger(__name__)

VIEWS = 8  # drawings over which the spread of a prediction is taken

_LEAST_SIMILAR = 0.2  # below, molecules have nothing in common, however diverse those are that were trained on
_COMPARED = 1000  # training molecules of which the similarity to the others is computed


class DomainWarning(Warning):
    """Some molecules are unlike all those that the model was trained on."""


class MoleCLIPPredictor:
    """Predict with a kept model, show how much repeats and redrawn molecules differ, and what is unlike its molecules.

    Parameters
    ----------
    model : str or Path
        Folder that `moleclip.train` (`moleclip train`) wrote, or of a finetuning job that ran with `keep_models`
        (notebook 04).
    views : int
        Randomised drawings (`drawing.random_style`) of each molecule, besides the plain one; 0 for none. The same ones
        for every molecule.
    batch_size, device, n_jobs, invalid, cache, verbose
        As of `MoleCLIPFeaturizer`.

    Attributes
    ----------
    models : list of MoleculeEstimator, length R
        One per repeat of the training, whose mean is the prediction.
    folds : list of MoleculeEstimator
        Those of the cross-validation, for the intervals. Of a finetuned encoder they are `models`.
    label_names : tuple of str, length T
    task, metric, unit, drawing : str
    note : str
        What is to be said with every prediction; "" where the model is surely better than the mean of its labels.
    molecules : DataFrame
        What it was trained on: smiles, part ("train", "val" or "test"), and one column per label.

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
        invalid: Literal["warn", "raise", "ignore"] = "warn",
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
        compared = "method" in self.card  # by `train`; else it is of a finetuning job
        if compared and "tested" not in self.card:
            raise ValueError(f"{folder}: written by an earlier version, without what intervals need; train it again")
        for name in (MOLECULES, TESTED)[: 1 + compared]:
            if files.sha256(folder / name) != self.card[Path(name).stem]:
                raise ValueError(f"{folder / name}: not the file that {encoder.CARD} describes; the folder is damaged")
        self.molecules = pd.read_parquet(folder / MOLECULES)
        self.note = str(self.card.get("note", ""))
        self.models: list[Any] = [FinetunedEncoder.load(folder / name) for name in self.card["models"]]
        self._encoder: encoder.Encoder | None = None
        self._tested = pd.read_parquet(folder / TESTED) if compared else pd.DataFrame()
        self.folds = self.models if compared else []
        if not self.models:
            self._fit(folder)
        self.drawing = getattr(self.models[0], "drawing", "plain")
        for label in self.label_names if self.folds and self.task == "regression" else ():
            if self._interval(label, np.zeros((len(self.folds), 1))) is None:
                count = self.molecules[label].notna().sum()
                log.warning("%s: %d labels are too few for 90 %% intervals of predictions", label, count)
        for kept in self.models if self.card["models"] else ():
            kept.network_.to(self.device)

    def _fit(self, folder: Path) -> None:
        """Fit what takes seconds anew, as no pickle would be safe to load or last from version to version."""
        method, source = self.card["method"], folder / training.WEIGHTS
        labels = self.molecules[list(self.label_names)].to_numpy(np.float64)
        dataset = Dataset(
            self.card["dataset"], tuple(self.molecules["smiles"]), labels, self.label_names, self.card["task"]
        )
        layers = self.card.get("layers", "last")  # as they all were before the card said so
        job = CrossValidation(dataset, self.molecules, str(source), layers, seed=self.card["seed"])
        self.models = [job.fitted(method)]
        if baselines.sees(method):
            self._encoder = encoder.load(source).to(self.device)
        if self.task == "regression":
            tested = self._tested["fold"].to_numpy()
            folds = [(fold, *map(np.flatnonzero, (tested != fold, tested == fold))) for fold in sorted(set(tested))]
            self.folds = [job.fitted(method, Part(1, *fold)) for fold in folds]

    @property
    def sees(self) -> bool:
        """Whether it predicts from drawings, and not from fingerprints or nothing at all."""
        return bool(self.card["models"]) or self._encoder is not None

    @cached_property
    def decimals(self) -> dict[str, int]:
        """Sensible decimals of each column of a prediction: two digits of the error that is to be expected."""
        known = self.molecules[list(self.label_names)]
        error = self.card.get("score", np.nan) if len(self.label_names) == 1 else np.nan
        found = {"similarity": 2}
        for label in self.label_names:
            typical = error if np.isfinite(error) else float(known[label].std()) / 2
            digits = 2 if self.task == "classification" else decimals(typical, digits=2)
            found |= dict.fromkeys((label, *(f"{label}_{ending}" for ending in training.ENDINGS)), digits)
        return found

    def predict(self, X: Any, smiles: str = "smiles") -> pd.DataFrame:  # noqa: N803
        """Predict the properties of molecules.

        Parameters
        ----------
        X
            As of `MoleCLIPFeaturizer.transform`.
        smiles : str
            Column of the SMILES in a file.

        Returns
        -------
        DataFrame, length N
            In the order of X, NaN where a molecule cannot be read. Of a file, all its columns in front, as text
            (`inference.beside_fields`). Then molecule; for each label the prediction (mean over
            repeats, in the unit of the label, or the probability of class 1) under the label's name, and the ends
            `<label>_low` and `<label>_high` of its 90 % interval (`metrics.cv_plus`; none for classes, for a finetuning
            job, and where there are fewer than 9 labels); in_domain, whether the similarity is at least `threshold`;
            similarity, the highest Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits) to a molecule that
            it was trained on, and nearest, that molecule; for what predicts
            from drawings the standard deviations `<label>_sd_repeats` over the repeats (NaN for a single one) and
            `<label>_sd_views` over the randomised drawings; problem, which says why a molecule cannot be read ("" where
            it can); and note, what must be said with it. Outside of its domain a prediction is a guess, whatever its
            interval or spread.
            Pictures have neither similarity nor domain.
        """
        records = readers.records(X, smiles)
        found = list(self.tables(records, len(records)))  # here, so that warnings name the caller's line
        return pd.concat([beside_fields(*one) for one in found], ignore_index=True)

    def tables(
        self, records: Iterable[Record], total: int | None = None
    ) -> Iterator[tuple[list[Record], pd.DataFrame]]:
        """Predict for any number of molecules, block by block, into tables as of `predict`, without fields of files."""
        outside, count = 0, 0
        blocks = self._computation().blocks(records, total) if self.sees else self._from_structures(records, total)
        for block, values, reasons in blocks:
            report(block, reasons, self.invalid)
            items = [record.item for record in block]
            nearest = [self._nearest(item, reason) for item, reason in zip(items, reasons, strict=True)]
            similarity = np.array([value for _, value in nearest])
            inside = pd.Series(similarity >= self.threshold, dtype="boolean").mask(np.isnan(similarity))
            table = pd.DataFrame({"molecule": [readers.name(item) for item in items]})
            predictions, spread = self._columns(values.astype(np.float64))
            table = table.join(predictions)
            table = table.assign(in_domain=inside, similarity=similarity, nearest=[smiles for smiles, _ in nearest])
            table = table.join(spread).assign(problem=reasons)
            outside, count = outside + int((similarity < self.threshold).sum()), count + len(block)
            yield block, table.assign(note=[self._note(one) for one in inside.eq(False).fillna(False)])
        if outside:
            warnings.warn(
                f"{outside} of {count} molecules are unlike all those that the model was trained on (similarity below "
                f"{self.threshold:.2f}, in_domain is false): their predictions are guesses",
                DomainWarning,
                stacklevel=3,
            )

    def _from_structures(self, records: Iterable[Record], total: int | None) -> Iterator[Block]:
        """Predict without drawings, block by block."""
        with tqdm(total=total, unit=" molecules", disable=not self.verbose) as bar:
            for block in batched(records, BLOCK):
                texts, reasons = zip(*(_smiles(record.item) for record in block), strict=True)
                good = [row for row, reason in enumerate(reasons) if not reason]
                values = np.full((len(block), len(self._every) * len(self.label_names)), np.nan)
                if good:
                    some = Molecules(texts[row] for row in good)  # whose fingerprints are made once
                    values[good] = np.concatenate([model.predict_values(some) for model in self._every], axis=1)
                bar.update(len(block))
                yield block, values, list(reasons)

    def _computation(self) -> Computation:
        plain = drawing.drawing_style(self.drawing)
        generators = [seeds.generator(Stream.REDRAWN, 0, view) for view in range(self.views)]
        redrawn = [dataclasses.replace(drawing.random_style(rng), r_groups=plain.r_groups) for rng in generators]
        return Computation(
            self._outputs,
            len(self._every) * (1 + self.views) * len(self.label_names),
            [plain, *redrawn],
            (self._encoder or self.models[0].image_encoder).preprocess.size,
            self.batch_size,
            self.n_jobs,
            self.cache,
            {"model": self.card["models"] or [self.card["method"], self.card["molecules"], self.card["identity"]]},
            self.verbose,
        )

    @property
    def _every(self) -> list[Any]:
        return [*self.models, *(self.folds if self.folds is not self.models else ())]

    def _outputs(self, images: NDArray[np.uint8]) -> Tensor:
        """Predict by every model from all drawings, [B, models * styles * T]."""
        styles: list[Any] = [images[:, style] for style in range(images.shape[1])]
        if self._encoder is not None:
            layers = self.models[0].layers
            styles = [self._encoder.embed(one, self.batch_size, layers).cpu().double().numpy() for one in styles]
        pairs = itertools.product(self._every, styles)
        if self._encoder is None:
            values = [model.predict_drawings(given) for model, given in pairs]
        else:
            values = [values_of(model.models_, given, model.task) for model, given in pairs]
        return torch.from_numpy(np.concatenate(values, axis=1)).float()

    def _columns(self, values: NDArray[np.float64]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predictions with intervals and, for what sees drawings, their spread, of [B, models * styles * T]."""
        outputs = values.reshape(len(values), len(self._every), -1, len(self.label_names))
        plain, redrawn = outputs[:, : len(self.models), 0], outputs[:, : len(self.models), 1:]
        of_folds, predictions, spread = outputs[:, -len(self.folds) :, 0], {}, {}
        for number, label in enumerate(self.label_names):
            predictions[label] = plain[:, :, number].mean(axis=1)
            if ends := self._interval(label, of_folds[:, :, number].T):
                predictions[f"{label}_low"], predictions[f"{label}_high"] = ends
            if self.sees:
                spread[f"{label}_sd_repeats"] = _sd(plain[:, :, number])
                spread[f"{label}_sd_views"] = _sd(redrawn[..., number].mean(axis=1))
        return pd.DataFrame(predictions), pd.DataFrame(spread)

    def _interval(self, label: str, predictions: NDArray[np.float64]) -> tuple[Any, Any] | None:
        """Make the ends of 90 % intervals from predictions by `folds`, [folds, B]."""
        if self.task == "classification" or not self.folds:
            return None
        tested, folds = (self._tested[name].to_numpy() for name in (f"tested {label}", "fold"))
        return metrics.cv_plus(tested, self.molecules[label].to_numpy(float), folds - 1, predictions)

    def _nearest(self, item: Item, reason: str) -> tuple[str, float]:
        molecule = None if reason else readers.molecule(item)
        if molecule is None:
            return "", np.nan
        smiles, fingerprints = self._trained_on
        similarities = DataStructs.BulkTanimotoSimilarity(molecules.fingerprint(molecule), fingerprints)
        best = int(np.argmax(similarities))
        return smiles[best], similarities[best]

    def _note(self, outside: bool) -> str:
        """Say what must be said with a prediction."""
        said = [f"the model is {self.note}"] if self.note else []
        return "; ".join([*said, "a guess: unlike all training molecules"] if outside else said)

    @cached_property
    def threshold(self) -> float:
        """Similarity from which on a molecule is in the domain: 95 % of the training molecules have it to another."""
        _, fingerprints = self._trained_on
        rows = seeds.sample(len(fingerprints), _COMPARED, 0)
        nearest = []
        for row in rows:
            others = DataStructs.BulkTanimotoSimilarity(fingerprints[row], fingerprints)
            nearest.append(max((value for other, value in enumerate(others) if other != row), default=1.0))
        return max(_LEAST_SIMILAR, float(np.quantile(nearest, 0.05)))

    @cached_property
    def _trained_on(self) -> tuple[list[str], list[Any]]:
        smiles = list(self.molecules.loc[self.molecules["part"] == "train", "smiles"])
        return smiles, [molecules.fingerprint(molecules.parse(text)) for text in smiles]


def _card(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and card of the models of a finetuning job."""
    for place in (folder / "model", folder):
        if (place / encoder.CARD).is_file() and (place / MOLECULES).is_file():
            return place, json.loads((place / encoder.CARD).read_text())
    raise FileNotFoundError(
        f"{folder}: holds no model; `moleclip train` writes one, and notebook 04 keeps those of a job, in a folder "
        "'model' below its own, with `keep_models`"
    )


def _sd(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the standard deviations of rows; NaN for rows of less than two."""
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)


def _smiles(item: Item) -> tuple[str, str]:
    """SMILES of an item, or why there is none."""
    try:
        found = readers.molecule(item)
    except ValueError as error:
        return "", str(error)
    if found is None:
        return "", "a picture, and the model predicts from structures"
    return item if isinstance(item, str) else Chem.MolToSmiles(found), ""
