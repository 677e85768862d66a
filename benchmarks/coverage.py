"""How often 90 % intervals by CV+ hold the label, by similarity to the nearest training molecule.

    python benchmarks/coverage.py     # results/coverage.csv, which docs/statistics.md shows; minutes

A forest of 100 trees on each regression set of the paper, of which at most 300 molecules are drawn; three random splits
with a fifth tested. Intervals are made from the training molecules alone, as `moleclip train`
makes them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from moleclip import baselines, datasets, metrics, splits
from moleclip.apply.cross_validation import CrossValidation
from moleclip.baselines import Forest
from moleclip.estimator import Molecules

SETS = ("Phosphines_selectivity", "Phosphines_yield", "NHCs", "DHBDs", "freesolv", "esol")
TREES, MOST, SPLITS = 100, 300, 3
EDGES = [0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.01]
RESULTS = Path(__file__).parent / "results"


def tested(name: str, seed: int) -> pd.DataFrame:
    """Similarity of each test molecule of one split, whether its interval holds its label, and the width."""
    dataset = datasets.load(name)
    table, _ = datasets.labelled(dataset, MOST, 0, 10)
    split = splits.random(len(table), seed, 0.2)
    given = np.sort(np.concatenate([split.train, split.val]))
    job = CrossValidation(dataset, table.iloc[given].reset_index(drop=True), seed=seed)
    new, labels = table.iloc[split.test], job.labels[:, 0]
    whole, found, folds = np.empty(len(given)), [], np.empty(len(given), np.int64)
    for part in job.parts:
        model = Forest(trees=TREES, seed=part.fold).fit(job.some[part.train], job.labels[part.train])
        whole[part.test], folds[part.test] = model.predict(job.some[part.test])[:, 0], part.fold - 1
        found.append(model.predict(list(new["smiles"]))[:, 0])
    ends = metrics.cv_plus(whole, labels, folds, np.array(found))
    assert ends
    truth, bits = new[dataset.label_names[0]].to_numpy(), Molecules(new["smiles"]).morgan()
    similarity = baselines.Tanimoto()(bits, job.some.morgan()).max(axis=1)
    held = (ends[0] <= truth) & (truth <= ends[1])
    return pd.DataFrame(
        {"set": name, "similarity": similarity, "held": held, "width": (ends[1] - ends[0]) / labels.std()}
    )


def main() -> None:
    """Measure, and write the table."""
    runs = [(name, seed) for name in SETS for seed in range(1, SPLITS + 1)]
    table = pd.concat([tested(*run) for run in tqdm(runs)])
    everything = pd.concat([table, table.assign(set="all")])
    everything["similarity"] = pd.cut(everything["similarity"], EDGES, right=False)
    whole = everything.groupby("set", sort=False).agg(
        tested=("held", "size"), coverage=("held", "mean"), width=("width", "median")
    )
    parts = everything.groupby(["set", "similarity"], sort=False, observed=True).agg(
        tested=("held", "size"), coverage=("held", "mean"), width=("width", "median")
    )
    found = pd.concat(
        [whole.assign(similarity="any").reset_index(), parts.sort_index(level="similarity").reset_index()]
    )
    found = found[["set", "similarity", "tested", "coverage", "width"]].round(3)
    found.to_csv(RESULTS / "coverage.csv", index=False)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
