"""Pretraining: structural classification at several K, and contrastive learning of two views (paper, Methods)."""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from open_clip import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import batches, chunks, cluster, datasets, depict, encoder, params, provenance
from moleclip.batches import Stream
from moleclip.encoder import Encoder

POOL = 256  # molecules among which retrieval looks for the right one

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Molecules with pseudo-labels, parted into training and held-out ones.

    Attributes
    ----------
    smiles : list of str, length N
    molecules : pyarrow.ChunkedArray, length N
        The same, ready to be drawn; null for those that cannot be.
    classes : ndarray of int64, shape [N, number of K]
    train, held_out : ndarray of int64
        Rows.
    left_out : DataFrame
        smiles and reason of the molecules that cannot be drawn, indexed by row: they are in neither part.
    """

    smiles: list[str]
    molecules: pa.ChunkedArray
    classes: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    left_out: pd.DataFrame

    @property
    def counts(self) -> list[int]:
        """Number of classes of each head."""
        return [int(column.max()) + 1 for column in self.classes.T]


class Objective(nn.Module):
    """Encoder with one linear head per K: the losses of a batch of pairs."""

    def __init__(self, image_encoder: Encoder, counts: Sequence[int], logit_scale: float, contrastive: bool) -> None:
        super().__init__()
        self.encoder = image_encoder
        width = image_encoder.tower.output_dim
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in counts)
        self.logit_scale, self.contrastive = logit_scale, contrastive
        self.clip_loss = ClipLoss(gather_with_grad=True)

    def forward(self, plain: Tensor, randomised: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Losses by name, "loss" being their sum: L = L_SC at each K + L_CL (paper, Methods).

        Parameters
        ----------
        plain, randomised : Tensor of uint8, shape [B, H, W, 3]
        classes : Tensor of int64, shape [B, number of K]
        """
        if self.contrastive:
            z_plain, z_randomised = self.encoder(torch.cat([plain, randomised])).chunk(2)
        else:
            z_plain = self.encoder(plain)
        losses = {
            f"class_{head.out_features}": F.cross_entropy(head(z_plain), column)
            for head, column in zip(self.heads, classes.T, strict=True)
        }
        if self.contrastive:
            unit = F.normalize(z_plain, dim=-1), F.normalize(z_randomised, dim=-1)
            losses["contrastive"] = self.clip_loss(*unit, self.logit_scale)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses


def read_corpus(p: params.Pretrain) -> Corpus:
    """Read the labels, lay the molecules out, leave out what cannot be drawn, and set aside the held-out ones."""
    table = cluster.read_labels(p.labels, p.k, p.seed)
    columns = [f"k_{k}" for k in p.k]
    prepared = chunks.run(depict.prepare_all, list(table["smiles"]), p.cache, max(1, p.workers))
    reasons = prepared["reason"].to_numpy()
    left_out = pd.DataFrame({"smiles": table["smiles"].to_numpy(), "reason": reasons})[reasons != ""]
    if len(left_out):
        log.warning("%d of %d molecules cannot be drawn and are left out", len(left_out), len(table))
    drawable = np.flatnonzero(reasons == "")
    order = drawable[batches.generator(Stream.HELD_OUT, p.seed, 0).permutation(len(drawable))]
    size = max(1, round(p.validation_fraction * len(order)))
    return Corpus(
        smiles=list(table["smiles"]),
        molecules=prepared["molecule"],
        classes=table[columns].to_numpy(np.int64, copy=True),
        train=np.sort(order[size:]),
        held_out=np.sort(order[:size]),
        left_out=left_out,
    )


def optimizer(objective: Objective, p: params.Pretrain) -> torch.optim.Adam:
    """Adam as in the paper: L2 decay inside Adam for the encoder, none for the heads."""
    groups = [
        {"params": list(objective.encoder.parameters()), "lr": p.lr, "eps": 1e-6, "weight_decay": p.weight_decay},
        {"params": list(objective.heads.parameters()), "lr": p.head_lr},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.98), fused=True)


def run(p: params.Pretrain) -> Path:
    """Pretrain an encoder; an interrupted run goes on from its last checkpoint, bit for bit.

    Returns
    -------
    Path
        Folder of the encoder. `metrics.jsonl` in it has a line per `log_every` steps, and one per epoch with the
        results on the held-out molecules; `left_out.parquet` lists the molecules that could not be drawn.
    """
    threads = torch.get_num_threads()
    # Drawing takes the cores of its workers: computing on them too would only make both wait.
    torch.set_num_threads(max(1, threads - p.workers))
    try:
        return _run(p)
    finally:
        torch.set_num_threads(threads)


def _run(p: params.Pretrain) -> Path:
    output = Path(p.output)
    output.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(p)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=p.precision)
    objective = _objective(corpus, p)
    model, adam = accelerator.prepare(objective, optimizer(objective, p))
    size = objective.encoder.preprocess.size
    views = batches.Views(corpus.molecules, corpus.train, p.augmentation, p.seed, size)
    held_out = batches.Views(corpus.molecules, corpus.held_out, "none", p.seed, size, Stream.HELD_OUT)
    classes, held_out_classes = (torch.from_numpy(corpus.classes[rows]) for rows in (corpus.train, corpus.held_out))
    sampler = batches.GroupedBatches(_finest(corpus), p.batch_size, p.group_size, p.seed)
    provenance.write_parquet(output / "left_out.parquet", corpus.left_out.reset_index(names="row"))

    metrics = _Metrics(output / "metrics.jsonl")
    done = _resume(accelerator, output, p, metrics)
    if done == 0:
        metrics.add(epoch=0, step=0, **evaluate(objective, held_out, held_out_classes))
    started, total = time.monotonic(), p.epochs * sampler.per_epoch
    for epoch in range(done // sampler.per_epoch, p.epochs):
        first = epoch * sampler.per_epoch
        sampler.set_epoch(epoch, start=max(0, done - first))
        loader = batches.loader(views, sampler, p.workers)
        since: list[dict[str, Tensor]] = []  # losses since the last line of the log
        for step, (plain, randomised, positions) in enumerate(loader, first + sampler.start + 1):
            inputs = (plain, randomised, classes[positions])
            with accelerator.autocast():
                losses = model(*(tensor.to(accelerator.device) for tensor in inputs))
            if not torch.isfinite(losses["loss"]):
                raise FloatingPointError(f"the loss is {losses['loss'].item()} at step {step}; try a smaller lr")
            accelerator.backward(losses["loss"])
            adam.step()
            adam.zero_grad()
            since.append({name: loss.detach() for name, loss in losses.items()})
            number = step - first
            if number % p.log_every == 0 or number == sampler.per_epoch:
                rate = (step - done) * p.batch_size / (time.monotonic() - started)
                values = {name: torch.stack([line[name] for line in since]).mean().item() for name in losses}
                since.clear()
                metrics.add(epoch=epoch + 1, step=step, **values, molecules_per_s=round(rate, 1))
                log.info(
                    "epoch %d/%d, step %d/%d: loss %.3f, %.0f molecules/s, %s left",
                    *(epoch + 1, p.epochs, number, sampler.per_epoch, values["loss"], rate),
                    _duration((total - step) * p.batch_size / rate),
                )
            if number % p.checkpoint_every == 0 and number < sampler.per_epoch:
                _checkpoint(accelerator, output, step, p)
        results = evaluate(objective, held_out, held_out_classes)
        metrics.add(epoch=epoch + 1, step=first + sampler.per_epoch, **results)
        log.info("epoch %d/%d: %s", epoch + 1, p.epochs, ", ".join(f"{k} {v:.3f}" for k, v in results.items()))
        _checkpoint(accelerator, output, first + sampler.per_epoch, p)
    objective.encoder.save(output, provenance.collect("03_pretrain", p, datasets.files(p.labels)))
    shutil.rmtree(output / "checkpoint", ignore_errors=True)
    return output


def _objective(corpus: Corpus, p: params.Pretrain) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)  # of the heads
        return Objective(encoder.load(p.encoder, p.seed), corpus.counts, p.logit_scale, p.contrastive)


def _finest(corpus: Corpus) -> NDArray[np.int64]:
    """Classes of the training molecules at the largest K; without any K, one class for all."""
    if corpus.classes.shape[1] == 0:
        return np.zeros(len(corpus.train), np.int64)
    finest = int(np.argmax(corpus.counts))
    return np.asarray(corpus.classes[corpus.train, finest])


@torch.no_grad()
def evaluate(objective: Objective, held_out: batches.Views, classes: Tensor) -> dict[str, float]:
    """Check the encoder on held-out molecules, without image augmentation.

    Returns
    -------
    dict of str to float
        held_out_top1: share of drawings whose nearest drawing in the other style, among up to 256 molecules, is
        of the same molecule (both directions); chance: the same for a guess; held_out_accuracy_K for each head.
    """
    objective.eval()
    device = next(objective.parameters()).device
    plain: list[Tensor] = []
    randomised: list[Tensor] = []
    for start in range(0, len(held_out), POOL):
        items = [held_out[0, position] for position in range(start, min(start + POOL, len(held_out)))]
        plain_images, randomised_images, _ = zip(*items, strict=True)
        plain.append(objective.encoder(torch.stack(plain_images).to(device)))
        randomised.append(objective.encoder(torch.stack(randomised_images).to(device)))
    results = retrieval(plain, randomised)
    embeddings = torch.cat(plain)
    for head, column in zip(objective.heads, classes.to(device).T, strict=True):
        correct = head(embeddings).argmax(-1) == column
        results[f"held_out_accuracy_{head.out_features}"] = correct.float().mean().item()
    objective.train()
    return results


def retrieval(plain: Sequence[Tensor], randomised: Sequence[Tensor]) -> dict[str, float]:
    """Top-1 accuracy of finding a molecule's other drawing, and its chance level.

    Parameters
    ----------
    plain, randomised : sequence of Tensor, each of shape [P, D]
        Pools of embeddings; row i of a pool is the same molecule in both. Searches stay within a pool.
    """
    hits, chance = [], []
    for a, b in zip(plain, randomised, strict=True):
        similarity = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
        right = torch.arange(len(a), device=a.device)
        hits += [(similarity.argmax(dim) == right).float() for dim in (0, 1)]
        chance += [torch.full((len(a),), 1 / len(a))]
    return {"held_out_top1": torch.cat(hits).mean().item(), "chance": torch.cat(chance).mean().item()}


def first_batch(corpus: Corpus, p: params.Pretrain, count: int) -> dict[str, Tensor]:
    """Draw the first `count` pairs of views of the first batch, to look at."""
    order = batches.grouped_order(_finest(corpus), p.batch_size, p.group_size, p.seed, epoch=0)
    views = batches.Views(corpus.molecules, corpus.train, p.augmentation, p.seed)
    plain, randomised, _ = zip(*(views[0, int(position)] for position in order[0, :count]), strict=True)
    return {"plain": torch.stack(plain), "randomised": torch.stack(randomised)}


@torch.no_grad()
def similarity(image_encoder: Encoder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cosine similarity [B, B] of the embeddings of drawings [B, H, W, 3]."""
    unit = F.normalize(image_encoder(torch.from_numpy(images)), dim=-1)
    return (unit @ unit.T).numpy()


class _Metrics:
    """Lines of `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, **values: float) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")

    def keep(self, step: int) -> None:
        """Forget what came after a step (0: everything)."""
        lines = read_lines(self.path) if self.path.exists() and step else []
        kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
        provenance.write(self.path, lambda part: part.write_text(kept))


def read_lines(path: Path) -> list[dict[str, float]]:
    """Rows of a JSON-lines file; a last line cut off by an interruption is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_metrics(folder: str | Path) -> pd.DataFrame:
    """Metrics of a pretraining run, one row per logged step or evaluation."""
    return pd.DataFrame(read_lines(Path(folder) / "metrics.jsonl"))


def _checkpoint(accelerator: Accelerator, output: Path, step: int, p: params.Pretrain) -> None:
    part, final = output / "checkpoint.part", output / "checkpoint"
    shutil.rmtree(part, ignore_errors=True)
    accelerator.save_state(str(part))
    provenance.write_json(part / "progress.json", {"step": step, **_identity(p)})
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)


def _resume(accelerator: Accelerator, output: Path, p: params.Pretrain, metrics: _Metrics) -> int:
    """Load the last checkpoint, if there is one; return the number of finished steps."""
    progress = output / "checkpoint" / "progress.json"
    if not progress.is_file():
        metrics.keep(0)
        return 0
    saved = json.loads(progress.read_text())
    wanted = _identity(p)
    different = [name for name in wanted if saved.get(name) != wanted[name]]
    if different:
        changes = ", ".join(f"{name} was {saved.get(name)!r}, is {wanted[name]!r}" for name in different)
        raise ValueError(
            f"{progress.parent}: an unfinished run with other settings ({changes}). Delete this folder to start "
            "afresh, or set them back to go on with it"
        )
    accelerator.load_state(str(progress.parent))
    metrics.keep(saved["step"])
    log.info("going on after step %d", saved["step"])
    return int(saved["step"])


def _identity(p: params.Pretrain) -> dict[str, Any]:
    """Name what must agree for a run to go on; workers and cache change no result."""
    kept = p.model_dump(exclude={"workers", "cache", "output"})
    return {**kept, "sha256": [provenance.sha256(file) for file in datasets.files(p.labels)]}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
