"""Scaffold and random splits, index for index those of the paper's runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import DataStructs
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.ML.Cluster import Butina

from moleclip import molecules

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions of the training, validation and test molecules, in the splitter's order."""

    train: Indices
    val: Indices
    test: Indices


def scaffold(smiles: Sequence[str], holdout: float = 0.1) -> Split:
    """Split by Bemis-Murcko scaffold, the largest groups first (paper, Methods).

    The SMILES must be as written in the data set: canonicalising first moves molecules between the parts.

    Parameters
    ----------
    smiles : sequence of str, length N
    holdout : float
        Fraction of the molecules in the validation set, and again in the test set.
    """
    groups = defaultdict(list)
    for index, text in enumerate(smiles):
        try:
            molecule = molecules.parse(text)
        except ValueError as reason:
            raise ValueError(f"molecule {index}, {text!r}: {reason}; clean the set before splitting it") from None
        groups[MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=True)].append(index)
    train_end, val_end = (1 - 2 * holdout) * len(smiles), (1 - holdout) * len(smiles)
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for group in sorted(groups.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= train_end:
            train += group
        elif len(train) + len(val) + len(group) <= val_end:
            val += group
        else:
            test += group
    return _split(train, val, test)


def random(n: int, seed: int, holdout: float = 0.1) -> Split:
    """Split at random: floor(holdout n) molecules each for test and validation.

    NumPy's legacy generator is what the paper's runs used; it is frozen by NumPy's compatibility policy.

    Examples
    --------
    >>> split = random(37, seed=1, holdout=0.2)
    >>> len(split.train), len(split.val), len(split.test)
    (23, 7, 7)
    """
    order = np.arange(n)
    np.random.RandomState(seed).shuffle(order)
    size = int(holdout * n)
    return _split(order[2 * size :], order[size : 2 * size], order[:size])


def groups(kind: str, smiles: Sequence[str]) -> Indices:
    """Find groups of molecules, for a cross-validation that keeps groups together, and number them.

    Parameters
    ----------
    kind : {"scaffold", "cluster"}
        Bemis-Murcko scaffolds, where each molecule without a ring is a group of its own; or Butina's clusters of Morgan
        fingerprints, whose members have a Tanimoto similarity of at least .35 to the centre (J. Chem. Inf. Comput. Sci.
        1999, 39, 747).

    Examples
    --------
    >>> groups("scaffold", ["c1ccccc1O", "CCO", "c1ccccc1N", "CCN"])
    array([0, 1, 0, 2])
    """
    parsed = [molecules.parse(text) for text in smiles]
    if kind == "scaffold":
        names = [MurckoScaffold.MurckoScaffoldSmiles(mol=one) or number for number, one in enumerate(parsed)]
        return np.asarray(pd.factorize(np.array(names, object))[0], np.int64)
    bits = [molecules.fingerprint(one) for one in parsed]
    near = [DataStructs.BulkTanimotoSimilarity(one, bits[:row], returnDistance=True) for row, one in enumerate(bits)]
    found = np.empty(len(bits), np.int64)
    for number, members in enumerate(Butina.ClusterData(list(chain(*near)), len(bits), 0.65, isDistData=True)):
        found[list(members)] = number
    return found


def split(kind: str, smiles: Sequence[str], seed: int, holdout: float) -> Split:
    """Split by name: "random", or "scaffold", of which there is only one."""
    if kind == "scaffold":
        if seed != 1:
            raise ValueError(f"split_seed {seed}: there is one scaffold split only, whose seed is 1")
        return scaffold(smiles, holdout)
    if kind == "random":
        return random(len(smiles), seed, holdout)
    raise ValueError(f"unknown split {kind!r}: known are 'scaffold' and 'random'")


def _split(*parts: Sequence[int] | Indices) -> Split:
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if len(part) == 0:
            count = sum(map(len, parts))
            raise ValueError(f"of {count} molecules, none are left for the {name} set; use another holdout or split")
    return Split(*(np.asarray(part, np.int64) for part in parts))
