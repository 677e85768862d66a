"""What pretraining minimises, and its gradient: in one go, or in micro-batches that fit into a small GPU."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from open_clip import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import arithmetic, config


class Objective(nn.Module):
    """Losses of a batch of embedded pairs: a linear head per K, and the contrastive loss over the global batch.

    Parameters
    ----------
    width : int
        Of the embeddings.
    classes : dict of int to int
        Number of classes of the head for each K (fewer than K, where clusters stayed empty).
    logit_scale : float
        1 / tau of the contrastive loss.
    contrastive : bool
        False: classification only.
    class_weight : float
        Of the classification losses in the sum; at 0, batches are grouped by class and nothing else comes of it.
    rank, world_size : int
        Of this process: each embeds its share of the batch, and all of them see all embeddings.
    """

    def __init__(
        self,
        width: int,
        classes: Mapping[int, int],
        logit_scale: float,
        contrastive: bool,
        rank: int = 0,
        world_size: int = 1,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.ks = list(classes)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in classes.values())
        self.logit_scale, self.contrastive, self.class_weight = logit_scale, contrastive, class_weight
        # Without gather_with_grad, open_clip's gradient is wrong by 40 % for more than one process.
        self.clip_loss = ClipLoss(gather_with_grad=True, rank=rank, world_size=world_size)

    def forward(self, embeddings: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Losses by name, "loss" being their sum: L = L_SC at each K + L_CL (paper, Methods).

        Parameters
        ----------
        embeddings : Tensor, shape [2 B, D]
            Of the plain drawings, and then of the randomised ones (not without the contrastive loss: [B, D]).
        classes : Tensor of int64, shape [B, number of K]
        """
        plain = embeddings[: len(classes)]
        losses = {
            f"class_{k}": F.cross_entropy(head(plain), column)
            for k, head, column in zip(self.ks, self.heads, classes.T, strict=True)
        }
        if self.contrastive:
            unit = F.normalize(embeddings, dim=-1)
            losses["contrastive"] = self.clip_loss(*unit.chunk(2), self.logit_scale)
        weights = {"contrastive": 1.0}
        parts = [weights.get(name, self.class_weight) * value for name, value in losses.items()]
        losses["loss"] = torch.stack(parts).sum()
        return losses


def optimizer(encoder: nn.Module, objective: Objective, p: config.Pretrain) -> torch.optim.Adam:
    """Adam as in the paper: weight decay for the encoder, none for the heads."""
    groups = [
        {"params": list(encoder.parameters()), "lr": p.lr, "eps": 1e-6, "weight_decay": p.weight_decay},
        {"params": list(objective.heads.parameters()), "lr": p.head_lr},
    ]
    return arithmetic.adam([group for group in groups if group["params"]], p.arithmetic, betas=(0.9, 0.98))


def rate_factor(step: int, total: int, warmup_steps: int, decay: config.Decay) -> float:
    """Share of the learning rates at a step: a function of nothing else, so that a run can go on at any step.

    Parameters
    ----------
    step : int
        From 1 to `total`.
    total : int
        Steps of the whole run.
    warmup_steps : int
        The share rises linearly, and is 1 at this step (0: it is 1 from the start).
    decay : {"constant", "linear", "cosine"}
        How it falls from there, to 0 at the last step.

    Examples
    --------
    >>> [rate_factor(step, 6, 2, "linear") for step in range(1, 7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return step / warmup_steps
    if decay == "constant":
        return 1.0
    passed = (step - warmup_steps) / (total - warmup_steps)
    return 1 - passed if decay == "linear" else (1 + math.cos(math.pi * passed)) / 2


def backward(
    encoder: nn.Module,
    objective: Objective,
    images: Tensor,
    classes: Tensor,
    accelerator: Accelerator,
    micro_batch_size: int | None = None,
) -> dict[str, Tensor]:
    """Compute the losses and leave their gradient in the parameters, averaged over the processes.

    Parameters
    ----------
    encoder : nn.Module
        As `accelerator.prepare` returns it.
    images : Tensor of uint8, shape [2 B, H, W, 3]
        This process's share of the global batch: plain drawings, then randomised ones.
    classes : Tensor of int64, shape [B, number of K]
    micro_batch_size : int, optional
        Images embedded at a time. The gradient is the same, as the loss still sees the whole batch: embed without a
        graph, take the loss's gradient at the embeddings, and embed each micro-batch once more to pass it on. Memory is
        set by the micro-batch; the price is a second forward pass.

    Returns
    -------
    dict of str to Tensor
        Losses of this process, detached.
    """
    if micro_batch_size is None:
        with accelerator.autocast():
            embeddings = encoder(images)
        losses = objective(embeddings, classes)
        accelerator.backward(losses["loss"])
    else:
        losses = _backward_in_micro_batches(
            encoder, objective, torch.split(images, micro_batch_size), classes, accelerator
        )
    if accelerator.num_processes > 1:
        for parameter in objective.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
    return {name: loss.detach() for name, loss in losses.items()}


def _backward_in_micro_batches(
    encoder: nn.Module, objective: Objective, pieces: Sequence[Tensor], classes: Tensor, accelerator: Accelerator
) -> dict[str, Tensor]:
    seed = torch.initial_seed()
    with torch.no_grad(), accelerator.autocast():
        embeddings = torch.cat([_seeded(encoder, piece, seed + number) for number, piece in enumerate(pieces)])
    losses: dict[str, Tensor] = objective(embeddings.requires_grad_(), classes)
    accelerator.backward(losses["loss"])
    assert embeddings.grad is not None
    gradients = torch.split(embeddings.grad, [len(piece) for piece in pieces])
    for number, (piece, gradient) in enumerate(zip(pieces, gradients, strict=True)):
        # The processes meet once, at the last micro-batch.
        with nullcontext() if number == len(pieces) - 1 else accelerator.no_sync(encoder):
            with accelerator.autocast():
                again = _seeded(encoder, piece, seed + number)
            torch.autograd.backward(again, gradient)
    return losses


def _seeded(encoder: nn.Module, piece: Tensor, seed: int) -> Tensor:
    """Embed a micro-batch; both times with the same dropout, where the tower has any."""
    torch.manual_seed(seed)
    embeddings: Tensor = encoder(piece)
    return embeddings
