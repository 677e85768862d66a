"""Our results compared with the paper's: the same numbers, printed, from the released runs, and ours, in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from moleclip import config, metrics, tables
from moleclip.io.files import relative
from moleclip.paper import workbook
from moleclip.paper.workbook import lines
from moleclip.plots import style

PRIMARY = "MoleCLIP"
FOCUSED = "MoleCLIPbv"

# What our tables call the models of the paper, and those with the built-in encoder in the place of the paper's; and all
# models of ours that its figures show, by the name there.
OURS = {PRIMARY: "pretrained", FOCUSED: "buried_volume", "ImageMol": "imagemol", workbook.BASELINE: "fingerprint_mlp"}
LITE = OURS | {PRIMARY: "lite", FOCUSED: "lite_buried_volume"}
SHOWN = {name: theirs for theirs, name in OURS.items()}
SHOWN |= {name: style.MODEL_NAMES[name] for name in ("lite", "lite_frozen_best", LITE[FOCUSED], *config.FORESTS)}
# Those of all figures but Fig. 4a, which compares with those that saw phosphines.
UNFOCUSED = tuple(name for name in SHOWN if name not in (OURS[FOCUSED], LITE[FOCUSED]))

# Kinds of drawings, as the workbook and as our jobs call them; the authors lay out molecules with R-groups anew.
DRAWINGS = {"original": "plain", "R-replaced": "r_groups_new_layout"}

OTHER_SPLIT = "its own"  # of models whose scores the paper quotes from elsewhere

_PRINTED = "SD as printed"
_GRID = "median setting of the grid, from worst to best"
_SPLITS = "95 % t-interval over splits, ticks: splits"

# Columns of a table of points. A point is one number of a figure: its panel, its line, and whose number it is
# ("printed", "released runs" or "ours"); the number, the ends of its bar, what the bar is, and metric with unit; over
# how many splits and runs; the paper's interval, where that is another one; and how much better the number would look
# if the test molecules chose the hyper-parameters (NaN where that is not known, or there was nothing to choose).
POINTS = ["dataset", "model", "who", "value", "low", "high", "bar", "unit", "split", "splits", "runs"]
POINTS += ["narrow_low", "narrow_high", "optimism"]

_SMOKE_TESTS = ("rehearsal_", "smoke_test_")  # folders of pages whose numbers are no results

# What identifies a result of ours, and the columns of tables that are missing.
_KEY = ["set", "encoder", "split", "drawing"]
_EMPTY = {"scores": [*_KEY, "seed", "val", "test", "metric", "file"], "contrasts": [], "knees": ["corpus", "knee"]}


@dataclass(frozen=True)
class Ours:
    """Tables of our runs; empty where there are none.

    Attributes
    ----------
    scores : DataFrame
        `tables.by_split` of the paper's profile and of all studies, with the columns set and file. A model that
        several have on the same set is taken whole from the first, the profile or else the first study by name: the
        splits of one mean have one protocol.
    contrasts : DataFrame
        `tables.contrasts` of all studies.
    knees : DataFrame
        corpus, k, inertia, knee of every sweep over the number of clusters.
    files : list of Path
        What they were read from.
    """

    scores: pd.DataFrame
    contrasts: pd.DataFrame
    knees: pd.DataFrame
    files: list[Path]

    def on(self, dataset: str, split: str, drawing: str = "plain") -> pd.DataFrame:
        """Select the scores on a set (by the paper's name), of one kind of drawings and of split; in printed units."""
        table = self.scores
        names = table["set"].str.removesuffix("_r").map(workbook.NAMES)
        table = table[(names == dataset) & (table["split"] == split) & (table["drawing"] == drawing)]
        factor = workbook.quantity("", dataset).factor
        return table.assign(
            **{name: factor * table[name] for name in ("val", "test", "sd", "optimism") if name in table}
        )

    def points(
        self, datasets: Sequence[str], split: str, models: Sequence[str] = UNFOCUSED, variant: str = "original"
    ) -> pd.DataFrame:
        """Make a point of each of our models on each set: its mean over splits; of one split, with the SD of the runs.

        Parameters
        ----------
        variant : {"original", "R-replaced"}
            Of the drawings, as the workbook calls them.

        Returns
        -------
        DataFrame
            Columns `POINTS`, by_split, variant and file (what the number was read from).
        """
        rows: list[dict[str, Any]] = []
        for dataset in (name for name in workbook.NAMES.values() if name in datasets):
            metric, unit, _ = workbook.quantity("MoleculeNet" if split == "scaffold" else "", dataset)
            for model, part in self.on(dataset, split, DRAWINGS[variant]).groupby("encoder", sort=False):
                if model not in models:
                    continue
                (value, low, high), bar = metrics.mean_ci(part["test"], tables.overlap(part)), _SPLITS
                if len(part) == 1:
                    sd = part["sd"].iloc[0]  # NaN of a single run
                    low, high = value - sd, value + sd
                    bar = "" if np.isnan(sd) else "SD of the runs"
                place = {"dataset": dataset, "model": SHOWN[str(model)], "metric": metric, "unit": unit, "split": split}
                place |= {"variant": variant}
                number = {"value": value, "low": low, "high": high, "bar": bar}
                counts = {"splits": len(part), "runs": int(part["runs"].sum()), "by_split": tuple(part["test"])}
                source = {"optimism": part["optimism"].mean(), "file": part["file"].iloc[0]}
                rows.append({**place, "who": "ours", **number, **counts, **source})
        return _points(pd.DataFrame(rows))

    def growth(self, dataset: str, model: str) -> "pd.Series[float]":
        """Compute how much an error of ours grows on each split with R-groups, as `growth` does for the paper's."""
        tables = [self.on(dataset, "random", drawing) for drawing in DRAWINGS.values()]
        plain, replaced = (table[table["encoder"] == model].set_index("seed")["test"] for table in tables)
        return _growth(*plain.align(replaced, join="inner"))


def read(folder: str | Path = "figures") -> Ours:
    """Read our tables where notebook 09 leaves them: scores of the paper's profile and studies, contrasts, sweeps."""
    folder = Path(folder)
    places = {
        "scores": [folder / "paper" / "scores.csv", *sorted((folder / "studies").glob("*/scores.csv"))],
        "contrasts": sorted((folder / "studies").glob("*/contrasts.csv")),
        "knees": sorted(folder.glob("*/knee.csv")),
    }
    present = {
        kind: [path for path in paths if path.is_file() and not path.parent.name.startswith(_SMOKE_TESTS)]
        for kind, paths in places.items()
    }
    tables = {}
    for kind, paths in present.items():
        parts = [pd.read_csv(path).assign(file=relative(path)) for path in paths]
        tables[kind] = pd.concat(parts) if parts else pd.DataFrame(columns=_EMPTY[kind])
    first = tables["scores"].drop_duplicates(_KEY)[[*_KEY, "file"]]
    tables["scores"] = tables["scores"].merge(first, on=[*_KEY, "file"])
    return Ours(**tables, files=[path for paths in present.values() for path in paths])


def on_scaffold(scores: pd.DataFrame) -> pd.DataFrame:
    """Make points of MoleculeNet's scores: as printed, and the grid of which they are the best.

    Parameters
    ----------
    scores : DataFrame
        Lines of `workbook.recompute`.

    Returns
    -------
    DataFrame
        Columns `POINTS` and by_split; of how many runs the scores quoted from elsewhere are, is not printed.
    """
    quoted = scores["runs"] == 0
    ends = {"low": scores["value"] - scores["error"], "high": scores["value"] + scores["error"]}
    split, runs = np.where(quoted, OTHER_SPLIT, "scaffold"), np.where(quoted, 0, 3)
    printed = scores.assign(who="printed", bar=_PRINTED, **ends, split=split, splits=1, runs=runs)
    grid = scores.assign(value=scores["median"], low=scores["least"], high=scores["most"], runs=scores["searched"])
    grid = grid.assign(who="released runs", bar=_GRID, split="scaffold")[~quoted]
    return _points(pd.concat([printed, grid]).sort_index(kind="stable"))


def on_splits(scores: pd.DataFrame) -> pd.DataFrame:
    """Make points of scores over random splits, with the paper's interval inside ours; see `on_scaffold`."""
    paper = {"narrow_low": scores["mean"] - scores["spread"], "narrow_high": scores["mean"] + scores["spread"]}
    by_split = scores["by_split"].map(lambda means: tuple(means.values()))
    labels = {"who": "released runs", "bar": f"{_SPLITS}, thick: the paper's", "split": "random"}
    return _points(scores.assign(value=scores["mean"], by_split=by_split, **paper, **labels))


def gaps(scores: pd.DataFrame) -> pd.DataFrame:
    """Make points of the relative gap between ImageMol and MoleCLIP: as printed, and over splits; see `on_scaffold`."""
    rows: list[dict[str, Any]] = []
    for line in lines(scores[scores["difference"] != ""]):
        same = (scores[["sheet", "dataset", "variant"]] == [line.sheet, line.dataset, line.variant]).all(axis=1)
        mine = pd.Series(scores.loc[same & (scores["model"] == PRIMARY), "by_split"].item())
        percent = 100 * (pd.Series(line.by_split) - mine) / mine.mean()
        gap, error = workbook.difference(line.difference)
        found = metrics.mean_ci(percent, workbook.design(line.dataset).overlap)
        place = {"dataset": line.dataset, "model": "plain" if line.variant == "original" else "R-groups"}
        place |= {"metric": "gap, (ImageMol - MoleCLIP) / MoleCLIP", "unit": "%", "split": "random"}
        place |= {"splits": line.splits, "runs": line.runs}
        printed = {"who": "printed", "value": gap, "low": gap - error, "high": gap + error, "bar": "\u00b1 as printed"}
        released = {"who": "released runs", "value": found.mean, "low": found.low, "high": found.high, "bar": _SPLITS}
        rows += [place | printed, place | released | {"by_split": tuple(percent)}]
    return _points(pd.DataFrame(rows))


def _points(table: pd.DataFrame) -> pd.DataFrame:
    units = [style.with_unit(line["metric"], line["unit"]) for line in table.to_dict("records")]
    for low, high in (("low", "high"), ("narrow_low", "narrow_high")):
        if low in table:
            ends = zip(table["metric"], table[low], table[high], strict=True)
            table[[low, high]] = [metrics.possible(*end) for end in ends]
    found = table.assign(unit=units).reindex(columns=[*POINTS, "by_split", "variant", "file"]).reset_index(drop=True)
    found["by_split"] = [means if isinstance(means, tuple) else () for means in found["by_split"]]
    numbers = ["value", "low", "high", "narrow_low", "narrow_high", "optimism"]
    return found.astype({"splits": int, "runs": int, **dict.fromkeys(numbers, float)})


def growth(scores: pd.DataFrame, model: str) -> "pd.Series[float]":
    """How much a model's error grows on each split if ends are drawn as R-groups, in percent of its mean error.

    Parameters
    ----------
    scores : DataFrame
        Lines of `workbook.recompute`, of one data set on the sheet R-replacement.
    """
    by_variant = scores[scores["model"] == model].set_index("variant")["by_split"]
    return _growth(*(pd.Series(by_variant[variant]) for variant in DRAWINGS))


def _growth(plain: "pd.Series[float]", replaced: "pd.Series[float]") -> "pd.Series[float]":
    return 100 * (replaced - plain) / plain.mean()


def percent(mine: "pd.Series[float]", theirs: "pd.Series[float] | float", metric: str) -> "pd.Series[float]":
    """Differences between scores, above zero where the first is better, in percent of the mean of the second."""
    sign = 1 if metrics.higher_is_better(metric) else -1
    return sign * 100 * (mine - theirs) / float(np.mean(theirs))


def baseline(scores: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare our runs of the fingerprint MLP with the released ones, split by split.

    Their scores are of the final runs or, where there are none (MoleculeNet), of the learning rate with the best test
    score, which is the printed one. Ours are of our final runs, whatever their learning rate (a label of theirs may be
    wrong), or of the same learning rate of the search. In the rows of the search, both have the same learning rate.

    Parameters
    ----------
    scores : DataFrame
        From `results.read_jobs`, with the column `set`.
    runs : DataFrame
        From `workbook.runs`.

    Returns
    -------
    DataFrame
        stage ("score" or "search"), set, seed, metric, unit, batch_size, head_lr, theirs_head_lr (as labelled),
        theirs, theirs_sd, theirs_runs, ours, ours_sd, ours_runs, difference (ours - theirs), standard_error (of the
        difference, from the spread of the runs on this split).

    Raises
    ------
    KeyError
        The paper has no runs on a data set; the message lists those it has.
    """
    theirs = runs[runs["model"] == workbook.BASELINE].astype({"head_lr": float})
    rows = []
    for (name, seed), job in scores[scores["encoder"] == "fingerprint_mlp"].groupby(["set", "seed"], sort=False):
        if (dataset := job["dataset"].iloc[0]) not in workbook.NAMES:
            raise KeyError(f"the paper has no runs on {dataset!r}; it has some on {', '.join(workbook.NAMES)}")
        on_split = (theirs["dataset"] == workbook.NAMES[dataset]) & theirs["split"].isin((f"seed-{seed}", "scaffold"))
        released = workbook.score_runs(theirs[on_split])
        rate = released["head_lr"].iloc[0]
        final, searched = job[job["stage"] == "final"], dict(list(job[job["stage"] == "grid"].groupby("head_lr")))
        ours = final if released["stage"].iloc[0].startswith("final") else searched.get(rate, final[:0])
        search = theirs[on_split & ~theirs["stage"].str.startswith("final")].groupby("head_lr")
        pairs = [("score", released, ours), *(("search", part, searched.get(lr, final[:0])) for lr, part in search)]
        for stage, theirs_runs, same in pairs:
            if same.empty:
                continue
            them, us = theirs_runs["value"], same["test"]
            rows.append(
                {"stage": stage, "set": name, "seed": seed}
                | {column: same[column].iloc[0] for column in ("metric", "unit", "batch_size", "head_lr")}
                | {"theirs_head_lr": theirs_runs["head_lr"].iloc[0]}
                | {"theirs": them.mean(), "theirs_sd": them.std(), "theirs_runs": len(them)}
                | {"ours": us.mean(), "ours_sd": us.std(), "ours_runs": len(us), "difference": us.mean() - them.mean()}
                | {"standard_error": (them.var() / len(them) + us.var() / len(us)) ** 0.5}
            )
    return pd.DataFrame(rows)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Test whether two groups of runs have the same means on all splits, by an F test of the differences.

    The spread of the runs, taken to be the same on all splits of a line, says how far means differ by chance.

    Parameters
    ----------
    table : DataFrame
        From `baseline`.

    Returns
    -------
    DataFrame
        A row per stage, set and learning rate of theirs: stage, set, metric, unit, batch_size, theirs_head_lr, splits,
        theirs, ours (means over splits), rmsd (root mean square of the differences by split), rmsd_by_chance, p.
    """
    rows = []
    keys = ["stage", "set", "metric", "unit", "batch_size", "theirs_head_lr"]
    for key, part in table.groupby(keys, sort=False):
        counts = part[["theirs_runs", "ours_runs"]].to_numpy(float)
        freedom = (counts - 1).sum()
        variance = ((counts - 1) * np.nan_to_num(part[["theirs_sd", "ours_sd"]].to_numpy()) ** 2).sum() / freedom
        expected = variance * (1 / counts).sum(axis=1)
        ratio = (part["difference"] ** 2 / expected).mean()
        measured = {"rmsd": (part["difference"] ** 2).mean() ** 0.5, "rmsd_by_chance": expected.mean() ** 0.5}
        means = {"splits": len(part), "theirs": part["theirs"].mean(), "ours": part["ours"].mean()}
        rows.append(dict(zip(keys, key, strict=True)) | means | measured | {"p": stats.f.sf(ratio, len(part), freedom)})
    return pd.DataFrame(rows)
