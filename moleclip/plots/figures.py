"""The provenance that each figure carries: in its metadata, in a JSON file, and in a grey footer."""

import argparse
import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pypdf
from matplotlib.figure import Figure
from PIL import Image

from moleclip.io import files
from moleclip.io.files import write, write_json


def save(figure: Figure, name: str, folder: str | Path, record: Mapping[str, Any]) -> list[Path]:
    """Write a figure as PNG and PDF with its provenance: in their metadata, in a JSON file, and in a grey footer.

    The same figure and record give the same bytes.

    Parameters
    ----------
    record : mapping
        From `provenance.collect`.

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
    files = []
    for ending, values in metadata.items():
        draw = functools.partial(figure.savefig, format=ending, dpi=200, metadata=values)
        files.append(write(folder / f"{name}.{ending}", draw))
    write_json(folder / f"{name}.json", record)
    return [*files, folder / f"{name}.json"]


def footer(record: Mapping[str, Any]) -> str:
    """One line on what a figure was made from."""
    commit = (record["commit"] or "no git")[:9] + ("+changes" if record["dirty"] else "")
    versions = record["versions"]
    seed = record["parameters"].get("seed")
    parts = [record["notebook"], commit, f"rdkit {versions['rdkit']}", f"torch {versions['torch']}", f"seed {seed}"]
    return " | ".join(parts)


def show(file: str | Path) -> dict[str, Any]:
    """Read the provenance of a figure out of the file's own metadata: PNG, PDF, or the JSON file beside them.

    Raises
    ------
    ValueError
        The file carries no provenance of this project.
    """
    file = Path(file)
    if file.suffix == ".json":
        text: Any = file.read_text()
    elif file.suffix == ".pdf":
        metadata = pypdf.PdfReader(file).metadata
        text = metadata and metadata.get("/Keywords")
    else:
        with Image.open(file) as image:
            text = image.info.get("Description")
    try:
        record: dict[str, Any] = json.loads(text or "")
        return {"commit": record["commit"], **record}
    except (ValueError, KeyError):
        raise ValueError(f"{files.relative(file)}: carries no provenance") from None


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Print what a figure was made from, and the command that draws it.")
    parser.add_argument("command", choices=["show"])
    parser.add_argument("file", type=Path, help="PNG, PDF or JSON file of a figure")
    try:
        print(json.dumps(show(parser.parse_args().file), indent=2))
    except (OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
