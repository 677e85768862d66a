"""Repeated cross-validation of estimators by name, kept step by step: scores of parts, predictions of molecules."""

import dataclasses
import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, StratifiedGroupKFold
from tqdm.auto import tqdm

from moleclip import baselines, config, datasets, encoder, gridsearch, metrics, splits
from moleclip.datasets import Dataset
from moleclip.encoder import Layers
from moleclip.estimator import Labels, MoleculeEstimator, Molecules
from moleclip.finetune import FinetunedEncoder
from moleclip.io import files, seeds
from moleclip.io.seeds import Stream
from moleclip.splits import Indices

log = logging.getLogger(__name__)

FOLDS = 5
PARTS = "parts"  # folder of what each method predicted in each part, for a call that goes on


class Part(NamedTuple):
    """Positions of the molecules that are trained on and tested in one fold of one repeat; both count from 1."""

    repeat: int
    fold: int
    train: Indices
    test: Indices


class Tested(NamedTuple):
    """What a cross-validation gives.

    Attributes
    ----------
    scores : DataFrame
        A row per method and part: method, repeat, fold, given and tested (molecules), metric, unit, score (NaN: the
        training diverged), epoch (chosen on validation; 0 for what is not trained in epochs).
    predictions : DataFrame
        Each molecule, label and repeat (split_seed) as a method that had not seen it predicts it, in the form of
        `tables.mean_predictions`, where the method is in the column encoder; and fold.
    """

    scores: pd.DataFrame
    predictions: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class CrossValidation:
    """Labelled molecules, and how they are divided.

    Attributes
    ----------
    dataset : Dataset
    molecules : DataFrame
        From `datasets.labelled`; with the column "group", molecules of one group are never in two parts of a repeat.
    encoder : str
        As of `encoder.load`.
    layers : {"all", "last"}
        Of a frozen encoder, see `Encoder.embed`.
    repeats : int
    size : int, optional
        Train on so many molecules only, drawn at random from those of each part; larger draws hold the smaller ones.
    seed : int
        Of folds and models.
    folder : Path, optional
        Keeps what is done, so that an interrupted call goes on.
    """

    dataset: Dataset
    molecules: pd.DataFrame
    encoder: str = encoder.LITE
    layers: Layers = "all"
    repeats: int = 1
    size: int | None = None
    seed: int = 0
    folder: Path | None = None

    @cached_property
    def labels(self) -> Labels:
        """Labels [N, T]."""
        return self.molecules[list(self.dataset.label_names)].to_numpy(np.float64)

    @cached_property
    def some(self) -> Molecules:
        """Molecules with what models make of them."""
        return Molecules(self.molecules["smiles"])

    @cached_property
    def scale(self) -> Labels:
        """What labels are divided by in a score, [T]: several that share no unit count in standard deviations."""
        several = self.labels.shape[1] > 1 and self.dataset.task == "regression" and not self.dataset.unit
        return np.nanstd(self.labels, axis=0) if several else np.ones(self.labels.shape[1])

    @property
    def unit(self) -> str:
        """Of a score."""
        return "standard deviations" if not np.all(self.scale == 1) else self.dataset.unit

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What results depend on, but method and part."""
        table = self.molecules[[name for name in self.molecules if name not in ("row", "duplicate_of")]]
        return {
            "molecules": hashlib.sha256(table.to_csv(index=False).encode()).hexdigest(),
            "task": self.dataset.task,
            "metric": self.dataset.metric,
            "encoder": encoder.digest(encoder.load(self.encoder, self.seed)),
            "seed": self.seed,
            "size": self.size,
            "results": config.RESULTS,
            "versions": [*map(version, gridsearch.LIBRARIES), encoder.device().type],
        }

    @cached_property
    def parts(self) -> list[Part]:
        """Folds of all repeats; one label's classes are stratified.

        Raises
        ------
        ValueError
            There are too few molecules of a class, too few groups, or a part has no label to learn or to test.
        """
        classes = self.labels[:, 0] if self.dataset.task == "classification" and self.labels.shape[1] == 1 else None
        folds = FOLDS
        if classes is not None:
            folds = min(FOLDS, int(min(np.unique(classes, return_counts=True)[1])))
            if folds < 4:
                few = f"a class has {folds} molecule{'s' * (folds > 1)}: at least 4 are needed, better 10"
                raise ValueError(f"{self.dataset.name}: {few}")
        if "group" in self.molecules:
            pairs, folds = self._by_group(folds, np.zeros(len(self.labels)) if classes is None else classes)
        else:
            options: dict[str, Any] = {"n_splits": folds, "n_repeats": self.repeats, "random_state": self.seed}
            cutter = RepeatedKFold(**options) if classes is None else RepeatedStratifiedKFold(**options)
            pairs = list(cutter.split(self.labels, classes))
        found = []
        for number, (train, test) in enumerate(pairs):
            if self.size is not None:
                if self.size > len(train):
                    raise ValueError(f"size {self.size}: a part of {self.dataset.name} leaves {len(train)} molecules")
                order = seeds.generator(Stream.HELD_OUT, self.seed, number).permutation(len(train))
                train = np.sort(train[order[: self.size]])
            part = Part(number // folds + 1, number % folds + 1, train, test)
            for name, known in zip(self.dataset.label_names, self.labels.T, strict=True):
                for what, rows in (("trained on", train), ("tested", test)):
                    different = len(np.unique(known[rows][~np.isnan(known[rows])]))
                    if different < (2 if self.dataset.task == "classification" else 1):
                        lack = "one class" if different else "no labels"
                        raise ValueError(
                            f"{self.dataset.name}: in fold {part.fold} of repeat {part.repeat}, the {len(rows)} "
                            f"molecules {what} have {lack} of {name!r}: label more, or divide them in another way"
                        )
            found.append(part)
        return found

    def _by_group(self, folds: int, classes: Any) -> tuple[list[tuple[Indices, Indices]], int]:
        groups = self.molecules["group"].to_numpy()
        count = len(np.unique(groups))
        if count < 2:
            raise ValueError(f"{self.dataset.name}: all molecules are in one group: there is nothing to divide by")
        folds, pairs = min(folds, count), []
        if folds == count and self.repeats > 1:
            log.warning("%s: %d groups can be divided in one way only: no repeats", self.dataset.name, count)
        for repeat in range(1 if folds == count else self.repeats):  # of as many folds as groups, all are the same
            cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=self.seed + repeat)
            pairs += list(cutter.split(groups, classes, groups))
        return pairs, folds

    def of_label(self, tested: Tested, name: str) -> pd.DataFrame:
        """Scores of one label of several, in its own unit, in the form of those of all."""
        rows = tested.predictions[tested.predictions["target"] == name]
        keys = ["encoder", "split_seed", "fold"]
        each = {
            key: metrics.score(self.dataset.metric, one[["label"]].to_numpy(), one[["prediction"]].to_numpy())
            for key, one in rows.groupby(keys)
        }
        found = tested.scores.set_index(["method", "repeat", "fold"])
        return found.assign(score=pd.Series(each).reindex(found.index), unit="").reset_index()

    def shuffled(self, number: int) -> "CrossValidation":
        """Give the molecules each other's labels."""
        names = list(self.dataset.label_names)
        order = seeds.generator(Stream.SHUFFLED, self.seed, number).permutation(len(self.molecules))
        table = self.molecules.assign(**{name: self.molecules[name].to_numpy()[order] for name in names})
        other = dataclasses.replace(self, molecules=table, repeats=1)
        other.__dict__["some"] = self.some  # made once
        return other

    def run(
        self, methods: Sequence[str], once: Sequence[str] = (), keep: bool = False, verbose: bool = False
    ) -> Tested:
        """Test methods.

        Parameters
        ----------
        methods : sequence of str
            Names of `baselines.BY_NAME`.
        once : sequence of str
            Those of them that are tested in the first repeat only.
        keep : bool
            Keep finetuned models of the first repeat, in `model_folder`.
        verbose : bool
            Show progress.
        """
        scores, predictions = [], []
        for method in methods:
            parts = [part for part in self.parts if part.repeat == 1 or method not in once]
            for part in tqdm(parts, desc=method, disable=not verbose):
                found, score = self._tested(method, part, keep and part.repeat == 1), np.nan
                if found["values"]:
                    values = np.array(found["values"])
                    known = self.labels[part.test] / self.scale
                    score = metrics.score(self.dataset.metric, known, values / self.scale)
                    predictions += self._rows(method, part, values)
                counts = (part.repeat, part.fold, len(part.train), len(part.test))
                scores.append((method, *counts, self.dataset.metric, self.unit, score, found["epoch"]))
        columns = ["method", "repeat", "fold", "given", "tested", "metric", "unit", "score", "epoch"]
        table = pd.concat(predictions, ignore_index=True) if predictions else pd.DataFrame()
        return Tested(pd.DataFrame(scores, columns=columns), table)

    def model_folder(self, method: str, part: Part) -> Path:
        """Where `run` keeps a finetuned model."""
        made = [self.identity, method, *self._settings(method).values(), *map(list, part[2:])]
        digest = hashlib.sha256(json.dumps(made, default=int).encode())
        return Path(self.folder or "") / PARTS / digest.hexdigest()[:20]

    def _settings(self, method: str) -> dict[str, Any]:
        return {"layers": self.layers} if method.startswith("frozen") else {}

    def _tested(self, method: str, part: Part, keep: bool) -> dict[str, Any]:
        """Predict the tested molecules (values are None if it diverged), or read what is kept of it."""
        kept = self.model_folder(method, part).with_suffix(".json") if self.folder else None
        found: dict[str, Any] = {"values": None, "epoch": 0}
        if kept and kept.is_file():
            found = json.loads(kept.read_text())
            return found
        try:
            model = self.fitted(method, part)
            found["values"] = model.predict_values(self.some[part.test]).tolist()
            found["epoch"] = int(getattr(model, "epoch_", 0))
            if keep and kept and isinstance(model, FinetunedEncoder):
                model.save(kept.with_suffix(""))
        except FloatingPointError:
            log.warning("%s diverged in fold %d of repeat %d", method, part.fold, part.repeat)
        if kept:
            files.write_json(kept, found)
        return found

    def fitted(self, method: str, part: Part | None = None) -> MoleculeEstimator:
        """Fit a method to what is trained on in a part, or to all molecules."""
        rows = np.arange(len(self.labels)) if part is None else part.train
        # A frozen encoder with random weights must be the same in all parts, to be embedded with once.
        seed = self.seed
        if part and not method.startswith("frozen"):
            number = (part.repeat - 1) * FOLDS + part.fold - 1
            seed = int(seeds.generator(Stream.REPEAT, self.seed, number).integers(2**31))
        model = baselines.make(method, self.dataset.task, seed, self.encoder, **self._settings(method))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of optimisers that could go on a little
            return model.fit(self.some[rows], self.labels[rows])

    def _rows(self, method: str, part: Part, values: Labels) -> list[pd.DataFrame]:
        """Predictions of one part, a table per label."""
        place: dict[str, Any] = {"dataset": self.dataset.name, "encoder": method, "part": "test", "runs": 1}
        place |= {"row": part.test, "split_seed": part.repeat, "fold": part.fold}
        tested = pd.DataFrame({"smiles": list(self.some[part.test])}).assign(**place)
        each = zip(self.dataset.label_names, self.labels[part.test].T, values.T, strict=True)
        return [tested.assign(target=name, label=known, prediction=found) for name, known, found in each]


def with_groups(molecules: pd.DataFrame, by: str, source: str | Path = "", smiles: str = "smiles") -> pd.DataFrame:
    """Add what the molecules are to be divided by, as the column "group".

    Parameters
    ----------
    molecules : DataFrame
        From `datasets.labelled`.
    by : str
        "random": nothing is added; "scaffold" or "cluster", see `splits.groups`; or a column of your file, such as a
        series or a batch.
    source, smiles
        The file, and its column of SMILES.
    """
    if by == "random":
        return molecules
    if by in ("scaffold", "cluster"):
        return molecules.assign(group=splits.groups(by, list(molecules["smiles"])))
    values = np.array(datasets.column(source, by, smiles), object)[molecules["row"]]
    if empty := int((values == "").sum()):
        log.warning("%s: column %r is empty for %d molecules, which are kept together", source, by, empty)
    return molecules.assign(group=values)
