"""Neighbours of known embeddings; maps, on which every molecule is there with its drawing and values."""

import base64
import io
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from moleclip import datasets, drawing, metrics
from moleclip.explain import maps
from moleclip.plots import explanations, molecules

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SVG = "{http://www.w3.org/2000/svg}"


def agreement(*arguments):
    return maps.label_agreement(*arguments)[0]


def difference(embeddings, labels, count):
    """Of labels, and what chance gives."""
    line = maps.neighbours({"made": embeddings}, np.zeros(len(labels), np.int64), labels, count).iloc[0]
    return line["difference"], line["difference_chance"]


def test_nearest_against_every_cosine():
    rng = np.random.default_rng(0)
    embeddings, queries = rng.normal(size=(40, 8)), rng.normal(size=(7, 8))
    unit, asked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (embeddings, queries))
    assert np.array_equal(metrics.nearest(embeddings, 5, queries), np.argsort(-asked @ unit.T)[:, :5])
    assert np.array_equal(metrics.nearest(embeddings, 5), np.argsort(-(unit @ unit.T))[:, 1:6])
    with pytest.raises(ValueError, match="n_neighbors"):
        metrics.nearest(embeddings[:5], 5)


def test_agreement_by_hand():
    """Three classes on a circle: each molecule's two nearest are known."""
    angles = np.array([0, 1, 2, 90, 91, 180, 181, 182])
    embeddings = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)
    classes = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    found, chance = maps.label_agreement(embeddings, classes, 2)
    # Of class 1, one neighbour is its fellow and the other of another class.
    assert found == pytest.approx((3 * 1 + 2 * 0.5 + 3 * 1) / 8)
    assert chance == pytest.approx((3 * 2 / 7 + 2 * 1 / 7 + 3 * 2 / 7) / 8)


def test_length_does_not_matter():
    rng = np.random.default_rng(0)
    embeddings, classes = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 3, 40)
    scaled = embeddings * rng.uniform(0.1, 10, (40, 1)).astype(np.float32)
    assert agreement(scaled, classes, 5) == pytest.approx(agreement(embeddings, classes, 5))


def test_equal_drawings_do_not_hide_a_molecule_from_itself():
    """Of copies, which one is found first is by chance: a molecule is never its own neighbour."""
    embeddings = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    assert agreement(embeddings, np.array([0, 1, 0, 1, 0, 1, 0, 1]), 3) == pytest.approx(1 / 3)


def test_difference_by_hand():
    """Two heaps: in each, the labels of a molecule's two nearest are known."""
    embeddings = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]], np.float32)
    labels = np.array([0.0, 1.0, 2.0, 10.0, 10.0, 13.0])
    near, chance = difference(embeddings, labels, 2)
    assert near == pytest.approx(np.mean([1.5, 1, 1.5, 1.5, 1.5, 3]))
    pairs = [abs(a - b) for i, a in enumerate(labels) for j, b in enumerate(labels) if i != j]
    assert chance == pytest.approx(np.mean(pairs))


def test_molecules_without_a_label_are_no_neighbours():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.normal(size=40)
    labels[::4] = np.nan
    known = ~np.isnan(labels)
    assert difference(embeddings, labels, 3) == difference(embeddings[known], labels[known], 3)
    with pytest.raises(ValueError, match="2 molecules have a label: too few for 3 neighbours"):
        difference(embeddings[known][:2], labels[known][:2], 3)


def test_labels_that_make_the_space_are_close_there_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, np.pi / 2, 300)
    embeddings = {"circle": np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)}
    classes = (angles > np.pi / 4).astype(np.int64)
    line = maps.neighbours(embeddings, classes, angles).iloc[0]
    assert line["difference"] < 0.1 * line["difference_chance"]
    assert line["label_agreement"] > 0.95
    order = rng.permutation(300)
    line = maps.neighbours(embeddings, classes[order], angles[order]).iloc[0]
    assert line["difference"] == pytest.approx(line["difference_chance"], rel=0.1)
    assert line["label_agreement"] == pytest.approx(line["label_agreement_chance"], abs=0.1)


@pytest.fixture(scope="module")
def heaps():
    embeddings = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    embeddings[:20] += 10 * np.eye(8, dtype=np.float32)[0]
    embeddings[20:] += 10 * np.eye(8, dtype=np.float32)[1]
    return embeddings


def test_two_heaps_stay_two_heaps(heaps):
    placed = maps.plane(heaps, 0)
    assert agreement(placed - placed.mean(axis=0), np.arange(40) // 20, 5) > 0.9
    assert np.array_equal(maps.plane(heaps, 0), placed)  # bit for bit


def test_a_table_of_maps_holds_every_molecule(style):
    smiles, classes = datasets.load("nci_5k").smiles[:40], np.arange(40) % 4
    table = maps.table({"one": "small/random", "other": "small/random"}, smiles, classes, seed=0)
    rows = dict(list(table.groupby("encoder")))
    assert rows["one"]["smiles"].tolist() == list(smiles)
    assert rows["one"]["chance"].iloc[0] == pytest.approx(9 / 39)
    assert np.isfinite(table[["x", "y"]]).all(axis=None)
    assert rows["one"]["agreement"].iloc[0] == rows["other"]["agreement"].iloc[0]  # random weights have a seed
    markers = [line.get_marker() for line in molecules.maps(rows["one"]).axes[0].lines]
    assert len(set(markers)) == len(markers) == 5  # one is of the other classes, here none


def test_molecules_of_a_set():
    dataset = datasets.load("chembl2321810")
    chosen = maps.choose(dataset, count=60)
    known = dict(zip(dataset.smiles, dataset.labels[:, 0], strict=True))
    assert list(chosen.columns) == ["smiles", "activity"]
    assert [known[text] for text in chosen["smiles"]] == list(chosen["activity"])
    assert chosen["smiles"].nunique() == len(chosen) <= 60
    assert not chosen.equals(maps.choose(dataset, count=60, seed=1))


def test_of_a_finetuned_encoder_only_test_molecules():
    dataset, parts = datasets.load("chembl2321810"), ["train", "val", "test", "test"] * 10
    table = pd.DataFrame({"smiles": list(dataset.smiles[:40]), "activity": np.arange(40.0), "part": parts})
    table["canonical_smiles"] = table["smiles"]
    card = {"dataset": "chembl2321810", "label_names": ["activity"]}
    assert set(maps.choose(dataset, finetuned=(card, table))["activity"] % 4) == {2.0, 3.0}
    with pytest.raises(ValueError, match=r"was finetuned on esol \(activity\), not on chembl2321810 \(activity\)"):
        maps.choose(dataset, finetuned=({**card, "dataset": "esol"}, table))


def test_a_label_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="chembl2321810: has no label 'activty'; it has activity"):
        maps.choose(datasets.load("chembl2321810"), "activty")
    with pytest.raises(ValueError, match="nci_5k: has no label ''; it has none"):
        maps.choose(datasets.load("nci_5k"))


def test_the_most_frequent_classes_stand_out(style):
    kinds = np.arange(12) % 10
    places = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    _, ax = plt.subplots()
    explanations.classes(ax, places, kinds)
    assert sum(len(line.get_xdata()) for line in ax.lines) == 12
    assert len({line.get_marker() for line in ax.lines}) == 9  # eight stand out, two do not
    assert {"class 0", "class 1", "others"} <= set(ax.get_legend_handles_labels()[1])


MOLECULES = list(datasets.load("chembl2321810").smiles[:12])
LABELS = np.where(np.arange(12) == 3, np.nan, np.linspace(4, 9, 12))
PLACES = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def page():
    values = {"activity (log <units>)": LABELS, "note": [f"no. {number}" for number in range(12)]}
    return explanations.hover(MOLECULES, PLACES, values).data


def test_each_point_shows_its_own_molecule(page):
    svg = ElementTree.fromstring(page[page.index("<svg") :])  # noqa: S314 (made here)
    points = [mark for mark in svg.findall(f"{SVG}g") if mark.find(f"{SVG}circle") is not None]
    assert len(points) == 12
    for number, point in enumerate(points):
        shown = point.find(f"{SVG}g")
        text = "".join(span.text for span in shown.find(f"{SVG}text"))
        assert MOLECULES[number].startswith(text[:32])
        assert f"no. {number}" in text
        assert f"{LABELS[number]:.3g}" in text or number == 3
        assert ("unknown" in text) == (number == 3)
        encoded = shown.find(f"{SVG}image").get("href").removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        plain = drawing.draw(MOLECULES[number], size=explanations.SIDE)
        assert np.abs(pixels - plain).mean() < 2  # fewer colours
    centres = np.array([[float(mark.find(f"{SVG}circle").get(axis)) for axis in ("cx", "cy")] for mark in points])
    assert np.corrcoef(centres[:, 0], PLACES[:, 0])[0, 1] == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(centres[:, 1], PLACES[:, 1])[0, 1] == pytest.approx(-1, abs=1e-4)  # y of SVG is downwards


def test_it_needs_no_script_and_no_network(page):
    assert "<script" not in page
    assert {address[:5] for address in re.findall(r'(?:href|src)="([^"]*)"', page)} == {"data:"}
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 12 * 5000


def test_two_maps_on_one_page_do_not_meet(page):
    other = explanations.hover(MOLECULES, PLACES[::-1], {"activity": LABELS}).data
    first, second = (re.search(r'<svg class="(map-\w+)"', text)[1] for text in (page, other))
    assert first != second
    rules = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert all(rule.strip().startswith(f".{first} ") for rule in re.findall(r"([^{},]+)(?:,[^{}]*)?{", rules))
    assert explanations.hover(MOLECULES, PLACES[::-1], {"activity": LABELS}).data == other


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
