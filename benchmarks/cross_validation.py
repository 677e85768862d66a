"""Repeated 5 x 5 cross-validation of all methods on the paper's small sets: what survives of five splits.

    python benchmarks/cross_validation.py     # a day of one core, most of it for finetuning
    python benchmarks/cross_validation.py --set freesolv --method ecfp4_forest --method tanimoto_gp

Goes on where it stopped, from runs/cross_validation. Writes to `results`, and keeps what is there of other sets:
cross_validation.csv (a row per set, method, repeat and fold), cross_validation_pairs.csv (each pair of methods by
Tukey's test, `metrics.all_pairs`) and a figure for each set.
"""

import argparse
from pathlib import Path

import pandas as pd

from moleclip import datasets, metrics, tables
from moleclip.apply import cross_validation
from moleclip.apply.cross_validation import CrossValidation
from moleclip.io import files
from moleclip.plots.scores import all_pairs
from moleclip.plots.style import set_style

SETS = ("Phosphines_selectivity", "Phosphines_yield", "NHCs", "DHBDs", "freesolv", "esol")
METHODS = (
    *("mean", "ecfp4_forest", "count_forest", "tanimoto_gp", "descriptor_forest", "tuned_forest", "gradient_boosting"),
    *("frozen_linear", "frozen_pls", "frozen_gaussian_process", "finetuned"),
)
REPEATS, MOST = 5, 300  # molecules of a set, drawn at random


def main() -> None:
    """Test methods on sets, and write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=SETS)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--split", default="random", choices=["random", "scaffold", "cluster"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    set_style()
    for name in chosen.set or SETS:
        dataset = datasets.load(name)
        molecules, _ = datasets.labelled(dataset, MOST, 0, 10)
        molecules = cross_validation.with_groups(molecules, chosen.split)
        folder = files.ROOT / "runs" / "cross_validation" / name
        job = CrossValidation(dataset, molecules, repeats=REPEATS, folder=folder)
        found = job.run(chosen.method or METHODS, verbose=True).scores
        wide, overlap = tables.by_part(found)
        print(pd.DataFrame({name: wide.mean(), "sd": wide.std()}), flush=True)
        ending = "" if chosen.split == "random" else f"_{chosen.split}"
        figure = all_pairs(found)
        figure.savefig(chosen.out / f"cross_validation_{name}{ending}.png", dpi=200, metadata={"Software": None})
        pairs = metrics.all_pairs(wide.dropna(), overlap)
        for file, table in ((f"cross_validation{ending}.csv", found), (f"cross_validation{ending}_pairs.csv", pairs)):
            keep(chosen.out / file, table.assign(set=name, split=chosen.split), name)


def keep(file: Path, table: pd.DataFrame, name: str) -> None:
    """Write the rows of a set, after those of the others."""
    kept = pd.read_csv(file) if file.is_file() else table.head(0)
    files.write_csv(file, pd.concat([kept[kept["set"] != name], table]))


if __name__ == "__main__":
    main()
