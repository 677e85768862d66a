"""Random generators with explicit seeds, so that results do not depend on workers, processes or restarts."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """Purposes of generators, so that the same seed, epoch and index give each other numbers."""

    ORDER = 1
    VIEWS = 2
    HELD_OUT = 3
    FINETUNE = 4
    STEP = 5
    NEIGHBOURS = 6
    REPEAT = 7
    SAMPLE = 8
    REDRAWN = 9
    SHUFFLED = 10


def generator(stream: Stream, seed: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Random generator of one purpose, epoch and molecule."""
    return np.random.default_rng([stream, seed, epoch, index])


def sample(size: int, count: int | None, seed: int) -> NDArray[np.int64]:
    """Draw `count` of `size` rows at random, in ascending order; all of them for None, or if there are no more.

    >>> sample(3, None, seed=0)
    array([0, 1, 2])
    """
    return np.sort(np.random.default_rng(seed).permutation(size)[:count])
