"""The finetuned encoder as an estimator: an image encoder and a fresh head, trained together on a few labels."""

import contextlib
import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)
from torch.utils import data

from moleclip import arithmetic as arithmetics
from moleclip import config, views
from moleclip import encoder as encoders
from moleclip.augmentation import augment
from moleclip.datasets import Task
from moleclip.encoder import Encoder, Preprocess, Tower, head
from moleclip.estimator import Labels, MoleculeEstimator, Molecules
from moleclip.io import files, seeds
from moleclip.io.seeds import Stream

# Inputs of the molecules at some positions; the epoch (None: not for training) seeds their augmentation.
Inputs = Callable[[NDArray[np.int64], int | None], Tensor]


_MOST = 64  # molecules of a batch; the paper's


def fitting(molecules: int) -> tuple[int, int]:
    """Batch size and epochs that fit a number of training molecules.

    At least eight steps in an epoch, in batches of 8 to 64, and at least 50 steps in all, in 10 to 15 epochs: the
    paper's batch of 64 would make one step an epoch of a few dozen molecules, and leave them all at the same value.

    >>> fitting(30), fitting(200), fitting(5000)
    ((8, 13), (16, 10), (64, 10))
    """
    batch_size = int(np.clip(2 ** max(0, (molecules // 8).bit_length() - 1), 8, _MOST))
    return batch_size, int(np.clip(np.ceil(50 / np.ceil(molecules / batch_size)), 10, 15))


class NetworkEstimator(MoleculeEstimator):
    """What networks trained in epochs share: the epoch with the lowest validation loss counts (paper, Methods).

    Attributes
    ----------
    network_ : Module
        As it was after the chosen epoch.
    epoch_ : int
    train_loss_, val_loss_ : ndarray of float64, shape [epochs]
    """

    epochs: int | None
    batch_size: int | None
    precision: str = "no"
    workers: int = 0
    scale_labels: bool = False
    regression_loss: str = "l1"

    def _train(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        inputs: Inputs,
        labels: Labels,
        validation: tuple[Inputs, Labels],
    ) -> None:
        known = np.concatenate([labels, validation[1]])
        self.shift_, self.scale_ = np.zeros(self.n_labels_), np.ones(self.n_labels_)
        if self.scale_labels and self.task == "regression":
            self.shift_, self.scale_ = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
            self.scale_[self.scale_ == 0] = 1.0
        targets, val_targets = (
            torch.from_numpy((y - self.shift_) / self.scale_).float() for y in (labels, validation[1])
        )
        rows = np.flatnonzero(~np.isnan(labels).all(axis=1))  # a step without labels still moves
        batch_size, epochs = fitting(len(rows))
        batch_size = batch_size if self.batch_size is None else self.batch_size
        epochs = epochs if self.epochs is None else self.epochs
        if min(batch_size, epochs) < 1:
            raise ValueError(f"{epochs} epochs, batches of {batch_size}: expected 1 or more, or None to fit the data")
        schedule = Schedule(inputs, rows, range(1, epochs + 1), batch_size, self.seed)
        goal, scaler = (self.task, self.precision), loss_scaler(self.precision)
        best, state = np.inf, network.state_dict()
        self.epoch_, train_loss, val_loss = 0, [], []
        for epoch, batches in schedule.load(self.workers):
            train_loss.append(train_epoch(network, optimizer, batches, targets, *goal, scaler, self.regression_loss))
            outputs = predict(network, validation[0], np.arange(len(val_targets)), batch_size, self.precision)
            val_loss.append(loss(outputs, val_targets, self.task, self.regression_loss).item())
            if np.isfinite(val_loss[-1]) and val_loss[-1] <= best:  # of equal ones the last
                best, self.epoch_ = val_loss[-1], epoch
                state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.train_loss_, self.val_loss_ = np.array(train_loss), np.array(val_loss)
        if not self.epoch_:
            raise FloatingPointError("the validation loss was never finite; try a smaller learning rate")
        network.load_state_dict(state)
        self.network_ = network

    def _predict(self, inputs: Inputs, count: int) -> Labels:
        outputs = predict(self.network_, inputs, np.arange(count), self.batch_size or _MOST, self.precision)
        values = (torch.sigmoid(outputs) if self.task == "classification" else outputs).double().numpy()
        return np.asarray(values * self.scale_ + self.shift_)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "network_" in state:  # wherever it was trained, it can be read everywhere
            state = {**state, "network_": copy.deepcopy(state["network_"]).cpu()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "network_" in state:
            self.network_.to(encoders.device())


class FinetunedEncoder(NetworkEstimator):
    """Finetune an image encoder with a fresh head of three hidden layers on labels of molecules (paper, Methods).

    Parameters
    ----------
    encoder : str or Path
        What to start from, as of `encoder.load`.
    task : {"regression", "classification"}
    epochs, batch_size : int, optional
        By default those that fit the number of molecules (`fitting`). The epoch with the lowest validation loss counts;
        of equal ones the last.
    head_lr, lr : float
        Learning rates of head and encoder; `lr=None` is that of the head. The paper's 5e-6 is for CLIP's weights.
    augmentation : {"none", "default", "intense", "intense_2024"}
        Of training images.
    weight_decay : float
    optimizer : {"adam", "sgd"}
    moments : bool
        Go on from Adam's moments beside the encoder's weights.
    scale_labels : bool
        Train on labels of mean 0 and standard deviation 1. The paper does not, for which a few steps are too few.
    precision : {"no", "bf16", "fp16"}
        Of the encoder: fp32, or autocast; fp16 with loss scaling.
    head_adam : {"pytorch", "encoder"}
        Betas and eps of the head's Adam: PyTorch's, as in the authors' code, or the encoder's, as in the paper.
    arithmetic : {"fp32_l2", "fp16_l2", "fp32_adamw"}
        Format of the encoder's weights, and Adam's weight decay. The authors train fp16 weights, with L2.
    head_layers : int
        Hidden layers of the head; 0 makes it linear, as that of ImageMol's authors.
    regression_loss : {"l1", "mse"}
        The paper's, or that of ImageMol's authors.
    drawing : str
        One of `drawing.DRAWINGS`: "plain", or with R-groups.
    image_size : int, optional
        Side of the drawings in pixels, where it is to be another than that of the encoder.
    validation_fraction : float
        Of the molecules, held out to choose the epoch where `fit` is not told which to take.
    workers : int
        Processes that augment images; the result does not depend on it.
    seed : int
        Of the head, the order of the molecules and their augmentation.

    Attributes
    ----------
    drift_ : dict
        How far the weights are from those that the encoder started with: see `arithmetic.drift`.

    Examples
    --------
    >>> model = FinetunedEncoder("small/random", epochs=1)
    >>> smiles = ["C" * n + "O" for n in range(1, 21)]
    >>> model.fit(smiles, range(1, 21)).predict(["CCO", "CCCO"]).shape
    (2,)
    """

    def __init__(
        self,
        encoder: str | Path,
        *,
        task: Task = "regression",
        epochs: int | None = None,
        head_lr: float = 1e-3,
        lr: float | None = 2e-4,
        augmentation: str = "none",
        batch_size: int | None = None,
        weight_decay: float = 1e-5,
        optimizer: Literal["adam", "sgd"] = "adam",
        moments: bool = False,
        scale_labels: bool = True,
        precision: config.Precision = "no",
        arithmetic: config.Arithmetic = "fp32_l2",
        head_adam: Literal["pytorch", "encoder"] = "pytorch",
        head_layers: int = 3,
        regression_loss: Literal["l1", "mse"] = "l1",
        drawing: str = "plain",
        image_size: int | None = None,
        validation_fraction: float = 0.1,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.encoder, self.task, self.epochs, self.head_lr, self.lr = encoder, task, epochs, head_lr, lr
        self.augmentation, self.batch_size, self.weight_decay = augmentation, batch_size, weight_decay
        self.optimizer, self.moments, self.scale_labels, self.precision = optimizer, moments, scale_labels, precision
        self.drawing, self.image_size, self.validation_fraction = drawing, image_size, validation_fraction
        self.workers, self.seed, self.arithmetic, self.head_adam = workers, seed, arithmetic, head_adam
        self.head_layers, self.regression_loss = head_layers, regression_loss

    def predict_drawings(self, images: NDArray[np.uint8]) -> Labels:
        """Predict from drawings, uint8 [N, H, W, 3], what `predict_values` does from SMILES."""
        return self._predict(image_inputs(images), len(images))

    def save(self, folder: str | Path) -> Path:
        """Write a fitted model: weights (safetensors), and a card (JSON) with their checksum, last."""
        folder, image_encoder = Path(folder), self.image_encoder
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.network_.state_dict().items()}
        weights = files.write(folder / encoders.WEIGHTS, lambda part: save_file(tensors, part))
        card = {
            "parameters": self.get_params() | {"encoder": str(self.encoder)},
            "tower": dataclasses.asdict(image_encoder.tower),
            "preprocess": dataclasses.asdict(image_encoder.preprocess),
            "fitted": {name: np.asarray(getattr(self, name)).tolist() for name in _FITTED},
            "sha256": files.sha256(weights),
        }
        files.write_json(folder / encoders.CARD, card)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "FinetunedEncoder":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            The folder holds no finetuned encoder.
        ValueError
            It is damaged.
        """
        file, weights = Path(folder) / encoders.CARD, Path(folder) / encoders.WEIGHTS
        if not file.is_file() or not weights.is_file():
            raise FileNotFoundError(f"{folder}: holds no finetuned encoder: {file.name} or {weights.name} is missing")
        card = json.loads(file.read_text())
        if files.sha256(weights) != card["sha256"]:
            raise ValueError(f"{weights}: not the file that {file.name} describes; the folder is damaged")
        model = cls(**card["parameters"])
        for name, value in card["fitted"].items():
            setattr(model, name, np.array(value) if isinstance(value, list) else value)
        image_encoder = Encoder(Tower(**card["tower"]), Preprocess(**card["preprocess"]))
        model.network_ = with_head(image_encoder, model.n_labels_, model.arithmetic, model.head_layers)
        model.network_.load_state_dict(load_file(weights), strict=True)
        if model.task == "classification":
            model.classes_ = np.array([0, 1])
        return model

    def _fit(
        self,
        given: Molecules,
        labels: Labels,
        validation: tuple[Molecules, Labels] | None,
        numbers: NDArray[np.int64],
    ) -> None:
        assert validation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            image_encoder = encoders.load(self.encoder, self.seed, self.image_size)
            network = with_head(image_encoder, self.n_labels_, self.arithmetic, self.head_layers)
        start = arithmetics.weights(image_encoder)
        lr, kind = self.lr or self.head_lr, self.optimizer
        rates = (lr, self.head_lr, self.weight_decay)
        optimizer = make_optimizer(network[0], network[1], *rates, kind, self.arithmetic, self.head_adam)
        # DEVIATION: the authors always do so.
        if self.moments:
            encoders.load_moments(self.encoder, image_encoder, optimizer)
        images, val_images = (self._images(part, image_encoder) for part in (given, validation[0]))
        inputs = image_inputs(images, self.augmentation, self.seed, numbers)
        self._train(network, optimizer, inputs, labels, (image_inputs(val_images), validation[1]))
        self.drift_ = arithmetics.check_start(str(self.encoder), start, arithmetics.weights(image_encoder))

    @property
    def image_encoder(self) -> Encoder:
        """The finetuned encoder without its head."""
        return next(part for part in self.network_.children() if isinstance(part, Encoder))

    def _images(self, given: Molecules, image_encoder: Encoder) -> NDArray[np.uint8]:
        return given.drawings(image_encoder.preprocess.size, self.drawing, self.workers)

    def _values(self, given: Molecules) -> Labels:
        return self.predict_drawings(self._images(given, self.image_encoder))


_FITTED = ("several_", "n_labels_", "shift_", "scale_", "epoch_", "train_loss_", "val_loss_")


def with_head(image_encoder: Encoder, targets: int, arithmetic: config.Arithmetic, hidden: int = 3) -> nn.Sequential:
    """Put a new head on an encoder, and convert its weights to the number format of training."""
    top = head(image_encoder.tower.embed_dim, targets, hidden)
    arithmetics.prepare(image_encoder, arithmetic)
    return nn.Sequential(image_encoder, top).to(encoders.device())


def loss(outputs: Tensor, labels: Tensor, task: str, regression: str = "l1") -> Tensor:
    """L1 or MSE for regression, binary cross-entropy with logits for classification; labels that are NaN are left out.

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
    return (F.mse_loss if regression == "mse" else F.l1_loss)(outputs[present], known)


def image_inputs(
    images: NDArray[np.uint8], augmentation: str = "none", seed: int = 0, numbers: NDArray[np.int64] | None = None
) -> Inputs:
    """Take drawings [N, H, W, 3] as inputs: as they are or, for training, augmented anew in each epoch.

    Parameters
    ----------
    numbers : ndarray of int64, shape [N], optional
        Seed the augmentation of each drawing; by default its position.
    """

    def inputs(positions: NDArray[np.int64], epoch: int | None) -> Tensor:
        if epoch is None or augmentation == "none":
            return torch.from_numpy(images[positions])
        chosen = positions if numbers is None else numbers[positions]
        rngs = (seeds.generator(Stream.FINETUNE, seed, epoch, int(number)) for number in chosen)
        some = (augment(image, augmentation, rng) for image, rng in zip(images[positions], rngs, strict=True))
        return torch.from_numpy(np.stack([*some]))

    return inputs


def make_optimizer(
    image_encoder: nn.Module,
    head: nn.Module,
    lr: float,
    head_lr: float,
    weight_decay: float,
    kind: str = "adam",
    arithmetic: config.Arithmetic = "fp32_l2",
    head_adam: str = "pytorch",
) -> torch.optim.Optimizer:
    """Make Adam as in pretraining for the encoder and with its defaults for the head, or SGD.

    The defaults are those of the authors' code; in the paper's Methods, the head has the settings of the encoder.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(image_encoder.parameters()), "lr": lr, "betas": (0.9, 0.98), "eps": 1e-6},
        {"params": list(head.parameters()), "lr": head_lr},
    ]
    if head_adam == "encoder":
        groups[1] |= {name: groups[0][name] for name in ("betas", "eps")}
    if kind == "adam":
        return arithmetics.adam(groups, arithmetic, weight_decay=weight_decay)
    groups = [{"params": group["params"], "lr": group["lr"]} for group in groups]
    return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay)


def loss_scaler(precision: str) -> torch.amp.GradScaler:
    """Scale losses where gradients are computed in fp16, in which small ones would vanish; else leave them."""
    return torch.amp.GradScaler(encoders.device().type, enabled=precision == "fp16")


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[NDArray[np.int64], Tensor]],
    labels: Tensor,
    task: str,
    precision: str,
    scaler: torch.amp.GradScaler | None = None,
    regression: str = "l1",
) -> float:
    """Train on each batch (positions, inputs) once; return the mean loss over the labels that are known."""
    scaler = scaler or loss_scaler("no")
    device = next(network.parameters()).device
    total, count = torch.zeros((), device=device), 0
    network.train()
    for positions, values in batches:
        outputs = _outputs(network, values.to(device, non_blocking=True), precision)
        value = loss(outputs, labels[positions].to(device), task, regression)
        scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        with _flushed_denormals():
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
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
            self, batch_size=None, collate_fn=_unchanged, num_workers=workers, worker_init_fn=views.one_thread
        )
        rest = iter(loader)
        for epoch in self.epochs:
            yield epoch, itertools.islice(rest, self.per_epoch)


def _unchanged(batch: Any) -> Any:
    return batch


@torch.no_grad()
def predict(
    network: nn.Module, inputs: Inputs, positions: NDArray[np.int64], batch_size: int, precision: str = "no"
) -> Tensor:
    """Compute the outputs [len(positions), T] of a network, on its device, without augmentation."""
    device = next(network.parameters()).device
    network.eval()
    parts = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return torch.cat([_outputs(network, inputs(part, None).to(device), precision).cpu() for part in parts])


@contextlib.contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Flush denormals during the optimizer step only.

    Adam's means of gradients that have become zero (bits that a batch lacks, units that are off) fade into them, and a
    CPU adds them 4 times more slowly.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _outputs(network: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Compute the outputs [B, T]; autocast is for the encoder alone, as bf16 would round outputs to 3 digits."""
    outputs: Tensor
    if precision == "no":
        outputs = network(inputs)
        return outputs
    image_encoder, top = network.children()
    with torch.autocast(inputs.device.type, torch.bfloat16 if precision == "bf16" else torch.float16):
        embeddings = image_encoder(inputs)
    outputs = top(embeddings)
    return outputs
