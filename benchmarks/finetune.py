"""Finetuning on 90 molecules once they are drawn: time per epoch, and its share beyond the bare training passes.

Bare are the forward and backward passes of the training images, in the same batches. Beyond them are the optimiser,
the validation and test molecules, and all the rest.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import report
from torch import nn

from moleclip import encoder, finetune, params

MOLECULES = 90


def measure(tower: str, epochs: int, precision: str, batch_size: int) -> dict[str, Any]:
    """One case: drawings made beforehand, then some epochs, and the same number of bare passes."""
    p = params.read(
        "04_finetune_catalysis",
        dataset="chembl2321810",
        sample=MOLECULES,
        encoder=f"{tower}/random",
        precision=precision,
        batch_size=batch_size,
        workers=0,
    )
    job = finetune.problem(p)
    images = finetune.draw(job, p)
    training = finetune.Training(tower, 1e-3, "none", epochs, 1)
    finetune.train_encoder(job, p, finetune.Training(tower, 1e-3, "none", 1, 1), 0, images)  # warms up
    started = time.perf_counter()
    finetune.train_encoder(job, p, training, 0, images)
    whole = time.perf_counter() - started
    passes = epochs * bare(tower, images[job.split.train], p)
    count = epochs * len(job.split.train)
    return {
        "tower": tower,
        "molecules": len(job.molecules),
        "batch_size": batch_size,
        "precision": precision,
        "epochs": epochs,
        "s_per_10_epochs": 10 * whole / epochs,
        "images_per_s": count / whole,
        "bare_images_per_s": count / passes,
        "times_bare": whole / passes,
        "share_beyond_bare": 1 - passes / whole,
    }


def bare(tower: str, images: np.ndarray, p: params.Finetune) -> float:
    """Seconds of the forward and backward passes of an epoch; the better of two."""
    here = encoder.device()
    image_encoder = encoder.load(f"{tower}/random")
    model = nn.Sequential(image_encoder, encoder.head(image_encoder.tower.embed_dim, 1)).to(here).train()
    parts = torch.from_numpy(images).split(p.batch_size)
    best = np.inf
    for _ in range(2):
        started = time.perf_counter()
        for part in parts:
            with torch.autocast(here.type, torch.bfloat16, enabled=p.precision == "bf16"):
                outputs = model(part.to(here))
            outputs.float().mean().backward()
            model.zero_grad()
        if here.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Measure the small tower and the paper's."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50 if gpu else 2, help="of the paper's tower")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    rows = []
    for tower, epochs in (("small", 50), (encoder.PAPER, arguments.epochs)):
        for precision in ("no", "bf16"):
            rows.append(measure(tower, epochs, precision, arguments.batch_size))
            print(rows[-1], flush=True)
    report("finetune_gpu" if gpu else "finetune_cpu", rows)


if __name__ == "__main__":
    main()
