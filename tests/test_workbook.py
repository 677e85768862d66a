"""The authors' workbook: every run is read under the right label and nothing else is; so is every printed score."""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
import openpyxl
import pandas as pd
import pytest
from openpyxl.utils.cell import coordinate_from_string, coordinate_to_tuple
from openpyxl.workbook import Workbook

from moleclip.paper import workbook

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


# Tables of the paper, as text: set, variant, model, score; and what its runs give, to the printed digits.
PRINTED = {
    ("BACE", "original", "Uni-Mol"): "0.857\u00b10.002",
    ("BBBP", "original", "MoleCLIP"): "0.747\u00b10.009",
    ("FreeSolv", "original", "ImageMol"): "2.02\u00b10.07",
    ("ESOL", "original", "ChemBERTa-2"): "0.86",
    ("NHCs", "original", "ImageMol"): "0.0218\u00b10.0026",
    ("Phosphines-selectivity", "original", "MoleCLIPbv"): "0.82\u00b10.03",
    ("DHBDs", "R-replaced", "MoleCLIP"): "0.199\u00b10.02",
    ("Phosphines-yield", "R-replaced", "ImageMol"): "14.4\u00b10.7",
    ("FreeSolv", "original", "control: No augmentations during pretraining"): "2.17\u00b10.14",
    ("ESOL", "original", "control: Pubchem-10m  (2 epochs)"): "0.93\u00b10.03",
}
# Means of the released runs with 95 % t-intervals over splits, by an independent count.
RECOMPUTED = {
    ("DHBDs", "GEM"): (0.183, 9),
    ("NHCs", "MoleCLIP"): (0.0138, 50),
    ("Phosphines-yield", "ImageMol"): (11.3, 50),
    ("Phosphines-selectivity", "MoleCLIP"): (0.946, 50),
}
MEDIANS = {"BACE": 0.808, "BBBP": 0.711, "FreeSolv": 2.476, "ESOL": 1.041}


@pytest.fixture(scope="module")
def book(workbook_file) -> Workbook:
    return openpyxl.load_workbook(workbook_file, data_only=True)


@pytest.fixture(scope="module")
def cells(workbook_file):
    return workbook.read_cells(workbook_file)


@pytest.fixture
def alter(cells, monkeypatch):
    """Change a cell of what is read from the workbook."""

    def change(sheet, cell, value):
        altered = {name: dict(content) for name, content in cells.items()}
        altered[sheet][coordinate_to_tuple(cell)] = value
        monkeypatch.setattr(workbook, "read_cells", lambda path=None: altered)

    return change


@pytest.fixture(scope="module")
def recomputed(released_runs, printed_scores):
    return workbook.recompute(released_runs, printed_scores)


def columns_of(table: pd.DataFrame) -> Iterator[tuple[str, str, int, int, pd.DataFrame]]:
    """Runs that stand below each other: sheet, column, first and last row."""
    column, row = zip(*map(coordinate_from_string, table["cell"]), strict=True)
    placed = table.assign(column=column, row=row)
    labels = ["sheet", "column", *table.columns[1:7]]
    for (sheet, letter, *_), runs in placed.groupby(labels, sort=False):
        yield sheet, letter, runs["row"].min(), runs["row"].max(), runs


def test_every_run_is_there(released_runs):
    assert len(released_runs) == 7866
    assert released_runs["sheet"].value_counts(sort=False).to_dict() == SHEETS
    assert not released_runs.duplicated(["sheet", "cell"]).any()


def test_digest(released_runs):
    lines = [list(released_runs.columns)]
    lines += [[*map(str, run[:9]), run[9].hex(), run[10]] for run in released_runs.itertuples(index=False)]
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
def test_spots(released_runs, book, spot):
    place, *labels = (field.strip() for field in spot.split("|"))
    sheet, cell = place.split()
    [run] = released_runs[(released_runs["sheet"] == sheet) & (released_runs["cell"] == cell)].to_numpy().tolist()
    assert [str(label) for label in run[1:9]] == labels
    assert run[9] == book[sheet][cell].value


def test_averages_of_the_columns_are_those_in_the_workbook(released_runs, book):
    differ = []
    for sheet, column, _, last, runs in columns_of(released_runs):
        average = book[sheet][f"{column}{last + 1}"].value
        if runs["value"].mean() != pytest.approx(average, rel=1e-9):
            differ.append(f"{sheet}!{column}{last + 1}")
    assert differ == ["DHBDs!L60"]  # which averages the runs of one seed only


def test_every_column_is_read_down_from_its_learning_rate(released_runs, book):
    begun_late = []
    for sheet, column, first, last, runs in columns_of(released_runs):
        assert len(runs) == last - first + 1
        if str(book[sheet][f"{column}{first - 1}"].value) != runs["head_lr"].iloc[0]:
            begun_late.append(f"{sheet}!{column}{first}:{column}{last}")
    # Of these the authors ran one seed only.
    assert begun_late == ["DHBDs!C41:C43", "DHBDs!D41:D43", "Phosphines-selectivity!L32:L34"]


def test_no_run_is_left_out(released_runs, cells):
    """Numbers next to no run are rates of columns without runs and dropouts, or of the grids that are left out."""
    for sheet, runs in released_runs.groupby("sheet"):
        places = set(map(coordinate_to_tuple, runs["cell"]))
        near = {(row + step, column) for row, column in places for step in (-1, 0, 1, 2, 3)}  # rate, mean, deviation
        first, others = min(row for row, _ in places), range(coordinate_to_tuple("AM1")[1], 51)
        left = {
            value
            for (row, column), value in cells[sheet].items()
            if isinstance(value, float) and row >= first and (row, column) not in near
            if not (sheet == "R-replacement" and row < 58 and column in others)
        }
        assert left <= {0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1e-05, 4e-05, 0.0001, 0.0004}, sheet


def test_grids_left_out_repeat_other_sheets(book):
    copies = [("AM18:AO26", "DHBDs", "C20:E28"), ("AO33:AP41", "DHBDs", "E35:F43")]
    copies += [("AT18:AX32", "Phosphines-yield", "C20:G34"), ("AU38:AW52", "Phosphines-yield", "D40:F54")]
    for here, sheet, there in copies:
        left, right = book["R-replacement"][here], book[sheet][there]
        assert [[cell.value for cell in line] for line in left] == [[cell.value for cell in line] for line in right]
        assert isinstance(left[-1][-1].value, float)


def test_swapped_titles(released_runs, book):
    """The summary of the sheet, not the titles of the blocks, says which data set a baseline block is of."""
    sheet = book["MoleculeNet"]
    assert (sheet["B74"].value, sheet["B83"].value) == ("Esol (RMSE)", "FreeSolv (RMSE)")
    summary = {sheet.cell(3, column).value.upper(): sheet.cell(5, column).value for column in range(3, 7)}
    for name in ("bace", "bbbp", "freesolv", "esol"):
        mine = (released_runs["dataset"] == workbook.NAMES[name]) & (released_runs["model"] == workbook.BASELINE)
        best = released_runs[mine].groupby("head_lr")["value"].agg(["mean", "std"])
        best = best.loc[best["mean"].idxmax() if name in ("bace", "bbbp") else best["mean"].idxmin()]
        digits = 3 if name == "bace" else 2
        assert f"{best['mean']:.{digits}f}\u00b1{best['std']:.{digits}f}" == summary[name.upper()]


def test_means_of_the_runs_are_the_printed_scores(recomputed):
    """All 86 that have runs, to half of the last digit, but those that were found to differ by hand."""
    table = recomputed[recomputed["runs"] > 0]
    differ = (table["mean"] - table["value"]).abs() > 0.5 * table["step"] * (1 + 1e-6)
    assert len(table) == 86
    assert table.loc[differ, ["sheet", "dataset", "model"]].to_numpy().tolist() == [
        ["MoleculeNet_controls", "BBBP", "control: \u03c4=0.05"],
        ["MoleculeNet_controls", "ESOL", "control: \u03c4=0.1"],
        ["DHBDs", "DHBDs", "GEM"],
        ["R-replacement", "ESOL", "MoleCLIP"],
    ]


def test_a_run_that_is_no_number_is_named(alter):
    alter("DHBDs", "C20", "0.2278")
    with pytest.raises(ValueError, match=r"^DHBDs!C20: '0.2278' where a run"):
        workbook.runs()


def test_a_missing_sheet_is_named(tmp_path):
    Workbook().save(tmp_path / "empty.xlsx")
    with pytest.raises(ValueError, match=re.escape("has no sheet DHBDs, ")):
        workbook.runs(tmp_path / "empty.xlsx")


def test_every_printed_score_is_read(printed_scores, released_runs):
    table = printed_scores.drop_duplicates(["dataset", "variant", "model"])
    found = table.set_index(["dataset", "variant", "model"])["text"]
    assert {key: found[key] for key in PRINTED} == PRINTED
    # 4 sets of 7 models less one blank, 9 controls on 4 sets, 4 x 4, 5 x 2, 8 x 2: as on the sheets.
    assert len(printed_scores) == 27 + 36 + 16 + 10 + 16
    assert printed_scores["value"].notna().all()
    groups = [set(map(tuple, part[workbook.MODEL].to_numpy())) for part in (released_runs, printed_scores)]
    assert groups[0] < groups[1]  # all that has runs is printed


def test_settings_are_read_in_the_form_of_the_runs(printed_scores, released_runs):
    told = printed_scores[printed_scores["head_lr"] != ""]
    assert set(told["head_lr"]) <= set(released_runs["head_lr"])
    gem = told[(told["model"] == "GEM") & (told["dataset"] == "DHBDs")].iloc[0]
    assert (gem["head_lr"], gem["augmentation_or_dropout"]) == ("4e-3 4e-3", "0.1")


def test_means_follow_from_the_runs(recomputed):
    table = recomputed.drop_duplicates(["dataset", "model"])
    table = table.set_index(["dataset", "model"])
    for key, (mean, runs) in RECOMPUTED.items():
        assert table.loc[key, "mean"] == pytest.approx(mean, rel=0.005)
        assert table.loc[key, "runs"] == runs
    for name, median in MEDIANS.items():
        assert table.loc[(name, "MoleCLIP"), "median"] == pytest.approx(median, abs=6e-4)


def test_intervals_are_the_papers_and_those_over_splits(recomputed, released_runs):
    """Each by a count of its own, from the runs of one model."""
    table = recomputed
    line = table[(table["sheet"] == "Phosphines-selectivity") & (table["model"] == "GEM")].iloc[0]
    runs = released_runs[(released_runs["sheet"] == line["sheet"]) & (released_runs["model"] == "GEM")]
    final = runs[runs["stage"] == "final300"].groupby("split")["value"]
    pooled = np.sqrt(final.var().mean())  # the splits have equally many runs
    assert line["spread"] == pytest.approx(1.96 * pooled / np.sqrt(50))
    # t of 4 degrees of freedom; a fifth is tested, so that splits overlap by a quarter.
    half = 2.776445 * final.mean().std() * np.sqrt(1 / 5 + 1 / 4)
    assert (line["high"] - line["low"]) / 2 == pytest.approx(half, rel=1e-6)


def test_scores_without_runs_are_kept(recomputed):
    """The sheet MoleculeNet quotes five models from other papers, one of them on three sets only."""
    quoted = recomputed[recomputed["runs"] == 0]
    assert quoted["sheet"].eq("MoleculeNet").all()
    assert quoted["model"].value_counts().to_dict() == {"ChemBERTa-2": 3} | dict.fromkeys(
        ("MolCLR", "Uni-Mol", "GEM", "ImageMol"), 4
    )
    assert quoted["mean"].isna().all()


def test_a_score_that_is_none_is_named(alter):
    alter("NHCs", "D8", "good")
    with pytest.raises(ValueError, match=r"^NHCs!D8: 'good' where a score"):
        workbook.scores()
