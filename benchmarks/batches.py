"""The data path of pretraining: SMILES -> normalised, augmented pairs of views, by number of drawing processes."""

import argparse
import time

import numpy as np
import torch
from common import report

from moleclip import datasets, drawing, encoder
from moleclip.io import chunks
from moleclip.views import GroupedBatches, Views, loader

SETS = ("nci_5k", "moses")


def measure(name: str, count: int, workers: int, level: str) -> dict[str, object]:
    """Molecules a second, laying out and drawing, on `workers` processes beside this one (0: in this one)."""
    readable = datasets.clean(datasets.Dataset(name, datasets.load(name).smiles[:count], np.empty((count, 0))))[0]
    smiles = list(readable["smiles"])
    started = time.perf_counter()
    molecules = chunks.run(drawing.prepare_all, smiles, workers=workers, size=max(1, len(smiles) // 4))
    laid_out = time.perf_counter() - started
    views = Views(molecules["molecule"], np.arange(len(smiles)), level, seed=0)
    sampler = GroupedBatches(np.zeros(len(smiles), np.int64), 64, 32, seed=0)
    image_encoder = encoder.load("small/random")
    started, drawn = time.perf_counter(), 0
    with torch.no_grad():
        for plain, randomised, _ in loader(views, sampler, workers):
            image_encoder.preprocess(torch.cat([plain, randomised]))
            drawn += len(plain)
    seconds = time.perf_counter() - started
    return {
        "set": name,
        "augmentation": level,
        "workers": workers,
        "molecules": drawn,
        "laid_out_per_s": len(smiles) / laid_out,
        "pairs_per_s": drawn / seconds,
        "from_smiles_per_s": 1 / (laid_out / len(smiles) + seconds / drawn),
    }


def main() -> None:
    """Measure each set with 0, 1 and 2 processes, and as many as there are cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--workers", nargs="+", type=int, default=(0, 1, 2))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(name, arguments.molecules, workers, "default")
        for name in arguments.sets
        for workers in arguments.workers
    ]
    report("batches", rows, batch="64 pairs of 224 x 224")


if __name__ == "__main__":
    main()
