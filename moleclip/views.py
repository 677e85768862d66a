"""Molecules -> pairs of views, in class-grouped batches.

All randomness comes from generators seeded by (stream, seed, epoch, index): which worker or process makes a view,
and where a run was interrupted, changes nothing.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from moleclip import drawing
from moleclip.augmentation import augment
from moleclip.io.seeds import Stream, generator

ONCE = 2**31  # takes an epoch's place where there is none


def grouped_order(
    classes: NDArray[np.int64],
    batch_size: int,
    group_size: int,
    seed: int,
    epoch: int,
    of: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Order of one epoch (paper, Methods: batches of 8 groups of 32 structural neighbours).

    Molecules are sorted by class, at random within a class, and cut into runs of `group_size`; each batch joins
    runs drawn at random. Molecules that do not fill the last run and batch wait for another epoch; a random
    starting point makes them different ones each time.

    Parameters
    ----------
    classes : ndarray of int64, shape [N]
        The finest pseudo-labels.
    batch_size, group_size : int
        `batch_size` is a multiple of `group_size`.
    of : ndarray of int64, shape [N], optional
        Position of the molecule that each is the mirror image of, or its own: a mirror image comes right after it.

    Returns
    -------
    ndarray of int64, shape [N // batch_size, batch_size]
        Positions in `classes`, or one row fewer where the last run does not fill it.
    """
    if len(classes) < batch_size:
        raise ValueError(f"{len(classes)} training molecules do not fill one batch of {batch_size}")
    rng = generator(Stream.ORDER, seed, epoch)
    shuffled = rng.permutation(len(classes))
    rank = np.argsort(shuffled)
    by_class = np.lexsort((np.arange(len(rank)), rank if of is None else rank[of], classes))
    start = rng.integers(len(classes))
    by_class = np.roll(by_class, start)[: len(classes) // group_size * group_size]
    groups = rng.permutation(by_class.reshape(-1, group_size))
    per_batch = batch_size // group_size
    return groups[: len(groups) // per_batch * per_batch].reshape(-1, batch_size)


class GroupedBatches(Sampler[list[tuple[int, int]]]):
    """Yields the batches of one epoch as (epoch, position) keys of `Views`; `set_epoch` chooses epoch and start.

    Of `world_size` processes, each gets its share of every batch.
    """

    def __init__(
        self,
        classes: NDArray[np.int64],
        batch_size: int,
        group_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        of: NDArray[np.int64] | None = None,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} cannot be shared by {world_size} processes evenly")
        self.classes, self.batch_size, self.group_size, self.seed = classes, batch_size, group_size, seed
        self.of = of
        self.share = slice(rank, None, world_size)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Go on with batch `start` of this epoch."""
        self.epoch, self.start = epoch, start
        self.order = grouped_order(self.classes, self.batch_size, self.group_size, self.seed, epoch, self.of)

    @property
    def per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return len(self.order)

    def __len__(self) -> int:
        return self.per_epoch - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.order[self.start :]:
            yield [(self.epoch, int(position)) for position in batch[self.share]]


def pair(
    prepared: Chem.Mol, augmentation: str, rng: np.random.Generator, size: int, style: drawing.Style | None = None
) -> tuple[Tensor, Tensor]:
    """Draw both views of a laid-out molecule, plain and randomised, each augmented: uint8 [size, size, 3]."""
    styles = (drawing.PLAIN, style or drawing.random_style(rng))
    drawings = [drawing.draw(prepared, style, size) for style in styles]
    plain, randomised = (torch.from_numpy(augment(image, augmentation, rng)) for image in drawings)
    return plain, randomised


class Views(Dataset[tuple[Tensor, Tensor, int]]):
    """Pairs of views of molecules: plain and randomised drawing, both augmented.

    Item (epoch, position) is (plain, randomised, position), the images uint8 [size, size, 3].

    Parameters
    ----------
    molecules : pyarrow.ChunkedArray
        Prepared molecules, the column `molecule` of `drawing.prepare_all`; it may be mapped from files.
    rows : ndarray of int64, shape [N]
        Those to draw: position p is `molecules[rows[p]]`.
    redraw : bool
        Draw the second view in another style in each epoch; augmentation differs in any case.
    """

    def __init__(
        self,
        molecules: pa.ChunkedArray,
        rows: NDArray[np.int64],
        augmentation: str,
        seed: int,
        size: int = 224,
        stream: Stream = Stream.VIEWS,
        redraw: bool = True,
    ) -> None:
        self.molecules, self.rows = molecules, rows
        self.augmentation, self.seed, self.size, self.stream = augmentation, seed, size, stream
        self.redraw = redraw

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, position = key
        rng = generator(self.stream, self.seed, epoch, position)
        molecule = drawing.from_store(self.molecules[int(self.rows[position])].as_py())
        # Of no epoch: the same in all of them, as where drawings are made once and stored.
        style = None if self.redraw else drawing.random_style(generator(self.stream, self.seed, ONCE, position))
        return *pair(molecule, self.augmentation, rng, self.size, style), position


def loader(
    views: Views, batches: Sampler[list[tuple[int, int]]], workers: int
) -> DataLoader[tuple[Tensor, Tensor, int]]:
    """Load batches of views, drawn by `workers` processes (0: by this one)."""
    return DataLoader(
        views,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=one_thread,
        persistent_workers=workers > 0,  # which molecules an epoch takes, the sampler says in this process
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def one_thread(_: int) -> None:
    """Keep a worker on its own core."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
