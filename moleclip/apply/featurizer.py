"""Embed your own molecules, as a transformer of scikit-learn."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from moleclip import drawing, encoder
from moleclip.apply import readers
from moleclip.apply.inference import Block, Computation, report, write_tables
from moleclip.encoder import LITE, Encoder, Layers
from moleclip.io.molecule_files import Record


class MoleCLIPFeaturizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed molecules with an image encoder, as a transformer of scikit-learn.

    There is nothing to fit: `transform` alone does the same. A pickle holds no weights: they are loaded again when they
    are needed, and must be the same.

    Parameters
    ----------
    encoder : str or Path
        A folder, a file, or another source that `encoder.load` knows; by default the small one that ships with this
        package.
    batch_size : int
        Drawings that are embedded together.
    device : str or None
        As PyTorch names it, such as "cuda:1"; None: a GPU if there is one.
    n_jobs : int or None
        Processes that draw, as joblib counts them: None is this one only, -1 one per core.
    invalid : {"warn", "raise", "ignore"}
        What to do with molecules that cannot be read: name them in a warning and fill their rows with NaN, or raise an
        error.
    drawing : {"plain", "r_groups"}
        "r_groups" hides terminal atoms (paper, R-group study).
    layers : {"all", "last"}
        "all": averages of the features of every layer, each with length 1, the best to fit models to. "last": the
        embedding alone, whose cosines compare molecules (`Encoder.embed`).
    normalize : bool or None
        Of the last layer alone: give embeddings the length 1; None: where they were trained by their cosines, as the
        encoder's card says.
    cache : str, Path or None
        Folder that keeps the embedding of each molecule, for cross-validation and for later runs.
    seed : int
        For random weights.
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
    (2, 256)
    >>> featurizer.set_params(layers="last").fit_transform(["CCO", "c1ccccc1O"]).shape
    (2, 128)
    >>> featurizer.get_feature_names_out()[:2].tolist()
    ['moleclipfeaturizer0', 'moleclipfeaturizer1']
    """

    def __init__(
        self,
        encoder: str | Path = LITE,
        *,
        batch_size: int = 64,
        device: str | None = None,
        n_jobs: int | None = None,
        invalid: Literal["warn", "raise", "ignore"] = "warn",
        drawing: Literal["plain", "r_groups"] = "plain",
        layers: Layers = "all",
        normalize: bool | None = None,
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
        self.layers = layers
        self.normalize = normalize
        self.cache = cache
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "MoleCLIPFeaturizer":  # noqa: N803 (scikit-learn's own name)
        """Load the encoder and check the form of X; y is ignored.

        Raises
        ------
        ValueError, TypeError
            A parameter is wrong, or X holds no molecules (see `readers.records`).
        FileNotFoundError, errors.DataError
            There is no such encoder, or it cannot be downloaded.
        """
        if not isinstance(X, (str, Path, Iterator)):  # which are read once, by `transform`
            readers.records(X)
        self._forget()
        self._load()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Embed molecules.

        Parameters
        ----------
        X : iterable of Item, array of pictures, or path
            SMILES, RDKit molecules and pictures (arrays, PIL images or paths; dark lines on white, of any size), also
            mixed; or the path of an SDF, CSV or SMI file. See `readers.records`.

        Returns
        -------
        ndarray of float32, shape [N, D]
            In the order of X; NaN where a molecule cannot be read.

        Raises
        ------
        ValueError
            With `invalid="raise"`: which molecules cannot be read, and why.
        """
        records = readers.records(X)
        _, parts, reasons = zip(*self.blocks(records, len(records)), strict=True)
        report(records, [reason for part in reasons for reason in part], self.invalid)
        return np.concatenate(parts)

    def blocks(self, records: Iterable[Record], total: int | None = None) -> Iterator[Block]:
        """Embed any number of molecules, block by block."""
        image_encoder = self._load().to(encoder.device(self.device))
        return Computation(
            lambda images: image_encoder.embed(images[:, 0], self.batch_size, self.layers).float(),
            self._n_features_out,
            [drawing.drawing_style(self.drawing)],
            image_encoder.preprocess.size,
            self.batch_size,
            self.n_jobs,
            self.cache,
            {"encoder": self.encoder_sha256_, "layers": self.layers, "normalize": image_encoder.normalize},
            self.verbose,
        ).blocks(records, total)

    def to_parquet(self, X: Any, path: str | Path) -> Path:  # noqa: N803
        """Embed molecules into a Parquet file; a million of them need no more memory than a few thousand.

        With `cache`, an interrupted call can be repeated and goes on where it stopped.

        Parameters
        ----------
        X
            As for `transform`; iterators and files are read step by step.

        Returns
        -------
        Path
            Of a table with the columns molecule, problem ("" for none), and one per feature, in the order of X.
        """
        if isinstance(X, (str, Path)):
            records: Iterable[Record] = readers.read(X)
        else:
            records = readers.numbered(X) if isinstance(X, Iterator) else readers.records(X)
        return write_tables(path, (table for _, table in self.tables(records)))

    def tables(
        self, records: Iterable[Record], total: int | None = None
    ) -> Iterator[tuple[list[Record], pd.DataFrame]]:
        """Embed any number of molecules, block by block, into tables as `to_parquet` writes them."""
        for block, values, reasons in self.blocks(records, total):
            report(block, reasons, self.invalid)
            table = pd.DataFrame(values, columns=self.get_feature_names_out())
            table.insert(0, "molecule", [readers.name(record.item) for record in block])
            table.insert(1, "problem", reasons)
            yield block, table

    @property
    def _n_features_out(self) -> int:
        self._load()
        return self._width

    def _load(self) -> Encoder:
        """Load the encoder, unless it is loaded; after unpickling, its weights must be the same as before."""
        source = (self.encoder, self.seed, self.layers, self.normalize)
        if self.__dict__.get("_source", source) != source:
            self._forget()  # `set_params` asks for another one
        known: Encoder | None = self.__dict__.get("_encoder")
        if known is None:
            if self.batch_size < 1:
                raise ValueError(f"batch_size={self.batch_size}: expected at least 1")
            if self.invalid not in ("warn", "raise", "ignore"):
                raise ValueError(f"invalid={self.invalid!r}: expected 'warn', 'raise' or 'ignore'")
            if self.layers not in get_args(Layers):
                raise ValueError(f"layers={self.layers!r}: expected 'all' or 'last'")
            if self.layers == "all" and self.normalize is not None:
                raise ValueError("normalize is for layers='last': of all layers, each has the length 1")
            known = encoder.load(self.encoder, self.seed)
            if self.normalize is not None:
                known.normalize = self.normalize
            digest = encoder.digest(known)
            if self.__dict__.get("encoder_sha256_", digest) != digest:
                raise ValueError(f"{self.encoder}: other weights than this featurizer was fitted with; fit it again")
            self._encoder, self._source, self.encoder_sha256_ = known, source, digest
            self._width = known.width(self.layers)  # of all layers, by a forward pass: once, not for each block
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
