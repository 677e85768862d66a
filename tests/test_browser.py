"""As a reader does it: JupyterLab with its token, a real browser, notebooks run from the menu, the widget moved."""

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest
import requests
from PIL import Image

from moleclip import augmentation, drawing
from moleclip.io import files
from moleclip.workflow import notebooks

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install -e .[dev])")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOTEBOOKS = sorted(path.name for path in (files.ROOT / "notebooks").glob("0[01]_*.ipynb"))
PHENOL = "Oc1ccccc1"

# Every cell is in the page, whether in view or not; nothing is saved, and no other server is asked for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

OUTPUT = ".jp-OutputArea-output"
# What goes wrong in a cell: a traceback, or a line on standard error.
WRONG = ", ".join(f'{OUTPUT}[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr"))

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


class Lab(NamedTuple):
    """A running JupyterLab and the copy of the project that it shows."""

    port: int
    token: str
    project: Path

    def url(self, path: str, token: str | None = None) -> str:
        return f"http://127.0.0.1:{self.port}/{path}" + (f"?token={token}" if token else "")

    def get(self, path: str, token: str | None = None) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # of proxies
            return session.get(self.url(path, token), allow_redirects=False, timeout=10)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab on a copy of the project; the user's own settings are neither read nor changed."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(port, secrets.token_hex(16), folder / "project")
    for name in ("moleclip", "notebooks", "params"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_*")
        shutil.copytree(files.ROOT / name, lab.project / name, ignore=ignored)
    write_failing(lab.project / "notebooks" / "failing.ipynb")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={lab.project / 'notebooks'}"]
    log = folder / "server.log"
    with open(log, "w") as lines:
        server = subprocess.Popen(command, env=environment(lab, folder), stdout=lines, stderr=subprocess.STDOUT)
    try:
        wait_for(lab, server, log)
        yield lab
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(30)
        finally:
            server.kill()


def environment(lab: Lab, folder: Path) -> dict[str, str]:
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS", "JUPYTERLAB_WORKSPACES")
    own = {f"{name}_DIR": str(folder / name.partition("_")[2].lower()) for name in places}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(lab.project), "JUPYTER_TOKEN": lab.token}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


def write_failing(path: Path) -> None:
    """Write a notebook with a line on standard error and a traceback."""
    source = "import sys\nprint('a warning', file=sys.stderr)\n1 / 0"
    cells = [nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebooks.KERNEL}), path)


def wait_for(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            lab.get("api/status", lab.token).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, lab: Lab, notebook: str):
    """A notebook in JupyterLab with its kernel ready; in the end, nothing was asked of another machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.route(lambda url: not is_here(url), lambda route: route.abort())
    workspace = Path(notebook).stem  # of its own, or the tabs of the one before would open too
    page.goto(lab.url(f"lab/workspaces/{workspace}/tree/{notebook}", lab.token))
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    yield page
    page.close()
    assert [url for url in asked if not is_here(url)] == []
    assert any(url.startswith(lab.url("api/contents")) for url in asked)
    assert errors == []


def is_here(url: str) -> bool:
    """Whether an address is on this machine; data and blobs have none."""
    return urlsplit(url).hostname in (None, "127.0.0.1")


def run_all(page) -> None:
    """Run all cells from the menu; wait until each has its number, or one has failed."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    finished = """wrong => {
        const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(node => node.textContent);
        const all = prompts.length > 0 && prompts.every(text => /^\\[\\d+\\]:$/.test(text));
        return all || document.querySelector(wrong);
    }"""
    page.wait_for_function(finished, arg=WRONG, timeout=120_000)


def wait_for_picture(page, expected: np.ndarray) -> None:
    """Wait until the widget shows these pixels, [H, W, 3]."""
    script = """async () => {
        const answer = await fetch(document.querySelector("img.widget-image").src).catch(() => null);
        return answer && [...new Uint8Array(await answer.arrayBuffer())];
    }"""
    end = time.monotonic() + 15
    shown = None
    while time.monotonic() < end:
        if png := page.evaluate(script):  # none while one picture gives way to the next
            shown = np.array(Image.open(io.BytesIO(bytes(png))))
            if np.array_equal(shown, expected):
                return
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(shown, expected)


def test_it_wants_the_token_and_listens_on_this_machine_only(lab):
    assert lab.get("lab", lab.token).status_code == 200
    refused = lab.get("lab")
    assert refused.status_code == 302
    assert urlsplit(refused.headers["Location"]).path == "/login"
    for token in (None, "0" * 32):
        assert lab.get("api/contents", token).status_code == 403
    # All of 127.* is this machine, for a server that listens on every address.
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", lab.port))


def test_a_cell_that_fails_is_seen(browser, lab):
    with opened(browser, lab, "failing.ipynb") as page:
        run_all(page)
        page.get_by_text("ZeroDivisionError").first.wait_for()
        assert page.locator(WRONG).count() == 2


@pytest.mark.parametrize("name", [NOTEBOOKS[-1], *(pytest.param(n, marks=pytest.mark.long) for n in NOTEBOOKS[:-1])])
def test_a_notebook_runs_and_its_widget_follows(browser, lab, name):
    before = (lab.project / "notebooks" / name).read_bytes()
    with opened(browser, lab, name) as page:
        run_all(page)
        assert page.locator(WRONG).all_inner_texts() == []
        page.locator("img.widget-image").scroll_into_view_if_needed()
        images = "images => images.map(image => image.complete && image.naturalWidth)"
        figures = page.locator(f"{OUTPUT} img:not(.widget-image)").evaluate_all(images)
        assert figures
        assert all(width > 100 for width in figures)
        move_the_widget(page)
        assert page.locator(WRONG).all_inner_texts() == []
    assert (lab.project / "notebooks" / name).read_bytes() == before


def move_the_widget(page) -> None:
    field = page.get_by_label("SMILES", exact=True)
    field.fill("")
    field.press_sequentially(PHENOL)  # unreadable on the way
    wait_for_picture(page, drawing.draw(PHENOL))
    page.get_by_role("slider").first.press("ArrowRight")
    wide = drawing.draw(PHENOL, drawing.Style(bond_width=3))
    wait_for_picture(page, wide)
    page.get_by_label("augmentation", exact=True).select_option("intense")
    wait_for_picture(page, augmentation.augment(wide, "intense", np.random.default_rng(0)))
    page.get_by_label("augmentation", exact=True).select_option("none")
    wait_for_picture(page, wide)
    field.fill("c1ccccc")
    page.get_by_text("Cannot be drawn: not a SMILES string").wait_for()
    field.fill("CCO")
    wait_for_picture(page, drawing.draw("CCO", drawing.Style(bond_width=3)))
    beside(page)


def beside(page) -> None:
    """The picture stands beside the controls, whose labels are whole."""
    image, slider = (page.locator(place).first.bounding_box() for place in ("img.widget-image", ".widget-slider"))
    assert image["width"] == pytest.approx(224, abs=2)
    assert slider["x"] >= image["x"] + image["width"]
    assert slider["y"] < image["y"] + image["height"]
    cut = "labels => labels.filter(l => l.scrollWidth > l.clientWidth).map(l => l.textContent)"
    assert page.locator(".jupyter-widgets .widget-label").evaluate_all(cut) == []
