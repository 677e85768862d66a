"""Splits: digests of the index lists of the paper's runs, and the rules of the scaffold splitter."""

import hashlib
import json
import os

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from moleclip import datasets, splits

# n, seed, holdout: start of the sha256 of the lists [train, val, test] that the authors' code gives for NumPy 2.4.
RANDOM = {
    "esol-1-0.1": (1128, 1, 0.1, "aa2143d9a0e10082"),
    "esol-2-0.1": (1128, 2, 0.1, "1ba26a900d5ad88a"),
    "freesolv-1-0.1": (642, 1, 0.1, "f9774d1cbf13554f"),
    "freesolv-2-0.1": (642, 2, 0.1, "5e29c5dfef5aa836"),
    "DHBDs-1-0.1": (6994, 1, 0.1, "68fb86b7f2b97bd4"),
    "DHBDs-2-0.1": (6994, 2, 0.1, "a03ca9e7f006aa0e"),
    "NHCs-1-0.1": (95, 1, 0.1, "31c75e9fa85b4701"),
    "NHCs-2-0.1": (95, 2, 0.1, "d20d606b4e57287d"),
    "Phosphines_yield-1-0.1": (90, 1, 0.1, "92fc01199d9e8262"),
    "Phosphines_yield-2-0.1": (90, 2, 0.1, "881696b7afb705b5"),
    "Phosphines_selectivity-1-0.1": (37, 1, 0.1, "dc602ee8204ddc80"),
    "Phosphines_selectivity-2-0.1": (37, 2, 0.1, "fbaf9a3f2e9f6e8e"),
    "Phosphines_selectivity-1-0.2": (37, 1, 0.2, "959c9307089852d7"),
    "Phosphines_selectivity-2-0.2": (37, 2, 0.2, "dee30842fd931e36"),
}

# The same for the scaffold splits, with RDKit 2026.03; the order of BACE's training list depends on the release.
SCAFFOLD = {
    "bace": "c722c5be46e05863",
    "bbbp": "892ef1a5fc56f9f4",
    "esol": "c6c42b2a62eb9b05",
    "freesolv": "9630a9d6b6f72ef8",
}


def digest(split: splits.Split) -> str:
    lists = [split.train.tolist(), split.val.tolist(), split.test.tolist()]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]


@pytest.mark.parametrize("case", RANDOM)
def test_random_splits_are_the_papers(case):
    n, seed, holdout, expected = RANDOM[case]
    assert digest(splits.random(n, seed, holdout)) == expected


@pytest.mark.skipif("MOLECLIP_DATA_DIR" not in os.environ, reason="needs MOLECLIP_DATA_DIR")
@pytest.mark.parametrize("name", SCAFFOLD)
def test_scaffold_splits_are_the_papers(name):
    assert digest(splits.scaffold(datasets.load(name).smiles)) == SCAFFOLD[name]


def test_random_split_holds_every_molecule_once():
    split = splits.random(1017, 3)
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(1017))
    assert (len(split.train), len(split.val), len(split.test)) == (815, 101, 101)


@pytest.fixture(scope="module")
def series() -> list[str]:
    return list(datasets.load("chembl2321810").smiles)


def test_no_scaffold_is_in_two_parts(series):
    split = splits.scaffold(series)
    parts = [
        {MurckoScaffold.MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(series[i]), includeChirality=True) for i in part}
        for part in (split.train, split.val, split.test)
    ]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(len(series)))
    assert len(split.train) <= 0.8 * len(series)


def test_scaffold_groups_by_hand():
    # Groups: benzenes 0 2 4 5, no ring 1 6, pyridine 3, furan 7, cyclohexane 8, pyrrole 9.
    smiles = ["Cc1ccccc1", "CCO", "Oc1ccccc1", "Cc1ccncc1", "Nc1ccccc1", "Fc1ccccc1", "CCN", "Cc1ccco1", "CC1CCCCC1"]
    split = splits.scaffold([*smiles, "Cc1ccc[nH]1"])
    # Largest first, of equal ones the later: 4 benzenes, 2 without ring, 9, 8 fill train to 8 of 10.
    assert split.train.tolist() == [0, 2, 4, 5, 1, 6, 9, 8]
    assert (split.val.tolist(), split.test.tolist()) == ([7], [3])


def test_unreadable_molecule_is_named():
    with pytest.raises(ValueError, match="molecule 1, 'junk'"):
        splits.scaffold(["CCO", "junk"])


def test_too_few_molecules():
    with pytest.raises(ValueError, match="of 5 molecules, none are left for the validation set"):
        splits.random(5, 0, 0.1)
