"""The widget: its picture is the project's drawing, bad input is explained, and where no widget can be, a picture is.

A browser moves it in test_browser.py.
"""

import base64
import dataclasses
import io

import nbformat
import numpy as np
import pytest
from PIL import Image
from rdkit import Chem
from rdkit.Chem import Draw

from moleclip import augmentation, drawing
from moleclip.apply import explorer
from moleclip.workflow import notebooks

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
PHENOL = "Oc1ccccc1"
WIDGET, PNG = "application/vnd.jupyter.widget-view+json", "image/png"


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def picture(shown: explorer.Explorer) -> np.ndarray:
    return pixels(shown.picture.value)


def test_it_begins_with_the_plain_drawing():
    shown = explorer.Explorer(ASPIRIN, size=160)
    np.testing.assert_array_equal(picture(shown), drawing.draw(ASPIRIN, size=160))
    # RDKit's own rasteriser has its ink in the same place.
    mol = Chem.MolFromSmiles(ASPIRIN)
    reference = np.array(Draw.MolToImage(mol, size=(160, 160)).convert("L"), float)
    assert np.corrcoef(reference.ravel(), picture(shown).mean(axis=2).ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bond_width", 5),
        ("font_size", 24),
        ("bond_length", 20),
        ("bond_offset", 0.4),
        ("rotation", 90),
        ("font", "cmr10"),
        ("r_groups", True),
    ],
)
def test_each_control_changes_the_picture_to_that_style(field, value):
    shown = explorer.Explorer(ASPIRIN)
    shown.controls[field].value = value
    expected = drawing.draw(ASPIRIN, dataclasses.replace(drawing.PLAIN, **{field: value}))
    np.testing.assert_array_equal(picture(shown), expected)
    assert (expected != drawing.draw(ASPIRIN)).any()


def test_controls_are_the_fields_of_a_style():
    shown = explorer.Explorer()
    others = {"smiles", "augmentation", "seed"}
    fields = {field.name for field in dataclasses.fields(drawing.Style)} - {"r_elements"}
    assert set(shown.controls) - others == fields
    assert shown.caption == f"{ASPIRIN}: {drawing.PLAIN}, augmentation 'none', seed 0".replace("0.0,", "0,")


def test_the_browser_can_take_a_control_away_from_rdkits_choice_and_back():
    """A front end sends the place of the choice, not its value."""
    shown = explorer.Explorer(ASPIRIN)
    for name in ("font_size", "bond_length", "font"):
        shown.controls[name].set_state({"index": 1})
        assert f"{name}=None" not in shown.caption
        shown.controls[name].set_state({"index": 0})
        assert f"{name}=None" in shown.caption
    np.testing.assert_array_equal(picture(shown), drawing.draw(ASPIRIN))


def test_sliders_reach_as_far_as_the_randomised_style():
    rng = np.random.default_rng(0)
    styles = [drawing.random_style(rng) for _ in range(2000)]
    shown = explorer.Explorer()
    for field in ("bond_width", "font_size", "bond_length", "bond_offset", "rotation"):
        control, values = shown.controls[field], [getattr(style, field) for style in styles]
        choices = [value for value in getattr(control, "options", ()) if value != explorer.DEFAULT]
        low, high = (choices[0], choices[-1]) if choices else (control.min, control.max)
        step = choices[1] - choices[0] if choices else control.step
        assert low <= min(values) < low + step
        assert high - step < max(values) <= high


def test_another_smiles_keeps_the_settings():
    shown = explorer.Explorer(ASPIRIN)
    shown.controls["rotation"].value = 45
    shown.controls["smiles"].value = PHENOL
    np.testing.assert_array_equal(picture(shown), drawing.draw(PHENOL, drawing.Style(rotation=45)))


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("c1ccccc", "not a SMILES string"),
        ("", "no atoms"),
        ("F[Si](F)(F)(F)(F)F", "Explicit valence for atom # 1 Si, 6, is greater than permitted"),
        ("<b>", "not a SMILES string"),
    ],
)
def test_what_cannot_be_read_is_explained(smiles, reason):
    shown = explorer.Explorer(PHENOL)
    shown.controls["smiles"].value = smiles
    assert reason in shown.message.value
    # The old picture is there, but pale: every pixel is nearer to white, and none is dark.
    pale, before = picture(shown).astype(int), drawing.draw(PHENOL).astype(int)
    assert pale.min() > 150
    assert (pale[before < 255] > before[before < 255]).all()
    shown.controls["bond_width"].value = 4  # of nothing to draw
    assert reason in shown.message.value
    shown.controls["smiles"].value = ASPIRIN
    assert shown.message.value == ""
    np.testing.assert_array_equal(picture(shown), drawing.draw(ASPIRIN, drawing.Style(bond_width=4)))


def test_it_may_begin_with_what_cannot_be_read():
    shown = explorer.Explorer("nonsense")
    assert "not a SMILES string" in shown.message.value
    assert (picture(shown) == 255).all()


def test_no_message_is_taken_for_html(monkeypatch):
    def refused(*_):
        raise ValueError("<script>")

    monkeypatch.setattr(drawing, "draw", refused)
    shown = explorer.Explorer()
    assert "&lt;script&gt;" in shown.message.value
    assert "<script" not in shown.message.value


def test_the_seed_decides_on_the_augmentation():
    first, second = explorer.Explorer(ASPIRIN, seed=3), explorer.Explorer(ASPIRIN)
    first.controls["augmentation"].value = second.controls["augmentation"].value = "intense"
    assert (picture(first) != picture(second)).any()
    second.controls["seed"].value = 3
    np.testing.assert_array_equal(picture(first), picture(second))
    expected = augmentation.augment(drawing.draw(ASPIRIN), "intense", np.random.default_rng(3))
    np.testing.assert_array_equal(picture(first), expected)
    second.controls["augmentation"].value = "none"
    np.testing.assert_array_equal(picture(second), drawing.draw(ASPIRIN))


def test_every_front_end_finds_what_it_can_show():
    shown = explorer.Explorer(PHENOL)
    shown.controls["bond_width"].value = 4
    bundle = shown._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] == shown.model_id
    np.testing.assert_array_equal(
        pixels(base64.b64decode(bundle[PNG])), drawing.draw(PHENOL, drawing.Style(bond_width=4))
    )
    assert bundle["text/plain"].startswith(f"{PHENOL}: Style(bond_width=4")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A notebook that shows the widget."""
    cells = [
        nbformat.v4.new_markdown_cell("# Made"),
        nbformat.v4.new_code_cell(f"from moleclip.apply import explorer\nexplorer.Explorer({PHENOL!r})"),
        nbformat.v4.new_code_cell("import ipywidgets\nipywidgets.IntSlider()"),
    ]
    path = tmp_path_factory.mktemp("made") / "made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebooks.KERNEL}), path)
    return path


def test_a_run_keeps_the_picture_and_widgets_that_have_none(made, tmp_path):
    ran = nbformat.read(notebooks.run(made, tmp_path / "out.ipynb"), 4)
    (first,), (second,) = (cell.outputs for cell in ran.cells[1:])
    assert set(first.data) == {PNG, "text/plain"}
    np.testing.assert_array_equal(pixels(base64.b64decode(first.data[PNG])), drawing.draw(PHENOL))
    assert WIDGET in second.data
    assert ran.metadata.widgets
    del ran.cells[2]
    nbformat.write(ran, tmp_path / "one.ipynb")
    notebooks._keep_pictures(tmp_path / "one.ipynb")
    assert "widgets" not in nbformat.read(tmp_path / "one.ipynb", 4).metadata
