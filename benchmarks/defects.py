"""Which of the defects that make results look better than they are our own tests notice.

    python benchmarks/defects.py     # results/defects.csv; a quarter of an hour

Each defect of `defects.yaml` is planted alone in a copy of the module, and the tests named with it are run against
the copy. First they are run without any defect: what fails then says nothing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
DEFECTS = ROOT / "benchmarks" / "defects.yaml"


def planted(defect: dict[str, Any]) -> str:
    """Text of the file with the defect.

    Raises
    ------
    ValueError
        The place in the code is not there, or there more than once.
    """
    text = (ROOT / "moleclip" / defect["file"]).read_text()
    if text.count(defect["was"]) != 1:
        raise ValueError(f"{defect['defect']}: {defect['file']} has {text.count(defect['was'])} places for it, not 1")
    return text.replace(defect["was"], defect["planted"])


def noticed(defect: dict[str, Any] | None, tests: list[str]) -> str:
    """First test that fails with the defect planted; "" if none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("moleclip", "tests", "notebooks", "params"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("docs", "figures", "benchmarks", "README.md", "pyproject.toml"):
            (copy / name).symlink_to(ROOT / name)
        if defect:
            (copy / "moleclip" / defect["file"]).write_text(planted(defect))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, *tests], cwd=copy, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) and not failed:
        raise RuntimeError(done.stdout + done.stderr)
    return failed[1] if failed else ""


def main() -> None:
    """Plant each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="defects whose text contains this")
    only = parser.parse_args().only
    defects = [defect for defect in yaml.safe_load(DEFECTS.read_text()) if only in defect["defect"]]
    used = sorted({defect["tests"] for defect in defects})
    if not only and (failing := noticed(None, used)):
        raise SystemExit(f"without any defect, {failing} fails")
    rows = []
    for defect in defects:
        found = noticed(defect, [defect["tests"]])
        rows.append((defect["defect"], defect["file"], found))
        print(f"{'noticed' if found else 'MISSED':8} {defect['defect']}: {found}", flush=True)
    table = pd.DataFrame(rows, columns=["defect", "file", "noticed by"])
    print(f"{(table['noticed by'] != '').sum()} of {len(table)} noticed")
    if not only:
        table.to_csv(ROOT / "benchmarks" / "results" / "defects.csv", index=False)


if __name__ == "__main__":
    main()
