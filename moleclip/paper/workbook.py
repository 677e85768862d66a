"""The authors' results workbook: every run that they released, the scores that they print, and what their runs give.

It is Paper_results/MoleCLIP_full_results.xlsx of the repository Milo-group/MoleCLIP at commit 5325986. On top of each
sheet is a summary, which is a table of the paper; below it are blocks of runs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter, rows_from_range

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

# A block is a grid of runs. Its corner is the cell "lr": learning rates stand to its right, augmentations or dropouts
# above them; below it is one line per run, down to "avg". The table has the blocks in this order.
_CATALYSIS = "B19 B39 B59 B78 B101"
_BLOCKS = {
    "MoleculeNet": "B19 B28 B37 B46 B58 B67 B76 B85",
    "MoleculeNet_controls": " ".join(f"B{row + 8 * n}" for row in (18, 91, 164, 237) for n in range(9)),
    "DHBDs": "B19 B34 B50 B65",
    "NHCs": _CATALYSIS,
    "Phosphines-yield": _CATALYSIS,
    "Phosphines-selectivity": _CATALYSIS,
    "Domain-focused pretraining": "B32 B52 B72 B92 B112 B135 T32 T52 T72 T92 T112 T135",
    "R-replacement": "B17 B32 B49 B64 T17 T32 T49 T64 B81 T81 AL50 AL65 AL82 AS60 AS80 AS104",
}

# Grids of DHBDs and Phosphines-yield (their blocks B19 and B39), which R-replacement repeats.
_REPEATED = {"R-replacement": "AK14:AP43 AR14:AX54"}

# Cells inside a block that hold no run.
_EMPTY = {
    "MoleculeNet": "C20:C22",
    "MoleculeNet_controls": "C67:C69 C75:C77 C83:C85",
    "DHBDs": "C35:D40",
    "NHCs": "C40:C54 K60:K74",
    "Phosphines-yield": "C40:C54",
    "Phosphines-selectivity": "L20:L31",
    "R-replacement": "C65:C73 U65:U73 AM51:AO59 AM66:AN74 AT81:AU95",
}

# Titles that are wrong in the workbook: what stands there, and what is meant.
_TITLES = {
    "MoleculeNet": {
        # Two baseline blocks have each other's title. The best column under "Esol" is 4.12+-0.19 (C80, C81), that
        # under "FreeSolv" 1.58+-0.03 (C89, C90); the sheet's own summary gives 4.12+-0.19 for FreeSolv (E5) and
        # 1.58+-0.03 for Esol (F5), and MoleCLIP's blocks above come in the order FreeSolv (B35), Esol (B44). ESOL's
        # labels have a standard deviation of 2.1: guessing their mean errs by half of 4.12.
        "B74": ("Esol (RMSE)", "FreeSolv (RMSE)"),
        "B83": ("FreeSolv (RMSE)", "Esol (RMSE)"),
    },
}

# Other labels that are wrong, without which the blocks cannot be told from each other.
_LABELS = {
    "MoleculeNet": {
        # The four blocks under the title "Baseline" still have the labels of MoleCLIP's, whose layout they repeat.
        # Fingerprints are not augmented.
        "B55": ("Baseline (2048-bits Morgan fingerprints, radius 2)", ""),
        **{f"B{row}": ("MoleCLIP", "Baseline") for row in (59, 68, 77, 86)},
        **{f"C{row}": ("Intensive", "n/a") for row in (57, 66, 75, 84)},
    },
    # The other dropouts of this sheet are bare numbers.
    "DHBDs": {"L49": ("drop 0.1", "0.1")},
    # Both halves of the block have this title. The means of this half are the summary's for R-replaced (K7, K9).
    "R-replacement": {"AV101": ("Phosphines-yield", "Phosphines-yield (R-replaced)")},
}

_STAGE = re.compile(r"(Hyperparameter optimization|Final runs?)\W+(\d+) epochs\)?")
_TITLE = re.compile(rf"(?i)({'|'.join(NAMES.values())})(?: \((ROC-AUC|RMSE|R-replaced)\))?")
_SETTING = r"Intensive|None|[Dd]efault|n/a|(drop )?0\.[125]"
_RATE = r"[14]e-05|0\.0{0,3}[145]|[14]e-[34] [14]e-3"
_AVERAGE = r"[\d.e-]+|#DIV/0!|confidence interval"
_SCORE = re.compile(r"(-?[\d.]+)(?:\u00b1([\d.]+))?%?")

_CONTROLS = [
    *("K values: 30, 300", "\u03c4=0.05", "\u03c4=0.1", "1 epoch", "10 epochs", "Pubchem-10m  (2 epochs)"),
    *("No augmentations during pretraining", "Only contrastive task", "Only classification task"),
]
_ONE_SET = ("D2:D2", {"5 4": BASELINE, "8 6 7": "MoleCLIP", "10 9": "ImageMol", "13 11 12": "GEM"})
# Summaries: the cells that name the data sets, and the models; for each the rows of its score, its learning rate, its
# augmentation or dropout, and its relative difference to another model, as far as they are printed (0: not).
_SUMMARIES = {
    "MoleculeNet": (
        "C3:F3",
        {"5": BASELINE, "6": "ChemBERTa-2", "7": "MolCLR", "8": "Uni-Mol", "9": "GEM", "10": "ImageMol"}
        | {"11 13 12": "MoleCLIP"},
    ),
    "MoleculeNet_controls": ("D3:G3", {f"{row}": f"control: {name}" for row, name in enumerate(_CONTROLS, 4)}),
    **dict.fromkeys(CATALYSIS, _ONE_SET),
    "Domain-focused pretraining": (
        "D3:E3",
        {
            "8 5 7 9": "MoleCLIPbv",
            "12 14 13": "Control - I | Phosphines - 4 epochs | K1 = 30, K2 = 300",
            "15 17 16": "Control - I | Phosphines - 4 epochs | K1 = 300, K2 = 3000",
            "18 21 20": "Control - II | ChEMBL \u2013 4 epochs | Phosphines filtered - 10 epochs | K1 = 300, K2 = 3000",
            "22 24 23": "Control \u2013 III | CLIP initialized | Kraken (buried volume) - 100 epochs",
        },
    ),
    "R-replacement": ("D3:K3", {"7 5 6": "MoleCLIP", "9 8 0 10": "ImageMol"}),
}


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


def runs(path: str | Path | None = None, corrected: bool = True) -> pd.DataFrame:
    """Read every run in the authors' results workbook.

    Labels that are wrong in it are corrected, above all those of two baseline blocks on the sheet MoleculeNet: what is
    titled Esol there is FreeSolv, and the other way round. Averages and deviations are not runs. Of the runs that
    R-replacement repeats from other sheets, grids are left out; the final ones (DHBDs and Phosphines-yield, "original")
    are kept, so that the table has them twice.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.
    corrected : bool
        Whether to put the two exchanged titles of baseline blocks right.

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
        A label is not what is expected, a run is not a number, or a cell belongs to no block; names sheet and cell.
    downloads.DataError
        The workbook is damaged, or can be neither found nor downloaded.
    """
    found = [run for name, cells in read_cells(path).items() for run in _Sheet(name, cells, corrected).runs()]
    table = pd.DataFrame(found, columns=_RUN)
    labels = table.drop(columns=["value", "cell"])
    labels.loc[labels["stage"].str.startswith("final"), SETTING] = ""  # a model has final runs at one setting only
    if (twice := labels.duplicated()).any():
        first = table[twice].iloc[0]
        same = ", ".join(map(str, labels[twice].iloc[0]))
        raise ValueError(f"{first['sheet']}!{first['cell']}: has the same labels as a run before it: {same}")
    return table


def read_cells(path: str | Path | None = None, formulas: bool = False) -> dict[str, Cells]:
    """Read the workbook: the cells of each sheet by row and column, without blanks around their text."""
    path = path or downloads.fetch("paper_results")
    with closing(openpyxl.load_workbook(path, read_only=True, data_only=not formulas)) as book:
        if missing := set(_BLOCKS).difference(book.sheetnames):
            raise ValueError(f"{path}: has no sheet {', '.join(sorted(missing))}")
        return {
            name: {
                (row, column): cell.strip() if isinstance(cell, str) else cell
                for row, line in enumerate(book[name].iter_rows(values_only=True), 1)
                for column, cell in enumerate(line, 1)
                if cell is not None
            }
            for name in _BLOCKS
        }


class _Sheet:
    """The cells of a sheet with its wrong labels corrected; remembers which of them were used."""

    def __init__(self, name: str, cells: Cells, corrected: bool) -> None:
        self.name, self.cells = name, cells
        self.used: set[tuple[int, int]] = set()
        for place, (wrong, right) in (_LABELS.get(name, {}) | (_TITLES.get(name, {}) if corrected else {})).items():
            row, column = coordinate_to_tuple(place)
            self.take(row, column, re.escape(wrong))
            self.cells[row, column] = right
        self.used = _area(_REPEATED.get(name, ""))
        self.empty = _area(_EMPTY.get(name, ""))

    def error(self, row: int, column: int, message: str) -> ValueError:
        return ValueError(f"{self.name}!{get_column_letter(column)}{row}: {message}")

    def text(self, row: int, column: int) -> str:
        return str(self.cells.get((row, column), ""))

    def take(self, row: int, column: int, pattern: str) -> str:
        """Use a label, which must match a pattern."""
        if not re.fullmatch(pattern, self.text(row, column)):
            raise self.error(row, column, f"{self.text(row, column)!r} where {pattern!r} is expected")
        self.used.add((row, column))
        return self.text(row, column)

    def runs(self) -> list[tuple[Any, ...]]:
        """Read all blocks; every cell below the summary must belong to one."""
        found = [run for corner in _BLOCKS[self.name].split() for run in self.block(*coordinate_to_tuple(corner))]
        first = min(row for row, _ in self.used)
        for (row, column), cell in self.cells.items():
            if row >= first and (row, column) not in self.used and cell != "":
                raise self.error(row, column, f"{cell!r} belongs to no block of runs")
        return found

    def block(self, top: int, left: int) -> Iterator[tuple[Any, ...]]:
        """Read one block, column by column."""
        self.take(top, left, "lr")
        columns = list(takewhile(lambda column: self.text(top, column), count(left + 1)))
        splits = self.splits(top, left)
        for column, (model, setting) in zip(columns, self.models_and_settings(top, left, columns), strict=True):
            dataset, variant = self.heading(_TITLE, top, left, column)
            action, epochs = self.heading(_STAGE, top, left, column)
            labels = (
                _known_set(dataset),
                variant if variant == "R-replaced" else "original",
                model,
                ("final" if action.startswith("Final") else "hpo") + epochs,
                setting,
                self.take(top, column, _RATE),
            )
            for row, split in enumerate(splits, top + 1):
                if (row, column) in self.empty:
                    self.take(row, column, "")
                    continue
                repeat = splits[: row - top].count(split)
                yield self.name, *labels, split, repeat, self.value(row, column), f"{get_column_letter(column)}{row}"
        bottom = top + 1 + len(splits)
        self.take(bottom, left, "avg")
        self.take(bottom + 1, left, "std")
        averages = [(row, column) for row in range(bottom, bottom + 3) for column in [left, *columns]]
        self.used.update(at for at in averages if re.fullmatch(_AVERAGE, self.text(*at)))

    def splits(self, top: int, left: int) -> list[str]:
        """Split of each line of a block; where no seeds are named, it is the scaffold split, run three times."""
        if not self.text(top + 1, left).startswith("seed"):
            return ["scaffold"] * 3
        rows = takewhile(lambda row: self.text(row, left) != "avg", count(top + 1))
        splits = [self.take(row, left, r"seed-\d") for row in rows]
        if len(set(Counter(splits).values())) > 1:
            raise self.error(top + 1, left, "from this row down, the seeds do not have equally many runs")
        return splits

    def models_and_settings(self, top: int, left: int, columns: list[int]) -> Iterator[tuple[str, str]]:
        """Model of each column of a block, and its augmentation or dropout."""
        kind = self.take(top - 1, left, "(augmentation|Dropout|aug/drop)?")
        setting = ""
        for column in columns:
            if kind == "aug/drop":  # each column has its model and its setting
                model = self.model(top - 2, column)
                yield model, self.take(top - 1, column, "" if model in (BASELINE, "ImageMol") else _SETTING)
                continue
            above = self.text(top - 1, column)
            # A setting is written once for several columns; "Final run" stands in the same line.
            if kind and not _STAGE.fullmatch(above) and (above or not setting):
                setting = self.take(top - 1, column, _SETTING)
            yield self.model(top + 1, left - self.text(top + 1, left).startswith("seed")), setting

    def model(self, row: int, column: int) -> str:
        text = self.text(row, column)
        controls = self.name.endswith("controls")
        name = "control: " + text.replace("\n", " ") if controls else text.replace("\n", " | ")
        name = BASELINE if text.partition("(")[0].strip() == "Baseline" else name
        if name not in _SUMMARIES[self.name][1].values():
            raise self.error(row, column, f"{text!r} is no model of the sheet's summary")
        self.used.add((row, column))
        return name

    def value(self, row: int, column: int) -> float:
        cell = self.cells.get((row, column))
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            raise self.error(row, column, f"{cell!r} where a run is expected")
        self.used.add((row, column))
        return float(cell)

    def heading(self, pattern: re.Pattern[str], top: int, left: int, column: int) -> Sequence[str]:
        """Parts of the nearest heading that matches: close above a column, or above the corner, or the sheet's name."""
        near = [(row, place) for row in range(top - 1, top - 4, -1) for place in range(column, left, -1)]
        far = [(row, place) for row in range(top - 1, 0, -1) for place in (left, left - 1)]
        for at in near + far:
            if match := pattern.fullmatch(self.text(*at)):
                self.used.add(at)
                return match.groups("")
        if match := pattern.fullmatch(self.name):
            return match.groups("")
        raise self.error(top, left, f"no heading above gives its {'data set' if pattern is _TITLE else 'stage'}")


def _known_set(name: str) -> str:
    return next(known for known in NAMES.values() if known.casefold() == name.casefold())


def _area(text: str) -> set[tuple[int, int]]:
    return {coordinate_to_tuple(cell) for area in text.split() for line in rows_from_range(area) for cell in line}


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
    return pd.DataFrame([score for name, cells in read_cells(path).items() for score in _summary(name, cells)])


def _summary(sheet: str, cells: Cells) -> Iterator[dict[str, Any]]:
    headings, models = _SUMMARIES[sheet]
    for top, column in sorted(_area(headings)):
        dataset = _known_set(re.sub(r"\s|\W+$", "", str(cells[top, column])))
        variant = "R-replaced" if cells.get((top + 1, column)) == "R replaced" else "original"
        for rows, model in models.items():
            row, *others = (int(row) for row in f"{rows} 0 0 0".split()[:4])
            score, rate, setting, difference = (str(cells.get((n, column), "")) for n in (row, *others))
            if score == "-":  # not evaluated
                continue
            text, cell = score.replace(" ", ""), f"{get_column_letter(column)}{row}"
            if not (match := _SCORE.fullmatch(text)):
                raise ValueError(f"{sheet}!{cell}: {score!r} where a score is expected")
            yield {
                **dict(zip(MODEL, (sheet, dataset, variant, model), strict=True)),
                "head_lr": _rate(rate),
                SETTING[0]: setting,
                "text": text,
                "value": float(match[1]),
                "error": float(match[2] or np.nan),
                "step": 10.0 ** -len(match[1].partition(".")[2]),
                "difference": difference,
                "cell": cell,
            }


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
