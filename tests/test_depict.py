"""Drawings: against RDKit's own drawing route, across processes, and within the limits of the method."""

import hashlib
import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import depict

MOLECULES = [
    "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "[Na+].O=[N+]([O-])c1cccc(c1)S(=O)(=O)[O-]",
    "C",
    "[Fe+2]",
    "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
]


def independent_drawing(smiles: str) -> np.ndarray:
    """RDKit's one-call route, which prepares the molecule itself, decoded by another library."""
    canvas = rdMolDraw2D.MolDraw2DCairo(224, 224)
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, Chem.MolFromSmiles(smiles))
    canvas.FinishDrawing()
    return np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"))


@pytest.mark.parametrize("smiles", MOLECULES)
def test_plain_drawing_is_rdkits(smiles):
    assert np.array_equal(depict.draw(smiles), independent_drawing(smiles))


def test_one_layout_serves_all_drawings():
    prepared = depict.prepare(MOLECULES[0])
    before = prepared.ToBinary()
    style = depict.random_style(np.random.default_rng(3))
    assert np.array_equal(depict.draw(prepared, style), depict.draw(MOLECULES[0], style))
    assert depict.prepare(prepared) is prepared
    depict.draw(prepared, depict.Style(r_groups=True))
    assert prepared.ToBinary() == before


def digest_of_a_drawing() -> str:
    style = depict.random_style(np.random.default_rng(7))
    return hashlib.sha256(depict.draw(MOLECULES[0], style).tobytes()).hexdigest()


def test_same_pixels_in_another_process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(digest_of_a_drawing).result() == digest_of_a_drawing()


def test_random_styles_fill_the_ranges_of_the_method():
    rng = np.random.default_rng(0)
    styles = [depict.random_style(rng) for _ in range(2000)]
    assert {style.bond_width for style in styles} == {2, 3, 4, 5}
    assert {style.font_size for style in styles} == set(range(14, 25))
    assert {style.font for style in styles} == set(depict.FONTS)
    for name, low, high in (("bond_length", 20, 100), ("bond_offset", 0.1, 0.4), ("rotation", 0, 360)):
        values = np.array([getattr(style, name) for style in styles])
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() < high


def test_there_are_21_faces_and_each_is_found():
    assert len(set(depict.FONTS)) == 21
    assert all(depict.font_path(name).endswith(".ttf") for name in depict.FONTS)


def test_a_missing_face_is_an_error_not_another_face():
    with pytest.raises(FileNotFoundError, match="ComicSans"):
        depict.draw("CCO", depict.Style(font="ComicSans"))


def test_r_groups_replace_terminal_atoms_only():
    prepared = depict.prepare("CC(Cl)(Br)CC(F)(I)CC(=O)CO")
    replaced = depict.replace_terminal_atoms(prepared)
    labels = [atom.GetProp("_displayLabel") for atom in replaced.GetAtoms() if atom.HasProp("_displayLabel")]
    assert sorted(labels) == ["R1", "R2", "R5", "R6", "R7", "R8"]
    # The ketone's oxygen is terminal too, but doubly bonded.
    assert [atom.GetSymbol() for atom in replaced.GetAtoms()].count("O") == 1
    assert replaced.GetConformer().GetPositions().tolist() == prepared.GetConformer().GetPositions().tolist()


def test_r_groups_are_black():
    def colours(image: np.ndarray) -> int:
        return int((np.ptp(image.astype(int), axis=2) > 30).sum())

    assert colours(depict.draw("FC(Cl)(Br)I")) > 50
    assert colours(depict.draw("FC(Cl)(Br)I", depict.Style(r_groups=True))) == 0


@pytest.mark.parametrize("bad", ["", "not a molecule", Chem.Mol()])
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(ValueError, match=r"no atoms|SMILES"):
        depict.draw(bad)
