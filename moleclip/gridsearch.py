"""One job: a grid of trainings, the setting and the epoch chosen on validation, the test set read at the end."""

import dataclasses
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moleclip import arithmetic, baselines, config, datasets, encoder, metrics, splits
from moleclip.datasets import Dataset
from moleclip.estimator import MoleculeEstimator, Molecules
from moleclip.finetune import FinetunedEncoder, fitting
from moleclip.io import files, seeds
from moleclip.io.seeds import Stream
from moleclip.splits import Split
from moleclip.tables import SETTING, choose, setting_of

log = logging.getLogger(__name__)

LIBRARIES = (
    "rdkit",
    "torch",
    "timm",
    "open_clip_torch",
    "scikit-learn",
    "numpy",
    "matplotlib",
    "opencv-python-headless",
)
MODEL = "model"  # folder of a job's models, below its own


@dataclass(frozen=True)
class Problem:
    """What every model of a job is trained and tested on."""

    dataset: Dataset
    molecules: pd.DataFrame
    split: Split

    @property
    def smiles(self) -> list[str]:
        """SMILES of the N readable molecules."""
        return list(self.molecules["smiles"])

    def tested(self) -> Sequence[tuple[str, NDArray[np.int64]]]:
        """Name and positions of the validation and the test molecules."""
        return (("val", self.split.val), ("test", self.split.test))

    def parts(self) -> pd.DataFrame:
        """Molecules with the part that each is in."""
        parts = np.full(len(self.molecules), "train", object)
        for part, rows in self.tested():
            parts[rows] = part
        return self.molecules.assign(part=parts)

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels [N, T], NaN where missing."""
        return self.molecules[list(self.dataset.label_names)].to_numpy(np.float64, copy=True)


@dataclass(frozen=True)
class Training:
    """One training of a job: which model, with which setting of the grid, and which repeat."""

    model: str
    head_lr: float
    augmentation: str
    epochs: int
    repeat: int
    stage: Literal["grid", "final"] = "grid"

    def __str__(self) -> str:
        lr = "" if np.isnan(self.head_lr) else f", head lr {self.head_lr:g}"
        level = f", {self.augmentation}" if self.augmentation else ""
        return f"{self.model}{lr}{level}, {self.stage} {self.repeat}"


@dataclass(frozen=True)
class Result:
    """Result of one training.

    Attributes
    ----------
    predictions : ndarray of float64, shape [N, T]
        NaN for training molecules, which are not predicted, and everywhere if the training diverged.
    epoch : int
        Chosen on validation; 0 for a model that is not trained in epochs, or that diverged.
    train_loss, val_loss : ndarray of float64, shape [epochs]
    drift : ndarray of float64, shape [3]
        How far an encoder's weights are from their start: `arithmetic.DRIFT`; NaN for other models.
    """

    predictions: NDArray[np.float64]
    epoch: int = 0
    train_loss: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    val_loss: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    drift: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.nan))


def problem(p: config.Finetune) -> Problem:
    """Load the set, leave out (and name) what cannot be read, and split it."""
    dataset = datasets.load(p.dataset, smiles=p.smiles_column, labels=p.label_columns)
    if not dataset.label_names:
        raise ValueError(
            f"{p.dataset}: has no labels to learn: no column of plain numbers, besides counters and identifiers"
        )
    if p.metric:
        if (p.metric == "ROC-AUC") != (dataset.task == "classification"):
            raise ValueError(f"{p.dataset}: {p.metric} does not score a {dataset.task}")
        dataset = dataclasses.replace(dataset, metric=p.metric)
    molecules = datasets.readable(dataset, p.sample, p.seed)
    holdout = p.holdout or dataset.holdout
    try:
        split = splits.split(p.split or dataset.split, list(molecules["smiles"]), p.split_seed, holdout)
    except ValueError as error:
        raise ValueError(f"{p.dataset}: {error}") from None
    job = Problem(dataset, molecules, split)
    for line in leaks(job).itertuples():
        log.warning("%s: row %d (%s) is the same molecule as row %d (%s)", *line[1:])
    _check_labels(p.dataset, job)
    return job


def _check_labels(where: str, job: Problem) -> None:
    for row in job.molecules["row"].to_numpy()[np.isnan(job.labels).all(axis=1)]:
        log.warning("%s, row %d: has no label: nothing is learnt from it or tested on it", where, row)
    classes = job.dataset.task == "classification"
    for name, values in zip(job.dataset.label_names, job.labels.T, strict=True):
        if classes and len(np.unique(values[~np.isnan(values)])) == 1:
            raise ValueError(f"{where}: all molecules have one class of {name!r}: leave this label out")
    for part, rows in (("training", job.split.train), *job.tested()):
        for name, values in zip(job.dataset.label_names, job.labels[rows].T, strict=True):
            different = len(np.unique(values[~np.isnan(values)]))
            if different < (2 if classes else 1):
                lack = "one class" if different else "no labels"
                raise ValueError(f"{where}: the {part} molecules have {lack} of {name!r}; use another split")
            if different == 1 and part == "training":
                log.warning("%s: all training molecules have the same %r: there is nothing to learn", where, name)


def leaks(job: Problem) -> pd.DataFrame:
    """Find molecules that are in two parts: of validation in training, and of test in either.

    Returns
    -------
    DataFrame
        dataset, row, part, other_row, other_part.
    """
    known: dict[str, tuple[int, str]] = {}
    found = []
    for part, rows in (("train", job.split.train), *job.tested()):
        table = job.molecules.iloc[rows]
        for row, smiles in zip(table["row"], table["canonical_smiles"], strict=True):
            if smiles in known:
                found.append((job.dataset.name, row, part, *known[smiles]))
        places = ((row, part) for row in table["row"])
        known = dict(zip(table["canonical_smiles"], places, strict=True)) | known
    return pd.DataFrame(found, columns=["dataset", "row", "part", "other_row", "other_part"])


def estimator(training: Training, p: config.Finetune, task: datasets.Task, seed: int) -> MoleculeEstimator:
    """Make the estimator of a training."""
    name, settings = training.model, dict[str, Any]()
    if name == p.name:
        name, others = "finetuned", FinetunedEncoder("").get_params().keys() - {"encoder", "seed"}
        settings = {key: getattr(p, key) for key in others if hasattr(p, key)}
        settings |= {key: getattr(training, key) for key in ("head_lr", "augmentation", "epochs")}
    elif _frozen(name, p):
        name = "frozen_best" if name.endswith("best") else "frozen_linear"
        settings = {key: getattr(p, key) for key in ("drawing", "image_size", "workers")} | {"layers": p.frozen_layers}
    elif name == "fingerprint_mlp":
        settings = {"batch_size": p.batch_size, "weight_decay": p.mlp_weight_decay, "scale_labels": p.scale_labels}
        settings |= {"lr": training.head_lr, "epochs": training.epochs}
    return baselines.make(name, task, seed, p.encoder, **settings)


def _frozen(model: str, p: config.Finetune) -> bool:
    return model in (f"{p.name}_frozen", f"{p.name}_frozen_best")


class Job:
    """The trainings of one job, kept in its folder: an interrupted job continues after its last finished training."""

    def __init__(self, problem: Problem, p: config.Finetune) -> None:
        batch_size, epochs = fitting(len(problem.split.train))
        p = p.model_copy(update={"batch_size": p.batch_size or batch_size, "epochs": p.epochs or epochs})
        self.problem, self.p, self.output = problem, p, Path(p.output)
        self.molecules = Molecules(problem.smiles)
        self.identity = _identity(problem, p)

    def trained(self, name: str) -> tuple[list[tuple[Training, Result]], pd.DataFrame]:
        """All trainings of one model and their scores: the search, and the refits with the setting that it chooses."""
        p, grid = self.p, _grid(name, self.p)
        settings = {(training.head_lr, training.augmentation) for training in grid}
        refit = p.final_epochs is not None and grid[0].epochs > 0
        done = []
        if len(settings) > 1 or not refit:  # of one setting there is nothing to choose
            done = [(training, self.kept(training)) for training in grid]
            setting = choose(pd.DataFrame([self._score(*pair) for pair in done]))
        else:
            setting = settings.pop()
        if refit:
            repeats = range(1, p.final_repeats + 1)
            finals = [Training(name, *setting, p.final_epochs or 0, repeat, "final") for repeat in repeats]
            done += [(training, self.kept(training)) for training in finals]
        scores = pd.DataFrame([self._score(*pair) for pair in done])
        if scores.loc[scores["stage"] == "final", "val"].isna().any():
            raise FloatingPointError(f"{name}: a final training diverged; try smaller learning rates in the grid")
        chosen = (setting_of(scores) == setting) & (scores["stage"] == ("final" if refit else "grid"))
        if name == p.name and p.keep_models:
            self._keep_models([training for (training, _), hit in zip(done, chosen, strict=True) if hit])
        return done, scores.assign(chosen=chosen)

    def kept(self, training: Training, model: bool = False) -> Result:
        """Train, or read what an earlier run of the very same training has left; `model`: and keep the model."""
        file, folder = self._places(training)
        if not file.is_file() or (model and not (folder / encoder.CARD).is_file()):
            fitted, result = self._train(training)
            log.info("%s: %s", training, self._brief(result))
            if model or (self._may_count(training) and result.epoch):
                assert isinstance(fitted, FinetunedEncoder)
                fitted.save(folder)
            files.write_npz(file, vars(result))
        with np.load(file, allow_pickle=False) as found:
            return Result(**{**found, "epoch": int(found["epoch"])})

    def _train(self, training: Training) -> tuple[MoleculeEstimator, Result]:
        problem, split = self.problem, self.problem.split
        # Each repeat has its own weights, order and augmentation; settings of a grid share them.
        seed = int(seeds.generator(Stream.REPEAT, self.p.seed, training.repeat).integers(2**31))
        model, labels = estimator(training, self.p, problem.dataset.task, seed), problem.labels
        predictions = np.full(labels.shape, np.nan)
        try:
            validation = (self.molecules[split.val], labels[split.val])
            model.fit(self.molecules[split.train], labels[split.train], validation, split.train)
            for _, rows in problem.tested():
                predictions[rows] = model.predict_values(self.molecules[rows])
        except FloatingPointError:
            log.warning("%s: diverged", training)
        train_loss, val_loss = (getattr(model, name, np.empty(0)) for name in ("train_loss_", "val_loss_"))
        drift = np.array([getattr(model, "drift_", {}).get(name, np.nan) for name in arithmetic.DRIFT])
        return model, Result(predictions, getattr(model, "epoch_", 0), train_loss, val_loss, drift)

    def _may_count(self, training: Training) -> bool:
        """Whether a training may be one of those that make the score, and its model be kept."""
        stage = "grid" if self.p.final_epochs is None else "final"
        return self.p.keep_models and training.model == self.p.name and training.stage == stage

    def _places(self, training: Training) -> tuple[Path, Path]:
        """Where a training keeps its result and its model."""
        values = dataclasses.asdict(training) | {"head_lr": None if np.isnan(training.head_lr) else training.head_lr}
        if _frozen(training.model, self.p) and self.p.frozen_layers != "last":  # of what is kept, others do not say
            values["layers"] = self.p.frozen_layers
        if training.model in baselines.CHEMPROP:  # another installation writes its command anew
            command = baselines.chemprop_command()
            values |= {"command": command, "installed": os.stat(command[0]).st_mtime_ns}
        digest = hashlib.sha256(json.dumps({**self.identity, **values}, sort_keys=True).encode()).hexdigest()[:20]
        return self.output / "trainings" / f"{digest}.npz", self.output / MODEL / digest

    def _keep_models(self, chosen: Sequence[Training]) -> None:
        """Write the card of the models that make the score, and their molecules; then delete all other models."""
        for training in chosen:  # trained again where an earlier run has not kept the model
            self.kept(training, model=True)
        folder, kept = self.output / MODEL, [self._places(training)[1] for training in chosen]
        molecules = files.write_parquet(folder / "molecules.parquet", self.problem.parts())
        card = {
            "name": self.p.name,
            **{name: getattr(self.problem.dataset, name) for name in ("task", "metric", "unit", "label_names")},
            "dataset": self.problem.dataset.name,
            "molecules": files.sha256(molecules),
            "models": [path.name for path in kept],
        }
        files.write_json(folder / encoder.CARD, card)
        for path in set(filter(Path.is_dir, folder.iterdir())) - set(kept):
            shutil.rmtree(path)

    def _brief(self, result: Result) -> str:
        found = self._scored(result)["val"]
        if np.isnan(found):
            return "diverged"
        epoch = f", epoch {result.epoch} of {len(result.val_loss)}" if result.epoch else ""
        return f"validation {self.problem.dataset.metric} {found:.3f}{epoch}"

    def _scored(self, result: Result) -> dict[str, float]:
        metric, labels, found = self.problem.dataset.metric, self.problem.labels, result.predictions
        return {
            part: metrics.score(metric, labels[rows], found[rows]) if np.isfinite(found[rows]).all() else np.nan
            for part, rows in self.problem.tested()
        }

    def _score(self, training: Training, result: Result) -> dict[str, Any]:
        """One row of `scores.parquet`."""
        dataset, p = self.problem.dataset, self.p
        return {
            "dataset": dataset.name,
            "drawing": p.drawing,
            "encoder": training.model,
            "split": p.split or dataset.split,
            "holdout": p.holdout or dataset.holdout,
            "seed": p.split_seed,
            **_place(training),
            "batch_size": p.batch_size,
            "epochs": training.epochs,
            "epoch": result.epoch,
            "metric": dataset.metric,
            "unit": dataset.unit,
            **self._scored(result),
            **{f"start_{name}": value for name, value in zip(arithmetic.DRIFT, result.drift, strict=True)},
        }

    def predictions(self, training: Training, result: Result) -> Iterator[pd.DataFrame]:
        """Rows of `predictions.parquet`: of each validation and test molecule, and each label."""
        dataset, labels = self.problem.dataset, self.problem.labels
        named = {"dataset": dataset.name, "encoder": training.model, **_place(training)}
        for (part, rows), (column, target) in itertools.product(self.problem.tested(), enumerate(dataset.label_names)):
            table = self.problem.molecules.iloc[rows][["row", "smiles"]]
            values = {"label": labels[rows, column], "prediction": result.predictions[rows, column]}
            yield table.assign(**values, **named, part=part, target=target)


def _place(training: Training) -> dict[str, Any]:
    return {name: getattr(training, name) for name in ("stage", "repeat", *SETTING)}


def _curves(training: Training, result: Result) -> pd.DataFrame:
    losses = {"train_loss": result.train_loss, "val_loss": result.val_loss}
    return pd.DataFrame({"epoch": np.arange(1, len(result.val_loss) + 1), **losses}).assign(
        encoder=training.model, **_place(training)
    )


def run(p: config.Finetune, job: Problem | None = None) -> Path:
    """Train the encoder and the baselines of one job; an interrupted job continues after its last finished training.

    Each setting of the grid (learning rate of the head, augmentation) is trained `repeats` times. The one with the
    best mean validation score is chosen; with `final_epochs`, it is trained anew, `final_repeats` times, for the score.

    Parameters
    ----------
    p : Finetune
    job : Problem, optional
        That of `p`, if `problem` has read it already.

    Returns
    -------
    Path
        Folder with `scores.parquet` (a row per training; those in the column `chosen` make the score),
        `predictions.parquet` (of each training and each validation and test molecule) and `curves.parquet`; with
        `keep_models`, the encoder of the chosen trainings with its heads too, for `apply.predictor`.
    """
    if p.encoder:
        encoder.check_precision(p.precision)
    trainings = Job(job or problem(p), p)
    tables: dict[str, list[pd.DataFrame]] = {"scores": [], "predictions": [], "curves": []}
    for name in ([p.name] if p.encoder else []) + [
        f"{p.name}_{b}" if b.startswith("frozen") else b for b in p.baselines
    ]:
        done, scores = trainings.trained(name)
        tables["scores"].append(scores)
        tables["predictions"] += itertools.chain(*(trainings.predictions(*pair) for pair in done))
        tables["curves"] += [_curves(*pair) for pair in done]
    for table, parts in tables.items():
        whole = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        files.write_parquet(Path(p.output) / f"{table}.parquet", whole)
    return Path(p.output)


def _grid(name: str, p: config.Finetune) -> list[Training]:
    """Trainings of a model's search: an encoder's grid has both axes, the fingerprint MLP's one, others' none."""
    lrs, repeats = p.head_lr, p.repeats
    levels: Sequence[str] = p.augmentation
    if name != p.name:
        levels = [""]
        if name != "fingerprint_mlp":
            seeded = name in baselines.BY_NAME and name not in baselines.SEEDLESS
            lrs, repeats = [np.nan], p.repeats if seeded else 1
    epochs = (p.epochs or 0) if name in (p.name, "fingerprint_mlp") else 0
    settings = itertools.product(lrs, levels, range(1, repeats + 1))
    return [Training(name, lr, level, epochs, repeat) for lr, level, repeat in settings]


def _identity(job: Problem, p: config.Finetune) -> dict[str, Any]:
    """Name what all trainings of a job depend on, so that what is kept of another is never taken for it."""
    irrelevant = {"name", "output", "baselines", "workers", "repeats", "final_repeats", "epochs", "final_epochs"}
    irrelevant |= {"keep_models", "frozen_layers"}
    start = encoder.digest(encoder.load(p.encoder, p.seed, p.image_size)) if p.encoder else ""
    moments = [encoder.moments_file(p.encoder)] if p.moments and p.encoder else []
    return {
        **p.identity(exclude=irrelevant | {*SETTING}),
        "task": job.dataset.task,
        "molecules and split": hashlib.sha256(job.parts().to_csv(index=False).encode()).hexdigest(),
        "results": config.RESULTS,
        "versions": [*map(version, LIBRARIES), encoder.device().type],
        "start": [start, *map(files.sha256, moments)],
    }
