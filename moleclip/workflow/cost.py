"""Estimate what a profile and its studies cost before they run: jobs, trainings, images, GPU hours.

python -m moleclip.workflow.cost paper
"""

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moleclip import config, datasets, finetune, splits
from moleclip.io import downloads, files
from moleclip.workflow import params

# Images a second of the paper's tower in training, for GPU hours: an H200's, in the authors' arithmetic
# (benchmarks/results/gpu_h200.jsonl). `benchmarks/train_step.py` measures that of another GPU.
RATE = 2500
STEP = 0.01  # seconds that a step takes at least, however few its images are; assumed


def table(profile: str, rate: float = RATE) -> pd.DataFrame:
    """Estimate what a profile and each of its studies would train.

    Parameters
    ----------
    rate : float
        Images trained on in a second.

    Returns
    -------
    DataFrame
        fan_out, part ("pretraining", "domain", or the name of a set), jobs, trainings (of encoders), images (forward
        and backward passes, in millions), steps (in millions), gpu_hours. Baselines, which need no GPU, count as jobs
        only.
    """
    folder = files.ROOT / "params" / profile
    _read_count.cache_clear()  # a file may have been changed since
    holdouts = datasets.registry().set_index("set")["holdout"].to_dict()
    rows = [row for study in (None, *params.studies(folder)) for row in _fan_out(folder, study, holdouts)]
    found = pd.DataFrame(rows, columns=["fan_out", "part", "jobs", "trainings", "images", "steps"])
    found["gpu_hours"] = np.maximum(found["images"] / rate, found["steps"] * STEP) / 3600
    found = found.groupby(["fan_out", "part"], sort=False).sum().reset_index()
    return found.assign(images=found["images"] / 1e6, steps=found["steps"] / 1e6)


def _fan_out(folder: Path, study: str | None, holdouts: Mapping[Any, float]) -> list[dict[str, Any]]:
    own, fan_out = params.read_profile(folder, study)
    name = study or folder.name
    variants = list(fan_out.pretrain.values()) if study else [{}, *fan_out.pretrain.values()]
    rows = [{"part": "pretraining", **_pretraining(folder, own, values)} for values in variants]
    rows += [{"part": "domain", **_domain(folder, values)} for values in fan_out.pretrain_domain.values()]
    rows += [{"part": job.dataset, **_finetuning(folder, job, holdouts)} for job in params.jobs(fan_out, "")]
    return [{"fan_out": name, **row} for row in rows]


def _read(folder: Path, notebook: str, values: dict[str, Any]) -> Any:
    return params.read(notebook, folder / params.parameter_file(notebook), **values)


def _pretraining(folder: Path, own: dict[str, config.Parameters], values: dict[str, Any]) -> dict[str, Any]:
    p = _read(folder, "03_pretrain", values)
    labelled: Any = own["02_cluster_structures"]
    if p.labels in datasets.names():
        count = _count(p.labels, [p.sample])
    else:  # what notebooks 01 and 02 made of one set or several
        drawn: Any = own["01_depict_molecules"]
        sources = {datasets.short_name(source): source for source in drawn.datasets}
        parts = [labelled.molecules] if isinstance(labelled.molecules, str) else labelled.molecules
        each = drawn.sample if isinstance(drawn.sample, dict) else dict.fromkeys(drawn.datasets, drawn.sample)
        known = [sources.get(datasets.short_name(part), part) for part in parts]
        count = _total([sum(_count(source, [each.get(source)]) for source in known), labelled.sample, p.sample])
    molecules = p.epochs * count
    views = 2 if p.contrastive else 1
    return {"jobs": 1, "trainings": 1, "images": views * molecules, "steps": molecules // p.batch_size}


def _domain(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    p = _read(folder, "05_pretrain_domain", values)
    count, epochs = _count(p.dataset, [p.sample]), max(p.epochs)
    return {"jobs": 1, "trainings": 1, "images": epochs * count, "steps": epochs * -(-count // p.batch_size)}


def _finetuning(folder: Path, job: params.Job, holdouts: Mapping[Any, float]) -> dict[str, Any]:
    p = _read(folder, params.FINETUNE, job.overrides)
    if not p.encoder:
        return {"jobs": 1, "trainings": 0, "images": 0, "steps": 0}
    cells = len(p.head_lr) * len(p.augmentation)
    trainings = [(cells * p.repeats, p.epochs)] if cells > 1 or p.final_epochs is None else []
    trainings += [(p.final_repeats, p.final_epochs)] if p.final_epochs else []
    count = _count(p.dataset, [p.sample], p.smiles_column)
    # A scaffold split may keep a few more or less: whole groups go to one part.
    training = len(splits.random(count, 0, p.holdout or holdouts.get(p.dataset, 0.1)).train)
    batch_size, fitted = finetune.fitting(training)
    epochs = sum(number * (epochs or fitted) for number, epochs in trainings)
    steps = epochs * -(-training // (p.batch_size or batch_size))
    return {"jobs": 1, "trainings": sum(number for number, _ in trainings), "images": epochs * training, "steps": steps}


def _count(source: str, limits: list[int | None], smiles_column: str = "smiles") -> int:
    known = downloads.table().get(source, {}).get("molecules")
    return _total([_read_count(source, smiles_column) if known is None else known, *limits])


@functools.cache
def _read_count(source: str, smiles_column: str) -> int:
    return len(datasets.load(source, smiles=smiles_column, labels=[]))


def _total(limits: list[int | None]) -> int:
    return min(limit for limit in limits if limit is not None)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="a folder of params/")
    parser.add_argument("--rate", type=float, default=RATE, help="images a second (default: %(default)s, an H200)")
    arguments = parser.parse_args()
    try:
        found = table(arguments.profile, arguments.rate)
    except (ValueError, OSError) as error:
        print(f"ERROR in {error}", file=sys.stderr)
        return 1
    sums = found.drop(columns="part").groupby("fan_out", sort=False).sum().reset_index()
    for part in (found, sums):
        print(part.to_string(index=False, float_format="%.3g"), end="\n\n")
    print(
        f"images and steps in millions; GPU hours at {arguments.rate:g} images a second, and at least {STEP:g} s "
        "a step (assumed)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
