"""Settings of the documentation: `make docs`, or `sphinx-build -D profile=demo docs docs/_build/html`.

Nothing is executed, and no page loads anything from the network.
"""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "MoleCLIP notebooks"
html_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["_build"]
templates_path = ["_templates"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "off"
nb_merge_streams = True
# A widget needs a kernel and a script from the network: show the picture that is stored with it.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields of a named tuple are listed anyway

# Headings in a notebook's output may skip a level; names of parameters are not references.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "ref.python"]


def collect_notebooks(app: Sphinx) -> None:
    """Copy each notebook into the source: as the profile or one of its studies ran it, otherwise as committed.

    Of the many finetuning jobs, the chapter is one of the pretrained encoder.
    """
    shutil.rmtree(DOCS / "notebooks", ignore_errors=True)
    (DOCS / "notebooks").mkdir()
    for committed in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = [
            path
            for profile in dict.fromkeys((app.config.profile, "paper"))
            for name in (committed.name, f"{committed.stem}/**/*.ipynb")
            for path in sorted((ROOT / "runs" / profile).glob(f"**/notebooks/{name}"))
        ]
        executed.sort(key=lambda path: "pretrained" not in path.parts)
        shutil.copy([*executed, committed][0], DOCS / "notebooks" / committed.name)


def link_executed(app: Sphinx, page: str, source: list[str]) -> None:
    """Link to the copies: pages name the committed notebooks, which are there where they are read as files."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def skip_fields(app: Sphinx, what: str, name: str, item: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples, of which Python says only "Alias for field number 0"."""
    # scikit-learn makes requests, with references into its own documentation.
    if re.fullmatch(r"set_\w+_request", name):
        return True
    return True if (getattr(item, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app: Sphinx) -> None:
    """Remove the pages of modules that are gone, before autosummary writes those of today."""
    app.add_config_value("profile", "demo", "env")
    shutil.rmtree(DOCS / "api", ignore_errors=True)
    app.connect("builder-inited", collect_notebooks)
    app.connect("source-read", link_executed)
    app.connect("autodoc-skip-member", skip_fields)
