"""From SMILES to embeddings: molecules a second, their share of the bare forward passes, and a cold start.

Bare are forward passes of drawings that are there already, in the same batches. The cold start is a new process that
imports, loads a small encoder from a folder and embeds 1,000 molecules: what a user waits for.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from common import report

from moleclip import MoleCLIPFeaturizer, datasets, drawing, encoder
from moleclip.apply import readers

COLD = 1000
_COLD_START = """
from moleclip import MoleCLIPFeaturizer, datasets
smiles = datasets.clean(datasets.load("nci_5k"))[0]["smiles"][:{count}]
assert MoleCLIPFeaturizer({source!r}, n_jobs={jobs}).fit_transform(smiles).shape[0] == {count}
"""


def measure(tower: str, smiles: list[str], jobs: int, batch_size: int) -> dict[str, Any]:
    """One case: the whole way from SMILES, its first half alone, and its second half alone."""
    featurizer = MoleCLIPFeaturizer(f"{tower}/random", n_jobs=jobs, batch_size=batch_size)
    featurizer.fit(smiles).transform(smiles[: 2 * jobs * batch_size] if jobs > 1 else smiles[:1])  # warms up
    started = time.perf_counter()
    featurizer.transform(smiles)
    whole = time.perf_counter() - started
    started = time.perf_counter()
    images, _ = readers.draw_all(smiles, [drawing.PLAIN], featurizer._load().preprocess.size)
    drawn = time.perf_counter() - started
    bare = forward(featurizer._load(), images[:, 0], batch_size)
    return {
        "tower": tower,
        "molecules": len(smiles),
        "drawing_processes": jobs,
        "molecules_per_s": len(smiles) / whole,
        "bare_per_s": len(smiles) / bare,
        "share_of_bare": bare / whole,
        "drawn_per_s_one_core": len(smiles) / drawn,
    }


def forward(model: encoder.Encoder, images: np.ndarray, batch_size: int) -> float:
    """Seconds of the forward passes; the better of two."""
    here, best = encoder.device(), np.inf
    for _ in range(2):
        started = time.perf_counter()
        with torch.inference_mode():
            for part in torch.from_numpy(images).split(batch_size):
                model.all_layers(part.to(here)).cpu()
        best = min(best, time.perf_counter() - started)
    return best


def cold_start(jobs: int) -> float:
    """Seconds of a new process; the second of two, as after an installation files are read from disk."""
    with tempfile.TemporaryDirectory() as folder:
        source = str(encoder.load("small/random").save(folder))
        for _ in range(2):
            started = time.perf_counter()
            program = _COLD_START.format(count=COLD, source=source, jobs=jobs)
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds = time.perf_counter() - started
    return seconds


def main() -> None:
    """Measure the small tower and the paper's, with one and two processes that draw."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=4096 if gpu else 96, help="for the paper's tower")
    parser.add_argument("--batch-size", type=int, default=64 if gpu else 16, help="of the paper's tower")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 8] if gpu else [1, 2])
    arguments = parser.parse_args()
    smiles = list(datasets.clean(datasets.load("nci_5k"))[0]["smiles"])
    cases = (("small", smiles[:2048], 64), (encoder.PAPER, smiles[: arguments.molecules], arguments.batch_size))
    rows = []
    for tower, some, batch_size in cases:
        for jobs in arguments.jobs:
            rows.append(measure(tower, some, jobs, batch_size))
            print(rows[-1], flush=True)
    cold = {f"cold_start_of_{COLD}_s_{jobs}_jobs": cold_start(jobs) for jobs in arguments.jobs}
    report("embed_gpu" if gpu else "embed_cpu", rows, **cold)


if __name__ == "__main__":
    main()
