"""The report opens from disk: every page loads, every figure shows, no link is broken, nothing comes from elsewhere."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moleclip.workflow import report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# Loads each page in a frame and notes the images without a width, and scripts' errors.
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
                     broken: images.filter(image => !image.naturalWidth).map(image => image.src)};
      if (!--left) document.getElementById("result").textContent = JSON.stringify(found);
    });
  };
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


@pytest.fixture(scope="module")
def site(small, tmp_path_factory):
    project = small.copy(tmp_path_factory.mktemp("report") / "project")
    command = [sys.executable, "-m", "moleclip.workflow.report", "demo"]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = project.folder / "runs" / "demo" / "report"
    assert done.stdout.splitlines()[-1] == f"open {folder}/index.html"
    return folder


def test_every_part_is_there(site):
    index = (site / "index.html").read_text()
    for title in ("Pretrain", "Draw the figures", "Finetune on a catalysis set", "Figures: figures/demo", "encoder"):
        assert title in index
    assert "data:image/png" in (site / "walk" / "09_draw_figures.html").read_text() or list(site.glob("_images/*.png"))


def test_no_link_is_broken_and_nothing_comes_from_elsewhere(site):
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
    ]
    command = [
        str(CHROMIUM),
        *flags,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--dump-dom",
        f"file://{site}/check.html",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    result = re.search(r'<pre id="result">(.*?)</pre>', shown, re.DOTALL)
    assert result, shown[:1000]
    assert result[1] != "running"
    found = json.loads(result[1])
    assert sorted(found) == sorted(pages)
    assert [page for page, state in found.items() if state["broken"] or not state["title"]] == []
    assert found["figures/demo.html"]["images"] == 5
    assert found["walk/09_draw_figures.html"]["images"] >= 5


def test_a_profile_that_has_not_run_is_named():
    with pytest.raises(FileNotFoundError, match=r"runs/nothing/notebooks: no executed notebook; `make run"):
        report.build("nothing")
