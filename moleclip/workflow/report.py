"""One static site out of a profile's executed notebooks, its figures and the ledger: opens from disk, without network.

python -m moleclip.workflow.report demo
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from sphinx.application import Sphinx

from moleclip.io import files
from moleclip.plots import figures

_STYLE = """table.dataframe { border: 0; border-collapse: collapse; font-size: 80%; }
table.dataframe th, table.dataframe td { border: 0; border-bottom: 1px solid #ddd; padding: 2px 8px; }
table.dataframe th, table.dataframe td { text-align: left; vertical-align: top; }
table.dataframe td { min-width: 6em; }
table.dataframe td:last-child { min-width: 11em; overflow-wrap: anywhere; }
details { margin-bottom: 2em; }
"""

# As sphinx-build takes them. Nothing is executed, and nothing is loaded from elsewhere.
_SETTINGS: dict[str, Any] = {
    "project": "MoleCLIP notebooks",
    "html_title": "MoleCLIP notebooks",
    "html_theme": "furo",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_ipywidgets_js": {},
    # Of a widget, the picture that it comes with.
    "nb_mime_priority_overrides": [("html", "application/vnd.jupyter.widget-view+json", None)],
    "myst_enable_extensions": ["colon_fence"],
    "myst_heading_anchors": 3,
    "napoleon_google_docstring": False,
    "napoleon_use_rtype": False,
    "napoleon_use_ivar": True,  # fields of a named tuple are listed anyway
    "autodoc_typehints": "none",
    "autodoc_member_order": "bysource",
    # Headings of outputs may skip a level; names of parameters are no references.
    "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type", "ref.python"],
}


def build(profile: str, output: str | Path | None = None) -> Path:
    """Build the site of a profile.

    Parameters
    ----------
    profile : str
        Its executed notebooks are read from `runs/<profile>`, figures and ledger from `figures/`.
    output : str or Path, optional
        Folder of the site; `runs/<profile>/report` if none is given.

    Returns
    -------
    Path
        The page to open.

    Raises
    ------
    FileNotFoundError
        The profile has no executed notebook.
    ValueError
        Sphinx has warnings: a broken link, a page in no table of contents. Each is named.
    """
    runs = files.ROOT / "runs" / profile
    notebooks = sorted(runs.glob("notebooks/*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"{files.relative(runs)}/notebooks: no executed notebook; `make run PROFILE={profile}` first"
        )
    site = Path(output or runs / "report")
    with tempfile.TemporaryDirectory() as name:
        source, built = Path(name) / "source", Path(name) / "site"
        pages = _pages(profile, runs, source)
        _write(source / "index.md", _index(profile, pages))
        _write(source / "style" / "tables.css", _STYLE)
        settings = _SETTINGS | {"html_static_path": [str(source / "style")], "html_css_files": ["tables.css"]}
        with open(Path(name) / "warnings.txt", "w+") as warnings:
            Sphinx(
                source, None, built, Path(name) / "doctrees", "html", settings, status=None, warning=warnings
            ).build()
            warnings.seek(0)
            if problems := warnings.read():
                raise ValueError(f"the report of {profile} has problems:\n{problems.replace(f'{source}/', '')}")
        if site.exists():
            shutil.rmtree(site)
        shutil.copytree(built, site)
    return site / "index.html"


def _pages(profile: str, runs: Path, source: Path) -> dict[str, list[str]]:
    """Write all pages but the first; return their names by part of the site."""
    parts: dict[str, list[str]] = {"The walk": [], "One job": [], "Studies": [], "The paper": [], "Module": []}
    for notebook in sorted(runs.glob("notebooks/*.ipynb")):
        parts["The walk"].append(_copy(notebook, source / "walk"))
    for kind in ("04_finetune",):  # one of each: there may be hundreds
        for notebook in sorted(runs.glob(f"notebooks/{kind}/*/*/*.ipynb"))[:1]:
            parts["One job"].append(_copy(notebook, source / "jobs" / kind))
    for notebook in sorted(runs.glob("*/notebooks/*.ipynb")):
        parts["Studies"].append(_copy(notebook, source / "studies" / notebook.parts[-3]))
    published = files.ROOT / "runs" / "paper" / "published" / "notebooks"
    if profile != "paper":
        parts["The paper"] += [_copy(notebook, source / "paper") for notebook in sorted(published.glob("*.ipynb"))]
    ledger = files.ROOT / "figures" / "paper" / "ledger.csv"
    if ledger.is_file():
        parts["The paper"].append(_page(source / "paper" / "ledger.md", _ledger(ledger)))
    for folder in sorted({path.parent for path in (files.ROOT / "figures").rglob("*.png")}):
        if not folder.relative_to(files.ROOT / "figures").parts[0].startswith("rehearsal_"):
            name = "_".join(folder.relative_to(files.ROOT / "figures").parts)
            part = "The paper" if name == "paper" else "Studies"
            parts[part].append(_page(source / "figures" / f"{name}.md", _gallery(folder, source / "figures" / name)))
    for file in sorted((files.ROOT / "moleclip").glob("[!_]*.py")):
        text = f"# {file.stem}\n\n```{{eval-rst}}\n.. automodule:: moleclip.{file.stem}\n   :members:\n```\n"
        parts["Module"].append(_page(source / "module" / f"{file.stem}.md", text))
    return {part: [_entry(Path(page), source) for page in pages] for part, pages in parts.items() if pages}


def _entry(page: Path, source: Path) -> str:
    """Line of a table of contents; notebooks of studies have the study's name, as they are many of one title."""
    path = page.relative_to(source)
    return f"{path.parts[1]} <{path}>" if path.parts[0] == "studies" else str(path)


def _copy(notebook: Path, folder: Path) -> str:
    return _page(folder / notebook.name, notebook.read_text())


def _page(file: Path, text: str) -> str:
    _write(file, text)
    return str(file.with_suffix(""))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _index(profile: str, pages: dict[str, list[str]]) -> str:
    contents = "\n".join(
        f"```{{toctree}}\n:caption: {part}\n:maxdepth: 1\n\n{chr(10).join(names)}\n```\n"
        for part, names in pages.items()
    )
    return (
        f"# MoleCLIP notebooks: the profile {profile}\n\n"
        "Executed notebooks with their outputs, figures with what each was made from, the paper's claims checked, and "
        f"the module's functions.\n\n{contents}"
    )


def _ledger(file: Path) -> str:
    """Write the ledger as a table, one part per verdict."""
    table = pd.read_csv(file, keep_default_na=False)
    parts = []
    for verdict, rows in table.groupby("verdict", sort=False):
        shown = rows.drop(columns="verdict")
        parts.append(f"## {str(verdict).capitalize()} ({len(rows)})\n\n{shown.to_html(index=False, border=0)}\n")
    return "# The claim ledger\n\n" + "\n".join(parts)


def _gallery(folder: Path, place: Path) -> str:
    """Show the figures of a folder, each with its provenance."""
    place.mkdir(parents=True, exist_ok=True)
    return f"# Figures: {files.relative(folder)}\n\n" + "\n".join(_figures(folder, place))


def _figures(folder: Path, place: Path) -> Iterator[str]:
    for file in sorted(folder.glob("*.png")):
        shutil.copy(file, place)
        yield f"## {file.stem}\n\n![{file.stem}]({place.name}/{file.name})\n"
        record = json.dumps(figures.show(file), indent=2)
        yield f"<details><summary>What it was made from</summary>\n\n```json\n{record}\n```\n\n</details>\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="a folder of params/ that has been run")
    try:
        print(f"open {build(parser.parse_args().profile)}")
    except (FileNotFoundError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
