"""What a result was made from: data, parameters, versions, code. Records are written last and whole."""

import functools
import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from moleclip import config
from moleclip.io import downloads, files

# Results depend on the versions of these; figures on those of the second line too.
_LIBRARIES = "accelerate kneed numpy opencv-python-headless open_clip_torch pandas rdkit scikit-learn scipy timm torch"
_DRAWING = "matplotlib seaborn"


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    notebook: str
    parameters: config.Parameters

    def finish(
        self, folder: str | Path, outputs: Iterable[str | Path], inputs: Iterable[str | Path] = (), **facts: Any
    ) -> pd.DataFrame:
        """Record what was written and from what, and further facts, as `<notebook>.json` in `folder`.

        Besides what `collect` finds, the record has the command, the commit and whether the code was changed since
        (`git_state`), the versions of Python and of this project, and of figures the runs that they go back to
        (`lineage`).

        Returns
        -------
        DataFrame
            file, kB, sha256 (first 12 digits) of each output.
        """
        written, place = [Path(path) for path in outputs], Path(folder) / f"{self.notebook}.json"
        sources = list(inputs)
        record = {**collect(self.notebook, self.parameters, sources), **git_state(self.notebook), **facts}
        values = shlex.quote(self.parameters.model_dump_json())
        record["command"] = f"papermill notebooks/{self.notebook}.ipynb {self.notebook}.ipynb -k python3 -y {values}"
        record["versions"] |= {"python": platform.python_version(), "moleclip": version("moleclip")}
        if _draws(self.notebook):
            record["lineage"] = lineage(sources)
        record["outputs"] = {files.relative(path): files.sha256(path) for path in written}
        files.write_json(place, record)
        return pd.DataFrame(
            {
                "file": list(record["outputs"]),
                "kB": [round(path.stat().st_size / 1000) for path in written],
                "sha256": [digest[:12] for digest in record["outputs"].values()],
            }
        )


def start(notebook: str, parameters: config.Parameters) -> Run:
    """Open a run: go to the project's folder, send the module's log to the notebook."""
    os.chdir(files.ROOT)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("moleclip").setLevel(logging.INFO)
    pd.set_option("display.max_colwidth", 200)  # addresses, checksums and reasons are shown whole
    return Run(notebook, parameters)


def collect(notebook: str, parameters: config.Parameters, inputs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Collect what a result depends on. No commit: the same data, parameters and versions give the same record.

    Returns
    -------
    dict
        notebook, parameters, inputs (path or public address: sha256), versions.
    """
    return {
        "notebook": notebook,
        "parameters": parameters.model_dump(),
        "inputs": {downloads.address(Path(path)) or files.relative(path): files.sha256(path) for path in inputs},
        "versions": versions(notebook),
    }


def versions(notebook: str) -> dict[str, str]:
    """Versions of the libraries that the results of a notebook depend on."""
    return {name: version(name) for name in f"{_LIBRARIES} {_DRAWING if _draws(notebook) else ''}".split()}


def _draws(notebook: str) -> bool:
    """Whether figures are among what a notebook writes, not tables, encoders and models alone."""
    return notebook[:2] in ("06", "07", "09", "10")


def save_figure(figure: Figure, name: str, folder: str | Path, record: Mapping[str, Any]) -> list[Path]:
    """Write a figure as PNG and PDF with its provenance: in their metadata, in a JSON file, and in a grey footer.

    The same figure and record give the same bytes.

    Parameters
    ----------
    record : mapping
        From `collect`, with the inputs that this figure was drawn from.

    Returns
    -------
    list of Path
        The files written.
    """
    folder = Path(folder)
    margin = 0.1 / figure.get_figheight()  # inches for the footer
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, margin, 1, 1 - margin))  # type: ignore[call-arg]
    figure.text(0.995, 0.1 * margin, footer(record), ha="right", va="bottom", size=4.5, color="0.55")
    text = json.dumps(record, sort_keys=True)
    metadata = {
        "png": {"Software": None, "Description": text},
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None, "Keywords": text},
    }
    written = [folder / f"{name}.{ending}" for ending in (*metadata, "json")]
    for ending, values in metadata.items():
        draw = functools.partial(figure.savefig, format=ending, dpi=200, metadata=values)
        files.write(folder / f"{name}.{ending}", draw)
    files.write_json(folder / f"{name}.json", record)
    return written


def footer(record: Mapping[str, Any]) -> str:
    """One line on what a figure was made from; `data` and `parameters` are the first digits of a checksum."""
    parts = {
        name: hashlib.sha256(json.dumps(record[key], sort_keys=True).encode()).hexdigest()[:8]
        for name, key in (("data", "inputs"), ("parameters", "parameters"))
    }
    parts |= {name: record["versions"][name] for name in ("rdkit", "matplotlib")}
    return " | ".join([record["notebook"], *(f"{name} {value}" for name, value in parts.items())])


def lineage(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Find the runs that wrote these files, and those that wrote what they read, back to the start.

    Returns
    -------
    dict
        By path of the record: notebook, commit, dirty, parameters, inputs. A record whose checksum is not that of
        the file any more does not count. The way ends at records below `figures/`, which are kept with the code.
    """
    found: dict[str, Any] = {}
    queue = [Path(file) for file in paths]
    while queue:
        file = queue.pop(0)
        for path in sorted(file.parent.glob("[0-9][0-9]_*.json")):
            if files.relative(path) in found or not file.is_file():
                continue
            record = json.loads(path.read_text())
            if files.sha256(file) in record.get("outputs", {}).values():  # wherever it lies now
                keys = ("notebook", "commit", "dirty", "parameters", "inputs")
                found[files.relative(path)] = {key: record[key] for key in keys}
                if not files.relative(path).startswith("figures/"):
                    queue += [files.ROOT / source for source in record["inputs"]]
    return found


def git_state(*notebooks: str) -> dict[str, Any]:
    """Find the last commit of the code, and whether there are changes since: of the module or of these notebooks.

    Returns
    -------
    dict
        commit, dirty; None outside a git checkout.
    """
    try:
        commit = _git("log", "-1", "--format=%H", "--", "moleclip", "notebooks").strip()
        return {"commit": commit, "dirty": bool(uncommitted(*notebooks))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def uncommitted(*notebooks: str) -> list[str]:
    """List the files whose code no commit has: of the module, and of these notebooks.

    A notebook that was saved with outputs or other metadata has the same code.
    """
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", "moleclip").splitlines()
    found = [line[3:] for line in changed]
    for name in notebooks:
        path = files.ROOT / "notebooks" / f"{name}.ipynb"
        try:
            committed = _git("show", f"HEAD:./notebooks/{name}.ipynb")
        except subprocess.CalledProcessError:  # not committed yet
            committed = '{"cells": []}'
        if _code(path.read_text()) != _code(committed):
            found.append(files.relative(path))
    return found


def _code(notebook: str) -> list[str]:
    cells = json.loads(notebook)["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(files.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
