"""Augmentation of whole batches on the device that trains: the steps and levels of `augmentation`, for a GPU.

Random numbers come from a hash of a key per image and a counter per number. So they depend on neither the batch, the
device, the number of processes nor the processes that draw.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip.augmentation import LEVELS, VARIANCE

PART = 128  # images at a time, so that noise does not fill a small GPU
_WORD = 2**32 - 1
# Decisions and amounts, in the order of the random numbers of an image.
_ROTATE, _ANGLE, _COARSEN, _FACTOR, _SHRINK, _SCALE, _TOP = range(7)
_LEFT, _WHITE, _BLACK, _BLUR, _NOISE, _VARIANCE, _GREY = range(7, 14)
_GREYS = (0.299, 0.587, 0.114)


def keys(seed: int, epoch: int, positions: Tensor, view: int) -> Tensor:
    """Key of each image, from the seed, the epoch, its molecule and which of a molecule's views it is.

    >>> keys(0, 1, torch.tensor([5, 6]), view=0).unique().numel()
    2
    """
    key = torch.tensor(seed)
    for number in (torch.tensor(epoch), positions.long(), torch.tensor(view)):
        key = _mixed(_mixed(key) + number)
    return key


def augment_views(images: Tensor, level: str, seed: int, epoch: int, positions: Tensor) -> Tensor:
    """Augment the first views of a batch of molecules, followed by their second ones if there are any.

    Parameters
    ----------
    images : Tensor of uint8, shape [views * B, H, W, 3]
    positions : Tensor of int64, shape [B]
        Of the molecules, on the CPU.
    """
    views = range(len(images) // len(positions))
    return augment(images, level, torch.cat([keys(seed, epoch, positions, view) for view in views]))


def augment(images: Tensor, level: str, keys: Tensor) -> Tensor:
    """Augment drawings, distributed as by `augmentation.augment`.

    Parameters
    ----------
    images : Tensor of uint8, shape [B, H, W, 3]
        Dark lines on white, on any device.
    level : str
        One of `augmentation.LEVELS`.
    keys : Tensor of int64, shape [B]
        On the CPU: what is decided for an image is decided there, so that the device need not be waited for.

    Returns
    -------
    Tensor of uint8, shape [B, H, W, 3]
    """
    if LEVELS[level] is None:
        return images
    return torch.cat(
        [_augment(*part, level) for part in zip(torch.split(images, PART), torch.split(keys, PART), strict=True)]
    )


def _augment(images: Tensor, keys: Tensor, level: str) -> Tensor:
    step, device, (height, width) = LEVELS[level], images.device, images.shape[1:3]
    assert step is not None
    u = _uniform(keys, 14, stream=0).double()

    def taken(number: int, probability: float) -> Tensor:
        return torch.nonzero(u[:, number] < probability)[:, 0].to(device, non_blocking=True)

    def amount(number: int, low: float, high: float) -> Tensor:
        return low + (high - low) * u[:, number]

    def moved(amounts: Tensor) -> Tensor:
        return amounts.float().to(device, non_blocking=True)

    x = images.permute(0, 3, 1, 2).float()
    if step.p_rotate:
        some = taken(_ROTATE, step.p_rotate)
        x[some] = _rotated(x[some], moved(amount(_ANGLE, -180, 180))[some])
    factor = torch.where(u[:, _COARSEN] < step.p_downscale, amount(_FACTOR, *step.downscale), 1.0)
    scale = torch.where(u[:, _SHRINK] < step.p_shrink, amount(_SCALE, step.shrink, 1), 1.0)
    rows = _resampling(height, factor, scale, u[:, _TOP], device)
    columns = _resampling(width, factor, scale, u[:, _LEFT], device)
    x = (rows @ x @ columns.mT).round_()
    hashes = keys.to(device, non_blocking=True)
    for number, value in ((_WHITE, 255.0), (_BLACK, 0.0)):
        some = taken(number, step.p_dropout)
        dropped = _uniform(hashes[some], height * width, stream=number) < step.dropout
        x[some] = x[some].masked_fill(dropped.view(-1, 1, height, width), value)
    some = taken(_BLUR, step.p_blur)
    x[some] = F.avg_pool2d(F.pad(x[some], (1, 1, 1, 1), "reflect"), 3, 1).round_()
    some = taken(_NOISE, step.p_noise)
    uniform = _uniform(hashes[some], 3 * height * width, stream=_NOISE).view(-1, 3, height, width)
    deviation = moved((2 * amount(_VARIANCE, *VARIANCE)).sqrt())[some]
    x[some] = (x[some] + torch.erfinv(2 * uniform - 1) * deviation[:, None, None, None]).round_().clamp_(0, 255)
    some = taken(_GREY, step.p_grey)
    weighted = [weight * plane for weight, plane in zip(_GREYS, x[some].unbind(1), strict=True)]
    x[some] = sum(weighted)[:, None].expand_as(x[some])  # type: ignore[index]
    return x.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _rotated(x: Tensor, degrees: Tensor) -> Tensor:
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    turn = torch.stack([cos, -sin, 0 * cos, sin, cos, 0 * cos], 1).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False).round_()


def _resampling(side: int, factor: Tensor, scale: Tensor, place: Tensor, device: torch.device) -> Tensor:
    """Matrices [B, 1, side, side] that coarsen by a factor, then shrink to a scale, along one side of each image."""
    coarse, small = ((side * share).long() for share in (factor, scale))
    first = (place * (side - small + 1)).long()
    coarse, small, first = (numbers.to(device, non_blocking=True)[:, None] for numbers in (coarse, small, first))
    pixels = torch.arange(side, device=device)
    shrinking = _areas((pixels - first).clamp(torch.zeros_like(small), small - 1), small, side)
    return (shrinking @ _areas(pixels * coarse // side, coarse, side))[:, None]


def _areas(pixels: Tensor, small: Tensor, side: int) -> Tensor:
    """Weights by which `pixels` [B, side] of an image of `small` pixels average those of one of `side`."""
    ratio = (side / small)[..., None]
    start, old = pixels[..., None] * ratio, torch.arange(side, device=pixels.device)
    overlap = torch.minimum(start + ratio, old + 1.0) - torch.maximum(start, old)
    return overlap.clamp_(min=0).div_(ratio)


def _uniform(keys: Tensor, count: int, stream: int) -> Tensor:
    """Uniform numbers [B, count], neither 0 nor 1."""
    counter = torch.arange(count, device=keys.device)
    hashed = _mixed(_mixed(counter) ^ _mixed(keys + 0x9E3779B9 * (stream + 1))[:, None])
    return ((hashed >> 9).float() + 0.5) / 2**23


def _mixed(number: Tensor) -> Tensor:
    """Hash 32 bits (lowbias32 of C. Wellons' hash prospector)."""
    number = number & _WORD
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        number = ((number ^ (number >> shift)) * factor) & _WORD
    return number ^ (number >> 16)
