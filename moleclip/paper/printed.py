"""The scores that the authors print: summaries on top of their workbook's sheets, which are the paper's tables."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter

from moleclip import metrics
from moleclip.paper import released

CELL = ["augmentation_or_dropout", "head_lr"]  # of a grid
MODEL = ["sheet", "dataset", "variant", "model"]

# What a line of a summary is about, by what is in its label.
_ABOUT = {"performance": "score", "learning rate": "head_lr", "augmentations? level|dropout": "setting"}
# Names with the number of a reference at their end, and one that the runs have otherwise.
_NAMES = {
    f"{name}{number}": name
    for name, number in {"ChemBERTa-2": 25, "MolCLR": 26, "Uni-Mol": 27, "GEM": 28, "ImageMol": 6}.items()
}
_NAMES |= {"Pubchem-10m": "Pubchem-10m  (2 epochs)"}
_NAME = re.compile("(MoleCLIP|ImageMol|GEM|Baseline|Control)")
_SCORE = re.compile(r"(-?[\d.]+)(?:\u00b1([\d.]+))?%?")


class _Score(NamedTuple):
    sheet: str
    dataset: str
    variant: str
    model: str
    head_lr: str
    augmentation_or_dropout: str
    text: str
    value: float
    error: float
    step: float
    difference: str
    cell: str


class _Block(NamedTuple):
    """One model of a summary: the lines of its name, and the row of each thing that is said of it."""

    name: list[str]
    rows: dict[str, int]


def scores(path: str | Path | None = None) -> pd.DataFrame:
    """Read every printed score with what is said of how it came about.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.

    Returns
    -------
    DataFrame
        - sheet, dataset, variant, model : as in `released.runs`; models without runs as they are written
        - head_lr, augmentation_or_dropout : "" where none is printed
        - text : as printed
        - value, error : the score, and what follows +- (NaN if nothing does); in the units of `released.runs`, but
          yields in percent
        - step : of the last printed digit
        - difference : the printed relative difference to another model, "" if none
        - cell : where the score stands

    Raises
    ------
    ValueError
        A score is not a number; names sheet and cell.
    """
    sheets = released.read_cells(path).items()
    return pd.DataFrame([score for name, cells in sheets for score in _Summary(name, cells).scores()])


def behind(runs: pd.DataFrame) -> pd.DataFrame:
    """Take the runs that a score is made of: the final ones or, where there are none, the cell with the best mean.

    The best mean is that of the test scores, as in the paper; no validation score is released.

    Parameters
    ----------
    runs : DataFrame
        From `released.runs`, of one model on one data set and variant on one sheet.
    """
    final = runs[runs["stage"].str.startswith("final")]
    if len(final):
        return final
    means = runs.groupby(CELL)["value"].mean()
    higher = metrics.higher_is_better(released.quantity(*runs[["sheet", "dataset"]].iloc[0]).metric)
    best = means.idxmax() if higher else means.idxmin()
    return runs[(runs[CELL] == best).all(axis=1)]


def recomputed(runs: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Set what is printed beside what follows from the runs.

    Parameters
    ----------
    runs, printed : DataFrame
        From `released.runs` and `scores`.

    Returns
    -------
    DataFrame
        The lines of `printed` whose model has runs, with metric, unit, splits, runs, mean, spread (what the paper
        prints after +-: on scaffold splits the standard deviation of the runs, else 1.96 x (pooled deviation within
        splits) / sqrt(runs)), low and high (95 % t-interval over splits; NaN for one split), median (over the cells of
        the grid, of their means; NaN where there are final runs), own_head_lr and own_setting (of these runs),
        run_cells.
    """
    groups = dict(iter(runs.groupby(MODEL, sort=False)))
    rows = []
    for score in printed.to_dict("records"):
        if (part := groups.get(tuple(score[name] for name in MODEL))) is None:
            continue
        quantity, made_of = released.quantity(score["sheet"], score["dataset"]), behind(part)
        times = quantity.factor
        values = [list(times * group["value"]) for _, group in made_of.groupby("split")]
        interval = metrics.mean_ci([float(np.mean(value)) for value in values])
        grid = made_of["stage"].iloc[0].startswith("hpo")
        spread = np.std(values[0], ddof=1) if len(values) == 1 else _half(metrics.paper_ci(values))
        own = {
            **{"metric": quantity.metric, "unit": quantity.unit, "splits": len(values), "runs": len(made_of)},
            **{"mean": interval.mean, "spread": spread, "low": interval.low, "high": interval.high},
            "median": times * part.groupby(CELL)["value"].mean().median() if grid else np.nan,
            **{"own_head_lr": made_of["head_lr"].iloc[0], "own_setting": made_of["augmentation_or_dropout"].iloc[0]},
            "run_cells": area(made_of),
        }
        rows.append(score | own)
    return pd.DataFrame(rows)


def difference(text: str) -> tuple[float, float]:
    """Read a printed relative difference and what follows +-, in percent.

    >>> difference("-3.7\u00b12.8 %")
    (-3.7, 2.8)
    """
    value, error = text.strip(" %").split("\u00b1")
    return float(value), float(error)


def _half(interval: metrics.Interval) -> float:
    return interval.high - interval.mean


def lines(table: pd.DataFrame) -> Iterator[Any]:
    """Lines of a table as named tuples, whose types no checker knows."""
    return iter(table.itertuples(index=False))


def area(runs: pd.DataFrame) -> str:
    """Place of runs, as in "NHCs!F103:F152".

    >>> area(pd.DataFrame({"sheet": ["NHCs"] * 2, "cell": ["F103", "F104"]}))
    'NHCs!F103:F104'
    """
    cells = sorted(runs["cell"], key=lambda cell: coordinate_to_tuple(cell)[::-1])
    return f"{runs['sheet'].iloc[0]}!{cells[0]}:{cells[-1]}"


class _Summary:
    """The top of a sheet. Either models have a line each, or several, with a label in the next column."""

    def __init__(self, name: str, cells: released.Cells) -> None:
        self.name, self.cells = name, cells
        self.top = next(
            row for (row, column), cell in cells.items() if column == 2 and cell in ("Model", "Control", "Dataset")
        )
        self.labelled = self.text(self.top, 2) == "Dataset"
        line = sorted(column for row, column in cells if row == self.top and column > 2)
        self.columns = list(itertools.takewhile(lambda column: column in line, itertools.count(line[0])))

    def text(self, row: int, column: int) -> str:
        return str(self.cells.get((row, column), ""))

    def scores(self) -> Iterator[_Score]:
        for column in self.columns:
            dataset, variant = self.set(column)
            for block in self.blocks():
                said = {about: self.text(row, column) for about, row in block.rows.items()}
                place = f"{get_column_letter(column)}{block.rows['score']}"
                text = said["score"].replace(" ", "")
                if text == "-":  # not evaluated
                    continue
                if not (match := _SCORE.fullmatch(text)):
                    raise ValueError(f"{self.name}!{place}: {text!r} where a score is expected")
                yield _Score(
                    *(self.name, dataset, variant, self.model(block)),
                    *(_rate(said.get("head_lr", "")), said.get("setting", ""), text),
                    *(float(match[1]), float(match[2] or np.nan), 10.0 ** -len(match[1].partition(".")[2])),
                    *(said.get("difference", ""), place),
                )

    def set(self, column: int) -> tuple[str, str]:
        """Tell the data set of a column, and whether the ends of its molecules are replaced."""
        title = re.sub(r"\s|\W+$", "", self.text(self.top, column)).casefold()
        name = next(name for name in released.NAMES.values() if name.casefold() == title)
        return name, "R-replaced" if self.text(self.top + 1, column) == "R replaced" else "original"

    def blocks(self) -> list[_Block]:
        found: list[_Block] = []
        for row in itertools.count(self.top + 1):
            if re.match(r"\*|Hyperparameter", self.text(row, 2)):  # a remark, or the runs, are below
                break
            name = self.text(row, 2)
            label = self.text(row, 3) if self.labelled else name
            about = next((_ABOUT[words] for words in _ABOUT if re.search(words, label.casefold())), "")
            about = "difference" if name.startswith("%") else about
            if not self.labelled and name and not about:
                found.append(_Block([name], {"score": row}))
            elif self.labelled and about and _NAME.match(name):
                found.append(_Block([name], {about: row}))
            elif found:
                found[-1].name.extend([name] if self.labelled and about != "difference" and name else [])
                found[-1].rows.update({about: row} if about else {})
        return found

    def model(self, block: _Block) -> str:
        """Name of a model as the runs have it."""
        first = _NAMES.get(block.name[0], block.name[0])
        if first.startswith("Baseline"):
            return released.BASELINE
        if self.name.endswith("controls"):
            return f"control: {first}"
        return re.sub(" +", " ", " | ".join(block.name)) if first.startswith("Control") else first


def _rate(text: str) -> str:
    """Learning rates as the runs have them: "4*10-4" is 0.0004, and "4*10-3, 4*10-3" is "4e-3 4e-3"."""
    text = text.replace("*10", "e")
    return text.replace(",", "") if "," in text else str(float(text)) if text else ""
