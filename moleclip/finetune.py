"""Finetuning: a grid of trainings, the cell and the epoch chosen on validation, the test set read at the end."""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)
from torch.utils import data

from moleclip import (
    augmentation,
    baselines,
    config,
    datasets,
    drawing,
    encoder,
    gridsearch,
    metrics,
    molecules,
    rasterize,
    splits,
    views,
)
from moleclip.datasets import Dataset
from moleclip.encoder import device, head
from moleclip.io import files, seeds
from moleclip.io.files import sha256, write_json, write_parquet
from moleclip.io.seeds import Stream
from moleclip.splits import Split

log = logging.getLogger(__name__)

# Inputs of the molecules at some positions; the epoch (None: not for training) and the seed make their augmentation.
Inputs = Callable[[NDArray[np.int64], int | None], Tensor]
# A training is done again where one of these has changed.
_CODE = (augmentation, baselines, views, drawing, encoder, rasterize, splits)
_LIBRARIES = (
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

    @property
    def labels(self) -> NDArray[np.float64]:
        """Labels [N, T], NaN where missing."""
        return self.molecules[list(self.dataset.label_names)].to_numpy(np.float64, copy=True)


@dataclass(frozen=True)
class Training:
    """One training of a job: which model, in which cell of the grid, and which repeat."""

    model: str
    head_lr: float
    augmentation: str
    epochs: int
    repeat: int
    stage: Literal["grid", "final"] = "grid"


@dataclass(frozen=True)
class Result:
    """What came out of one training.

    Attributes
    ----------
    predictions : ndarray of float64, shape [N, T]
        At the chosen epoch; NaN for training molecules, which are not predicted. Probabilities for classification.
    epoch : int
        Chosen on validation; 0 for a model that is not trained in epochs.
    train_loss, val_loss : ndarray of float64, shape [epochs]
    weights : dict of str to Tensor
        Of the encoder and its head at the chosen epoch, where they are to be kept.
    """

    predictions: NDArray[np.float64]
    epoch: int = 0
    train_loss: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    val_loss: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.empty(0))
    weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def problem(p: config.Finetune) -> Problem:
    """Load the set, leave out (and name) what cannot be read, and split it."""
    own = p.dataset.endswith(".csv")
    dataset = datasets.read_csv(p.dataset, p.smiles_column, p.label_columns) if own else datasets.load(p.dataset)
    if not dataset.label_names:
        raise ValueError(f"{p.dataset}: has no labels to learn: no column of plain numbers")
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
    for part, rows in (("training", job.split.train), *_parts(job)):
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
    for part, rows in (("train", job.split.train), *_parts(job)):
        table = job.molecules.iloc[rows]
        for row, smiles in zip(table["row"], table["canonical_smiles"], strict=True):
            if smiles in known:
                found.append((job.dataset.name, row, part, *known[smiles]))
        places = ((row, part) for row in table["row"])
        known = dict(zip(table["canonical_smiles"], places, strict=True)) | known
    return pd.DataFrame(found, columns=["dataset", "row", "part", "other_row", "other_part"])


def run(p: config.Finetune, job: Problem | None = None) -> Path:
    """Train the encoder and the baselines of one job; an interrupted job goes on after its last whole training.

    Each cell of the grid (learning rate of the head, augmentation) is trained `repeats` times. The cell with the best
    mean validation score is chosen; with `final_epochs`, it is trained anew, `final_repeats` times, for the score.

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
        `keep_models`, the encoder of the chosen trainings with its heads too, for `featurizer.MoleCLIPPredictor`.
    """
    job, output = job or problem(p), Path(p.output)
    if p.encoder:
        encoder.check_precision(p.precision)
    models, identity = _models(job, p), _identity(job, p)
    tables: dict[str, list[pd.DataFrame]] = {"scores": [], "predictions": [], "curves": []}
    for name, train in models.items():
        done, scores = _trained(name, train, job, p, identity)
        tables["scores"].append(scores)
        tables["predictions"] += [_predictions(training, result, job) for training, result in done]
        tables["curves"] += [_curves(training, result) for training, result in done]
        if name == p.name and p.keep_models:
            chosen = [training for (training, _), hit in zip(done, scores["chosen"], strict=True) if hit]
            _save_models([_files(training, p, identity)[1] for training in chosen], job, p)
    for table, parts in tables.items():
        whole = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        files.write_parquet(output / f"{table}.parquet", whole)
    return output


def _trained(
    name: str, train: "Train", job: Problem, p: config.Finetune, identity: dict[str, Any]
) -> tuple[list[tuple[Training, Result]], pd.DataFrame]:
    """All trainings of one model and their scores: the grid, and the final ones at the cell that it chooses."""
    grid = _grid(name, p)
    cells = {(training.head_lr, training.augmentation) for training in grid}
    final = p.final_epochs is not None and grid[0].epochs > 0
    done = []
    if len(cells) > 1 or not final:  # of one cell there is nothing to choose
        done = [(training, _kept(training, train, job, p, identity)) for training in grid]
        cell = gridsearch.choose(pd.DataFrame([_score(training, result, job, p) for training, result in done]))
    else:
        cell = cells.pop()
    if final:
        finals = [
            Training(name, *cell, p.final_epochs or 0, repeat, "final") for repeat in range(1, p.final_repeats + 1)
        ]
        done += [(training, _kept(training, train, job, p, identity)) for training in finals]
    stage = "final" if final else "grid"
    if name == p.name and p.keep_models:  # trained again where an earlier run has not kept the weights
        best = [t.stage == stage and (t.head_lr, t.augmentation) == cell for t, _ in done]
        done = [
            (t, _kept(t, train, job, p, identity, weights=True) if hit else result)
            for (t, result), hit in zip(done, best, strict=True)
        ]
    scores = pd.DataFrame([_score(training, result, job, p) for training, result in done])
    if scores.loc[scores["stage"] == "final", "val"].isna().any():
        raise FloatingPointError(f"{name}: a final training diverged; try smaller learning rates in the grid")
    return done, scores.assign(chosen=(gridsearch.cells(scores) == cell) & (scores["stage"] == stage))


def _grid(name: str, p: config.Finetune) -> list[Training]:
    """Trainings of a model's grid: an encoder's has both axes, the fingerprint MLP's one, other baselines' none."""
    lrs, repeats = p.head_lr, p.repeats
    levels: Sequence[str] = p.augmentation
    if name != p.name:
        levels = [""]
        if name != "fingerprint_mlp":
            lrs, repeats = [np.nan], p.repeats if name in baselines.SEEDED else 1
    epochs = p.epochs if name in (p.name, "fingerprint_mlp") else 0
    cells = itertools.product(lrs, levels, range(1, repeats + 1))
    return [Training(name, lr, level, epochs, repeat) for lr, level, repeat in cells]


Train = Callable[[Training, int], Result]


def _models(job: Problem, p: config.Finetune) -> dict[str, Train]:
    """Functions that train each model of a job, by its name in the tables."""
    models: dict[str, Train] = {}
    drawings = functools.cache(lambda: draw(job, p))  # once, when first needed
    features = molecules.Features(job.smiles)
    if p.encoder:
        models[p.name] = lambda training, seed: train_encoder(job, p, training, seed, drawings())
    for name in p.baselines:
        if name == "fingerprint_mlp":
            models[name] = lambda training, seed: _train_fingerprint_mlp(job, p, training, seed, features)
        elif name == "frozen":
            models[f"{p.name}_frozen"] = lambda _, seed: _train_frozen(job, p, seed, drawings())
        else:
            models[name] = lambda _, seed, name=name: _train_baseline(name, job, seed, features)  # type: ignore[misc]
    return models


def draw(job: Problem, p: config.Finetune) -> NDArray[np.uint8]:
    """Draw all molecules of a job: uint8 [N, H, W, 3]."""
    return drawing.draw_all(
        job.smiles, encoder.load(p.encoder, p.seed, p.image_size).preprocess.size, p.drawing, p.workers
    )


def _kept(
    training: Training, train: Train, job: Problem, p: config.Finetune, identity: dict[str, Any], weights: bool = False
) -> Result:
    """Train, or read what an interrupted run of the very same training has left, where its weights are not missed."""
    file, weights_file = _files(training, p, identity)
    if not file.is_file() or (weights and not weights_file.is_file()):
        # Each repeat has its own weights, order and augmentation; cells of a grid share them.
        seed = int(seeds.generator(Stream.REPEAT, p.seed, training.repeat).integers(2**31))
        result = train(training, seed)
        log.info("%s: %s", _named(training), _brief(result, job))
        if result.weights:
            files.write(weights_file, lambda part: save_file(result.weights, part))
        files.write(file, lambda part: _save(part, result))
    with np.load(file, allow_pickle=False) as kept:
        return Result(kept["predictions"], int(kept["epoch"]), kept["train_loss"], kept["val_loss"])


def _files(training: Training, p: config.Finetune, identity: dict[str, Any]) -> tuple[Path, Path]:
    """Where a training keeps its result and its weights."""
    own = dataclasses.asdict(training) | {"head_lr": None if np.isnan(training.head_lr) else training.head_lr}
    if training.model == "chemprop":  # another installation writes its command anew
        command = baselines.chemprop_command()
        own |= {"command": command, "installed": os.stat(command[0]).st_mtime_ns}
    digest = hashlib.sha256(json.dumps({**identity, **own}, sort_keys=True).encode()).hexdigest()[:20]
    return Path(p.output) / "trainings" / f"{digest}.npz", Path(p.output) / MODEL / f"{digest}.safetensors"


def _save(part: Path, result: Result) -> None:
    with open(part, "wb") as file:  # of a name that NumPy leaves as it is
        kept = {name: value for name, value in vars(result).items() if name != "weights"}
        np.savez(file, **kept)


def _keeps(training: Training, p: config.Finetune) -> bool:
    """Whether a training may be one of those that make the score."""
    return p.keep_models and training.stage == ("grid" if p.final_epochs is None else "final")


def _save_models(files: list[Path], job: Problem, p: config.Finetune) -> None:
    """Write the card of the models that make the score, and their molecules; then delete the weights of all others."""
    folder = Path(p.output) / MODEL
    table = job.molecules.assign(part=_part_of_each(job))
    molecules = write_parquet(folder / "molecules.parquet", table)
    image_encoder = encoder.load(p.encoder, p.seed, p.image_size)
    card = {
        "name": p.name,
        **{name: getattr(job.dataset, name) for name in ("task", "metric", "unit", "label_names")},
        "dataset": job.dataset.name,
        "drawing": p.drawing,
        "tower": dataclasses.asdict(image_encoder.tower),
        "preprocess": dataclasses.asdict(image_encoder.preprocess),
        "molecules": sha256(molecules),
        "weights": {file.name: sha256(file) for file in files},
    }
    write_json(folder / encoder.CARD, card)
    for file in set(folder.glob("*.safetensors")) - set(files):
        file.unlink()


def _identity(job: Problem, p: config.Finetune) -> dict[str, Any]:
    """Name what all trainings of a job depend on, so that what is kept of another is never taken for it."""
    irrelevant = {"name", "output", "baselines", "workers", "repeats", "final_repeats", "epochs", "final_epochs"}
    irrelevant |= {"keep_models"}
    molecules = job.molecules.assign(part=_part_of_each(job)).to_csv(index=False)
    start = encoder.digest(encoder.load(p.encoder, p.seed, p.image_size)) if p.encoder else ""
    moments = [file for file in [Path(p.encoder) / encoder.MOMENTS] if p.moments and file.is_file()]
    return {
        **p.model_dump(exclude=irrelevant | {*gridsearch.CELL}),
        "task": job.dataset.task,
        "molecules and split": hashlib.sha256(molecules.encode()).hexdigest(),
        "code": [files.sha256(Path(str(module.__file__))) for module in _CODE] + [files.sha256(__file__)],
        "versions": [*map(version, _LIBRARIES), device().type],
        "start": [start, *map(files.sha256, moments)],
    }


def _part_of_each(job: Problem) -> NDArray[Any]:
    """Part that each molecule is in."""
    parts = np.full(len(job.molecules), "train", object)
    for part, rows in _parts(job):
        parts[rows] = part
    return parts


def _named(training: Training) -> str:
    lr = "" if np.isnan(training.head_lr) else f", head lr {training.head_lr:g}"
    level = f", {training.augmentation}" if training.augmentation else ""
    return f"{training.model}{lr}{level}, {training.stage} {training.repeat}"


def _brief(result: Result, job: Problem) -> str:
    if not np.isfinite(result.predictions[job.split.val]).all():
        return "diverged"
    value = metrics.score(job.dataset.metric, job.labels[job.split.val], result.predictions[job.split.val])
    epoch = f", epoch {result.epoch} of {len(result.val_loss)}" if result.epoch else ""
    return f"validation {job.dataset.metric} {value:.3f}{epoch}"


def loss(outputs: Tensor, labels: Tensor, task: str) -> Tensor:
    """L1 for regression, binary cross-entropy with logits for classification; missing labels (NaN) are left out.

    Parameters
    ----------
    outputs, labels : Tensor of float32, shape [B, T]
    """
    present = ~torch.isnan(labels)
    known = labels[present]
    if not len(known):  # a batch without any label: nothing to learn, and no NaN
        return outputs.sum() * 0.0
    if task == "classification":
        return F.binary_cross_entropy_with_logits(outputs[present], known)
    return F.l1_loss(outputs[present], known)


def train_encoder(job: Problem, p: config.Finetune, training: Training, seed: int, images: NDArray[np.uint8]) -> Result:
    """Finetune an image encoder with a fresh head.

    Parameters
    ----------
    images : ndarray of uint8, shape [N, H, W, 3]
        From `draw`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_encoder = encoder.load(p.encoder, seed, p.image_size)
        model = nn.Sequential(image_encoder, head(image_encoder.tower.embed_dim, job.labels.shape[1]))
    inputs = image_inputs(images, training.augmentation, seed)
    head_lr = training.head_lr
    model.to(device())
    steps = optimizer(model[0], model[1], p.lr or head_lr, head_lr, p.weight_decay, p.optimizer)
    # DEVIATION: the authors always do so.
    if p.moments:
        encoder.load_moments(p.encoder, image_encoder, steps)
    return fit(model, steps, inputs, job, p, training.epochs, seed, _keeps(training, p))


def image_inputs(images: NDArray[np.uint8], augmentation: str, seed: int) -> Inputs:
    """Take drawings [N, H, W, 3] as inputs: as they are or, for training, augmented anew in each epoch."""

    def inputs(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        if epoch is None or augmentation == "none":
            return torch.from_numpy(images[positions])
        return torch.from_numpy(views.augmented(images, positions, augmentation, seed, epoch))

    return inputs


def optimizer(
    image_encoder: nn.Module, top: nn.Module, lr: float, head_lr: float, weight_decay: float, kind: str = "adam"
) -> torch.optim.Optimizer:
    """Make Adam as in pretraining for the encoder and with its defaults for the head (paper, Methods), or plain SGD."""
    groups: list[dict[str, Any]] = [
        {"params": list(image_encoder.parameters()), "lr": lr, "betas": (0.9, 0.98), "eps": 1e-6},
        {"params": list(top.parameters()), "lr": head_lr},
    ]
    if kind == "adam":
        return torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)
    groups = [{"params": group["params"], "lr": group["lr"]} for group in groups]
    return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay)


def _train_fingerprint_mlp(
    job: Problem, p: config.Finetune, training: Training, seed: int, features: molecules.Features
) -> Result:
    fingerprints = torch.from_numpy(features.morgan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = head(fingerprints.shape[1], job.labels.shape[1])
    adam = torch.optim.Adam(model.parameters(), training.head_lr, fused=True)
    exact = p.model_copy(update={"precision": "no"})  # bf16 is for images
    return fit(model, adam, lambda rows, _: fingerprints[rows], job, exact, training.epochs, seed)


def _train_baseline(name: str, job: Problem, seed: int, features: molecules.Features) -> Result:
    task = job.dataset.task
    if name == "chemprop":
        return _without_training(baselines.chemprop(job.smiles, job.labels, job.split, task, seed), job)
    return _without_training(baselines.predict(name, features, job.labels, job.split.train, task, seed), job)


def _train_frozen(job: Problem, p: config.Finetune, seed: int, images: NDArray[np.uint8]) -> Result:
    """Fit a linear model to the embeddings of the encoder as it is."""
    image_encoder = encoder.load(p.encoder, seed, p.image_size).to(device())
    rows = np.arange(len(images))
    outputs = predict(image_encoder, lambda part, _: torch.from_numpy(images[part]), rows, 64, device())
    predictions = baselines.linear(outputs.numpy(), job.labels, job.split.train, job.split.val, job.dataset.task)
    return _without_training(predictions, job)


def _without_training(predictions: NDArray[np.float64], job: Problem) -> Result:
    predictions = predictions.copy()
    predictions[job.split.train] = np.nan
    return Result(predictions)


def fit(
    model: nn.Module,
    steps: torch.optim.Optimizer,
    inputs: Inputs,
    job: Problem,
    p: config.Finetune,
    epochs: int,
    seed: int,
    keep: bool = False,
) -> Result:
    """Train; keep the predictions of the epoch with the lowest validation loss (of equal ones the last), and weights.

    The test molecules are predicted at such epochs and looked at by nothing here. Where the loss was never finite, the
    epoch is 0 and there are no predictions.
    """
    here, task = device(), job.dataset.task
    model.to(here)
    labels = torch.from_numpy(job.labels).float()
    predictions = np.full(job.labels.shape, np.nan)
    best, chosen, train_losses, val_losses = np.inf, 0, [], []
    weights: dict[str, Tensor] = {}
    train = job.split.train[~np.isnan(job.labels[job.split.train]).all(axis=1)]  # a step without labels still moves
    schedule = Schedule(inputs, train, range(1, epochs + 1), p.batch_size, seed)
    for epoch, batches_of_epoch in schedule.load(p.workers):
        train_losses.append(train_epoch(model, steps, batches_of_epoch, labels, task, p.precision))
        outputs = predict(model, inputs, job.split.val, p.batch_size, here, p.precision)
        val_losses.append(loss(outputs, labels[job.split.val], task).item())
        if np.isfinite(val_losses[-1]) and val_losses[-1] <= best:
            best, chosen = val_losses[-1], epoch
            tested = predict(model, inputs, job.split.test, p.batch_size, here, p.precision)
            predictions[job.split.val] = _readable(outputs, task)
            predictions[job.split.test] = _readable(tested, task)
            if keep:  # in the order of their numbers in memory that files have
                state = model.state_dict().items()
                weights = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}
    return Result(predictions, chosen, np.array(train_losses), np.array(val_losses), weights)


def train_epoch(
    model: nn.Module,
    steps: torch.optim.Optimizer,
    batches_of_epoch: Iterable[tuple[NDArray[np.int64], Tensor]],
    labels: Tensor,
    task: str,
    precision: str,
) -> float:
    """Train on each batch (positions, inputs) once; return the mean loss over the labels that are known."""
    here = next(model.parameters()).device
    total, count = torch.zeros((), device=here), 0
    model.train()
    for positions, values in batches_of_epoch:
        outputs = _outputs(model, values.to(here, non_blocking=True), precision)
        value = loss(outputs, labels[positions].to(here), task)
        value.backward()  # type: ignore[no-untyped-call]
        with _flushed_denormals():
            steps.step()
        steps.zero_grad()
        known = int((~torch.isnan(labels[positions])).sum())
        total += value.detach() * known
        count += known
    return total.item() / max(count, 1)


class Schedule(data.Dataset[tuple[NDArray[np.int64], Tensor]]):
    """All batches of some epochs of a training, in order; workers make their inputs ahead."""

    def __init__(self, inputs: Inputs, rows: NDArray[np.int64], epochs: range, batch_size: int, seed: int) -> None:
        self.inputs, self.epochs, self.per_epoch = inputs, epochs, -(-len(rows) // batch_size)
        self.batches = [
            (epoch, order[start : start + batch_size])
            for epoch in epochs
            for order in [seeds.generator(Stream.ORDER, seed, epoch).permutation(rows)]
            for start in range(0, len(rows), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[NDArray[np.int64], Tensor]:
        epoch, positions = self.batches[number]
        return positions, self.inputs(positions, epoch)

    def load(self, workers: int) -> Iterator[tuple[int, Iterator[tuple[NDArray[np.int64], Tensor]]]]:
        """Pass through the epochs: their number, and their batches as (positions, inputs)."""
        loader = data.DataLoader(
            self, batch_size=None, collate_fn=_as_it_is, num_workers=workers, worker_init_fn=views.one_thread
        )
        rest = iter(loader)
        for epoch in self.epochs:
            yield epoch, itertools.islice(rest, self.per_epoch)


def _as_it_is(batch: Any) -> Any:
    return batch


@torch.no_grad()
def predict(
    model: nn.Module,
    inputs: Inputs,
    positions: NDArray[np.int64],
    batch_size: int,
    here: torch.device,
    precision: str = "no",
) -> Tensor:
    """Compute the outputs [len(positions), T] of the model, without augmentation."""
    model.eval()
    parts = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return torch.cat([_outputs(model, inputs(part, None).to(here), precision).cpu() for part in parts])


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Take denormal numbers for zero, and only here: whoever calls may count on them.

    Adam's means of gradients that have become zero (bits that a batch lacks, units that are off) fade into them, and a
    CPU adds them 4 times more slowly.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _outputs(model: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Compute the outputs [B, T]; in bf16 the encoder's part of them only, which would round outputs to 3 digits."""
    if precision == "no":
        outputs: Tensor = model(inputs)
        return outputs
    image_encoder, top = model.children()
    with torch.autocast(inputs.device.type, torch.bfloat16):
        embeddings = image_encoder(inputs)
    outputs = top(embeddings)
    return outputs


def _readable(outputs: Tensor, task: str) -> NDArray[np.float64]:
    return (torch.sigmoid(outputs) if task == "classification" else outputs).double().numpy()


def _parts(job: Problem) -> Sequence[tuple[str, NDArray[np.int64]]]:
    return (("val", job.split.val), ("test", job.split.test))


def _score(training: Training, result: Result, job: Problem, p: config.Finetune) -> dict[str, Any]:
    """One row of `scores.parquet`."""
    metric = job.dataset.metric
    values = {
        name: metrics.score(metric, job.labels[rows], found) if np.isfinite(found).all() else np.nan
        for name, rows in _parts(job)
        for found in [result.predictions[rows]]
    }
    return {
        "dataset": job.dataset.name,
        "drawing": p.drawing,
        "encoder": training.model,
        "split": p.split or job.dataset.split,
        "holdout": p.holdout or job.dataset.holdout,
        "seed": p.split_seed,
        "stage": training.stage,
        "repeat": training.repeat,
        "head_lr": training.head_lr,
        "augmentation": training.augmentation,
        "batch_size": p.batch_size,
        "epochs": training.epochs,
        "epoch": result.epoch,
        "metric": metric,
        "unit": job.dataset.unit,
        **values,
    }


def _place(training: Training, job: Problem) -> dict[str, Any]:
    columns = ("stage", "repeat", *gridsearch.CELL)
    return {
        "dataset": job.dataset.name,
        "encoder": training.model,
        **{name: getattr(training, name) for name in columns},
    }


def _predictions(training: Training, result: Result, job: Problem) -> pd.DataFrame:
    tables = []
    for (part, rows), (column, target) in itertools.product(_parts(job), enumerate(job.dataset.label_names)):
        chosen = job.molecules.iloc[rows]
        values = {"label": job.labels[rows, column], "prediction": result.predictions[rows, column]}
        table = pd.DataFrame({"row": chosen["row"], "smiles": chosen["smiles"], **values})
        tables.append(table.assign(**_place(training, job), part=part, target=target))
    return pd.concat(tables, ignore_index=True)


def _curves(training: Training, result: Result) -> pd.DataFrame:
    losses = {"train_loss": result.train_loss, "val_loss": result.val_loss}
    columns = ("stage", "repeat", *gridsearch.CELL)
    place = {"encoder": training.model, **{name: getattr(training, name) for name in columns}}
    return pd.DataFrame({"epoch": np.arange(1, len(result.val_loss) + 1), **losses}).assign(**place)
