"""Pretraining: structural classification at several K, and contrastive learning of two views (paper, Methods)."""

import dataclasses
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import (
    arithmetic,
    augmentation_batch,
    clustering,
    config,
    datasets,
    drawing,
    encoder,
    losses,
    metrics,
    molecules,
    views,
)
from moleclip.encoder import Encoder, embed_drawings
from moleclip.io import chunks, files, seeds
from moleclip.io.files import sha256
from moleclip.io.seeds import Stream
from moleclip.losses import Objective, backward
from moleclip.views import Views, grouped_order

POOL = 256  # molecules among which retrieval looks for the right one
NEIGHBOURS = 10  # that vote in the check by nearest neighbours
REFERENCE = 1024  # training molecules among which they are looked for
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
START = "sha256 of the encoder at the start"  # what an identity calls it
WATCH = 20.0  # seconds between two looks at a run
COMPILED = 500  # steps from which compiling for a GPU, which takes a minute, pays

Watch = Callable[[pd.DataFrame], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Molecules with pseudo-labels, parted into training and held-out ones.

    Attributes
    ----------
    smiles : list of str, length N
    molecules : pyarrow.ChunkedArray, length N
        The same, ready to be drawn; null for those that cannot be.
    ks : list of int
    classes : ndarray of int64, shape [N, number of K]
    train, held_out : ndarray of int64
        Rows.
    of : ndarray of int64, shape [N]
        Row of the molecule that each is the mirror image of, or its own.
    left_out : DataFrame
        smiles and reason of the molecules that cannot be drawn, indexed by row: they are in neither part.
    """

    smiles: list[str]
    molecules: pa.ChunkedArray
    ks: list[int]
    classes: NDArray[np.int64]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    of: NDArray[np.int64]
    left_out: pd.DataFrame

    @property
    def counts(self) -> dict[int, int]:
        """Number of classes at each K."""
        return {k: int(column.max()) + 1 for k, column in zip(self.ks, self.classes.T, strict=True)}

    @property
    def sha256(self) -> str:
        """Checksum of what is trained and tested on, after what cannot be drawn has been left out."""
        parts = (self.train, self.held_out, self.classes)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def read_corpus(p: config.Pretrain) -> Corpus:
    """Read the labels, lay the molecules out, leave out what cannot be drawn, and set aside the held-out ones."""
    table = clustering.read_labels(p.labels, p.k, p.seed, p.cache, p.workers)
    table = table.iloc[seeds.sample(len(table), p.sample, p.seed)]
    of = np.arange(len(table))
    if p.enantiomers:
        chiral = np.flatnonzero([molecules.chiral(text) for text in table["smiles"]])
        mirrored = table.iloc[chiral].assign(smiles=lambda rows: rows["smiles"].map(molecules.mirror))
        table, of = pd.concat([table, mirrored]), np.concatenate([of, chiral])
    columns = [f"k_{k}" for k in p.k]
    prepared = chunks.run(drawing.prepare_all, list(table["smiles"]), config.cache(p.cache), p.workers)
    reasons = prepared["reason"].to_numpy()
    left_out = pd.DataFrame({"smiles": table["smiles"].to_numpy(), "reason": reasons})[reasons != ""]
    if len(left_out):
        log.warning("%d of %d molecules cannot be drawn and are left out", len(left_out), len(table))
    drawable = np.flatnonzero((reasons == "") & (of == np.arange(len(of))))
    rng = seeds.generator(Stream.HELD_OUT, p.seed, 0)
    order = drawable[rng.permutation(len(drawable))]
    size = max(1, round(p.validation_fraction * len(order)))
    if p.hold_out_groups and p.k:
        finest = table[f"k_{max(p.k)}"].to_numpy()
        by_class = order[np.argsort(finest[order], kind="stable")]
        groups = np.array_split(by_class, range(p.group_size, len(by_class), p.group_size))
        order = np.concatenate([groups[number] for number in rng.permutation(len(groups))])
        size = max(1, round(size / p.group_size)) * p.group_size
    return Corpus(
        smiles=list(table["smiles"]),
        molecules=prepared["molecule"],
        ks=list(p.k),
        classes=table[columns].to_numpy(np.int64, copy=True),
        train=np.flatnonzero((reasons == "") & np.isin(of, order[size:])),
        held_out=np.sort(order[:size]),
        of=of,
        left_out=left_out,
    )


def run(
    p: config.Pretrain,
    record: dict[str, Any] | None = None,
    watch: Watch | None = None,
    keep_checkpoint: bool = False,
) -> Path:
    """Pretrain an encoder; an interrupted run goes on from its last checkpoint.

    On a CPU it ends with the same weights bit for bit, if it computes on as many threads as before.

    Parameters
    ----------
    p : config.Pretrain
    watch : callable, optional
        Is given the metrics so far every `WATCH` seconds or so, and at the end.
    keep_checkpoint : bool
        Keep the last checkpoint, so that rerunning finishes immediately: the caller deletes it when nothing can fail
        any more.

    Returns
    -------
    Path
        Folder of the encoder. `metrics.jsonl` in it has a line per `log_every` steps, and one per evaluation with
        the results on the held-out molecules, and how far the weights are from their start (`arithmetic.drift`);
        `left_out.parquet` lists the molecules that could not be drawn.

    Raises
    ------
    ValueError
        There is a run with other parameters or data in the folder, finished or not, or the tower cannot be trained so.
    FloatingPointError
        The loss is not finite.
    RuntimeError
        Another number of processes runs than was asked for.
    """
    encoder.check_precision(p.precision)
    threads = torch.get_num_threads()
    # Drawing takes the cores of its workers: computing on them too would only make both wait.
    torch.set_num_threads(max(1, threads - p.workers))
    try:
        with torch.random.fork_rng(), files.alone(Path(p.output)):
            return _Training(p, record or {}, watch).run(keep_checkpoint)
    except RuntimeError as error:
        if not re.search("DataLoader worker.*(exited unexpectedly|killed by signal)", str(error)):
            raise
        raise RuntimeError(
            f"a process that draws died, often for lack of memory ({error}). The last checkpoint is intact: start the "
            "same run again, perhaps with fewer workers"
        ) from error
    finally:
        torch.set_num_threads(threads)


class Watched:
    """Shows the metrics in a folder to whoever watches, not too often."""

    def __init__(self, folder: Path, watch: Watch | None) -> None:
        self.folder, self.watch, self.last = folder, watch, time.monotonic()

    def look(self, at_once: bool = False) -> None:
        """Show the metrics, if there are any and it is time to."""
        due = at_once or time.monotonic() - self.last > WATCH
        if self.watch and due and (self.folder / METRICS).is_file():
            self.watch(read_metrics(self.folder))
            self.last = time.monotonic()


class _Training:
    """One process of a run: what it holds, and its steps."""

    def __init__(self, p: config.Pretrain, record: dict[str, Any], watch: Watch | None) -> None:
        self.record = record
        self.p, self.output, self.watched = p, Path(p.output), Watched(Path(p.output), watch)
        AcceleratorState._reset_state()  # of an earlier run in this process, with another precision
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=p.precision,
            # The first process may lay out a whole corpus while the others wait.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=24))],
        )
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if world != p.processes:
            # `accelerate launch` on a CPU may start one process and say nothing.
            raise RuntimeError(f"{p.processes} processes were asked for, {world} run; start them with torchrun")
        with self.accelerator.main_process_first():
            self.corpus = corpus = read_corpus(p)
        if len(set(gather_object([corpus.sha256]))) > 1:
            raise RuntimeError("the processes have different molecules or labels; give them a common `cache`")
        self.identity = _identity(p, corpus)
        encoder.keep_finished(self.output, self.identity)
        torch.manual_seed(p.seed)  # of the heads
        self.encoder = encoder.load(p.encoder, p.seed, p.image_size).train()
        self.encoder.normalize = p.contrastive
        if world > 1 or p.micro_batch_size:
            _refuse_batch_norm(self.encoder)
        if p.channel_order:
            changed = dataclasses.replace(self.encoder.preprocess, channel_order=p.channel_order)
            self.encoder.preprocess = changed
        arithmetic.prepare(self.encoder, p.arithmetic)
        self.start = arithmetic.weights(self.encoder) if self.accelerator.is_main_process else {}
        width = self.encoder.tower.embed_dim
        self.objective = Objective(width, corpus.counts, p.logit_scale, p.contrastive, rank, world, p.class_weight)
        self.objective.to(self.accelerator.device)
        adam = losses.optimizer(self.encoder.to(self.accelerator.device), self.objective, p)
        self.model, self.adam = self.accelerator.prepare(self.encoder, adam)
        self.rates = [group["lr"] for group in adam.param_groups]
        size = self.encoder.preprocess.size
        self.gpu = _is_gpu(self.accelerator.device)
        # On a GPU, those that draw do nothing else: it augments by itself.
        level = "none" if self.gpu else p.augmentation
        self.views = views.Views(corpus.molecules, corpus.train, level, p.seed, size, redraw=p.redraw)
        grouping = (p.batch_size, p.group_size, p.seed, rank, world)
        self.sampler = views.GroupedBatches(_finest(corpus), *grouping, of=_originals(corpus))
        self.total = p.epochs * self.sampler.per_epoch
        if p.warmup_steps >= self.total:
            raise ValueError(f"warmup_steps {p.warmup_steps} leaves none of the run's {self.total} steps")
        self.loader = views.loader(self.views, self.sampler, p.workers)
        if self.gpu and self.total >= COMPILED:
            self.model = torch.compile(self.model)
        self.classes = torch.from_numpy(corpus.classes[corpus.train]).to(self.accelerator.device)
        self.metrics = _Metrics(self.output, p.tensorboard, self.accelerator.is_main_process)

    def run(self, keep_checkpoint: bool) -> Path:
        if self.accelerator.is_main_process:
            left_out = self.corpus.left_out.reset_index(names="row")
            files.write_parquet(self.output / "left_out.parquet", left_out)
        done, per_epoch = self._resume(), self.sampler.per_epoch
        if self._is_evaluated(done):
            self._evaluate(done)
        for epoch in range(done // per_epoch, self.p.epochs):
            self._epoch(epoch, max(0, done - epoch * per_epoch))
        self._check_finite()
        if self.accelerator.is_main_process:
            encoder.save_moments(self.output, self.encoder, self.adam if self.p.keep_moments else None)
            moved = arithmetic.drift(self.start, arithmetic.weights(self.encoder))
            self.encoder.save(self.output, {**self.record, "identity": self.identity, "drift": moved})
            if not keep_checkpoint:
                (self.output / CHECKPOINT).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        self.watched.look(at_once=True)
        return self.output

    def _epoch(self, epoch: int, start: int) -> None:
        p, per_epoch = self.p, self.sampler.per_epoch
        self.sampler.set_epoch(epoch, start)
        since: list[dict[str, Tensor]] = []  # losses since the last line of the log
        clock = _Clock(p.batch_size)
        for number, batch in enumerate(self.loader, start + 1):
            step = epoch * per_epoch + number
            clock.waited()
            since.append(self._step(step, *batch))
            if number % p.log_every == 0 or number == per_epoch:
                self._log(epoch, number, since, clock)
                since.clear()
                self.watched.look()
            if number == per_epoch or number % p.checkpoint_every == 0:
                self._checkpoint(step)
            if self._is_evaluated(step):
                self._evaluate(step)
            clock.worked()

    def _is_evaluated(self, step: int) -> bool:
        number = step % self.sampler.per_epoch
        return number % (self.p.evaluate_every or self.sampler.per_epoch) == 0

    def _step(self, step: int, plain: Tensor, randomised: Tensor, positions: Tensor) -> dict[str, Tensor]:
        # Only towers with dropout draw any numbers here.
        rank = self.accelerator.process_index
        torch.manual_seed(int(seeds.generator(Stream.STEP, self.p.seed, step, rank).integers(2**63)))
        drawn = [plain, randomised] if self.p.contrastive else [plain]
        device = self.accelerator.device
        images = torch.cat([images.to(device, non_blocking=True) for images in drawn])
        if self.gpu:
            epoch = (step - 1) // self.sampler.per_epoch
            images = augmentation_batch.augment_views(images, self.p.augmentation, self.p.seed, epoch, positions)
        found = self._backward(images, self.classes[positions.to(device, non_blocking=True)])
        factor = losses.rate_factor(step, self.total, self.p.warmup_steps, self.p.decay)
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if step <= self.p.slow_steps:  # the encoder alone, whose group is the first
            self.adam.param_groups[0]["lr"] /= 3
        self.adam.step()
        self.adam.zero_grad()
        return found

    def _backward(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        try:
            return backward(self.model, self.objective, images, classes, self.accelerator, self.p.micro_batch_size)
        except TorchDynamoException as error:
            log.warning("torch.compile failed (%s): going on without it", " ".join(str(error).split())[:200])
            self.model = self.model._orig_mod
            self.adam.zero_grad()
            return self._backward(images, classes)

    def _log(self, epoch: int, number: int, since: list[dict[str, Tensor]], clock: "_Clock") -> None:
        step = epoch * self.sampler.per_epoch + number
        lines = torch.stack([torch.stack(list(line.values())) for line in since])
        means = self.accelerator.reduce(lines.mean(0), "mean")
        values = dict(zip(since[0], means.tolist(), strict=True))  # a GPU is waited for here, not at every step
        if not math.isfinite(values["loss"]):
            first = step - len(since) + 1 + int(torch.isfinite(lines[:, -1]).long().argmin())
            raise FloatingPointError(
                f"the loss is not finite at step {first}. Delete {self.output / CHECKPOINT}, if it is there, and "
                "start again with a smaller lr"
            )
        rate, waiting = clock.read()
        speed = {"molecules_per_s": round(rate, 1), "waiting_for_data": round(waiting, 3)}
        self.metrics.add(epoch=epoch + 1, step=step, **values, **speed)
        if self.accelerator.is_main_process:
            log.info(
                "epoch %d/%d, step %d/%d: loss %.3f, %.0f molecules/s, %s left",
                *(epoch + 1, self.p.epochs, number, self.sampler.per_epoch, values["loss"], rate),
                _duration((self.total - step) * self.p.batch_size / rate),
            )

    def _evaluate(self, step: int) -> None:
        """Test on held-out molecules, unless the run that goes on here has done so."""
        if self.accelerator.is_main_process and not self.metrics.evaluated(step):
            results = evaluate(self.encoder, self.objective, self.corpus, self.p.seed)
            moved = arithmetic.check_start(self.p.encoder, self.start, arithmetic.weights(self.encoder))
            results |= {f"start_{name}": value for name, value in moved.items()}
            epoch = math.ceil(step / self.sampler.per_epoch)
            self.metrics.add(epoch=epoch, step=step, **results)
            log.info("after step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in results.items()))
        self.accelerator.wait_for_everyone()

    def _checkpoint(self, step: int) -> None:
        """Keep everything that the rest of the run depends on, in one file, at once."""
        self._check_finite()
        if self.accelerator.is_main_process:
            state = {
                "step": step,
                "identity": {**self.identity, "results": config.RESULTS},
                "threads": torch.get_num_threads(),
                "gpu": self.gpu,
                "encoder": self.encoder.state_dict(),
                "objective": self.objective.state_dict(),
                "adam": self.adam.state_dict(),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            }
            try:
                files.write(self.output / CHECKPOINT, lambda part: torch.save(state, part))
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"{self.output / CHECKPOINT}: cannot be written ({str(error).splitlines()[0]}). The checkpoint "
                    "before it is intact: make room and start the same run again"
                ) from None
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """Load the last checkpoint, if there is one; return the number of finished steps."""
        file = self.output / CHECKPOINT
        if not file.is_file():
            self.metrics.keep(0)
            if self.accelerator.is_main_process:
                log.info("%s: no checkpoint, starts from the beginning", self.output)
            return 0
        state = torch.load(file, map_location="cpu", weights_only=True)  # whatever device goes on
        now = {**self.identity, "results": config.RESULTS}
        before = {name: now[name] for name in (START, "results") if name in now}  # older checkpoints do not say
        files.refuse_another(file, before | state["identity"], now)
        threads = state["threads"], torch.get_num_threads()
        if threads[0] != threads[1] and self.accelerator.device.type == "cpu":
            # They change the order of summation.
            log.warning("%d computing threads before, %d now: the weights will differ in their last digits", *threads)
        if state.get("gpu", self.gpu) != self.gpu:
            log.warning(
                "begun %s a GPU: augmentation draws other random numbers from here on", "without" if self.gpu else "on"
            )
        self.encoder.load_state_dict(state["encoder"])
        self.objective.load_state_dict(state["objective"])
        self.adam.load_state_dict(state["adam"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.metrics.keep(state["step"])
        if self.accelerator.is_main_process:
            log.info("%s: continues from step %d of %d", file, state["step"], self.total)
        return int(state["step"])

    def _check_finite(self) -> None:
        """No weights are kept that no run could go on from."""
        for name, parameter in self.encoder.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(f"{name} is not finite any more; start again with a smaller lr")


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _refuse_batch_norm(module: nn.Module) -> None:
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        raise ValueError(
            "a tower with batch normalisation sees each micro-batch and process separately: use one process and no "
            "micro-batches"
        )


class _Clock:
    """Molecules a second, and the share of time spent waiting for them to be drawn."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.steps, self.waiting = batch_size, 0, 0.0
        self.started = self.last = time.monotonic()

    def waited(self) -> None:
        self.steps += 1
        self.waiting += time.monotonic() - self.last

    def worked(self) -> None:
        self.last = time.monotonic()

    def read(self) -> tuple[float, float]:
        passed = time.monotonic() - self.started
        return self.steps * self.batch_size / passed, self.waiting / passed


def _finest(corpus: Corpus) -> NDArray[np.int64]:
    """Classes of the training molecules at the largest K; without any K, one class for all."""
    if corpus.classes.shape[1] == 0:
        return np.zeros(len(corpus.train), np.int64)
    finest = int(np.argmax(corpus.ks))
    return np.asarray(corpus.classes[corpus.train, finest])


def _originals(corpus: Corpus) -> NDArray[np.int64]:
    """Position among the training molecules of the one that each is the mirror image of, or its own."""
    return np.searchsorted(corpus.train, corpus.of[corpus.train])


@torch.no_grad()
def evaluate(image_encoder: Encoder, heads: Objective, corpus: Corpus, seed: int) -> dict[str, float]:
    """Check the encoder on held-out molecules, without image augmentation.

    Returns
    -------
    dict of str to float
        held_out_top1: share of drawings whose nearest drawing in the other style, among up to 256 molecules, is
        of the same molecule (both directions); chance: the same for a guess; held_out_accuracy_K for each head;
        held_out_neighbours_K: share of molecules whose class at the smallest K is what most of their 10 nearest
        training molecules (of 1,024 at most) have.
    """
    held_out = views.Views(
        corpus.molecules, corpus.held_out, "none", seed, image_encoder.preprocess.size, Stream.HELD_OUT
    )
    pools = [range(start, min(start + POOL, len(held_out))) for start in range(0, len(held_out), POOL)]
    plain, randomised = zip(*(_embed(image_encoder, held_out, pool) for pool in pools), strict=True)
    results = retrieval(plain, randomised)
    embeddings = torch.cat(plain)
    classes = torch.from_numpy(corpus.classes).to(embeddings.device)
    for k, head, column in zip(heads.ks, heads.heads, classes[corpus.held_out].T, strict=True):
        correct = head(embeddings).argmax(-1) == column
        results[f"held_out_accuracy_{k}"] = correct.float().mean().item()
    if corpus.ks:
        coarse = int(np.argmin(corpus.ks))
        rows = seeds.generator(Stream.NEIGHBOURS, seed, 0).permutation(corpus.train)[:REFERENCE]
        known = _plain_embeddings(image_encoder, corpus, rows)
        near = metrics.nearest(known.cpu().numpy(), min(NEIGHBOURS, len(known)), embeddings.cpu().numpy())
        found = torch.mode(classes[rows, coarse][near], dim=-1)[0]
        agree = (found == classes[corpus.held_out, coarse]).float().mean().item()
        results[f"held_out_neighbours_{corpus.ks[coarse]}"] = agree
    return results


def _embed(image_encoder: Encoder, views: views.Views, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    plain, randomised, _ = zip(*(views[0, position] for position in positions), strict=True)
    first, second = (embed_drawings(image_encoder, torch.stack(images)) for images in (plain, randomised))
    return first, second


def _plain_embeddings(image_encoder: Encoder, corpus: Corpus, rows: NDArray[np.int64]) -> Tensor:
    size = image_encoder.preprocess.size
    molecules = (drawing.from_store(corpus.molecules[int(row)].as_py()) for row in rows)
    return embed_drawings(image_encoder, np.stack([drawing.draw(molecule, size=size) for molecule in molecules]))


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


def first_batch(corpus: Corpus, p: config.Pretrain, count: int) -> dict[str, Tensor]:
    """Draw the first `count` pairs of views of the first batch, to look at."""
    order = grouped_order(_finest(corpus), p.batch_size, p.group_size, p.seed, 0, _originals(corpus))
    size = p.image_size or encoder.Preprocess.size
    views = Views(corpus.molecules, corpus.train, p.augmentation, p.seed, size, redraw=p.redraw)
    plain, randomised, _ = zip(*(views[0, int(position)] for position in order[0, :count]), strict=True)
    return {"plain": torch.stack(plain), "randomised": torch.stack(randomised)}


class _Metrics:
    """Lines of `metrics.jsonl`, and TensorBoard's events if asked for; written by the first process."""

    def __init__(self, folder: Path, tensorboard: bool, writes: bool) -> None:
        self.path, self.writes = folder / METRICS, writes
        self.board: Any = None
        if tensorboard and writes:
            from torch.utils.tensorboard import SummaryWriter  # its package is an extra

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, *, step: int, **values: float) -> None:
        if not self.writes:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items() if self.board else ():
            self.board.add_scalar(name, value, step)

    def evaluated(self, step: int) -> bool:
        return any(line["step"] == step and "held_out_top1" in line for line in read_lines(self.path))

    def keep(self, step: int) -> None:
        """Forget what came after a step (0: everything)."""
        if self.writes:
            lines = read_lines(self.path) if self.path.exists() and step else []
            kept = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
            files.write(self.path, lambda part: part.write_text(kept))


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
    return pd.DataFrame(read_lines(Path(folder) / METRICS))


def _identity(p: config.Pretrain, corpus: Corpus) -> dict[str, Any]:
    """Name what must agree for a run to go on; what is excluded changes no result."""
    kept = p.identity(exclude=("workers", "processes", "cache", "output", "tensorboard", "checkpoint_every"))
    data, start = ([sha256(file) for file in datasets.files(source)] for source in (p.labels, p.encoder))
    # Random weights, and those that a library fetches by name, have no file here: their name says it all.
    return {**kept, "sha256": data, **({START: start} if start else {}), "molecules and classes": corpus.sha256}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
