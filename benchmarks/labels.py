"""Structural labels of a corpus: MACCS keys, then k-means at K = 300 and 3000, and the sweep over K if asked for.

Everything is written to a folder as it is made; interrupted, the same command goes on, and then its times are not
those of a whole run: `resumed` says so.
"""

import argparse
import logging
import resource
import sys
import time
from pathlib import Path

from common import report

from moleclip import clustering, datasets

SWEEP = [3, 5, 7, 10, 20, 30, 50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000]


def main() -> None:
    """Measure time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="moses")
    parser.add_argument("--molecules", type=int, help="the first so many only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sweep", action="store_true", help="the paper's whole sweep over K, on all molecules")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/labels"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    resumed = arguments.cache.exists() and any(arguments.cache.iterdir())
    smiles = datasets.load(arguments.set).smiles[: arguments.molecules]
    started = time.perf_counter()
    keys = clustering.maccs(smiles, arguments.cache, arguments.workers)
    rows: list[dict[str, object]] = [{"step": "MACCS keys", "seconds": time.perf_counter() - started}]
    del smiles
    curve, _ = clustering.sweep(keys, SWEEP if arguments.sweep else [300, 3000], 0, arguments.cache)
    rows += [
        {"step": f"k-means, K = {row.k}", "seconds": row.seconds, "inertia": row.inertia} for row in curve.itertuples()
    ]
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    here, child = (resource.getrusage(one).ru_maxrss / 1e6 for one in who)
    report(
        "labels_sweep" if arguments.sweep else "labels",
        rows,
        corpus=arguments.set,
        molecules=len(keys),
        workers=arguments.workers,
        bytes_per_molecule=keys.shape[1],
        knee=clustering.knee(curve) if arguments.sweep else None,
        peak_memory_gb={"this process": here, "largest worker": child},
        resumed=resumed,
    )


if __name__ == "__main__":
    main()
