"""What is doubtful in the finetuning sets, and whether it matters: results/audit.csv and results/doubtful.csv.

    python benchmarks/audit.py [runs/laptop/labels/labels.parquet]     # half an hour

With the labels of a pretraining corpus, also how many molecules of each set an encoder has seen there.
A forest on count fingerprints says whether it matters: twice five folds, of at most 2,000 molecules.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from moleclip import baselines, datasets, metrics, tables
from moleclip.apply.cross_validation import CrossValidation
from moleclip.datasets import Dataset
from moleclip.io import seeds
from moleclip.io.seeds import Stream

SETS = ("bace", "bbbp", "esol", "freesolv", "DHBDs", "NHCs", "Phosphines_yield", "Phosphines_selectivity")
RESULTS = Path(__file__).parent / "results"
MOST, TREES = 2000, 200


def doubted(dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Readable molecules, and what is doubtful in each."""
    rows = datasets.readable(dataset, None, 0)
    margin = tables.design(dataset.name).margin if dataset.task == "regression" else 0.0
    return rows, datasets.doubtful(rows, dataset.label_names[:1], margin)


def audit(name: str, seen: set[str]) -> dict[str, object]:
    """Count what is doubtful in a set."""
    dataset = datasets.load(name)
    rows, doubts = doubted(dataset)
    smiles, label = rows["canonical_smiles"], rows[dataset.label_names[0]]
    return {
        "set": name,
        "molecules": len(dataset),
        "unreadable": len(dataset) - len(rows),
        **doubts[~smiles.duplicated()].sum(),
        "smallest_label": label.min(),
        "largest_label": label.max(),
        "seen_in_pretraining": int(smiles.isin(seen).sum()) if seen else np.nan,
    }


def matter(name: str) -> list[dict[str, object]]:
    """Score a forest on all molecules and on those without doubt, which the same forest has seen or has not."""
    dataset = datasets.load(name)
    molecules, _ = datasets.labelled(dataset, MOST, 0, 10)
    # A structure with conflicting labels occurs once in `molecules`, so that it is looked for among all.
    every, doubts = doubted(dataset)
    sound = ~molecules["row"].isin(every["row"][doubts.drop(columns="repeated").any(axis=1)]).to_numpy()
    if sound.all():
        return []
    job, found = CrossValidation(dataset, molecules, repeats=2), []
    for part in job.parts:
        given, draw = part.train, seeds.generator(Stream.HELD_OUT, part.repeat, part.fold)
        as_many = draw.choice(given, int(sound[given].sum()), replace=False)
        for what, rows in {"all": given, "as many": as_many, "sound": given[sound[given]]}.items():
            model = baselines.make("count_forest", dataset.task, part.repeat * 10 + part.fold, trees=TREES)
            model.fit(job.some[rows], job.labels[rows])
            for tested in ("all", "sound") if what == "all" else ("sound",):
                asked = part.test if tested == "all" else part.test[sound[part.test]]
                if dataset.task == "regression" or len(np.unique(job.labels[asked])) > 1:
                    values = model.predict_values(job.some[asked])
                    score = metrics.score(dataset.metric, job.labels[asked], values)
                    found.append({"set": name, "trained": what, "tested": tested, "given": len(rows), "score": score})
    return [{"metric": dataset.metric, "molecules": len(molecules), "sound": int(sound.sum()), **one} for one in found]


def main() -> None:
    """Write the tables."""
    seen = set(pd.read_parquet(sys.argv[1], columns=["smiles"])["smiles"]) if sys.argv[1:] else set()
    found = pd.DataFrame([audit(name, seen) for name in tqdm(SETS)])
    found.to_csv(RESULTS / "audit.csv", index=False, float_format="%.4g")
    print(found.to_string())
    scores = pd.DataFrame([line for name in tqdm(SETS) for line in matter(name)])
    keys = ["set", "metric", "molecules", "sound", "trained", "tested"]
    means = scores.groupby(keys, sort=False).agg(given=("given", "mean"), score=("score", "mean"), sd=("score", "std"))
    means.reset_index().to_csv(RESULTS / "doubtful.csv", index=False, float_format="%.4g")
    print(means.to_string())


if __name__ == "__main__":
    main()
