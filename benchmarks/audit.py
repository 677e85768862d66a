"""What is doubtful in the finetuning sets: results/audit.csv, which docs/data.md shows.

    python benchmarks/audit.py [runs/laptop/labels/labels.parquet]     # a minute

With the labels of a pretraining corpus, also how many molecules of each set an encoder has seen there.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from moleclip import datasets, tables

SETS = ("bace", "bbbp", "esol", "freesolv", "DHBDs", "NHCs", "Phosphines_yield", "Phosphines_selectivity")


def audit(name: str, seen: set[str]) -> dict[str, object]:
    """One line of the table."""
    dataset = datasets.load(name)
    rows = datasets.readable(dataset, None, 0)
    smiles, label = rows["canonical_smiles"], rows[dataset.label_names[0]]
    margin = tables.design(name).margin if dataset.task == "regression" else 0.0
    return {
        "set": name,
        "molecules": len(dataset),
        "unreadable": len(dataset) - len(rows),
        **datasets.doubtful(rows, dataset.label_names[:1], margin),
        "smallest_label": label.min(),
        "largest_label": label.max(),
        "seen_in_pretraining": int(smiles.isin(seen).sum()) if seen else np.nan,
    }


def main() -> None:
    """Write the table."""
    seen = set(pd.read_parquet(sys.argv[1], columns=["smiles"])["smiles"]) if sys.argv[1:] else set()
    found = pd.DataFrame([audit(name, seen) for name in tqdm(SETS)])
    found.to_csv(Path(__file__).parent / "results" / "audit.csv", index=False, float_format="%.4g")
    print(found.to_string())


if __name__ == "__main__":
    main()
