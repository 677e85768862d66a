"""The authors' runs: every one is read, under the right label, and nothing else is."""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from openpyxl.utils.cell import coordinate_from_string
from openpyxl.workbook import Workbook

from moleclip.io import downloads
from moleclip.paper import released

needs_data = pytest.mark.skipif("MOLECLIP_DATA_DIR" not in os.environ, reason="needs MOLECLIP_DATA_DIR")
pytestmark = needs_data

SHEETS = {
    "MoleculeNet": 237,
    "MoleculeNet_controls": 1611,
    "DHBDs": 195,
    "NHCs": 665,
    "Phosphines-yield": 680,
    "Phosphines-selectivity": 683,
    "Domain-focused pretraining": 2650,
    "R-replacement": 1145,
}

# sha256 of the table as UTF-8: lines joined by newlines, fields by tabs; first the names of the columns, then one line
# per run in the table's order, its value as float.hex() writes it.
DIGEST = "3ff507635689b5bececfed27ea9cefdfc270023744586b45cb7d40a45c6652e6"


@pytest.fixture(scope="module")
def path() -> Path:
    found = downloads.mirrored("paper_results")
    if found is None:
        pytest.skip(f"needs {downloads.known()['paper_results'].path} in the folder MOLECLIP_DATA_DIR")
    return found


@pytest.fixture(scope="module")
def workbook(path: Path) -> Workbook:
    return openpyxl.load_workbook(path, data_only=True)


@pytest.fixture(scope="module")
def table(path: Path) -> pd.DataFrame:
    return released.runs(path)


def columns_of(table: pd.DataFrame) -> Iterator[tuple[str, str, int, int, pd.DataFrame]]:
    """Runs that stand below each other: sheet, column, first and last row."""
    column, row = zip(*map(coordinate_from_string, table["cell"]), strict=True)
    placed = table.assign(column=column, row=row)
    labels = ["sheet", "column", *table.columns[1:7]]
    for (sheet, letter, *_), runs in placed.groupby(labels, sort=False):
        yield sheet, letter, runs["row"].min(), runs["row"].max(), runs


def test_every_run_is_there(table):
    assert len(table) == 7866
    assert table["sheet"].value_counts(sort=False).to_dict() == SHEETS
    assert not table.duplicated(["sheet", "cell"]).any()


def test_digest(table):
    lines = [list(table.columns)]
    lines += [[*map(str, run[:9]), run[9].hex(), run[10]] for run in table.itertuples(index=False)]
    text = "\n".join("\t".join(line) for line in lines)
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


# Looked up by eye in the workbook; the number is read from it here, by a way that shares no code with the module.
SPOTS = """
MoleculeNet D20          | BACE | original | MoleCLIP | hpo60 | Intensive | 0.0004 | scaffold | 1
MoleculeNet M31          | BBBP | original | MoleCLIP | hpo60 | default | 0.001 | scaffold | 3
MoleculeNet G79          | FreeSolv | original | Morgan2048-MLP | hpo60 | n/a | 1e-05 | scaffold | 3
MoleculeNet C86          | ESOL | original | Morgan2048-MLP | hpo60 | n/a | 0.001 | scaffold | 1
MoleculeNet_controls H60 | BACE | original | control: Pubchem-10m  (2 epochs) | hpo60 | None | 0.001 | scaffold | 2
DHBDs F24                | DHBDs | original | MoleCLIP | final180 | Intensive | 4e-05 | seed-2 | 2
DHBDs D43                | DHBDs | original | ImageMol | hpo60 | | 0.05 | seed-1 | 3
DHBDs L59                | DHBDs | original | GEM | final180 | 0.1 | 4e-3 4e-3 | seed-1 | 3
NHCs J74                 | NHCs | original | GEM | hpo100 | 0.5 | 1e-4 1e-3 | seed-1 | 3
NHCs D131                | NHCs | original | MoleCLIP | final300 | None | 0.001 | seed-3 | 10
Phosphines-yield F60     | Phosphines-yield | original | GEM | hpo100 | drop 0.2 | 1e-3 1e-3 | seed-5 | 1
Phosphines-selectivity L34 | Phosphines-selectivity | original | MoleCLIP | hpo100 | None | 1e-05 | seed-1 | 3
R-replacement AI58       | ESOL | R-replaced | MoleCLIP | hpo60 | Default | 1e-05 | seed-1 | 3
R-replacement E86        | FreeSolv | R-replaced | MoleCLIP | final300 | Default | 0.001 | seed-3 | 5
R-replacement AO66       | DHBDs | R-replaced | ImageMol | hpo60 | | 0.005 | seed-3 | 1
R-replacement AN91       | DHBDs | original | ImageMol | final180 | | 0.005 | seed-1 | 3
R-replacement AV105      | Phosphines-yield | R-replaced | MoleCLIP | final300 | None | 0.0001 | seed-5 | 1
"""


@pytest.mark.parametrize("spot", SPOTS.strip().splitlines())
def test_spots(table, workbook, spot):
    place, *labels = (field.strip() for field in spot.split("|"))
    sheet, cell = place.split()
    [run] = table[(table["sheet"] == sheet) & (table["cell"] == cell)].to_numpy().tolist()
    assert [str(label) for label in run[1:9]] == labels
    assert run[9] == workbook[sheet][cell].value


def test_averages_of_the_columns_are_those_in_the_workbook(table, workbook):
    differ = []
    for sheet, column, _, last, runs in columns_of(table):
        average = workbook[sheet][f"{column}{last + 1}"].value
        if runs["value"].mean() != pytest.approx(average, rel=1e-9):
            differ.append(f"{sheet}!{column}{last + 1}")
    assert differ == ["DHBDs!L60"]  # which averages the runs of one seed only


def test_every_column_is_read_down_from_its_learning_rate(table, workbook):
    begun_late = []
    for sheet, column, first, last, runs in columns_of(table):
        assert len(runs) == last - first + 1
        if str(workbook[sheet][f"{column}{first - 1}"].value) != runs["head_lr"].iloc[0]:
            begun_late.append(f"{sheet}!{column}{first}:{column}{last}")
    # Of these the authors ran one seed only.
    assert begun_late == ["DHBDs!C41:C43", "DHBDs!D41:D43", "Phosphines-selectivity!L32:L34"]


def test_grids_left_out_repeat_other_sheets(workbook):
    copies = [("AM18:AO26", "DHBDs", "C20:E28"), ("AO33:AP41", "DHBDs", "E35:F43")]
    copies += [("AT18:AX32", "Phosphines-yield", "C20:G34"), ("AU38:AW52", "Phosphines-yield", "D40:F54")]
    for here, sheet, there in copies:
        left, right = workbook["R-replacement"][here], workbook[sheet][there]
        assert [[cell.value for cell in line] for line in left] == [[cell.value for cell in line] for line in right]
        assert isinstance(left[-1][-1].value, float)


def test_swapped_titles(workbook):
    """The summary of the sheet, not the titles of the blocks, says which data set a baseline block is of."""
    sheet = workbook["MoleculeNet"]
    assert (sheet["B74"].value, sheet["B83"].value) == ("Esol (RMSE)", "FreeSolv (RMSE)")
    summary = {sheet.cell(3, column).value.upper(): sheet.cell(5, column).value for column in range(3, 7)}
    for name in ("bace", "bbbp", "freesolv", "esol"):
        best = released.baseline(name).groupby("head_lr")["value"].agg(["mean", "std"])
        best = best.loc[best["mean"].idxmax() if name in ("bace", "bbbp") else best["mean"].idxmin()]
        digits = 3 if name == "bace" else 2
        assert f"{best['mean']:.{digits}f}\u00b1{best['std']:.{digits}f}" == summary[name.upper()]


# Printed in the paper: fingerprints and MoleCLIP, final runs; yields in per cent.
@pytest.mark.parametrize(
    ("name", "factor", "fingerprints", "moleclip"),
    [
        ("DHBDs", 1, "0.275", "0.197"),
        ("NHCs", 1, "0.0158", "0.0138"),
        ("Phosphines_yield", 100, "12.2", "9.5"),
        ("Phosphines_selectivity", 1, "1.20", "0.95"),
    ],
)
def test_printed_means(table, name, factor, fingerprints, moleclip):
    final = table[(table["sheet"] == released.NAMES[name]) & table["stage"].str.startswith("final")]
    means = factor * final.groupby("model")["value"].mean()
    for model, printed in (("Morgan2048-MLP", fingerprints), ("MoleCLIP", moleclip)):
        assert f"{means[model]:.{len(printed.partition('.')[2])}f}" == printed


@pytest.mark.parametrize(
    ("dataset", "variant", "model", "printed"),
    [
        ("ESOL", "original", "MoleCLIP", 0.484),
        ("ESOL", "R-replaced", "ImageMol", 0.532),
        ("FreeSolv", "R-replaced", "MoleCLIP", 1.00),
        ("DHBDs", "R-replaced", "ImageMol", 0.202),
        ("Phosphines-yield", "R-replaced", "MoleCLIP", 0.115),
        ("Phosphines-yield", "R-replaced", "ImageMol", 0.144),
    ],
)
def test_printed_means_of_r_replacement(table, dataset, variant, model, printed):
    of = table[(table["sheet"] == "R-replacement") & table["stage"].str.startswith("final")]
    of = of[(of["dataset"] == dataset) & (of["variant"] == variant) & (of["model"] == model)]
    assert of["value"].mean() == pytest.approx(printed, abs=0.0011)


@pytest.mark.usefixtures("path")
def test_baseline_has_the_runs_of_one_data_set():
    yields = released.baseline("Phosphines_yield")
    assert len(yields) == 125
    assert set(yields["model"]) == {"Morgan2048-MLP"}
    assert set(yields["sheet"]) == {"Phosphines-yield"}
    assert list(yields.index) == list(range(125))
    with pytest.raises(KeyError, match=r"Kraken_buried.*known are bace"):
        released.baseline("Kraken_buried")


# What is altered, into what, and where the message says that it was noticed, if elsewhere.
ALTERED = [
    ("MoleculeNet", "B19", "LR", ""),  # a corner
    ("MoleculeNet", "B26", "BACE (AUC)", ""),
    ("MoleculeNet", "B83", "Esol (RMSE)", ""),  # a slip that somebody has repaired
    ("MoleculeNet", "C18", "intensive?", ""),
    ("MoleculeNet", "C20", 0.8, ""),  # no longer empty
    ("MoleculeNet_controls", "B27", "11 epochs", ""),  # not in the summary
    ("MoleculeNet_controls", "B15", "Hyperparameter optimization", "B18"),
    ("DHBDs", "C20", "0.2278", ""),
    ("DHBDs", "C20", None, ""),
    ("DHBDs", "C29", "n/a", ""),
    ("NHCs", "D19", 0.003, ""),  # a rate that no run has
    ("NHCs", "D19", 0.001, "D20"),  # now two columns have the same labels
    ("NHCs", "D100", None, ""),
    ("NHCs", "D101", None, "D99"),  # would cut the block short
    ("Phosphines-yield", "B20", "seed-6", ""),
    ("Phosphines-yield", "B21", "avg", "B22"),
    ("Phosphines-selectivity", "B35", "mean", ""),
    ("Phosphines-selectivity", "C99", "Base", ""),
    ("Domain-focused pretraining", "AK40", 1.0, ""),  # belongs to no block
    ("Domain-focused pretraining", "S27", "Phosphines", "T32"),
    ("R-replacement", "AL46", "DHBDs (replaced)", ""),
    ("R-replacement", "C78", "Freesolw", ""),
    ("R-replacement", "E78", None, "E82"),  # now these runs have the title to the left
    ("R-replacement", "AL50", None, ""),
]


@pytest.mark.parametrize(("sheet", "cell", "value", "noticed"), ALTERED)
def test_an_altered_workbook_is_refused(workbook, tmp_path, sheet, cell, value, noticed):
    here = workbook[sheet][cell]
    before, here.value = here.value, value
    try:
        workbook.save(tmp_path / "altered.xlsx")
    finally:
        here.value = before
    with pytest.raises(ValueError, match=rf"^{sheet}!{noticed or cell}: "):
        released.runs(tmp_path / "altered.xlsx")


def test_a_missing_sheet_is_named(tmp_path):
    Workbook().save(tmp_path / "empty.xlsx")
    with pytest.raises(ValueError, match=re.escape("has no sheet DHBDs, ")):
        released.runs(tmp_path / "empty.xlsx")


def test_our_runs_beside_theirs():
    """Against the printed scores of the baseline: 1.20 for selectivity's final runs, 1.58 for ESOL's best cell."""
    ours = {"encoder": "fingerprint_mlp", "unit": "", "batch_size": 4}
    final = [
        {**ours, "set": "lr_1e-3", "dataset": "Phosphines_selectivity", "metric": "MAE", "stage": "final"}
        | {"seed": seed, "head_lr": 1e-3, "test": 1.0 + step}
        for seed in range(1, 6)
        for step in (0.0, 0.2)
    ]
    grid = [
        {**ours, "set": "esol", "dataset": "esol", "metric": "RMSE", "stage": "grid", "seed": 1}
        | {"head_lr": lr, "test": test}
        for lr, test in ((1e-3, 1.5), (1e-3, 1.7), (1e-5, 9.0))
    ]
    others = [line | {"encoder": "mean", "test": 9.0} for line in final]
    found = released.beside(pd.DataFrame(final + grid + others)).set_index("set")
    selectivity, esol = found.loc["lr_1e-3"], found.loc["esol"]
    assert selectivity["theirs"].mean() == pytest.approx(1.20, abs=0.005)
    assert set(selectivity["theirs_head_lr"]) == {1e-5}
    assert set(selectivity["theirs_runs"]) == {10}
    assert selectivity["ours"].tolist() == pytest.approx([1.1] * 5)
    assert (esol["theirs"], esol["ours"], esol["ours_runs"]) == (pytest.approx(1.58, abs=0.005), pytest.approx(1.6), 2)
    assert esol["difference"] == pytest.approx(1.6 - esol["theirs"])
    error = math.hypot(esol["theirs_sd"] / math.sqrt(3), np.std([1.5, 1.7], ddof=1) / math.sqrt(2))
    assert esol["standard_error"] == pytest.approx(error)
