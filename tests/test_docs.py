"""The documentation opens from disk: all pages load, every figure shows, no link is broken, no page loads from the net.

It shows all that is published, and lists all departures from the paper.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from moleclip.io import files

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DOCS = files.ROOT / "docs"

# Loads each page in a frame and notes images that do not show.
CHECK = """<html><body><pre id="result">running</pre><script>
const pages = PAGES, found = {};
let left = pages.length;
for (const page of pages) {
  const frame = document.createElement("iframe");
  frame.onload = () => {
    const inner = frame.contentDocument, images = [...inner.images];
    images.forEach(image => image.loading = "eager");
    Promise.all(images.map(image => image.decode().catch(() => 0))).then(() => {
      found[page] = {title: inner.title, images: images.length,
                     overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
                     broken: images.filter(image => !image.naturalWidth).map(image => image.src)};
      if (!--left) document.getElementById("result").textContent = JSON.stringify(found);
    });
  };
  frame.style.width = "1300px";
  frame.src = page;
  document.body.append(frame);
}
</script></body></html>"""


class Links(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in ("img", "script", "link", "iframe") and (values.get("src") or values.get("href")):
            self.loaded.append(values.get("src") or values["href"])


def build(project: Path, environment: dict[str, str] | None = None) -> Path:
    """Build the documentation as `make docs` does: a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "-D", "profile=demo", "docs", "site"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "site"


@pytest.fixture(scope="module")
def site(small, tmp_path_factory):
    project = small.copy(tmp_path_factory.mktemp("docs") / "project")
    generated = shutil.ignore_patterns("_build", "api", "notebooks")
    shutil.copytree(DOCS, project.folder / "docs", ignore=generated)
    shutil.copytree(files.ROOT / "figures", project.folder / "figures", dirs_exist_ok=True)
    shutil.copy(files.ROOT / "CONTRIBUTING.md", project.folder)
    return build(project.folder, project.environment)


def test_every_notebook_is_a_chapter_as_it_ran(site):
    for notebook in (files.ROOT / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / f"{notebook.stem}.html").read_text()
        # Only the notebooks of studies have not run.
        assert ("cell_output" in page) == (notebook.stem[:2] not in ("05", "06", "10")), notebook.stem


def test_every_module_has_a_page(site):
    for file in (files.ROOT / "moleclip").rglob("*.py"):
        parts = file.relative_to(files.ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        page = (site / "api" / f"{name}.html").read_text()
        assert f'id="module-{name}"' in page


def test_every_published_figure_or_its_table_is_shown():
    text = "".join(file.read_text() for file in DOCS.glob("results/*.md"))
    for file in (files.ROOT / "figures").rglob("*.png"):
        name = file.relative_to(files.ROOT)
        assert f" ../../{name}\n" in text or f" ../../{name.with_suffix('.csv')}\n" in text, name


def test_every_departure_is_listed_and_every_listed_one_is_marked():
    marked = Counter(
        {
            str(file.relative_to(files.ROOT)): count
            for folder in ("moleclip", "params")
            for file in (files.ROOT / folder).rglob("*")
            if file.suffix in (".py", ".yaml") and (count := file.read_text().count("DEVIATION:"))
        }
    )
    assert Counter(re.findall(r"`((?:moleclip|params)/[^`]+)`", (DOCS / "departures.md").read_text())) == marked


def test_no_link_is_broken_and_nothing_comes_from_the_net(site):
    pages = {file: Links(file) for file in site.rglob("*.html")}
    for file, page in pages.items():
        assert [address for address in page.loaded if re.match(r"(https?:)?//", address)] == []
        for address in page.links + page.loaded:
            path, _, anchor = address.partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (file.parent / path.partition("?")[0]).resolve() if path else file
            assert target.is_file(), f"{file.name}: {address}"
            if anchor and target in pages:
                assert anchor in pages[target].anchors, f"{file.name}: {address}"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_pages_load_and_figures_show_in_a_browser(site):
    pages = [str(file.relative_to(site)) for file in sorted(site.rglob("*.html"))]
    (site / "check.html").write_text(CHECK.replace("PAGES", json.dumps(pages)))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=600000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    command = [str(CHROMIUM), *flags, "--dump-dom", f"file://{site}/check.html"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    result = re.search(r'<pre id="result">(.*?)</pre>', shown, re.DOTALL)
    assert result, shown[:1000]
    assert result[1] != "running"
    found = json.loads(result[1])
    assert sorted(found) == sorted(pages)
    assert [page for page, state in found.items() if state["broken"] or not state["title"]] == []
    assert {page: state["overflow"] for page, state in found.items() if state["overflow"] > 0} == {}
    for page in DOCS.glob("results/*.md"):
        assert found[f"results/{page.stem}.html"]["images"] == page.read_text().count("{figure}")
    assert found["notebooks/09_draw_figures.html"]["images"] >= 5


def test_a_widget_is_shown_as_its_picture(tmp_path):
    """In a notebook that was run and saved by hand, and holds both."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    data = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2, "version_minor": 0},
        "image/png": base64.b64encode(png.getvalue()).decode(),
    }
    cell = nbformat.v4.new_code_cell("Explorer()", outputs=[nbformat.v4.new_output("display_data", data)])
    metadata = {"language_info": {"name": "python"}}
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Made"), cell], metadata=metadata)
    for folder in ("docs", "notebooks"):
        (tmp_path / folder).mkdir()
    nbformat.write(made, tmp_path / "notebooks" / "made.ipynb")
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    shutil.copytree(DOCS / "_static", tmp_path / "docs" / "_static")
    (tmp_path / "docs" / "index.md").write_text("# Index\n\n```{toctree}\nnotebooks/made\n```\n")
    page = build(tmp_path) / "notebooks" / "made.html"
    assert "widget-view" not in page.read_text()
    (source,) = re.findall(r'<img[^>]* src="([^"]*_images/[^"]*\.png)"', page.read_text())
    np.testing.assert_array_equal(np.array(Image.open(page.parent / source)), pixels)
