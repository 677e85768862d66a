"""What the benchmarks share: the machine, and a table that is printed and written as JSON."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from moleclip.io import files

try:
    from moleclip.workflow import provenance
except ImportError:  # of what only notebooks need
    provenance = None

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# A long measurement is of the code it started with.
STARTED = provenance.git_state() if provenance else {"commit": None, "dirty": None}


def report(name: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print a table, and write it with the machine, versions and commit to `results/<name>.json`."""
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.4g}"), flush=True)
    for key, value in facts.items():
        print(f"{key}: {value}")
    content = {"benchmark": name, "machine": machine(), **STARTED, **facts, "rows": rows}
    files.write_json(RESULTS / f"{name}.json", content)


def machine() -> dict[str, Any]:
    """Processor, cores, accelerator and versions."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "python": platform.python_version(),
        **{package: _version(package) for package in ("rdkit", "torch", "numpy", "scikit-learn")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
