"""Measure everything that needs a GPU, in at most 9 minutes: is it right there, and how fast.

    python benchmarks/gpu.py [--out FOLDER]     # on a GPU
    python benchmarks/gpu.py --small            # each part on a CPU, at a small size: does it run?

Each part is a process with a time limit; each result is a line of `gpu.jsonl` in the folder at once, so that what was
measured before a part was cut off is kept. Needs neither network nor installation: a checkout, and a Python with the
packages; what is missing is named. The folder also gets the weights of a pretraining of five minutes.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]
TOTAL = 535  # seconds
# Seconds that a part may take, with the start of its process.
LIMITS = {"checks": 65, "feed": 50, "train_step": 140, "embed": 50, "finetune": 40, "pretrain": 305}
SAVING = 20  # seconds before the limit of pretraining at which it stops and saves its weights
STARTING = 90  # seconds that pretraining needs before its first step: layouts, labels, compilation
RESULTS = "gpu.jsonl"
NEEDED = [
    "torch",
    "rdkit",
    "open_clip",
    "timm",
    "accelerate",
    "cv2",
    "matplotlib",
    "pyarrow",
    "pandas",
    "scipy",
    "sklearn",
]
NEEDED += ["pydantic", "openpyxl", "safetensors", "huggingface_hub", "pooch", "yaml", "kneed", "threadpoolctl"]

Emit = Callable[..., None]


def left() -> float:
    """Seconds until the limit of this part."""
    return float(os.environ["MOLECLIP_ENDS"]) - time.time()


def checks(emit: Emit, small: bool) -> None:
    """Run the checks, one line each."""
    from gpu_checks import CHECKS

    from moleclip import encoder

    for check in CHECKS:
        started = time.monotonic()
        try:
            check(encoder.device())
            problem = None
        except Exception as error:  # the others still count
            problem = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        emit(check=check.__name__, passed=problem is None, problem=problem, s=round(time.monotonic() - started, 1))


def feed(emit: Emit, small: bool) -> None:
    """Pairs a second that the cores draw and the device augments, with no training."""
    from train_step import with_data

    from moleclip import encoder

    case = {"pairs": 8, "steps": 2, "workers": 1} if small else {"pairs": 256, "steps": 96, "workers": os.cpu_count()}
    for size in (224, 128):
        seconds, _ = with_data(lambda images: None, case, size, encoder.device())
        emit(**case, size=size, pairs_per_s=case["pairs"] / seconds)


def train_step(emit: Emit, small: bool) -> None:
    """Images a second of a step, by arithmetic, compiled or not, with data or without."""
    from train_step import SIZES, cases_of, measure

    from moleclip import encoder

    towers = ["small"] if small else [encoder.PAPER, f"{encoder.TIMM}tf_efficientnet_lite0"]
    if small:
        SIZES["cpu"] = [256]
    sizes = (4, 1, 1, (2,)) if small else (256, 10, os.cpu_count() or 1, (4,))
    # First what matters most of each tower.
    cases = [case for cases in zip_longest(*(cases_of(tower, *sizes) for tower in towers)) for case in cases if case]
    for case in cases:
        try:
            emit(**measure(case))
        except RuntimeError as error:  # out of memory, or it cannot be compiled: the other cases still count
            emit(**case, problem=str(error).splitlines()[0])


def embed(emit: Emit, small: bool) -> None:
    """Molecules a second from SMILES, and of the bare forward passes."""
    from embed import measure

    from moleclip import datasets, encoder

    smiles = list(datasets.clean(datasets.load("nci_5k"))[0]["smiles"])
    if small:
        return emit(**measure("small", smiles[:16], 1, 8))
    for tower in (encoder.PAPER, f"{encoder.TIMM}tf_efficientnet_lite0"):
        emit(**measure(tower, smiles[:2048], os.cpu_count() or 1, 256))


def finetune(emit: Emit, small: bool) -> None:
    """Seconds per epoch on 90 molecules, and of the bare passes."""
    from finetune import measure

    from moleclip import encoder

    if small:
        return emit(**measure("small", 1, "no", 32, 1))
    for precision in ("bf16", "no") if encoder.has_bf16() else ("no",):
        emit(**measure(encoder.PAPER, 20, precision, 64, 1))


def pretrain(emit: Emit, small: bool) -> None:
    """Train `lite` on drawings of 224 pixels for as many epochs as there is time for, and keep its weights."""
    import numpy as np
    import pandas as pd

    from moleclip import clustering, config, datasets, encoder
    from moleclip import pretrain as method
    from moleclip.io import seeds
    from moleclip.workflow import params

    folder, workers = Path(os.environ["OUT"]) / "pretrained", 1 if small else os.cpu_count() or 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = "moses" if not small and "MOLECLIP_DATA_DIR" in os.environ else "nci_5k"
    everything = datasets.load(name).smiles
    rows = seeds.sample(len(everything), 100 if small else 100_000, seed=0)
    sample = datasets.Dataset(name, [everything[row] for row in rows], np.empty((len(rows), 0)))
    smiles = list(datasets.clean(sample)[0]["smiles"])
    ks = [4, 8] if small else [100, 1000]
    keys = clustering.maccs(smiles, workers=workers)
    table = pd.DataFrame({"row": range(len(smiles)), "smiles": smiles})
    table = table.assign(**{f"k_{k}": clustering.kmeans(keys, k, 0)[0] for k in ks})
    table.to_parquet(folder / "labels.parquet")
    values: dict[str, Any] = {"encoder": "small/random", "batch_size": 16, "group_size": 4, "lr": 1e-3, "epochs": 1}
    if not small:
        rate = measured_rate(Path(os.environ["OUT"]))
        epochs = max(1, round((left() - SAVING - STARTING) * rate / len(smiles)))
        values = {"encoder": encoder.LITE, "image_size": 224, "batch_size": 256, "group_size": 8, "lr": 4e-4}
        values |= {"precision": "bf16" if encoder.has_bf16() else "no", "warmup_steps": 50, "evaluate_every": 1000}
        values |= {"epochs": epochs, "decay": "cosine"}
    values |= {"k": ks, "workers": workers, "validation_fraction": 0.2 if small else 0.005, "head_lr": 1e-3}
    values |= {"log_every": 1 if small else 25, "checkpoint_every": 1 if small else 200}
    p: config.Pretrain = params.read(  # type: ignore[assignment]
        "03_pretrain", None, labels=str(folder / "labels.parquet"), output=str(folder), **values
    )

    class TimeUpError(Exception):
        """The time is up."""

    def watch(metrics: pd.DataFrame) -> None:
        emit(**metrics.iloc[-1].dropna().to_dict())
        if not small and left() < SAVING:
            raise TimeUpError

    with contextlib.suppress(TimeUpError):
        method.run(p, watch=watch)
    metrics = method.read_metrics(folder)
    if not (folder / encoder.CARD).is_file():
        save_unfinished(folder, p)
    emit(
        set=name,
        molecules=len(smiles),
        epochs=p.epochs,
        steps=int(metrics["step"].max()),
        images_per_s=2 * float(metrics["molecules_per_s"].median()),
        waiting_for_data=float(metrics["waiting_for_data"].median()),
        held_out_top1=metrics["held_out_top1"].dropna().tolist(),
        weights=str(folder / encoder.WEIGHTS),
    )


def save_unfinished(folder: Path, p: Any) -> None:
    """Save the encoder of a run's last checkpoint, and delete that."""
    import torch

    from moleclip import encoder
    from moleclip import pretrain as method

    state = torch.load(folder / method.CHECKPOINT, map_location="cpu", weights_only=True)
    model = encoder.load(p.encoder, size=p.image_size)
    model.load_state_dict(state["encoder"])
    model.normalize = True
    model.save(folder, {"identity": state["identity"], "step": state["step"]})
    (folder / method.CHECKPOINT).unlink()


def measured_rate(folder: Path) -> float:
    """Pairs a second of `lite` with drawn images, as the part before has measured, or a guess."""
    lines = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]
    of_lite = [line for line in lines if "images_per_s_with_data" in line and "lite" in line["tower"]]
    return max((line["images_per_s_with_data"] / 2 for line in of_lite), default=1000.0)


PARTS = {part.__name__: part for part in (checks, feed, train_step, embed, finetune, pretrain)}


def missing(small: bool) -> list[str]:
    """Name what is needed and not there."""
    found = [f"the package {name}" for name in NEEDED if importlib.util.find_spec(name) is None]
    if not found and not small:
        import torch

        found += [] if torch.cuda.is_available() else ["a GPU (--small runs each part on a CPU, at a small size)"]
    return found


def write(folder: Path, **values: Any) -> None:
    """Append a line of results, and show it."""
    line = json.dumps(values, default=str)
    print(line, flush=True)
    with open(folder / RESULTS, "a") as file:
        file.write(line + "\n")


def run(part: str, folder: Path, small: bool, limit: float) -> bool:
    """Run a part as a process of its own, with all that it starts; whether it came to its end."""
    started = time.monotonic()
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, "--out", str(folder)]
    # As in a checkout without installation. A part of a small size runs on a CPU wherever it is.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OUT": str(folder)}
    environment["MOLECLIP_ENDS"] = str(time.time() + limit)
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if small else {}
    child = subprocess.Popen([*command, *["--small"] * small], env=environment, cwd=ROOT, start_new_session=True)
    try:
        code: int | None = child.wait(limit)
        ended = "done" if code == 0 else f"failed ({code})"
    except subprocess.TimeoutExpired:
        code, ended = None, f"cut off after {limit:.0f} s"
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    write(folder, part=part, ended=ended, s=round(time.monotonic() - started, 1))
    return code == 0


def main() -> None:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or HERE / "results"))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.out.resolve()
    if arguments.part:
        emit = lambda **values: write(folder, part=arguments.part, **values)  # noqa: E731
        return PARTS[arguments.part](emit, arguments.small)
    if lacking := missing(arguments.small):
        sys.exit(f"not measured, as there is missing: {', '.join(lacking)}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).unlink(missing_ok=True)
    from common import STARTED, machine

    ends = time.monotonic() + TOTAL
    write(folder, part="machine", **machine(), **STARTED)
    # What comes after a part that was quicker than its limit has more time, but never more than all of it.
    done = [
        run(part, folder, arguments.small, min(LIMITS[part] * (20 if arguments.small else 1), ends - time.monotonic()))
        for part in arguments.parts
    ]
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main()
