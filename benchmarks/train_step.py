"""A training step: images a second, share of the device's matmul peak, memory by chunk, and waiting for data.

The memory is what the steps take beyond the weights; on a CPU, what the process has taken from the system for them.

Each case runs in a process of its own, so that its memory is its own. What the paper's whole run would take on this
device (1.87 million molecules, 2 views, 4 epochs) follows from the rate.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from common import report
from torch.utils.flop_counter import FlopCounterMode

from moleclip import arithmetic, augmentation_batch, datasets, drawing, encoder, losses
from moleclip.io.chunks import run as in_chunks
from moleclip.views import GroupedBatches, Views, loader
from moleclip.workflow import params

PAPER_IMAGES = 1_870_421 * 2 * 4
SIZES = {"cpu": [1024, 2048, 4096], "cuda": [4096, 8192, 16384]}  # of matrices
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@cache
def matmul_peak(precision: str, device: torch.device) -> float:
    """FLOP/s of the largest of a few square matrix products."""
    best = 0.0
    for size in SIZES[device.type]:
        a, b = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
        repeats = max(3, int((2e11 if device.type == "cpu" else 1e14) / (2 * size**3)))
        best = max(best, 2 * size**3 / seconds_each(lambda a=a, b=b: a @ b, repeats, device))
    return best


def seconds_each(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean time of a call, after one to warm up."""
    call()
    wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    wait(device)
    return (time.perf_counter() - started) / repeats


def wait(device: torch.device) -> None:
    """Let the device finish."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def flops(image_encoder: encoder.Encoder) -> float:
    """FLOP of the forward and backward pass of one image: three times those of the forward pass.

    In training mode: in evaluation mode, PyTorch's attention is one operation, which the counter does not know.
    """
    size = image_encoder.preprocess.size
    images = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # batch normalisation trains on no single image
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        image_encoder(images)
    return 3.0 * counter.get_total_flops() / len(images)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One case: a tower, an arithmetic and precision, plain or compiled, a chunk; with workers, also drawn images."""
    AcceleratorState._reset_state()  # of another case in this process
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=case["precision"])
    device, pairs = accelerator.device, case["pairs"]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    image_encoder = encoder.load(f"{case['tower']}/random").train()
    per_image, size = flops(image_encoder), image_encoder.preprocess.size
    arithmetic.prepare(image_encoder, case["arithmetic"])
    image_encoder.to(device)
    goal = losses.Objective(image_encoder.tower.embed_dim, {300: 300, 3000: 3000}, 15.0, True).to(device)
    p = params.read("03_pretrain", None, precision=case["precision"], arithmetic=case["arithmetic"])
    adam = losses.optimizer(image_encoder, goal, p)
    model, adam = accelerator.prepare(image_encoder, adam)
    if case["compiled"]:
        model = torch.compile(model)
    classes = torch.randint(0, 300, (pairs, 2), device=device)

    def step(images: torch.Tensor) -> None:
        losses.backward(model, goal, images, classes, accelerator, case["micro_batch_size"])
        adam.step()
        adam.zero_grad()

    before = memory(device, peak=False)
    synthetic = torch.randint(0, 256, (2 * pairs, size, size, 3), dtype=torch.uint8).to(device)
    rate = 2 * pairs / seconds_each(lambda: step(synthetic), case["steps"], device)
    taken = memory(device) - before
    drawn = {}
    if case["workers"]:
        each, waiting = with_data(step, case, size, device)
        drawn = {"images_per_s_with_data": 2 * pairs / each, "waiting_for_data": waiting}
    peak = matmul_peak("fp16" if case["arithmetic"] == "fp16_l2" else case["precision"], device)
    return {
        **case,
        "images_per_s": rate,
        **drawn,
        "matmul_peak_tflops": peak / 1e12,
        "share_of_peak": rate * per_image / peak,
        "step_memory_gb": taken / 1e9,
        "paper_run_days": PAPER_IMAGES / drawn.get("images_per_s_with_data", rate) / 86400,
    }


def with_data(
    step: Callable[[torch.Tensor], None], case: dict[str, Any], size: int, device: torch.device
) -> tuple[float, float]:
    """Time of a step with images drawn on the fly, and the share of it spent waiting for them.

    Both are of steps after as many as there are workers: what those drew while nothing was waited for is used up.
    """
    smiles = list(datasets.clean(datasets.load("nci_5k"))[0]["smiles"])
    molecules = in_chunks(drawing.prepare_all, smiles)["molecule"]
    gpu = device.type == "cuda"  # where, as in a run, drawings are augmented too
    warm_up = case["workers"] + 1
    rows = np.resize(np.arange(len(smiles)), (warm_up + case["steps"] + 1) * case["pairs"])
    views = Views(molecules, rows, "none" if gpu else "default", seed=0, size=size)
    sampler = GroupedBatches(np.zeros(len(rows), np.int64), case["pairs"], case["pairs"], seed=0)
    waited = 0.0
    started = last = time.perf_counter()
    for number, (plain, randomised, positions) in enumerate(loader(views, sampler, case["workers"])):
        waited += time.perf_counter() - last
        images = torch.cat([drawn.to(device, non_blocking=True) for drawn in (plain, randomised)])
        if gpu:
            images = augmentation_batch.augment_views(images, "default", 0, 0, positions)
        step(images)
        if number == warm_up - 1:
            wait(device)
            started, waited = time.perf_counter(), 0.0
        if number == warm_up + case["steps"] - 1:
            break
        last = time.perf_counter()
    wait(device)
    passed = time.perf_counter() - started
    return passed / case["steps"], waited / passed


def memory(device: torch.device, peak: bool = True) -> float:
    """Bytes that this process has or, at its peak, has had on the device."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated())
    return 1000.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cases_of(tower: str, pairs: int | None, steps: int, workers: int, chunks: tuple[int, ...] = (4, 16)) -> list[Any]:
    """Make the cases of a tower: arithmetics, precisions, data, chunks; compiled on a GPU (a CPU gains nothing)."""
    gpu, precision = torch.cuda.is_available(), "bf16" if encoder.has_bf16() else "no"
    pairs = pairs or (256 if gpu else 64 if tower == "small" else 8)
    case = {"tower": tower, "pairs": pairs, "steps": steps, "precision": precision, "arithmetic": "fp32_l2"}
    case |= {"compiled": False, "micro_batch_size": None, "workers": None}
    cases = [case | {"compiled": gpu, "workers": workers}, *([case] if gpu else [])]
    if not tower.startswith(encoder.TIMM):  # batch normalisation needs whole batches
        cases += [case | {"micro_batch_size": 2 * pairs // number} for number in chunks]
        cases += [case | {"precision": "no", "arithmetic": "fp16_l2"}] * (gpu and tower == encoder.PAPER)
    return cases + [case | {"precision": "no"}] * (precision != "no")


def main() -> None:
    """Measure a few cases that fit the device."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--towers", nargs="+", default=["small", "ViT-B-16-quickgelu"])
    parser.add_argument("--pairs", type=int, help="of a batch (GPU: 256, CPU: 64 for the small tower, 8 for others)")
    parser.add_argument("--steps", type=int, default=20 if gpu else 2)
    parser.add_argument("--workers", type=int, default=16 if gpu else 1)
    arguments = parser.parse_args()
    cases = [
        case
        for tower in arguments.towers
        for case in cases_of(tower, arguments.pairs, arguments.steps, arguments.workers)
    ]
    rows = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for row in pool.map(measure, cases):
            print(row, flush=True)
            rows.append(row)
    report("train_step_gpu" if gpu else "train_step_cpu", rows)


if __name__ == "__main__":
    main()
