"""Number formats of weights, Adam's weight decay, and how far weights have moved from their start."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from open_clip.model import convert_weights_to_lp
from open_clip.transformer import LayerNormFp32, VisionTransformer
from torch import Tensor, nn

from moleclip import config
from moleclip.encoder import Encoder

log = logging.getLogger(__name__)


def prepare(encoder: Encoder, arithmetic: config.Arithmetic) -> None:
    """Give an encoder's weights the number format in which they are trained.

    "fp16_l2" halves what CLIP's own code halves on a GPU (convolution, linear layers, attention, projection);
    normalisations and the embeddings of class and position stay in fp32, and normalisations are computed in it.

    Raises
    ------
    ValueError
        The tower is not a vision transformer of CLIP's kind, for which that is defined.
    """
    if arithmetic != "fp16_l2":
        return
    if not isinstance(encoder.visual, VisionTransformer):
        raise ValueError("arithmetic 'fp16_l2' is for CLIP's vision transformers; train this tower by 'fp32_l2'")
    convert_weights_to_lp(encoder.visual, torch.float16)
    for module in encoder.visual.modules():
        if isinstance(module, nn.LayerNorm):
            module.__class__ = LayerNormFp32


def adam(groups: Iterable[dict[str, Any]], arithmetic: config.Arithmetic, **options: Any) -> torch.optim.Adam:
    """Make Adam: with L2 inside (the decay is a part of the gradient), or with decoupled decay (AdamW).

    The moments of fp16 weights are fp16 too, and PyTorch's plain steps round after each operation, as the authors'
    do; fused ones would compute in fp32 in between.
    """
    fused = None if arithmetic == "fp16_l2" else True
    return torch.optim.Adam(list(groups), **options, fused=fused, decoupled_weight_decay=arithmetic == "fp32_adamw")


LOST = 0.8  # of norm or correlation: below it, little is left of what a start is chosen for


def weights(encoder: nn.Module) -> dict[str, Tensor]:
    """Copy an encoder's weight matrices, on its device; their names do not say where in a larger model they are."""
    named = {name.removeprefix("visual."): weight for name, weight in encoder.named_parameters() if weight.ndim > 1}
    return {name: weight.detach().float().clone() for name, weight in named.items()}


DRIFT = ("norm", "correlation", "identical")


def drift(start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, float]:
    """How far weight matrices have moved from their start, all of them taken together.

    Normalisations and biases are left out by `weights`: weights near 1 would hide what became of the others.

    Returns
    -------
    dict
        norm (now, as a share of the start's), correlation (1: the same but for a factor and a shift), identical (share
        of the numbers that are the same bit for bit).
    """
    sums = []  # of start, now, their squares and product, equal ones; in fp64, one matrix at a time
    for name, first in start.items():
        a, b = first.double().flatten(), now[name].to(first.device, torch.float64).flatten()
        sums.append(torch.stack([a.sum(), b.sum(), a @ a, b @ b, a @ b, (a == b).sum()]))
    count = sum(first.numel() for first in start.values())
    a, b, aa, bb, ab, same = torch.stack(sums).sum(0).tolist()
    spread = math.sqrt(max(0.0, (aa - a * a / count) * (bb - b * b / count)))
    correlation = (ab - a * b / count) / spread if spread else math.nan
    return dict(zip(DRIFT, (math.sqrt(bb / aa), correlation, same / count), strict=True))


def by_matrix(start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> pd.DataFrame:
    """Drift of each weight matrix, and in the last row ("all") of all of them.

    Raises
    ------
    ValueError
        The towers differ.
    """
    for name in [*start, *now]:
        shapes = [tuple(tensors[name].shape) if name in tensors else "missing" for tensors in (start, now)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the towers differ: {name} is {shapes[0]} in one and {shapes[1]} in the other")
    rows = {name: drift({name: first}, now) for name, first in start.items()}
    return pd.DataFrame.from_dict(rows | {"all": drift(start, now)}, orient="index")


def check_start(source: str, start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the drift, and warn if what was learnt before is being lost; random weights have nothing to lose."""
    found = drift(start, now)
    if not source.endswith("random") and not min(found["norm"], found["correlation"]) >= LOST:
        norms = {name: drift({name: first}, now)["norm"] for name, first in start.items()}
        worst = min(norms, key=norms.__getitem__)
        log.warning(
            "the weights of %s are being lost: their norm is %.0f %% of what it was, their correlation with it %.2f "
            "(norm of %s: %.0f %%). Take arithmetic fp32_adamw, less weight_decay or a smaller lr",
            *(source, 100 * found["norm"], found["correlation"], worst, 100 * norms[worst]),
        )
    return found
