"""Slips are found in the workbook as it is, and where one is made."""

import openpyxl
import pytest

from moleclip.io import files
from moleclip.paper import slips


@pytest.fixture(scope="module")
def found(workbook_file):
    return slips.find(workbook_file)


def pairs(found, kind):
    rows = found[found["kind"] == kind]
    return list(zip(rows["dataset"], rows["model"], strict=True))


def test_the_known_slips_are_found(found):
    """Those that were seen by hand before this code was written."""
    assert pairs(found, "title") == [("FreeSolv", "Morgan2048-MLP"), ("ESOL", "Morgan2048-MLP")]
    settings = pairs(found, "hyper-parameters")
    assert {(name, "MoleCLIP") for name in ("BACE", "BBBP", "FreeSolv", "ESOL")} <= set(settings)
    assert ("Phosphines-selectivity", "MoleCLIPbv") in settings
    rows = found[found["kind"] == "hyper-parameters"].set_index(["dataset", "model"])
    # The settings whose runs give the printed MoleculeNet scores, by an independent count.
    for name, setting in {"BACE": "4e-05, Intensive", "BBBP": "0.001, default", "FreeSolv": "0.0004, default"}.items():
        assert rows.loc[(name, "MoleCLIP"), "found"].endswith(setting)
    copied = set(pairs(found, "copied runs"))
    assert {("BBBP", f"control: {name}") for name in ("1 epoch", "\u03c4=0.1", "\u03c4=0.05")} <= copied
    averaged = found[found["kind"] == "averaged cells"]
    assert averaged["cells"].tolist() == ["DHBDs!L60"]
    assert averaged[["printed", "found"]].iloc[0].tolist() == ["0.181: 3 of 9 runs", "0.183: all 9"]
    printed = found[found["kind"] == "interval"].set_index(["dataset", "variant", "model"])["printed"]
    assert printed["DHBDs", "R-replaced", "MoleCLIP"] == "0.199\u00b10.02"


def test_intervals_of_another_number_of_runs(found):
    rows = found[found["kind"] == "number of runs"]
    assert set(rows["printed"]) == {"45", "15"}
    assert "NHCs!C154" in set(rows["cells"])
    assert "NHCs!F154" not in set(rows["cells"])  # its 50 are right


def test_every_sheet_leaves_out_the_spread_between_splits(found):
    assert found["kind"].eq("interval formula").sum() == 6


def test_slips_that_are_made_are_found(workbook_file, found, tmp_path):
    book = openpyxl.load_workbook(workbook_file, data_only=True)  # its formulas are lost, and with them their slips
    for sheet, cell, value in (
        ("NHCs", "D8", "0.0238\u00b10.0010"),
        ("NHCs", "D6", "4*10-4"),
        ("DHBDs", "D8", "0.197\u00b10.004"),
    ):
        book[sheet][cell] = value
    book.save(tmp_path / "altered.xlsx")
    altered = slips.find(tmp_path / "altered.xlsx")
    for sheet, kind in (("NHCs", "score"), ("NHCs", "hyper-parameters"), ("DHBDs", "interval")):
        rows = [table[table["cells"].str.startswith(f"{sheet}!D8 ")] for table in (found, altered)]
        assert kind not in set(rows[0]["kind"])
        assert rows[1].loc[rows[1]["kind"] == kind, "model"].tolist() == ["MoleCLIP"]


def test_the_workbook_is_the_pinned_one(workbook_file):
    assert files.sha256(workbook_file) == "32e4c12440b8cff1d07066b0d29e1b4666458b67ea2bec84368aebf0ab3abb7b"
