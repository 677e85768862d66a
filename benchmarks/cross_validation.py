"""Repeated 5 x 5 cross-validation of all methods on the paper's small sets: what survives of five splits.

    python benchmarks/cross_validation.py     # a day of one core, most of it for finetuning
    python benchmarks/cross_validation.py --set freesolv --method ecfp4_forest --method tanimoto_gp

Goes on where it stopped, from runs/cross_validation. Writes to `results`, and keeps what is there of other sets and
methods: cross_validation.csv (a row per set, method, repeat and fold), cross_validation_pairs.csv (each pair of methods
by Tukey's test, `metrics.all_pairs`) and a figure for each set; for other splits, their name is appended.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

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
        tested = job.run(chosen.method or METHODS, verbose=True).scores
        ending = "" if chosen.split == "random" else f"_{chosen.split}"
        file = chosen.out / f"cross_validation{ending}.csv"
        kept = read(file).query("set == @name and method not in @tested.method")
        found = pd.concat([kept, tested])
        wide, overlap = tables.by_part(found)
        print(pd.DataFrame({name: wide.mean(), "sd": wide.std()}), flush=True)
        figure = all_pairs(found)
        figure.savefig(chosen.out / f"cross_validation{ending}_{name}.png", dpi=200, metadata={"Software": None})
        plt.close(figure)
        pairs = metrics.all_pairs(wide.dropna(), overlap)
        for path, table in ((file, found), (file.with_name(f"{file.stem}_pairs.csv"), pairs)):
            others = read(path).query("set != @name")
            files.write_csv(path, pd.concat([others, table.assign(set=name, split=chosen.split)]))


def read(file: Path) -> pd.DataFrame:
    """Read a table that is there already, or make an empty one."""
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["set", "method"])


if __name__ == "__main__":
    main()
