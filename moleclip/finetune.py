"""Finetuning: encoder and head together, the epoch chosen on validation, the test set read at that epoch."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import baselines, batches, datasets, depict, encoder, params, provenance, splits, stats
from moleclip.datasets import Dataset
from moleclip.splits import Split

log = logging.getLogger(__name__)

# Inputs of the molecules at some positions; the epoch (None: not for training) seeds their augmentation.
Inputs = Callable[[NDArray[np.int64], int | None], Tensor]


@dataclass(frozen=True)
class Result:
    """Predictions of one trained model.

    Attributes
    ----------
    name : str
    predictions : ndarray of float64, shape [N, T]
        At the chosen epoch; NaN for training molecules, which are not predicted. Probabilities for classification.
    epoch : int
        Chosen on validation; 0 for a model that is not trained in epochs.
    curves : DataFrame
        epoch, train_loss, val_loss.
    """

    name: str
    predictions: NDArray[np.float64]
    epoch: int
    curves: pd.DataFrame


def head(width: int, targets: int) -> nn.Sequential:
    """Three hidden layers of 512 with ReLU, then the output layer (paper, Methods)."""
    layers: list[nn.Module] = []
    for size in (512, 512, 512):
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, targets))


def loss(outputs: Tensor, labels: Tensor, task: str) -> Tensor:
    """L1 for regression, binary cross-entropy with logits for classification; missing labels (NaN) are left out.

    Parameters
    ----------
    outputs, labels : Tensor of float32, shape [B, T]
    """
    present = ~torch.isnan(labels)
    known = labels[present]
    if task == "classification":
        return F.binary_cross_entropy_with_logits(outputs[present], known)
    return F.l1_loss(outputs[present], known)


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


def problem(p: params.Finetune) -> Problem:
    """Load the set, leave out (and name) what cannot be read, and split it."""
    dataset = datasets.load(p.dataset)
    if not dataset.label_names:
        raise ValueError(f"{p.dataset}: has no labels to learn")
    molecules, unreadable = datasets.clean(dataset)
    for line in unreadable.itertuples():
        log.warning("%s, row %d: left out, %s: %s", p.dataset, line.row, line.smiles, line.reason)
    split = splits.split(p.split, list(molecules["smiles"]), p.split_seed, p.holdout)
    return Problem(dataset, molecules, split)


def run(p: params.Finetune) -> Path:
    """Train the encoder and the baselines of one job.

    Returns
    -------
    Path
        Folder with `predictions.parquet` (dataset, encoder, part, row, smiles, target, label, prediction: validation
        and test molecules), `scores.parquet` (one row per model) and `curves.parquet` (model, epoch, train_loss,
        val_loss).
    """
    job = problem(p)
    results = [train_encoder(job, p)] if p.encoder else []
    results += [train_baseline(name, job, p) for name in p.baselines]
    output = Path(p.output)
    scores = pd.DataFrame([_scores(result, job, p) for result in results])
    provenance.write_parquet(output / "predictions.parquet", pd.concat([_table(result, job) for result in results]))
    curves = pd.concat([result.curves.assign(model=result.name) for result in results])
    provenance.write_parquet(output / "curves.parquet", curves)
    provenance.write_parquet(output / "scores.parquet", scores)
    return output


def train_encoder(job: Problem, p: params.Finetune) -> Result:
    """Finetune an image encoder with a fresh head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)
        image_encoder = encoder.load(p.encoder, p.seed)
        model = nn.Sequential(image_encoder, head(image_encoder.tower.embed_dim, job.labels.shape[1]))
    # Encoder as in pretraining; the head with Adam's defaults (paper, Methods).
    groups = [
        {"params": list(model[0].parameters()), "lr": p.lr, "betas": (0.9, 0.98), "eps": 1e-6},
        {"params": list(model[1].parameters()), "lr": p.head_lr},
    ]
    adam = torch.optim.Adam(groups, weight_decay=p.weight_decay, fused=True)
    images = np.stack([depict.draw(text, size=image_encoder.preprocess.size) for text in job.smiles])

    def inputs(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        if epoch is None:
            return torch.from_numpy(images[positions])
        return torch.from_numpy(batches.augmented(images, positions, p.augmentation, p.seed, epoch))

    return fit(p.name, model, adam, inputs, job, p.epochs, p.batch_size, p.seed)


def train_baseline(name: str, job: Problem, p: params.Finetune) -> Result:
    """Train one of the baselines that see no image."""
    if name == "mean":
        predictions = baselines.mean(job.labels, job.split.train)
    elif name == "random_forest":
        fingerprints = baselines.morgan(job.smiles)
        predictions = baselines.random_forest(fingerprints, job.labels, job.split.train, job.dataset.task, p.seed)
    elif name == "fingerprint_mlp":
        return _train_fingerprint_mlp(job, p)
    else:
        raise ValueError(f"unknown baseline {name!r}")
    predictions[job.split.train] = np.nan
    return Result(name, predictions, 0, pd.DataFrame(columns=["epoch", "train_loss", "val_loss"], dtype=float))


def _train_fingerprint_mlp(job: Problem, p: params.Finetune) -> Result:
    fingerprints = torch.from_numpy(baselines.morgan(job.smiles))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)
        model = head(fingerprints.shape[1], job.labels.shape[1])
    adam = torch.optim.Adam(model.parameters(), p.baseline_lr, fused=True)

    def inputs(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        return fingerprints[positions]

    return fit("fingerprint_mlp", model, adam, inputs, job, p.baseline_epochs, p.batch_size, p.seed)


def fit(
    name: str,
    model: nn.Module,
    adam: torch.optim.Optimizer,
    inputs: Inputs,
    job: Problem,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Result:
    """Train; keep the predictions of the epoch with the lowest validation loss (of equal ones the last).

    The test molecules are predicted at such epochs and looked at by nothing here.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    labels = torch.from_numpy(job.labels).float()
    predictions = np.full(job.labels.shape, np.nan)
    best, chosen, curves = np.inf, 0, []
    for epoch in range(1, epochs + 1):
        order = batches.generator(batches.Stream.ORDER, seed, epoch).permutation(job.split.train)
        losses = []
        model.train()
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            value = loss(model(inputs(positions, epoch).to(device)), labels[positions].to(device), job.dataset.task)
            value.backward()  # type: ignore[no-untyped-call]
            adam.step()
            adam.zero_grad()
            losses.append((value.item(), len(positions)))
        outputs = predict(model, inputs, job.split.val, batch_size, device)
        val_loss = loss(outputs, labels[job.split.val], job.dataset.task).item()
        curves.append({"epoch": epoch, "train_loss": _mean(losses), "val_loss": val_loss})
        if val_loss <= best:
            best, chosen = val_loss, epoch
            tested = predict(model, inputs, job.split.test, batch_size, device)
            predictions[job.split.val] = _readable(outputs, job.dataset.task)
            predictions[job.split.test] = _readable(tested, job.dataset.task)
        log.info("%s, epoch %d/%d: training loss %.3f, validation loss %.3f", name, epoch, epochs, *_last(curves))
    if not chosen:
        raise FloatingPointError(f"{name}: the validation loss was never finite; try a smaller learning rate")
    return Result(name, predictions, chosen, pd.DataFrame(curves))


@torch.no_grad()
def predict(
    model: nn.Module, inputs: Inputs, positions: NDArray[np.int64], batch_size: int, device: torch.device
) -> Tensor:
    """Compute the outputs [len(positions), T] of the model, without augmentation."""
    model.eval()
    parts = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return torch.cat([model(inputs(part, None).to(device)).cpu() for part in parts])


def _readable(outputs: Tensor, task: str) -> NDArray[np.float64]:
    return (torch.sigmoid(outputs) if task == "classification" else outputs).double().numpy()


def _mean(losses: Sequence[tuple[float, int]]) -> float:
    values, weights = zip(*losses, strict=True)
    return float(np.average(values, weights=weights))


def _last(curves: list[dict[str, float]]) -> tuple[float, float]:
    return curves[-1]["train_loss"], curves[-1]["val_loss"]


def _scores(result: Result, job: Problem, p: params.Finetune) -> dict[str, Any]:
    values = {
        part: stats.score(job.dataset.metric, job.labels[positions], result.predictions[positions])
        for part, positions in (("val", job.split.val), ("test", job.split.test))
    }
    image_based = result.name == p.name
    return {
        "dataset": p.dataset,
        "encoder": result.name,
        "split": p.split,
        "seed": p.split_seed,
        "repeat": 1,
        "head_lr": p.head_lr if image_based else np.nan,
        "augmentation": p.augmentation if image_based else "",
        "epoch": result.epoch,
        "metric": job.dataset.metric,
        "unit": job.dataset.unit,
        **values,
    }


def _table(result: Result, job: Problem) -> pd.DataFrame:
    rows = []
    for part, positions in (("val", job.split.val), ("test", job.split.test)):
        chosen = job.molecules.iloc[positions]
        for column, target in enumerate(job.dataset.label_names):
            rows.append(
                pd.DataFrame(
                    {
                        "dataset": job.dataset.name,
                        "encoder": result.name,
                        "part": part,
                        "row": chosen["row"],
                        "smiles": chosen["smiles"],
                        "target": target,
                        "label": job.labels[positions, column],
                        "prediction": result.predictions[positions, column],
                    }
                )
            )
    return pd.concat(rows)
