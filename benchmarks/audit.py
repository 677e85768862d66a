"""What is doubtful in the finetuning sets: results/audit.csv, which docs/data.md shows.

    python benchmarks/audit.py [runs/laptop/labels/labels.parquet]     # a minute

With the labels of a pretraining corpus, also how many molecules of each set an encoder has seen there.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem
from tqdm import tqdm

from moleclip import datasets, tables

SETS = ("bace", "bbbp", "esol", "freesolv", "DHBDs", "NHCs", "Phosphines_yield", "Phosphines_selectivity")


def _has_open_centre(molecule: Chem.Mol) -> bool:
    centres = Chem.FindMolChiralCenters(molecule, includeUnassigned=True, useLegacyImplementation=False)
    return any("?" in configuration for _, configuration in centres)


def audit(name: str, seen: set[str]) -> dict[str, object]:
    """One line of the table."""
    dataset = datasets.load(name)
    rows = datasets.readable(dataset, None, 0)
    smiles, label = rows["canonical_smiles"], rows[dataset.label_names[0]]
    molecules = smiles.map(Chem.MolFromSmiles)
    flat = molecules.map(lambda molecule: Chem.MolToSmiles(molecule, isomericSmiles=False))
    alike = label.groupby(smiles).agg(["size", np.ptp])
    flat_alike = smiles.groupby(flat).nunique()
    margin = tables.design(name).margin if dataset.task == "regression" else 0.0
    open_centres = molecules.map(_has_open_centre)
    return {
        "set": name,
        "molecules": len(dataset),
        "unreadable": len(dataset) - len(rows),
        "repeated": int((alike["size"] > 1).sum()),
        "conflicts": int(((alike["size"] > 1) & (alike["ptp"] > margin)).sum()),
        "differ_in_stereo_only": int((flat_alike > 1).sum()),
        "open_stereocentres": int(open_centres.sum()),
        "several_fragments": int(smiles.str.contains(".", regex=False).sum()),
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
