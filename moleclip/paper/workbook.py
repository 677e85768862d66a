"""The authors' results workbook: every run that they released, the scores that they print, and what their runs give.

It is Paper_results/MoleCLIP_full_results.xlsx of the repository Milo-group/MoleCLIP at commit 5325986. On top of each
sheet is a summary, which is a table of the paper; below it are blocks of runs. What stands where does not follow from
its labels by any one rule, and some of them are wrong: `printed.csv` and `runs.csv` say it, area by area.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
from openpyxl.utils.cell import column_index_from_string, coordinate_to_tuple, get_column_letter, range_boundaries

from moleclip import metrics, tables
from moleclip.io import downloads

Cells = dict[tuple[int, int], Any]

# This project's names of the data sets, and those in the tables. The workbook also writes "Esol" and "Freesolv".
NAMES = {
    "bace": "BACE",
    "bbbp": "BBBP",
    "esol": "ESOL",
    "freesolv": "FreeSolv",
    "DHBDs": "DHBDs",
    "NHCs": "NHCs",
    "Phosphines_yield": "Phosphines-yield",
    "Phosphines_selectivity": "Phosphines-selectivity",
}
MOLECULENET = ("BACE", "BBBP", "FreeSolv", "ESOL")  # on a scaffold split
CATALYSIS = ("DHBDs", "NHCs", "Phosphines-yield", "Phosphines-selectivity")  # on random splits

BASELINE = "Morgan2048-MLP"

MODEL = ["sheet", "dataset", "variant", "model"]  # columns that name a model on a data set
SETTING = ["augmentation_or_dropout", "head_lr"]  # columns that name a point of the hyper-parameter grid
_RUN = [*MODEL, "stage", *SETTING, "split", "repeat", "value", "cell"]

# Two baseline blocks on the sheet MoleculeNet have each other's title. The best column under "Esol" is 4.12+-0.19 (C80,
# C81), that under "FreeSolv" 1.58+-0.03 (C89, C90); the sheet's own summary gives 4.12+-0.19 for FreeSolv (E5) and
# 1.58+-0.03 for Esol (F5), and MoleCLIP's blocks above come in the order FreeSolv (B35), Esol (B44). ESOL's labels have
# a standard deviation of 2.1: guessing their mean errs by half of 4.12.
EXCHANGED = {"ESOL": "FreeSolv", "FreeSolv": "ESOL"}

_SCORE = re.compile(r"(-?[\d.]+)(?:\u00b1([\d.]+))?%?")


class Quantity(NamedTuple):
    """What a score measures, its unit as printed, and the factor from the unit of the runs to that."""

    metric: str
    unit: str
    factor: int = 1


def quantity(sheet: str, dataset: str) -> Quantity:
    """Tell what the scores of a data set on a sheet measure.

    >>> quantity("Phosphines-yield", "Phosphines-yield")
    Quantity(metric='MAE', unit='%', factor=100)
    """
    if dataset in ("BACE", "BBBP"):
        return Quantity("ROC-AUC", "")
    if dataset == "Phosphines-yield":  # fractions in the runs
        return Quantity("MAE", "%", 100)
    metric = "RMSE" if sheet.startswith("MoleculeNet") else "MAE"
    return Quantity(metric, {"ESOL": "log mol/L", "DHBDs": "eV", "NHCs": "e"}.get(dataset, "kcal/mol"))


def design(dataset: str) -> tables.Design:
    """Look up the design of a data set by the paper's name; its margin in printed units.

    >>> design("Phosphines-selectivity")
    Design(overlap=0.25, margin=0.15)
    """
    found = tables.design(next(ours for ours, name in NAMES.items() if name == dataset))
    return found._replace(margin=found.margin * quantity("", dataset).factor)


def runs(path: str | Path | None = None) -> pd.DataFrame:
    """Read every run in the authors' results workbook.

    Labels that are wrong in it are corrected: the titles of two blocks (`EXCHANGED`), "MoleCLIP" and "Intensive" on the
    four blocks of the fingerprint baseline on the sheet MoleculeNet, and a title on R-replacement (AV101). Averages and
    deviations are not runs. Of the runs that R-replacement repeats from other sheets, grids are left out; the final
    ones (DHBDs and Phosphines-yield, "original") are kept, so that the table has them twice.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.

    Returns
    -------
    DataFrame
        7,866 lines. All columns are text but repeat and value.

        - sheet
        - dataset : a value of `NAMES`
        - variant : "original" or "R-replaced"
        - model : "Morgan2048-MLP" is the fingerprint baseline
        - stage : "hpo" (the grid) or "final", and the number of epochs
        - augmentation_or_dropout : as in the workbook; "n/a" or "" where a model has neither
        - head_lr : of GEM, the rates of encoder and head
        - split : "scaffold", or the seed of a random split
        - repeat : from 1, within the split
        - value : test score as in the workbook. On MoleculeNet and MoleculeNet_controls: ROC-AUC (BACE, BBBP) or RMSE
          (ESOL in log mol/L, FreeSolv in kcal/mol). Elsewhere MAE: ESOL and FreeSolv in the same units, DHBDs in eV,
          NHCs in e, yields as fractions, selectivity in kcal/mol
        - cell : where the value stands

    Raises
    ------
    ValueError
        A run is not a number; names sheet and cell.
    downloads.DataError
        The workbook is damaged, or can be neither found nor downloaded.
    """
    cells, found = read_cells(path), []
    for area in lines(_layout("runs.csv")):
        sheet, (left, top, right, bottom) = cells[area.sheet], range_boundaries(area.cells)
        for column in range(left, right + 1):
            repeats: Counter[str] = Counter()
            for row in range(top, bottom + 1):
                split = sheet[row, column_index_from_string(area.splits)] if area.splits else "scaffold"
                repeats[split] += 1
                value, cell = sheet.get((row, column)), f"{get_column_letter(column)}{row}"
                if not isinstance(value, int | float):
                    raise ValueError(f"{area.sheet}!{cell}: {value!r} where a run is expected")
                setting = (area.augmentation_or_dropout, str(sheet[int(area.rates), column]))
                model = (area.sheet, area.dataset, area.variant, area.model)
                found.append((*model, area.stage, *setting, split, repeats[split], float(value), cell))
    return pd.DataFrame(found, columns=_RUN)


def _layout(name: str) -> pd.DataFrame:
    """Read what stands where; all columns are text."""
    with (resources.files("moleclip.paper") / name).open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def as_titled(runs: pd.DataFrame) -> pd.DataFrame:
    """Give the runs of the two exchanged blocks the sets that their titles name."""
    wrong = (runs["sheet"] == "MoleculeNet") & (runs["model"] == BASELINE)
    return runs.assign(dataset=runs["dataset"].mask(wrong, runs["dataset"].replace(EXCHANGED)))


@functools.lru_cache(maxsize=4)
def read_cells(path: str | Path | None = None, formulas: bool = False) -> dict[str, Cells]:
    """Read the workbook, once: the cells of each sheet by row and column, without blanks around their text."""
    path, sheets = path or downloads.fetch("paper_results"), list(dict.fromkeys(_layout("runs.csv")["sheet"]))
    with closing(openpyxl.load_workbook(path, read_only=True, data_only=not formulas)) as book:
        if missing := set(sheets).difference(book.sheetnames):
            raise ValueError(f"{path}: has no sheet {', '.join(sorted(missing))}")
        return {
            name: {
                (row, column): cell.strip() if isinstance(cell, str) else cell
                for row, line in enumerate(book[name].iter_rows(values_only=True), 1)
                for column, cell in enumerate(line, 1)
                if cell is not None
            }
            for name in sheets
        }


def scores(path: str | Path | None = None) -> pd.DataFrame:
    """Read every printed score, and the hyper-parameters printed with it.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.

    Returns
    -------
    DataFrame
        - sheet, dataset, variant, model : as in `runs`
        - head_lr, augmentation_or_dropout : "" where none is printed
        - text : as printed
        - value, error : the score, and what follows +- (NaN if nothing does); in the units of `runs`, but yields in
          percent
        - step : of the last printed digit
        - difference : the printed relative difference to another model, "" if none
        - cell : where the score stands

    Raises
    ------
    ValueError
        A score is not a number; names sheet and cell.
    """
    cells, rows = read_cells(path), []
    for line in _layout("printed.csv").to_dict("records"):
        sheet = cells[line["sheet"]]
        score, rate, setting, difference = (
            str(sheet.get(coordinate_to_tuple(line[name]), "")) if line[name] else ""
            for name in ("cell", "head_lr", SETTING[0], "difference")
        )
        text = score.replace(" ", "")
        if not (match := _SCORE.fullmatch(text)):
            raise ValueError(f"{line['sheet']}!{line['cell']}: {score!r} where a score is expected")
        rows.append(
            {
                **{name: line[name] for name in MODEL},
                "head_lr": _rate(rate),
                SETTING[0]: setting,
                "text": text,
                "value": float(match[1]),
                "error": float(match[2] or np.nan),
                "step": 10.0 ** -len(match[1].partition(".")[2]),
                "difference": difference,
                "cell": line["cell"],
            }
        )
    return pd.DataFrame(rows)


def _rate(text: str) -> str:
    """Write learning rates as the runs have them: "4*10-4" is 0.0004, and "4*10-3, 4*10-3" is "4e-3 4e-3"."""
    text = text.replace("*10", "e")
    return text.replace(",", "") if "," in text else str(float(text)) if text else ""


def score_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Take the runs whose mean is a score: the final ones or, where there are none, those of the best setting.

    The best setting is that of the best mean test score, as in the paper; no validation score is released.

    Parameters
    ----------
    runs : DataFrame
        From the function `runs`, of one model on one data set and variant on one sheet.
    """
    final = runs[runs["stage"].str.startswith("final")]
    if len(final):
        return final
    means = runs.groupby(SETTING)["value"].mean()
    higher = metrics.higher_is_better(quantity(*runs[["sheet", "dataset"]].iloc[0]).metric)
    return runs[(runs[SETTING] == (means.idxmax() if higher else means.idxmin())).all(axis=1)]


def recompute(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Compute every printed score again from its runs.

    Parameters
    ----------
    runs, scores : DataFrame
        From the functions of these names.

    Returns
    -------
    DataFrame
        The lines of `scores`, in printed units, with further columns. Where no runs are released, counts are 0 and
        the other columns are empty.

        - metric, unit
        - splits, runs : numbers of both
        - mean
        - spread : what the paper prints after +-; on scaffold splits the standard deviation of the runs, else
          1.96 x (pooled deviation within splits) / sqrt(runs)
        - low, high : 95 % t-interval over splits, corrected for what they share; NaN for one split
        - by_split : mean on each split, by its name
        - median, least, most : over the settings of the grid, of their means; NaN where there are final runs
        - searched : number of runs of all settings
        - run_head_lr, run_setting, run_cells : of the runs
    """
    groups = dict(iter(runs.groupby(MODEL, sort=False)))
    rows = []
    for score in scores.to_dict("records"):
        metric, unit, factor = quantity(score["sheet"], score["dataset"])
        row: dict[Any, Any] = score | {"metric": metric, "unit": unit, "splits": 0, "runs": 0, "searched": 0}
        if (part := groups.get(tuple(score[name] for name in MODEL))) is not None:
            row |= _from_runs(part, factor)
        rows.append(row)
    return pd.DataFrame(rows)


def _from_runs(part: pd.DataFrame, factor: int) -> dict[str, Any]:
    made_of = score_runs(part)
    first = made_of.iloc[0]
    by_split = {str(split): factor * group for split, group in made_of.groupby("split")["value"]}
    means = {split: float(values.mean()) for split, values in by_split.items()}
    found = metrics.mean_ci([*means.values()], design(first["dataset"]).overlap)
    row = {"splits": len(means), "runs": len(made_of), "searched": len(part), "by_split": means, **found._asdict()}
    if len(means) == 1:
        row["spread"] = made_of["value"].std() * factor
    else:
        paper = metrics.paper_ci([list(values) for values in by_split.values()])
        row["spread"] = paper.high - paper.mean
    if first["stage"].startswith("hpo"):
        grid = factor * part.groupby(SETTING)["value"].mean()
        row |= {"median": grid.median(), "least": grid.min(), "most": grid.max()}
    return row | {"run_head_lr": first["head_lr"], "run_setting": first[SETTING[0]], "run_cells": area(made_of)}


def area(runs: pd.DataFrame) -> str:
    """Place of runs, as in "NHCs!F103:F152".

    >>> area(pd.DataFrame({"sheet": ["NHCs"] * 2, "cell": ["F103", "F104"]}))
    'NHCs!F103:F104'
    """
    cells = sorted(runs["cell"], key=lambda cell: coordinate_to_tuple(cell)[::-1])
    return f"{runs['sheet'].iloc[0]}!{cells[0]}:{cells[-1]}"


def difference(text: str) -> tuple[float, float]:
    """Read a printed relative difference and what follows +-, in percent.

    >>> difference("-3.7\u00b12.8 %")
    (-3.7, 2.8)
    """
    value, error = text.strip(" %").split("\u00b1")
    return float(value), float(error)


def lines(table: pd.DataFrame) -> Iterator[Any]:
    """Lines of a table as named tuples, whose types no checker knows."""
    return iter(table.itertuples(index=False))
