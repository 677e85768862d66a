"""How often each rule calls one of two equally good models better, at the sizes of the paper's catalysis sets.

    python benchmarks/verdicts.py     # results/verdicts.csv; a minute

Both models are ridge regressions, each on its own half of the inputs; labels depend on both halves alike, so that
neither is better on new molecules. As in the paper, five random splits, and ten runs of each on each split, here on
bootstrap samples of the training molecules. Rules: the interval that the paper prints after +- (`metrics.paper_ci`,
root of the sum of squares), the plain paired t-test over splits, and the one corrected for what splits share.

    python benchmarks/verdicts.py pairs     # results/verdicts_pairs.csv; minutes

How often Tukey's test calls any two of three equally good models different, in a 5 x 5 cross-validation.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import RepeatedKFold

from moleclip import metrics, splits

SETS = {"Phosphines_selectivity": (37, 0.2), "Phosphines_yield": (90, 0.1), "NHCs": (95, 0.1)}
SIMULATED, FEATURES, SPLITS, RUNS = 1000, 8, 5, 10


def errors(
    rng: np.random.Generator, inputs: NDArray[np.float64], labels: NDArray[np.float64], holdout: float
) -> list[list[float]]:
    """Test errors [splits, runs] of one model."""
    found = []
    for seed in range(1, SPLITS + 1):
        split = splits.random(len(labels), seed, holdout)
        given, runs = np.concatenate([split.train, split.val]), []
        for _ in range(RUNS):
            rows = rng.choice(given, len(given))
            normal = inputs[rows].T @ inputs[rows] + 3 * np.eye(FEATURES)
            slopes = np.linalg.solve(normal, inputs[rows].T @ labels[rows])
            runs.append(float(np.abs(inputs[split.test] @ slopes - labels[split.test]).mean()))
        found.append(runs)
    return found


def main() -> None:
    """Simulate, and write the table."""
    rows = []
    for name, (count, holdout) in SETS.items():
        rng, overlap = np.random.default_rng(0), metrics.overlap(holdout)
        printed = plain = corrected = 0
        for _ in range(SIMULATED):
            halves, slopes = rng.normal(size=(2, count, FEATURES)), rng.normal(size=FEATURES)
            labels = halves.sum(axis=0) @ slopes + rng.normal(size=count)
            runs = [errors(rng, half, labels, holdout) for half in halves]
            means = [np.mean(one, axis=1) for one in runs]
            ends = [metrics.paper_ci(one) for one in runs]
            half = np.hypot(*(end.high - end.mean for end in ends))
            printed += abs(ends[0].mean - ends[1].mean) > half
            plain += metrics.paired(*means).p < metrics.LEVEL
            corrected += metrics.paired(*means, overlap).p < metrics.LEVEL
        rates = {"by_printed_intervals": printed, "by_plain_test": plain, "corrected": corrected}
        rows.append({"set": name, "molecules": count, **{rule: hits / SIMULATED for rule, hits in rates.items()}})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).parent / "results" / "verdicts.csv", index=False)


def pairs(simulated: int = 200, models: int = 3, features: int = 4) -> None:
    """Simulate comparisons of all pairs, and write the table."""
    rows = []
    for name, (count, _) in SETS.items():
        rng, hits = np.random.default_rng(0), np.zeros(2)
        for number in range(simulated):
            parts, slopes = rng.normal(size=(models, count, features)), rng.normal(size=features)
            labels, scores = parts.sum(axis=0) @ slopes + rng.normal(size=count), []
            for train, test in RepeatedKFold(n_splits=5, n_repeats=5, random_state=number).split(labels):
                normal = [x[train].T @ x[train] + np.eye(features) for x in parts]
                fits = [np.linalg.solve(n, x[train].T @ labels[train]) for n, x in zip(normal, parts, strict=True)]
                scores.append([np.abs(x[test] @ fit - labels[test]).mean() for x, fit in zip(parts, fits, strict=True)])
            found = [metrics.all_pairs(pd.DataFrame(scores), overlap)["p"].min() for overlap in (0.0, 1 / 4)]
            hits += np.array(found) < metrics.LEVEL
        rows.append({"set": name, "molecules": count, "plain": hits[0] / simulated, "corrected": hits[1] / simulated})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(Path(__file__).parent / "results" / "verdicts_pairs.csv", index=False)


if __name__ == "__main__":
    pairs() if "pairs" in sys.argv else main()
