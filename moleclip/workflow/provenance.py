"""What a result was made from: code, parameters, data, versions. Records are written last and whole."""

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import display

from moleclip import config
from moleclip.io import downloads, files

PACKAGES = (
    "moleclip",
    "numpy",
    "pandas",
    "rdkit",
    "matplotlib",
    "scikit-learn",
    "torch",
    "open_clip_torch",
    "accelerate",
)

# What results are made by. A commit of anything else, figures above all, makes no other code of it.
_SOURCES = ("moleclip", "notebooks", "params", "pyproject.toml", "requirements.lock", "Snakefile")


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    notebook: str
    parameters: config.Parameters

    def finish(
        self, folder: str | Path, outputs: Iterable[str | Path], inputs: Iterable[str | Path] = (), **facts: Any
    ) -> pd.DataFrame:
        """Record what was written and from what, and further facts, as `<notebook>.json` in `folder`.

        Returns
        -------
        DataFrame
            file, kB, sha256 (first 12 digits) of each output.
        """
        written, place = [Path(path) for path in outputs], Path(folder) / f"{self.notebook}.json"
        record = {**collect(self.notebook, self.parameters, inputs), **facts}
        record["outputs"] = {files.relative(path): files.sha256(path) for path in written}
        earlier = json.loads(place.read_text()) if place.is_file() else {}
        # What was read may have been written by the run whose record this one takes the place of.
        before = [_writer(earlier, file, digest) for file, digest in record["inputs"].items()]
        record |= {"before": found} if (found := next(filter(None, before), None)) else {}
        files.write_json(place, record)
        return pd.DataFrame(
            {
                "file": list(record["outputs"]),
                "kB": [round(path.stat().st_size / 1000) for path in written],
                "sha256": [digest[:12] for digest in record["outputs"].values()],
            }
        )


def start(notebook: str, parameters: config.Parameters) -> Run:
    """Open a run: go to the project's folder, show the parameters, send the module's log to the notebook."""
    os.chdir(files.ROOT)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("moleclip").setLevel(logging.INFO)
    pd.set_option("display.max_colwidth", 200)  # addresses, checksums and reasons are shown whole
    values = {name: repr(value) for name, value in parameters}
    display(pd.DataFrame({"value": values}).rename_axis("parameter"))  # type: ignore[no-untyped-call]
    return Run(notebook, parameters)


def collect(notebook: str, parameters: config.Parameters, inputs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Everything needed to make a result again.

    Returns
    -------
    dict
        notebook, command, commit and dirty (of the code, see `git_state`), parameters, inputs (path: sha256), versions.
    """
    values = parameters.model_dump_json()
    return {
        "notebook": notebook,
        "command": f"papermill notebooks/{notebook}.ipynb {notebook}.ipynb -k python3 -y '{values}'",
        **git_state(),
        "parameters": parameters.model_dump(),
        "inputs": {downloads.address(Path(path)) or files.relative(path): files.sha256(path) for path in inputs},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def lineage(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Find the runs that wrote these files, and those that wrote what they read, back to the start.

    Returns
    -------
    dict
        By path of the record: notebook, commit, dirty, parameters, inputs. A record whose checksum is not that of
        the file any more does not count. The way ends at records below `figures/`, which are kept with the code: the
        JSON files of the figures there go on, and what is drawn does not depend on which runs are at hand.
    """
    found: dict[str, Any] = {}
    queue = [Path(file) for file in paths]
    while queue:
        file = queue.pop(0)
        for path in sorted(file.parent.glob("[0-9][0-9]_*.json")):
            if files.relative(path) in found or not file.is_file():
                continue
            if record := _writer(json.loads(path.read_text()), files.relative(file), files.sha256(file)):
                keys = ("notebook", "commit", "dirty", "parameters", "inputs")
                found[files.relative(path)] = {key: record[key] for key in keys}
                if not files.relative(path).startswith("figures/"):
                    queue += [files.ROOT / source for source in record["inputs"]]
    return found


def _writer(record: dict[str, Any], file: str, digest: str) -> dict[str, Any]:
    """Record of the run that wrote a file: this one or one before it; empty if it is none of them."""
    while record and record.get("outputs", {}).get(file) != digest:
        record = record.get("before", {})
    return record


def git_state() -> dict[str, Any]:
    """Find the last commit that changed what results are made by, and whether there are changes since.

    Returns
    -------
    dict
        commit, dirty; None outside a git checkout.
    """
    try:
        commit = _git("log", "-1", "--format=%H", "--", *_SOURCES).strip()
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", *_SOURCES).strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(files.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Refuse to go on where figures would be drawn over by code that no commit has."""
    if git_state()["dirty"]:
        changes = _git("status", "--porcelain", "--", *_SOURCES)
        print(
            f"ERROR: uncommitted changes:\n{changes}The committed figures would name a commit that did not draw them. "
            "Commit first, or say DIRTY=1 (their footers will say +changes)",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
