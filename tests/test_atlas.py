"""Maps to look at: every molecule is there, with its own drawing and values, and nothing is loaded from elsewhere."""

import base64
import io
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from moleclip import datasets, drawing
from moleclip.explain import atlas, latent
from moleclip.workflow import params

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made():
    smiles = list(datasets.load("chembl2321810").smiles[:12])
    labels = np.linspace(4, 9, 12)
    labels[3] = np.nan
    return atlas.Atlas(smiles, np.arange(12) % 10, labels, "activity", "log <units>")


@pytest.fixture(scope="module")
def place():
    return np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def page(made, place):
    return atlas.hover(made, place, {"note": [f"no. {number}" for number in range(12)]}).data


def svg(page):
    return ElementTree.fromstring(page[page.index("<svg") :])  # noqa: S314 (made here)


def test_each_point_shows_its_own_molecule(made, place, page):
    points = [mark for mark in svg(page).findall(f"{SVG}g") if mark.find(f"{SVG}circle") is not None]
    assert len(points) == 12
    for number, point in enumerate(points):
        shown = point.find(f"{SVG}g")
        text = "".join(span.text for span in shown.find(f"{SVG}text"))
        assert made.smiles[number].startswith(text[:32])
        assert f"no. {number}" in text
        assert ("unknown" in text) == (number == 3)
        encoded = shown.find(f"{SVG}image").get("href").removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert np.abs(pixels - drawing.draw(made.smiles[number], size=atlas.SIDE)).mean() < 2  # fewer colours
    centres = np.array([[float(mark.find(f"{SVG}circle").get(axis)) for axis in ("cx", "cy")] for mark in points])
    assert np.corrcoef(centres[:, 0], place[:, 0])[0, 1] == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(centres[:, 1], place[:, 1])[0, 1] == pytest.approx(-1, abs=1e-4)  # y of SVG is downwards


def test_it_needs_no_script_and_no_network(page):
    assert "<script" not in page
    assert {address[:5] for address in re.findall(r'(?:href|src)="([^"]*)"', page)} == {"data:"}
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 12 * 5000


def test_two_maps_on_one_page_do_not_meet(made, place, page):
    other = atlas.hover(made, place[::-1]).data
    own, theirs = (re.search(r'<svg class="(atlas-\w+)"', text)[1] for text in (page, other))
    assert own != theirs
    rules = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert all(rule.strip().startswith(f".{own} ") for rule in re.findall(r"([^{},]+)(?:,[^{}]*)?{", rules))
    assert atlas.hover(made, place[::-1]).data == other


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_molecule_that_is_pointed_at(page, tmp_path):
    """Also by the keyboard; and no other one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install -e .[dev])")
    file = tmp_path / "page.html"
    file.write_text(f"<html><head></head><body>{page}</body></html>")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.goto(f"file://{file}")

        def shown():
            marks = opened.locator(".shown").all()
            return [number for number, mark in enumerate(marks) if mark.is_visible()]

        assert shown() == []
        opened.locator("svg > g > circle").nth(4).hover()
        assert shown() == [4]
        opened.mouse.move(0, 0)
        opened.locator("svg > g").nth(7).focus()
        assert shown() == [7]
        browser.close()


def test_the_figure_shows_every_molecule_twice(made, place, style):
    places = {"one": place, "other": place[::-1]}
    embeddings = {name: np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32) for name in places}
    measures = latent.neighbours(embeddings, made.clusters, made.labels, 3)
    figure = atlas.figure(made, places, measures, 6.9)
    above, below = figure.axes[0], figure.axes[2]
    assert sum(len(line.get_xdata()) for line in above.lines) == 12
    assert len({line.get_marker() for line in above.lines}) == 9  # eight clusters stand out, two do not
    assert len(below.collections[0].get_offsets()) == 11
    assert len(below.lines[0].get_xdata()) == 1  # of unknown label
    assert f"{measures['difference'][0]:.3g} (chance" in below.get_title()


def test_molecules_of_a_set():
    p = params.read(params.EXPLORE, None, sample=60, clusters=3)
    chosen = atlas.choose(p)
    known = dict(zip(datasets.load(p.dataset).smiles, datasets.load(p.dataset).labels[:, 0], strict=True))
    assert [known[text] for text in chosen.smiles] == list(chosen.labels)
    assert len(set(chosen.smiles)) == len(chosen.smiles) <= 60
    assert set(chosen.clusters) == {0, 1, 2}
    assert (chosen.name, chosen.title) == ("activity", "activity (log units)")


class Predictor:
    """What `choose` reads of a predictor."""

    def __init__(self, dataset):
        self.label_names = ("activity",)
        self.card = {"dataset": dataset}
        table = pd.DataFrame({"smiles": list(datasets.load("chembl2321810").smiles[:40])})
        parts = ["train", "val", "test", "test"] * 10
        self.molecules = table.assign(canonical_smiles=table["smiles"], activity=np.arange(40.0), part=parts)


def test_of_a_finetuned_encoder_only_test_molecules():
    p = params.read(params.EXPLORE, None, sample=None, clusters=3, model="job")
    assert set(atlas.choose(p, Predictor("chembl2321810")).labels % 4) == {2.0, 3.0}
    with pytest.raises(ValueError, match=r"job: was finetuned on esol \(activity\), not on chembl2321810"):
        atlas.choose(p, Predictor("esol"))


def test_a_label_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="chembl2321810: has no label 'activty'; it has activity"):
        atlas.choose(params.read(params.EXPLORE, None, label="activty"))
    with pytest.raises(ValueError, match="nci_5k: has no label ''; it has none"):
        atlas.choose(params.read(params.EXPLORE, None, dataset="nci_5k"))
