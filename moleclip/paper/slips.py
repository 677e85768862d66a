"""Slips in the authors' workbook, found by comparing what is printed with the runs and formulas that it comes from."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter

from moleclip.paper import workbook
from moleclip.paper.workbook import MODEL, SETTING, area, lines

_AVERAGE = re.compile(r"=AVERAGE\(([A-Z]+)(\d+):\1(\d+)\)")
_NORMAL = re.compile(r"=_xlfn\.CONFIDENCE\.NORM\(0\.05, ?[A-Z]+\d+, ?(\d+)\)")


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
    """Look for slips of every kind that the workbook alone reveals.

    Parameters
    ----------
    path : str or Path, optional
        Another copy of the workbook than that of `downloads.fetch`.

    Returns
    -------
    DataFrame
        Columns as in `Slip`. The kinds:

        - title: a block of runs whose title is another set's: only exchanged do the runs give what is printed
        - hyper-parameters: the printed setting is not the one that the score's runs are labelled with
        - copied runs: two settings of a grid have the same runs to the last digit
        - averaged cells: a mean does not cover all its runs
        - number of runs: an interval is computed for another number of runs than there are
        - interval: what is printed after +- is not what the paper's formula gives
        - score: what is printed is not the mean of all runs
        - interval formula: leaves out the spread between splits
    """
    runs, printed = workbook.runs(path), workbook.scores(path)
    titled = workbook.as_titled(runs)
    scores = workbook.recompute(runs, printed)
    scores = scores[scores["runs"] > 0]
    found = [*_titles(titled, printed), *_settings(scores, runs), *_copies(runs)]
    found += _formulas(runs, workbook.read_cells(path, formulas=True))
    counts = [slip for slip in found if slip.kind == "number of runs"]
    wrong = {(slip.cells.partition("!")[0], *slip[1:4]): int(slip.printed) for slip in counts}
    return pd.DataFrame([*found, *_numbers(scores, wrong), *_pooled(scores)], columns=list(Slip._fields))


def _same(value: float, printed: float, step: float) -> bool:
    """Whether a number is what is printed, to half of the last digit."""
    return bool(abs(value - printed) <= 0.5 * step * (1 + 1e-6))


def _titles(titled: pd.DataFrame, printed: pd.DataFrame) -> Iterator[Slip]:
    """Blocks on the sheet MoleculeNet that give the printed score of another set, and not that of their title."""
    scores = workbook.recompute(titled, printed[printed["sheet"] == "MoleculeNet"])
    scores = scores[scores["runs"] > 0]
    for line in lines(scores):
        if _same(line.mean, line.value, line.step):
            continue
        for other in lines(scores[(scores["model"] == line.model) & (scores["dataset"] != line.dataset)]):
            if _same(other.mean, line.value, line.step):
                found = f"the block titled {other.dataset} gives {other.mean:.3g}, that titled so {line.mean:.3g}"
                yield _slip("title", line, line.text, found)


def _settings(scores: pd.DataFrame, runs: pd.DataFrame) -> Iterator[Slip]:
    """Scores whose runs have another label than the printed setting, whose runs do not give the score either."""
    grids = dict(iter(runs.groupby(MODEL, sort=False)))
    for line in lines(scores):
        told = {
            "head_lr": (line.head_lr, line.run_head_lr),
            SETTING[0]: (line.augmentation_or_dropout, line.run_setting),
        }
        told = {name: pair for name, pair in told.items() if pair[0]}
        if all(_plain(text) == _plain(label) for text, label in told.values()):
            continue
        if np.isfinite(line.median):  # of several settings with this score, the printed one may be another
            grid = grids[tuple(getattr(line, name) for name in MODEL)]
            same = np.all([grid[name].map(_plain) == _plain(text) for name, (text, _) in told.items()], axis=0)
            factor = workbook.quantity(line.sheet, line.dataset).factor
            if _same(factor * grid[same]["value"].mean(), line.value, line.step):
                continue
        text, label = (", ".join(pair[number] for pair in told.values()) for number in (0, 1))
        yield _slip("hyper-parameters", line, text, f"the runs that give {line.mean:.3g} are labelled {label}")


def _plain(setting: str) -> Any:
    """Bring a setting into one form, to compare: numbers as such, no case."""
    text = setting.casefold().strip().removeprefix("drop ")
    try:
        return tuple(float(part) for part in text.split())
    except ValueError:
        return text


def _copies(runs: pd.DataFrame) -> Iterator[Slip]:
    """Find settings of one grid with the same runs; that R-replacement repeats blocks of other sheets is no slip."""
    for _, grid in runs[runs["stage"].str.startswith("hpo")].groupby(MODEL, sort=False):
        dataset, variant, model = grid[MODEL[1:]].iloc[0]
        seen: dict[tuple[float, ...], pd.DataFrame] = {}
        pairs = [(seen.setdefault(tuple(part["value"]), part), part) for _, part in grid.groupby(SETTING, sort=False)]
        if pairs := [(first, part) for first, part in pairs if first is not part]:
            names = ["; ".join(", ".join(pair[side][SETTING].iloc[0]) for pair in pairs) for side in (0, 1)]
            cells = " ".join(f"{area(first)}={area(part)}" for first, part in pairs)
            yield Slip("copied runs", dataset, variant, model, names[1], f"the runs of {names[0]}", cells)


def _formulas(runs: pd.DataFrame, cells: Mapping[str, workbook.Cells]) -> Iterator[Slip]:
    """Means of fewer runs than stand above them, and intervals of another number of runs."""
    places = [coordinate_to_tuple(cell) for cell in runs["cell"]]
    placed = runs.assign(row=[row for row, _ in places], column=[column for _, column in places])
    blocks: dict[Any, list[pd.DataFrame]] = {}
    for key, block in placed.groupby(["sheet", "column", *MODEL[1:], "stage", *SETTING], sort=False):
        blocks.setdefault(key[:2], []).append(block)
    for sheet, formulas in cells.items():
        for (row, column), formula in formulas.items():
            average, normal = (pattern.fullmatch(str(formula)) for pattern in (_AVERAGE, _NORMAL))
            if not (average or normal):
                continue
            above = [block for block in blocks.get((sheet, column), ()) if block["row"].max() < row]
            if not above:
                continue
            block = max(above, key=lambda block: block["row"].max())
            first, last = block.iloc[0], block["row"].max()
            whose = (first["dataset"], first["variant"], first["model"])
            place = f"{sheet}!{get_column_letter(column)}{row}"
            if average and int(average[3]) == last:
                count = int(average[3]) - int(average[2]) + 1
                if count < len(block):
                    factor = workbook.quantity(sheet, first["dataset"]).factor
                    mean, whole = (factor * part["value"].mean() for part in (block[-count:], block))
                    printed, found = f"{mean:.3g}: {count} of {len(block)} runs", f"{whole:.3g}: all {len(block)}"
                    yield Slip("averaged cells", *whose, printed, found, place)
            elif normal and int(normal[1]) != len(block):
                yield Slip("number of runs", *whose, normal[1], f"{len(block)} runs", place)


def _numbers(scores: pd.DataFrame, wrong: Mapping[Any, int]) -> Iterator[Slip]:
    """Find printed numbers that follow neither from the runs nor from the wrong number of runs."""
    for line in lines(scores):
        if not _same(line.mean, line.value, line.step):
            yield _slip("score", line, line.text, f"{line.mean:.4g}: {line.runs} runs")
        counted = wrong.get(tuple(getattr(line, name) for name in MODEL), line.runs)
        spreads = (line.spread, line.spread * (line.runs / counted) ** 0.5)
        if not np.isnan(line.error) and not any(_same(spread, line.error, line.step) for spread in spreads):
            yield _slip("interval", line, line.text, f"+-{line.spread:.2g}: {line.runs} runs")


def _pooled(scores: pd.DataFrame) -> Iterator[Slip]:
    """Intervals that leave out the spread between splits, sheet by sheet."""
    for sheet, final in scores[(scores["splits"] > 1) & scores["median"].isna()].groupby("sheet", sort=False):
        wider = ((final["high"] - final["low"]) / 2 / final["spread"]).median()
        text = "1.96 x (pooled deviation within splits) / sqrt(runs)"
        found = f"with the spread between splits, {wider:.1f} times as wide (median of {len(final)})"
        cells = " ".join(f"{sheet}!{cell}" for cell in final["cell"])
        yield Slip("interval formula", "", "", "", text, found, cells)


def _slip(kind: str, line: Any, text: str, found: str) -> Slip:
    cells = f"{line.sheet}!{line.cell} {line.run_cells}"
    return Slip(kind, line.dataset, line.variant, line.model, text, found, cells)
