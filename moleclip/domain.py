"""Domain-focused pretraining: all molecules of a narrow set, and a label that is cheap to compute (paper, Methods)."""

import dataclasses
import hashlib
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rdkit.Chem import Descriptors

from moleclip import arithmetic, config, datasets, drawing, encoder, finetune, molecules
from moleclip.datasets import Dataset
from moleclip.encoder import Encoder
from moleclip.io import errors, files

CHECKPOINT = "checkpoint.pt"
PREDICTIONS = "predictions.parquet"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Domain:
    """Molecules with the labels that are learnt.

    Attributes
    ----------
    molecules : DataFrame
        Readable ones, as `datasets.clean` gives them.
    names : list of str, length T
    labels : ndarray of float64, shape [N, T]
        In their units; NaN where missing.
    shift, scale : ndarray of float64, shape [T]
        The encoder learns (label - shift) / scale.
    """

    molecules: pd.DataFrame
    names: list[str]
    labels: NDArray[np.float64]
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]


def read(p: config.PretrainDomain) -> Domain:
    """Read the molecules with their own labels, or compute descriptors to be learnt.

    Raises
    ------
    ValueError
        There is nothing to learn, RDKit has no such descriptor, or a label does not vary.
    """
    dataset = datasets.load(p.dataset, labels="all")
    molecules = datasets.readable(dataset, p.sample, p.seed)
    labels = _descriptors(list(molecules["smiles"]), p.descriptors) if p.descriptors else _own(dataset, molecules)
    names = p.descriptors or list(dataset.label_names)
    for name, values in zip(names, labels.T, strict=True):
        if len(np.unique(values[~np.isnan(values)])) < 2:
            raise ValueError(
                f"{p.dataset}: {name} is the same for all molecules, or missing: there is nothing to learn"
            )
    if not p.scale_labels:
        return Domain(molecules, names, labels, np.zeros(len(names)), np.ones(len(names)))
    return Domain(molecules, names, labels, np.nanmean(labels, axis=0), np.nanstd(labels, axis=0))


def _own(dataset: Dataset, molecules: pd.DataFrame) -> NDArray[np.float64]:
    if not dataset.label_names:
        raise ValueError(f"{dataset.name}: has no labels; name descriptors to compute instead")
    return molecules[list(dataset.label_names)].to_numpy(np.float64)


def _descriptors(smiles: list[str], names: list[str]) -> NDArray[np.float64]:
    functions = dict(Descriptors.descList)
    for name in names:
        if name not in functions:
            raise ValueError(f"RDKit has no descriptor {name!r}{errors.nearest(name, list(functions))}")
    rows = [[functions[name](molecule) for name in names] for molecule in map(molecules.parse, smiles)]
    return np.array(rows, np.float64)


def overlap(molecules: pd.DataFrame, others: list[str]) -> pd.DataFrame:
    """Count the molecules of finetuning sets that domain-focused pretraining sees too (though not their labels).

    Returns
    -------
    DataFrame
        set, molecules, seen.
    """
    known = set(molecules["canonical_smiles"])
    rows = []
    for name in others:
        found = datasets.clean(datasets.load(name, labels=[]))[0]["canonical_smiles"]
        rows.append({"set": name, "molecules": len(found), "seen": int(found.isin(known).sum())})
    return pd.DataFrame(rows, columns=["set", "molecules", "seen"])


def folder(p: config.PretrainDomain, epochs: int) -> Path:
    """Where the encoder of a number of epochs is written."""
    return Path(p.output) / f"epochs_{epochs}"


def run(p: config.PretrainDomain, record: dict[str, Any] | None = None) -> list[Path]:
    """Train encoder and head on all molecules; keep the encoder at each number of epochs in `epochs`.

    An interrupted run goes on from its last checkpoint, to the same weights on a CPU.

    Parameters
    ----------
    p : config.PretrainDomain
    record : dict, optional
        What the encoders were made from, for their cards.

    Returns
    -------
    list of Path
        An encoder folder per number of epochs. `curves.parquet` (epoch, loss) and `predictions.parquet` (row, smiles,
        target, label, prediction: of the training molecules, at the end) are in `output`.

    Raises
    ------
    ValueError
        There is a run with other parameters or data in the folder, finished or not.
    """
    domain, output, last = read(p), Path(p.output), max(p.epochs)
    encoder.check_precision(p.precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)
        model = encoder.load(p.encoder, p.seed)
        identity = _identity(p, domain, model)
        network = finetune.with_head(model, len(domain.names), p.arithmetic)
    if (output / PREDICTIONS).is_file():  # a finished run's last file, which a workflow deletes to have another one
        for place in {*(folder(p, epochs) for epochs in p.epochs), *output.glob("epochs_*")}:
            encoder.keep_finished(place, identity)
    images = drawing.draw_all(list(domain.molecules["smiles"]), model.preprocess.size, "plain", p.workers)
    file, head, start = output / CHECKPOINT, network[1], arithmetic.weights(model)
    steps = finetune.make_optimizer(model, head, p.lr, p.head_lr, p.weight_decay, arithmetic=p.arithmetic)
    if p.moments:
        encoder.load_moments(p.encoder, model, steps)
    scaler = finetune.loss_scaler(p.precision)
    losses = _resume(file, identity, {"encoder": model, "head": head, "steps": steps, "scaler": scaler})
    scaled = torch.from_numpy((domain.labels - domain.shift) / domain.scale).float()
    inputs = finetune.image_inputs(images, p.augmentation, p.seed)
    rows = np.arange(len(images))
    schedule = finetune.Schedule(inputs, rows, range(len(losses) + 1, last + 1), p.batch_size, p.seed)
    for epoch, batches_of_epoch in schedule.load(p.workers):
        loss = finetune.train_epoch(network, steps, batches_of_epoch, scaled, "regression", p.precision, scaler)
        losses.append(loss)
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} in epoch {epoch}; start again with a smaller lr")
        if epoch in p.epochs:
            moved = arithmetic.check_start(p.encoder, start, arithmetic.weights(model))
            encoder.save_moments(folder(p, epoch), model, steps if p.keep_moments else None)
            model.save(folder(p, epoch), {**(record or {}), "identity": identity, "drift": moved})
        if epoch % p.checkpoint_every == 0 or epoch == last:
            log.info("epoch %d/%d: loss %.4f", epoch, last, losses[-1])
            states = {"encoder": model.state_dict(), "head": head.state_dict(), "steps": steps.state_dict()}
            content = {
                "identity": identity | {"results": config.RESULTS},
                "losses": losses,
                "scaler": scaler.state_dict(),
                **states,
            }
            files.write(file, lambda part, content=content: torch.save(content, part))  # type: ignore[misc]
    outputs = finetune.predict(network, inputs, rows, p.batch_size, p.precision).double().numpy()
    _write_tables(output, domain, losses, outputs * domain.scale + domain.shift)
    file.unlink(missing_ok=True)
    return [folder(p, epochs) for epochs in p.epochs]


def _identity(p: config.PretrainDomain, domain: Domain, model: Encoder) -> dict[str, Any]:
    data = hashlib.sha256(domain.molecules["smiles"].str.cat(sep="\n").encode() + domain.labels.tobytes()).hexdigest()
    kept = p.identity(exclude=("output", "workers", "checkpoint_every", "overlap", "keep_moments"))
    return {**kept, "molecules and labels": data, "start": encoder.digest(model)}


def _resume(file: Path, identity: dict[str, Any], parts: dict[str, Any]) -> list[float]:
    """Load the last checkpoint, if there is one; return the losses of the finished epochs."""
    if not file.is_file():
        return []
    state = torch.load(file, map_location="cpu", weights_only=True)
    files.refuse_another(file, {"results": config.RESULTS} | state["identity"], identity | {"results": config.RESULTS})
    for name, part in parts.items():
        part.load_state_dict(state[name])
    log.info("going on after epoch %d", len(state["losses"]))
    return list(state["losses"])


def _write_tables(output: Path, domain: Domain, losses: list[float], predictions: NDArray[np.float64]) -> None:
    curves = pd.DataFrame({"epoch": np.arange(1, len(losses) + 1), "loss": losses})
    files.write_parquet(output / "curves.parquet", curves)
    tables = [
        domain.molecules[["row", "smiles"]].assign(target=name, label=domain.labels[:, i], prediction=predictions[:, i])
        for i, name in enumerate(domain.names)
    ]
    files.write_parquet(output / PREDICTIONS, pd.concat(tables, ignore_index=True))
