"""Finetuning on 90 molecules once they are drawn: time per epoch, and its share beyond the bare training passes.

Bare are the forward and backward passes of the training images, in the same batches. Beyond them are the optimiser,
the validation and test molecules, and all the rest. Both are timed several times by turns, and the shortest counts:
what else the machine does can only add to it.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import report
from torch import nn
from train_step import matmul_peak, wait

from moleclip import config, encoder, finetune, gridsearch
from moleclip.estimator import Molecules
from moleclip.workflow import params

MOLECULES = 90


def measure(tower: str, epochs: int, precision: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """One case: drawings made beforehand, then some epochs, and as many of bare passes."""
    p = params.read(
        "04_finetune",
        dataset="chembl2321810",
        sample=MOLECULES,
        encoder=f"{tower}/random",
        precision=precision,
        batch_size=batch_size,
        workers=0,
    )
    job = gridsearch.problem(p)
    molecules, split = Molecules(job.smiles), job.split
    images = molecules.drawings(encoder.load(f"{tower}/random").preprocess.size)

    def train(epochs: int) -> None:
        training = gridsearch.Training(p.name, 1e-3, "none", epochs, 1)
        model = gridsearch.estimator(training, p, job.dataset.task, 0)
        model.fit(molecules[split.train], job.labels[split.train], (molecules[split.val], job.labels[split.val]))
        model.predict(molecules[split.test])

    train(1)  # warms up
    whole = passes = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        train(epochs)
        whole = min(whole, time.perf_counter() - started)
        passes = min(passes, bare(tower, images[split.train], p, epochs))
    count = epochs * len(job.split.train)
    return {
        "tower": tower,
        "molecules": len(job.molecules),
        "batch_size": batch_size,
        "precision": precision,
        "epochs": epochs,
        "repeats": repeats,
        "s_per_10_epochs": 10 * whole / epochs,
        "images_per_s": count / whole,
        "bare_images_per_s": count / passes,
        "times_bare": whole / passes,
        "share_beyond_bare": 1 - passes / whole,
    }


def bare(tower: str, images: np.ndarray, p: config.Finetune, epochs: int) -> float:
    """Seconds of the forward and backward passes of some epochs."""
    here = encoder.device()
    image_encoder = encoder.load(f"{tower}/random")
    model = nn.Sequential(image_encoder, encoder.head(image_encoder.tower.embed_dim, 1)).to(here).train()
    parts = torch.from_numpy(images).split(p.batch_size)
    started = time.perf_counter()
    for part in epochs * parts:
        finetune._outputs(model, part.to(here), p.precision).mean().backward()
        model.zero_grad()
    wait(here)
    return time.perf_counter() - started


def main() -> None:
    """Measure the small tower and the paper's."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50 if gpu else 2, help="of the paper's tower")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tower", help="this one alone, with a file of its own for its results")
    arguments = parser.parse_args()
    rows = []
    precisions = ("no", "bf16") if encoder.has_bf16() else ("no",)
    for tower, epochs, repeats in (("small", 20, 5), (encoder.PAPER, arguments.epochs, 2)):
        if arguments.tower not in (None, tower):
            continue
        for precision in precisions:
            rows.append(measure(tower, epochs, precision, arguments.batch_size, repeats))
            print(rows[-1], flush=True)
    peaks = {f"matmul_peak_tflops_{name}": matmul_peak(name, encoder.device()) / 1e12 for name in precisions}
    name = "finetune_gpu" if gpu else "finetune_cpu"
    report(f"{name}_{arguments.tower}" if arguments.tower else name, rows, **peaks)


if __name__ == "__main__":
    main()
