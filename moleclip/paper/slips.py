"""Slips in the authors' workbook, found by holding what is printed against the runs and formulas behind it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
from openpyxl.utils.cell import coordinate_from_string

from moleclip.io import downloads
from moleclip.paper import printed, released
from moleclip.paper.printed import CELL, MODEL, area, lines, recomputed

_AVERAGE = re.compile(r"=AVERAGE\(([A-Z]+)(\d+):\1(\d+)\)")
_NORMAL = re.compile(r"=_xlfn\.CONFIDENCE\.NORM\(0\.05, ?([A-Z]+)\d+, ?(\d+)\)")


class Slip(NamedTuple):
    """What is printed, what the runs or formulas say instead, and where both stand."""

    kind: str
    dataset: str
    variant: str
    model: str
    printed: str
    found: str
    cells: str


def find(path: str | Path | None = None) -> pd.DataFrame:
    """Look for slips of every kind that can be told from the workbook alone.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.

    Returns
    -------
    DataFrame
        Columns as in `Slip`. The kinds:

        - title: a block of runs whose title is another set's: only exchanged do the runs give what is printed
        - hyper-parameters: the printed cell of the grid is not the one that the score's runs are labelled with
        - copied runs: two cells of a grid have the same runs to the last digit
        - averaged cells: a mean does not cover all its runs
        - number of runs: an interval is computed for another number of runs than there are
        - interval: what is printed after +- is not what the paper's formula gives
        - score: what is printed is not the mean of all runs
        - interval formula: leaves out the spread between splits
    """
    table, scores = released.runs(path), printed.scores(path)
    titled = released.runs(path, corrected=False)
    beside = recomputed(table, scores)
    found = [*_titles(titled, scores), *_settings(beside, table), *_copies(table)]
    found += _formula_slips(table, _formulas(path))
    counts = [slip for slip in found if slip.kind == "number of runs"]
    return pd.DataFrame([*found, *_numbers(beside, counts), *_pooled(beside)], columns=list(Slip._fields))


def _same(value: float, text_value: float, step: float) -> bool:
    """Whether a number is what is printed, to half of the last digit."""
    return bool(abs(value - text_value) <= 0.5 * step * (1 + 1e-6))


def _titles(titled: pd.DataFrame, scores: pd.DataFrame) -> Iterator[Slip]:
    """Blocks on the sheet MoleculeNet that give the printed score of another set, and not of their own."""
    beside = recomputed(titled, scores[scores["sheet"] == "MoleculeNet"])
    for line in lines(beside):
        if _same(line.mean, line.value, line.step):
            continue
        for other in lines(beside[(beside["model"] == line.model) & (beside["dataset"] != line.dataset)]):
            if _same(other.mean, line.value, line.step):
                found = f"the block titled {other.dataset} gives {other.mean:.3g}, that titled so {line.mean:.3g}"
                yield _slip("title", line, line.text, found)


def _settings(beside: pd.DataFrame, table: pd.DataFrame) -> Iterator[Slip]:
    """Scores whose runs are labelled with another cell than the printed one, which does not give the score either."""
    groups = dict(iter(table.groupby(MODEL, sort=False)))
    for line in lines(beside):
        told = {"head_lr": (line.head_lr, line.own_head_lr), CELL[0]: (line.augmentation_or_dropout, line.own_setting)}
        told = {name: pair for name, pair in told.items() if pair[0]}
        if all(_plain(text) == _plain(own) for text, own in told.values()):
            continue
        grid = groups[tuple(getattr(line, name) for name in MODEL)]
        same = np.all([grid[name].map(_plain) == _plain(text) for name, (text, _) in told.items()], axis=0)
        times = released.quantity(line.sheet, line.dataset).factor
        if np.isfinite(line.median) and _same(times * grid[same]["value"].mean(), line.value, line.step):
            continue  # of several cells with this score, the printed one is another
        text, own = (", ".join(pair[number] for pair in told.values()) for number in (0, 1))
        yield _slip("hyper-parameters", line, text, f"the runs that give {line.mean:.3g} are labelled {own}")


def _plain(setting: str) -> Any:
    """Bring a setting into one form, to compare: numbers as such, no case."""
    text = setting.casefold().strip().removeprefix("drop ")
    try:
        return tuple(float(part) for part in text.split())
    except ValueError:
        return text


def _copies(table: pd.DataFrame) -> Iterator[Slip]:
    """Cells of one grid with the same runs; the R-groups sheet repeats whole blocks of others, which is no slip."""
    grids = table[table["stage"].str.startswith("hpo")].groupby(MODEL, sort=False)
    for _, grid in grids:
        dataset, variant, model = grid[MODEL[1:]].iloc[0]
        seen: dict[tuple[float, ...], pd.DataFrame] = {}
        pairs = [(seen.setdefault(tuple(runs["value"]), runs), runs) for _, runs in grid.groupby(CELL, sort=False)]
        if pairs := [(first, runs) for first, runs in pairs if first is not runs]:
            names = ["; ".join(", ".join(pair[side][CELL].iloc[0]) for pair in pairs) for side in (0, 1)]
            places = " ".join(f"{area(first)}={area(runs)}" for first, runs in pairs)
            yield Slip("copied runs", dataset, variant, model, names[1], f"the runs of {names[0]}", places)


def _formulas(path: str | Path | None) -> pd.DataFrame:
    """Formulas of the workbook: sheet, cell, formula."""
    rows = []
    with closing(openpyxl.load_workbook(path or downloads.fetch("paper_results"), read_only=True)) as workbook:
        for sheet in workbook:
            for line in sheet.iter_rows():
                rows += [
                    (sheet.title, cell.coordinate, cell.value) for cell in line if str(cell.value or "").startswith("=")
                ]
    return pd.DataFrame(rows, columns=["sheet", "cell", "formula"])


def _formula_slips(table: pd.DataFrame, formulas: pd.DataFrame) -> Iterator[Slip]:
    """Means of fewer runs than stand above them, and intervals of another number of runs."""
    places = table.assign(row=[coordinate_from_string(cell)[1] for cell in table["cell"]])
    places["column"] = [coordinate_from_string(cell)[0] for cell in table["cell"]]
    columns = dict(iter(places.groupby(["sheet", "column"])))
    for sheet, cell, formula in formulas.itertuples(index=False):
        letter, row = coordinate_from_string(cell)
        above = columns.get((sheet, letter), places[:0])
        above = above[above["row"] < row]
        if above.empty:
            continue
        last = above[above["row"] == above["row"].max()].iloc[0]
        own = above[(above[[*MODEL, "stage", *CELL]] == last[[*MODEL, "stage", *CELL]]).all(axis=1)]
        place, whose = f"{sheet}!{cell}", (last["dataset"], last["variant"], last["model"])
        if (match := _AVERAGE.fullmatch(formula)) and int(match[3]) == last["row"]:
            count = int(match[3]) - int(match[2]) + 1
            if count < len(own):
                times = released.quantity(sheet, last["dataset"]).factor
                mean, whole = (times * part["value"].mean() for part in (own[-count:], own))
                found = f"{whole:.3g}: all {len(own)}"
                yield Slip("averaged cells", *whose, f"{mean:.3g}: {count} of {len(own)} runs", found, place)
        elif (match := _NORMAL.fullmatch(formula)) and int(match[2]) != len(own):
            yield Slip("number of runs", *whose, match[2], f"{len(own)} runs", place)


def _numbers(beside: pd.DataFrame, counts: Sequence[Slip]) -> Iterator[Slip]:
    """Find printed numbers that do not follow from the runs, nor from the wrong number of runs."""
    wrong = {(slip.cells.partition("!")[0], *slip[1:4]): int(slip.printed) for slip in counts}
    for line in lines(beside):
        if not _same(line.mean, line.value, line.step):
            yield _slip("score", line, line.text, f"{line.mean:.4g}: {line.runs} runs")
        with_wrong = (
            line.spread * (line.runs / wrong.get(tuple(getattr(line, name) for name in MODEL), line.runs)) ** 0.5
        )
        if not np.isnan(line.error) and not any(_same(x, line.error, line.step) for x in (line.spread, with_wrong)):
            yield _slip("interval", line, line.text, f"+-{line.spread:.2g}: {line.runs} runs")


def _pooled(beside: pd.DataFrame) -> Iterator[Slip]:
    """Intervals that leave out the spread between splits, sheet by sheet."""
    final = beside[(beside["splits"] > 1) & beside["median"].isna()]
    wider = (final["high"] - final["low"]) / 2 / final["spread"]
    for sheet, ratios in wider.groupby(final["sheet"], sort=False):
        text = "1.96 x (pooled deviation within splits) / sqrt(runs)"
        found = f"with the spread between splits, {ratios.median():.1f} times as wide (median of {len(ratios)})"
        yield Slip(
            "interval formula",
            "",
            "",
            "",
            text,
            found,
            " ".join(f"{sheet}!{cell}" for cell in final.loc[ratios.index, "cell"]),
        )


def _slip(kind: str, line: Any, text: str, found: str) -> Slip:
    cells = f"{line.sheet}!{line.cell} {line.run_cells}"
    return Slip(kind, line.dataset, line.variant, line.model, text, found, cells)
