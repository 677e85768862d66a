"""Data sets: counts known from the files, nothing lost."""

import csv
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, RDConfig

from moleclip import datasets

ETHANOL_TWICE = datasets.Dataset(
    "made", ("CCO", "not a molecule", "OCC", "F[Si](F)(F)(F)(F)F", ""), np.arange(5.0)[:, None], ("y",), "regression"
)


def test_nci_has_4999_molecules_of_which_8_are_unreadable():
    dataset = datasets.load("nci_5k")
    molecules, unreadable = datasets.clean(dataset)
    assert (len(dataset), len(unreadable)) == (4999, 8)
    # Seen with the naked eye in the file: hypervalent silicon and phosphorus.
    assert {"CCCCNCCCC.F[Si](F)(F)(F)(F)F"} <= set(unreadable["smiles"])
    assert sorted([*molecules["row"], *unreadable["row"]]) == list(range(4999))


def test_series_labels_agree_with_a_plain_reading_of_the_csv():
    dataset = datasets.load("chembl2321810")
    folder = Path(RDConfig.RDContribDir) / "FreeWilson" / "data"
    with open(folder / "CHEMBL2321810_act.csv") as file:
        activity = {line["Name"]: float(line["Act"]) for line in csv.DictReader(file)}
    lines = [line.split() for line in (folder / "CHEMBL2321810.smi").read_text().splitlines()]
    assert len(dataset) == len(lines) == 1017
    assert list(dataset.smiles) == [smiles for smiles, _ in lines]
    assert dataset.labels[:, 0].tolist() == [activity[key] for _, key in lines]


def test_every_named_set_loads():
    assert [len(datasets.load(name)) > 0 for name in datasets.names()] == [True] * len(datasets.names())


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="nci_5k"):
        datasets.load("nci")


def test_clean_reports_every_row_with_its_reason():
    molecules, unreadable = datasets.clean(ETHANOL_TWICE)
    assert molecules["row"].tolist() == [0, 2]
    assert molecules["duplicate_of"].tolist() == [-1, 0]
    assert molecules["y"].tolist() == [0.0, 2.0]
    assert unreadable["row"].tolist() == [1, 3, 4]
    assert ["SMILES" in unreadable["reason"][0], "valence" in unreadable["reason"][1]] == [True, True]
    assert unreadable["reason"][2] == "no atoms"


def test_summary_counts():
    summary = datasets.summary(ETHANOL_TWICE, *datasets.clean(ETHANOL_TWICE))
    assert (summary["molecules"], summary["unreadable"], summary["duplicates"]) == (5, 3, 1)


def test_labels_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        datasets.Dataset("made", ("C", "CC"), np.zeros((3, 1)), ("y",))


def test_missing_table_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="run the notebook"):
        datasets.read_molecules("nowhere/molecules.parquet")


def test_parse_agrees_with_rdkit():
    assert Chem.MolToSmiles(datasets.parse("OCC")) == "CCO"
