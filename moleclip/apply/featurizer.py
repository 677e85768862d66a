"""Your own molecules: embeddings for scikit-learn, and the predictions of finetuned encoders."""

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
from safetensors.torch import load_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor, nn

from moleclip import drawing, encoder, molecules
from moleclip.apply import readers
from moleclip.apply.inference import Block, Computation, report, write_tables
from moleclip.apply.readers import Item
from moleclip.encoder import Encoder, Preprocess, Tower
from moleclip.io import files, seeds
from moleclip.io.seeds import Stream

MOLECULES = "molecules.parquet"  # what models were trained on, beside their card
VIEWS = 8  # drawings over which the spread of a prediction is taken


class MoleCLIPFeaturizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed molecules with an image encoder, as a transformer of scikit-learn.

    There is nothing to fit: `transform` alone does the same. What is pickled holds no weights; they are loaded again,
    and must be the same, when they are needed.

    Parameters
    ----------
    encoder : str or Path
        A folder, a file, or another source of `encoder.load`; by default what the paper's authors released.
    batch_size : int
        Drawings that are embedded together.
    device : str or None
        As PyTorch names it, such as "cuda:1"; None: a GPU if there is one.
    n_jobs : int or None
        Processes that draw, as joblib counts them: None is this one only, -1 one per core.
    invalid : {"warn", "raise"}
        A molecule that cannot be read is a row of NaN and named in a warning; or an error.
    drawing : {"plain", "r_groups"}
        "r_groups" hides terminal atoms (paper, R-group study).
    cache : str, Path or None
        Folder with the embedding of each molecule seen, for cross-validation and for later runs.
    seed : int
        Of random weights.
    verbose : bool
        Show progress.

    Attributes
    ----------
    encoder_sha256_ : str
        Digest of the weights.

    Examples
    --------
    >>> featurizer = MoleCLIPFeaturizer(encoder="small/random")
    >>> featurizer.fit_transform(["CCO", "c1ccccc1O"]).shape
    (2, 128)
    >>> featurizer.get_feature_names_out()[:2].tolist()
    ['moleclipfeaturizer0', 'moleclipfeaturizer1']
    """

    def __init__(
        self,
        encoder: str | Path = "moleclip/primary",
        *,
        batch_size: int = 64,
        device: str | None = None,
        n_jobs: int | None = None,
        invalid: Literal["warn", "raise"] = "warn",
        drawing: Literal["plain", "r_groups"] = "plain",
        cache: str | Path | None = None,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.invalid = invalid
        self.drawing = drawing
        self.cache = cache
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "MoleCLIPFeaturizer":  # noqa: N803 (scikit-learn's own name)
        """Load the encoder; X is looked at for its form only, y not at all.

        Raises
        ------
        ValueError, TypeError
            A parameter is wrong, or X holds no molecules (see `readers.items`).
        FileNotFoundError, sources.DataError
            There is no such encoder, or it cannot be downloaded.
        """
        if not isinstance(X, (str, Path, Iterator)):  # which are read once, by `transform`
            _items(X)
        self._forget()
        self._load()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Embed molecules.

        Parameters
        ----------
        X : iterable of Item, array of pictures, or path
            SMILES, RDKit molecules, pictures (arrays, PIL images or paths; dark lines on white, of any size), in any
            mixture; or the path of an SDF, CSV or SMI file. See `readers.items`.

        Returns
        -------
        ndarray of float32, shape [N, D]
            In the order of X; NaN where a molecule cannot be read.

        Raises
        ------
        ValueError
            Of `invalid="raise"`: which molecules cannot be read, and why.
        """
        items = _items(X)
        _, parts, reasons = zip(*self.blocks(items, len(items)), strict=True)
        report(items, [reason for part in reasons for reason in part], self.invalid)
        return np.concatenate(parts)

    def blocks(self, items: Iterable[Item], total: int | None = None) -> Iterator[Block]:
        """Embed any number of molecules, block by block."""
        image_encoder = self._load()
        here = encoder.device(self.device)
        image_encoder.to(here)

        def function(images: Tensor) -> Tensor:
            with torch.inference_mode():
                embeddings: Tensor = image_encoder(images[:, 0].to(here))
                return embeddings.float().cpu()

        return Computation(
            function,
            [drawing.drawing_style(self.drawing)],
            image_encoder.preprocess.size,
            self.batch_size,
            self.n_jobs,
            Path(self.cache) if self.cache else None,
            {"encoder": self.encoder_sha256_},
            self.verbose,
        ).blocks(items, total)

    def to_parquet(self, X: Any, path: str | Path) -> Path:  # noqa: N803
        """Embed molecules into a Parquet file: a million of them take no more memory than some thousands.

        With `cache`, an interrupted call goes on where it stopped.

        Parameters
        ----------
        X
            As of `transform`; an iterator, and the lines of a file, are read as they are needed.

        Returns
        -------
        Path
            Of a table with the columns molecule, problem ("" for none), and one per feature, in the order of X.
        """
        if isinstance(X, (str, Path)):
            X = (record.item for record in readers.read(X))  # noqa: N806
        items = X if isinstance(X, Iterator) else _items(X)
        return write_tables(path, self.tables(items))

    def tables(self, items: Iterable[Item], total: int | None = None) -> Iterator[pd.DataFrame]:
        """Embed any number of molecules, block by block: tables of molecule, problem ("" for none), and features."""
        start = 0
        for block, values, reasons in self.blocks(items, total):
            report(block, reasons, self.invalid, start)
            start += len(block)
            table = pd.DataFrame(values, columns=self.get_feature_names_out())
            table.insert(0, "molecule", [readers.name(item) for item in block])
            table.insert(1, "problem", reasons)
            yield table

    @property
    def _n_features_out(self) -> int:
        return self._load().tower.embed_dim

    def _load(self) -> Encoder:
        """Load the encoder, unless it is there; that of a pickle must be the same as before."""
        if self.__dict__.get("_source", (self.encoder, self.seed)) != (self.encoder, self.seed):
            self._forget()  # by `set_params`, another one is asked for
        known: Encoder | None = self.__dict__.get("_encoder")
        if known is None:
            if self.batch_size < 1:
                raise ValueError(f"batch_size={self.batch_size}: expected at least 1")
            if self.invalid not in ("warn", "raise"):
                raise ValueError(f"invalid={self.invalid!r}: expected 'warn' or 'raise'")
            known = encoder.load(self.encoder, self.seed).eval()
            digest = encoder.digest(known)
            if self.__dict__.get("encoder_sha256_", digest) != digest:
                raise ValueError(f"{self.encoder}: other weights than this featurizer was fitted with; fit it again")
            self._encoder, self._source, self.encoder_sha256_ = known, (self.encoder, self.seed), digest
        return known

    def _forget(self) -> None:
        for name in ("_encoder", "_source", "encoder_sha256_"):
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_encoder"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class MoleCLIPPredictor:
    """Predict with what a finetuning job has kept, and show how far its repeats and redrawn molecules are apart.

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
    encoders, heads : list of Encoder and of Module, length R
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
        self.label_names, self.drawing = tuple(self.card["label_names"]), str(self.card["drawing"])
        _check(folder / MOLECULES, self.card["molecules"])
        self.molecules = pd.read_parquet(folder / MOLECULES)
        self.encoders: list[Encoder] = []
        self.heads: list[nn.Module] = []
        for file, expected in self.card["weights"].items():
            image_encoder = Encoder(Tower(**self.card["tower"]), Preprocess(**self.card["preprocess"]))
            top = encoder.head(image_encoder.tower.embed_dim, len(self.label_names))
            whole = nn.Sequential(image_encoder, top)
            _check(folder / file, expected)
            whole.load_state_dict(load_file(folder / file), strict=True)
            whole.eval().to(self.device)
            self.encoders.append(image_encoder)
            self.heads.append(top)

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
        items = _items(X)
        return pd.concat(self.tables(items, len(items)), ignore_index=True)

    def tables(self, items: Iterable[Item], total: int | None = None) -> Iterator[pd.DataFrame]:
        """Predict for any number of molecules, block by block, into tables as of `predict`."""
        start, shape = 0, (len(self.heads), 1 + self.views, len(self.label_names))
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
            [plain, *redrawn],
            self.encoders[0].preprocess.size,
            self.batch_size,
            self.n_jobs,
            self.cache,
            {"model": self.card["weights"]},
            self.verbose,
        )

    def _outputs(self, images: Tensor) -> Tensor:
        """Compute the outputs of all repeats for all drawings, [B, R * styles * T]."""
        with torch.inference_mode():
            outputs = [
                top(image_encoder(images[:, style].to(self.device))).float().cpu()
                for image_encoder, top in zip(self.encoders, self.heads, strict=True)
                for style in range(images.shape[1])
            ]
        whole = torch.cat(outputs, dim=1)
        return torch.sigmoid(whole) if self.task == "classification" else whole

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


def _items(X: Any) -> list[Item]:  # noqa: N803
    found = readers.items(X)
    if not found:
        raise ValueError("X holds no molecules: at least 1 is required")
    return found


def _card(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and card of the models of a finetuning job."""
    for place in (folder / "model", folder):
        if (place / encoder.CARD).is_file() and (place / MOLECULES).is_file():
            return place, json.loads((place / encoder.CARD).read_text())
    raise FileNotFoundError(
        f"{folder}: holds no finetuned models; notebook 04 keeps those of a job, in a folder 'model' below its "
        "own, with `keep_models`"
    )


def _check(file: Path, expected: str) -> None:
    found = files.sha256(file) if file.is_file() else "missing"
    if found != expected:
        raise ValueError(f"{file}: sha256 is {found}, {encoder.CARD} says {expected}; the folder is damaged")


def _sd(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the standard deviations of rows; NaN for rows of less than two."""
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)


def _fingerprint(molecule: Any) -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(molecule)
