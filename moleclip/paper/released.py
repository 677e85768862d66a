"""The authors' own runs, read from the results workbook that they released: what a rerun is compared with."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl
import pandas as pd
from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter, rows_from_range

from moleclip import metrics
from moleclip.io import downloads

# This project's names of the data sets, and those in the table. The workbook also writes "Esol" and "Freesolv".
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


class Quantity(NamedTuple):
    """What a score is of, in printed units, and the ratio of these to the units of the runs."""

    metric: str
    unit: str
    factor: int = 1


def quantity(sheet: str, dataset: str) -> Quantity:
    """Tell what the scores of a data set on a sheet are.

    >>> quantity("Phosphines-yield", "Phosphines-yield")
    Quantity(metric='MAE', unit='%', factor=100)
    """
    if dataset in ("BACE", "BBBP"):
        return Quantity("ROC-AUC", "")
    if dataset == "Phosphines-yield":  # fractions in the runs
        return Quantity("MAE", "%", 100)
    metric = "RMSE" if sheet.startswith("MoleculeNet") else "MAE"
    return Quantity(metric, {"ESOL": "log mol/L", "DHBDs": "eV", "NHCs": "e"}.get(dataset, "kcal/mol"))


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

# Other labels that are wrong, without which the blocks cannot be told apart.
_LABELS = {
    "MoleculeNet": {
        # The four blocks under the title "Baseline" still have the labels of MoleCLIP's, whose layout they share.
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

Cells = dict[tuple[int, int], Any]

BASELINE = "Morgan2048-MLP"
_STAGE = re.compile(r"(Hyperparameter optimization|Final runs?)\W+(\d+) epochs\)?")
_TITLE = re.compile(rf"(?i)({'|'.join(NAMES.values())})(?: \((ROC-AUC|RMSE|R-replaced)\))?")
_SETTING = r"Intensive|None|[Dd]efault|n/a|(drop )?0\.[125]"
_RATE = r"[14]e-05|0\.0{0,3}[145]|[14]e-[34] [14]e-3"
_AVERAGE = r"[\d.e-]+|#DIV/0!|confidence interval"


class _Run(NamedTuple):
    sheet: str
    dataset: str
    variant: str
    model: str
    stage: str
    augmentation_or_dropout: str
    head_lr: str
    split: str
    repeat: int
    value: float
    cell: str


def runs(path: str | Path | None = None, corrected: bool = True) -> pd.DataFrame:
    """Read every run in the authors' results workbook.

    It is Paper_results/MoleCLIP_full_results.xlsx of the repository Milo-group/MoleCLIP at commit 5325986. Labels that
    are wrong in it are corrected, above all those of two baseline blocks on the sheet MoleculeNet: what is titled Esol
    there is FreeSolv, and the other way round. Averages and deviations are not runs. Of the runs that R-replacement
    repeats from other sheets, grids are left out; the final ones (DHBDs and Phosphines-yield, "original") are kept,
    and so are in the table twice.

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
    sources.DataError
        The workbook is damaged, or can be neither found nor downloaded.
    """
    found = [run for name, cells in read_cells(path).items() for run in _Sheet(name, cells, corrected).runs()]
    cells: dict[tuple[object, ...], str] = {}
    for run in found:
        # The final runs of a model have one setting and one rate.
        labels = (*run[:5], *run[7:9]) if run.stage.startswith("final") else run[:9]
        if (other := cells.setdefault(labels, run.cell)) != run.cell:
            raise ValueError(f"{run.sheet}!{run.cell}: has the same labels as {other}: {', '.join(map(str, labels))}")
    return pd.DataFrame(found)


def baseline(dataset: str) -> pd.DataFrame:
    """Read the runs of the authors' fingerprint baseline on one data set: lines of `runs`.

    Parameters
    ----------
    dataset : str
        A key of `NAMES`.

    Raises
    ------
    KeyError
        The name is unknown; the message lists the known ones.
    """
    if dataset not in NAMES:
        raise KeyError(f"unknown data set {dataset!r}: known are {', '.join(NAMES)}")
    table = runs()
    return table[(table["dataset"] == NAMES[dataset]) & (table["model"] == BASELINE)].reset_index(drop=True)


def beside(scores: pd.DataFrame) -> pd.DataFrame:
    """Set our runs of the fingerprint MLP beside the released ones, split by split.

    Theirs are the final runs or, where there are none (MoleculeNet), those of the learning rate with the best test
    score, which are the printed ones. Ours are our final runs, whatever their learning rate (a label of theirs may be
    wrong), or those of the same learning rate of the grid.

    Parameters
    ----------
    scores : DataFrame
        From `results.read_jobs`, with the column `set`.

    Returns
    -------
    DataFrame
        set, seed, metric, unit, batch_size, head_lr, theirs_head_lr (as labelled), theirs, theirs_sd, theirs_runs,
        ours, ours_sd, ours_runs, difference (ours - theirs), standard_error (of the difference, from the spread of
        the runs on this split).
    """
    ours = scores[scores["encoder"] == "fingerprint_mlp"].copy()
    rows = []
    for (name, seed), job in ours.groupby(["set", "seed"], sort=False):
        theirs = _comparable(job["dataset"].iloc[0], seed, job["metric"].iloc[0])
        their_lr, final = theirs["head_lr"].iloc[0], theirs["stage"].iloc[0].startswith("final")
        same = job[job["stage"] == "final"] if final else job[(job["head_lr"] == their_lr) & (job["stage"] == "grid")]
        if same.empty:
            continue
        them, us = theirs["value"], same["test"]
        rows.append(
            {
                "set": name,
                "seed": seed,
                **{column: same[column].iloc[0] for column in ("metric", "unit", "batch_size", "head_lr")},
                "theirs_head_lr": their_lr,
                **{"theirs": them.mean(), "theirs_sd": them.std(), "theirs_runs": len(them)},
                **{"ours": us.mean(), "ours_sd": us.std(), "ours_runs": len(us)},
                "difference": us.mean() - them.mean(),
                "standard_error": (them.var() / len(them) + us.var() / len(us)) ** 0.5,
            }
        )
    return pd.DataFrame(rows)


def _comparable(dataset: str, seed: Any, metric: str) -> pd.DataFrame:
    """Released runs of the baseline on one split that a score of it is made of."""
    table = baseline(dataset).astype({"head_lr": float})
    table = table[table["split"].isin((f"seed-{seed}", "scaffold"))]
    final = table["stage"].str.startswith("final")
    if final.any():
        return table[final]
    means = table.groupby("head_lr")["value"].mean()
    return table[table["head_lr"] == (means.idxmax() if metrics.higher_is_better(metric) else means.idxmin())]


def read_cells(path: str | Path | None = None) -> dict[str, Cells]:
    """Read the workbook: the cells of each sheet by row and column, without blanks around them."""
    path = path or downloads.fetch("paper_results")
    with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as workbook:
        if missing := set(_BLOCKS).difference(workbook.sheetnames):
            raise ValueError(f"{path}: has no sheet {', '.join(sorted(missing))}")
        return {
            name: {
                (row, column): cell.strip() if isinstance(cell, str) else cell
                for row, line in enumerate(workbook[name].iter_rows(values_only=True), 1)
                for column, cell in enumerate(line, 1)
                if cell is not None
            }
            for name in _BLOCKS
        }


class _Sheet:
    """Cells of a sheet, corrected; remembers which of them were made use of."""

    def __init__(self, name: str, cells: Cells, corrected: bool) -> None:
        self.name, self.cells = name, cells
        self.used: set[tuple[int, int]] = set()
        for place, (wrong, right) in (_LABELS.get(name, {}) | (_TITLES.get(name, {}) if corrected else {})).items():
            row, column = coordinate_to_tuple(place)
            self.take(row, column, re.escape(wrong))
            self.cells[row, column] = right
        self.used = _area(_REPEATED.get(name, ""))
        self.empty = _area(_EMPTY.get(name, ""))
        # The summary above the blocks names every model.
        top = coordinate_to_tuple(_BLOCKS[name].split()[0])[0]
        summary = [str(cell) for (row, column), cell in self.cells.items() if column == 2 and row < top]
        self.models = {part for text in summary for part in _parts(text)}

    def error(self, row: int, column: int, message: str) -> ValueError:
        return ValueError(f"{self.name}!{get_column_letter(column)}{row}: {message}")

    def text(self, row: int, column: int) -> str:
        return str(self.cells.get((row, column), ""))

    def take(self, row: int, column: int, pattern: str) -> str:
        """Make use of a label, which must be of a form."""
        if not re.fullmatch(pattern, self.text(row, column)):
            raise self.error(row, column, f"{self.text(row, column)!r} where {pattern!r} is expected")
        self.used.add((row, column))
        return self.text(row, column)

    def runs(self) -> list[_Run]:
        """Read all blocks; every cell below the summary must belong to one."""
        found = [run for corner in _BLOCKS[self.name].split() for run in self.block(*coordinate_to_tuple(corner))]
        first = min(row for row, _ in self.used)
        for (row, column), cell in self.cells.items():
            if row >= first and (row, column) not in self.used and cell != "":
                raise self.error(row, column, f"{cell!r} belongs to no block of runs")
        return found

    def block(self, top: int, left: int) -> Iterator[_Run]:
        """Read one block, column by column."""
        self.take(top, left, "lr")
        columns = list(takewhile(lambda column: self.text(top, column), count(left + 1)))
        splits = self.splits(top, left)
        for column, (model, setting) in zip(columns, self.models_and_settings(top, left, columns), strict=True):
            dataset, variant = self.heading(_TITLE, top, left, column)
            action, epochs = self.heading(_STAGE, top, left, column)
            labels = (
                next(name for name in NAMES.values() if name.casefold() == dataset.casefold()),
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
                cell = f"{get_column_letter(column)}{row}"
                yield _Run(self.name, *labels, split, repeat, self.value(row, column), cell)
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
            raise self.error(top + 1, left, "the seeds from here on do not have equally many runs")
        return splits

    def models_and_settings(self, top: int, left: int, columns: list[int]) -> Iterator[tuple[str, str]]:
        """Model of each column of a block, and its augmentation or dropout."""
        kind = self.take(top - 1, left, "(augmentation|Dropout|aug/drop)?")
        setting = ""
        for column in columns:
            if kind == "aug/drop":  # every column has its own
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
        if not self.models.issuperset(_parts(text)):
            raise self.error(row, column, f"{text!r} is no model of the sheet's summary")
        self.used.add((row, column))
        if _parts(text) == ["Baseline"]:
            return BASELINE
        return f"control: {text}".replace("\n", " ") if self.name.endswith("controls") else text.replace("\n", " | ")

    def value(self, row: int, column: int) -> float:
        cell = self.cells.get((row, column))
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            raise self.error(row, column, f"{cell!r} where a run is expected")
        self.used.add((row, column))
        return float(cell)

    def heading(self, pattern: re.Pattern[str], top: int, left: int, column: int) -> Sequence[str]:
        """Parts of the nearest heading of a form: close above a column, or above the corner, or the sheet's name."""
        near = [(row, place) for row in range(top - 1, top - 4, -1) for place in range(column, left, -1)]
        far = [(row, place) for row in range(top - 1, 0, -1) for place in (left, left - 1)]
        for at in near + far:
            if match := pattern.fullmatch(self.text(*at)):
                self.used.add(at)
                return match.groups("")
        if match := pattern.fullmatch(self.name):
            return match.groups("")
        raise self.error(top, left, f"no heading above gives its {'data set' if pattern is _TITLE else 'stage'}")


def _parts(text: str) -> list[str]:
    """Lines of a model's name, up to a remark in brackets."""
    return [line.strip() for line in text.partition("(")[0].strip().split("\n")]


def _area(text: str) -> set[tuple[int, int]]:
    return {coordinate_to_tuple(cell) for area in text.split() for line in rows_from_range(area) for cell in line}
