"""Drawings: against RDKit's own drawing route, across processes, and within the limits of the method."""

import hashlib
import io
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from rdkit import Chem
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import datasets, drawing, rasterize

try:
    import cairosvg
except OSError:  # the system has no libcairo2
    cairosvg = None

needs_cairo = pytest.mark.skipif(cairosvg is None, reason="needs the system's libcairo2")
needs_data = pytest.mark.skipif("MOLECLIP_DATA_DIR" not in os.environ, reason="needs MOLECLIP_DATA_DIR")

MOLECULES = [
    "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "[Na+].O=[N+]([O-])c1cccc(c1)S(=O)(=O)[O-]",
    "C",
    "[Fe+2]",
    "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
]

# Metals, dative and unspecified bonds, a radical, isotopes, a double salt, wedges, an allene, a dummy atom.
UNUSUAL = [
    "[NH3]->[Cu+2]<-[NH3]",
    "[Cl-].[Cl-].[Pt+2]",
    "CC~O",
    "C[CH2]",
    "[13CH3][2H]",
    "[Na+].[K+].[O-]C(=O)CC([O-])=O",
    "C[C@@](F)(Cl)Br",
    "CC=C=CC",
    "*CC",
    "F/C=C/F",
    "C1CCCCCCCCCCCCCCCCCCC1",
]


def rdkits_drawing(smiles: str) -> np.ndarray:
    """RDKit's one-call route with its own rasteriser, decoded by another library."""
    canvas = rdMolDraw2D.MolDraw2DCairo(224, 224)
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, Chem.MolFromSmiles(smiles))
    canvas.FinishDrawing()
    return np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"))


def authors_drawing(mol: Chem.Mol, style: drawing.Style = drawing.PLAIN) -> np.ndarray:
    """The authors' route, written anew: options by hand, RDKit's SVG rasterised by cairosvg."""
    canvas = rdMolDraw2D.MolDraw2DSVG(224, 224)
    options = canvas.drawOptions()
    options.prepareMolsBeforeDrawing = False  # a second preparation may choose other wedges
    options.bondLineWidth = style.bond_width
    options.multipleBondOffset = style.bond_offset
    options.rotate = style.rotation
    if style.font:
        options.fontFile = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{style.font}.ttf")
        options.minFontSize = options.maxFontSize = style.font_size
        options.fixedBondLength = style.bond_length
    canvas.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(mol))
    canvas.FinishDrawing()
    png = cairosvg.svg2png(bytestring=canvas.GetDrawingText().encode(), output_width=224, output_height=224)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, as a share of full scale."""
    return float(np.abs(a.astype(float) - b).mean() / 255)


@pytest.mark.parametrize("smiles", [*MOLECULES, *UNUSUAL])
def test_plain_drawing_is_rdkits(smiles):
    image = drawing.draw(smiles)
    assert (image < 128).any()
    assert difference(image, rdkits_drawing(smiles)) < 0.002


@needs_cairo
@needs_data
@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.long)])
def test_agreement_with_the_authors_route(count):
    """Molecules of ChEMBL, plain and randomised in turn."""
    smiles = datasets.clean(datasets.load("chembl_25_subset"))[0].query("heavy_atoms <= 150")["smiles"]
    rng = np.random.default_rng(0)
    differences = []
    for number, text in enumerate(smiles.sample(count, random_state=0)):
        style = drawing.random_style(rng) if number % 2 else drawing.PLAIN
        expected = authors_drawing(Chem.MolFromSmiles(text), style)
        differences.append(difference(drawing.draw(text, style), expected))
    worst = int(np.argmax(differences))
    assert differences[worst] < 0.005, worst
    assert np.mean(differences) < 0.001


# Each end of the molecule by hand: dummy atoms with the labels the method gives.
R_GROUPS = {
    "CC(C)Cc1ccc(O)cc1": "[R1]C([R1])Cc1ccc([R2])cc1",
    "NCC(=O)CS": "[R3]CC(=O)C[R4]",
    "FC(Cl)C(Br)I": "[R5]C([R6])C([R7])[R8]",
    "C#CCO": "C#CC[R2]",
}


@needs_cairo
@pytest.mark.parametrize("smiles", R_GROUPS)
def test_r_group_drawings_agree_with_those_of_a_molecule_written_by_hand(smiles):
    by_hand = Chem.MolFromSmiles(re.sub(r"\[R\d\]", "*", R_GROUPS[smiles]))
    for atom, label in zip(
        [a for a in by_hand.GetAtoms() if a.GetAtomicNum() == 0], re.findall(r"R\d", R_GROUPS[smiles]), strict=True
    ):
        atom.SetProp("_displayLabel", label)
    # The layout is the original molecule's, as one layout serves all drawings.
    original = Chem.MolFromSmiles(smiles)
    rdDepictor.Compute2DCoords(original)
    match = original.GetSubstructMatch(Chem.MolFromSmarts(re.sub(r"\[R\d\]", "*", R_GROUPS[smiles])))
    conformer = Chem.Conformer(by_hand.GetNumAtoms())
    for i, j in enumerate(match):
        conformer.SetAtomPosition(i, original.GetConformer().GetAtomPosition(j))
    by_hand.AddConformer(conformer)
    canvas = rdMolDraw2D.MolDraw2DSVG(224, 224)
    canvas.drawOptions().updateAtomPalette({0: (0.0, 0.0, 0.0)})
    canvas.DrawMolecule(by_hand)
    canvas.FinishDrawing()
    png = cairosvg.svg2png(bytestring=canvas.GetDrawingText().encode(), output_width=224, output_height=224)
    expected = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert difference(drawing.draw(smiles, drawing.Style(r_groups=True)), expected) < 0.005
    assert difference(drawing.draw(smiles), expected) > 0.005


def test_a_large_peptide_is_drawn():
    prepared = drawing.prepare("N" + "[C@@H](C)C(=O)N" * 60)
    assert prepared.GetNumAtoms() > 300
    assert (drawing.draw(prepared) < 128).any()


@pytest.mark.parametrize("smiles", ["N" + "[C@@H](Cc1ccccc1)C(=O)N" * 85, "C" * 1001, "C1CC1" * 1001, "C" * 100_000])
def test_a_molecule_that_is_too_large_is_reported_within_seconds(smiles, monkeypatch):
    monkeypatch.setattr(drawing, "LAYOUT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"no 2D layout within 1 s for 936 atoms|at most 1000|at most 5000"):
        drawing.draw(smiles)
    assert time.monotonic() - started < 30


def test_a_stored_molecule_is_drawn_alike():
    stored = drawing.prepare_all([*MOLECULES, "not a molecule"])
    assert stored["reason"].to_pylist()[:-1] == [""] * len(MOLECULES)
    assert stored["molecule"][-1].as_py() is None
    assert "SMILES" in stored["reason"][-1].as_py()
    for text, binary in zip(MOLECULES, stored["molecule"].to_pylist(), strict=False):
        for seed in range(5):
            style = drawing.random_style(np.random.default_rng(seed))
            assert np.array_equal(drawing.draw(drawing.from_store(binary), style), drawing.draw(text, style))


def test_what_the_rasteriser_does_not_know_is_refused():
    svg = "<?xml?><svg><!-- --><rect/></rect><ellipse cx='3'/></svg>"
    with pytest.raises(ValueError, match="ellipse"):
        rasterize.rasterise(svg, 224)


@pytest.mark.parametrize("point", ["1,2.5", "1.25,2.5", "1.2,2.55"])
def test_coordinates_have_one_decimal(point):
    path = f"<path d='M {point} L 3.5,4.5' style='fill:none;stroke:#000000;stroke-width:2px'/>"
    with pytest.raises(ValueError, match="one decimal"):
        rasterize.rasterise(f"<?xml?><svg><!-- --><rect/></rect>{path}</svg>", 224)


def test_one_layout_serves_all_drawings():
    prepared = drawing.prepare(MOLECULES[0])
    before = prepared.ToBinary()
    style = drawing.random_style(np.random.default_rng(3))
    assert np.array_equal(drawing.draw(prepared, style), drawing.draw(MOLECULES[0], style))
    assert drawing.prepare(prepared) is prepared
    drawing.draw(prepared, drawing.Style(r_groups=True))
    assert prepared.ToBinary() == before


def digest_of_a_drawing() -> str:
    style = drawing.random_style(np.random.default_rng(7))
    return hashlib.sha256(drawing.draw(MOLECULES[0], style).tobytes()).hexdigest()


def test_same_pixels_in_another_process():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(digest_of_a_drawing).result() == digest_of_a_drawing()


def test_random_styles_fill_the_ranges_of_the_method():
    rng = np.random.default_rng(0)
    styles = [drawing.random_style(rng) for _ in range(2000)]
    assert {style.bond_width for style in styles} == {2, 3, 4, 5}
    assert {style.font_size for style in styles} == set(range(14, 25))
    assert {style.font for style in styles} == set(drawing.FONTS)
    for name, low, high in (("bond_length", 20, 100), ("bond_offset", 0.1, 0.4), ("rotation", 0, 360)):
        values = np.array([getattr(style, name) for style in styles])
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() < high


def test_there_are_21_faces_and_each_is_found():
    assert len(set(drawing.FONTS)) == 21
    assert all(drawing.font_path(name).endswith(".ttf") for name in drawing.FONTS)


def test_a_missing_face_is_an_error_not_another_face():
    with pytest.raises(FileNotFoundError, match="ComicSans"):
        drawing.draw("CCO", drawing.Style(font="ComicSans"))


def test_r_groups_replace_terminal_atoms_only():
    prepared = drawing.prepare("CC(Cl)(Br)CC(F)(I)CC(=O)CO")
    replaced = drawing.replace_terminal_atoms(prepared)
    labels = [atom.GetProp("_displayLabel") for atom in replaced.GetAtoms() if atom.HasProp("_displayLabel")]
    assert sorted(labels) == ["R1", "R2", "R5", "R6", "R7", "R8"]
    # The ketone's oxygen is terminal too, but doubly bonded.
    assert [atom.GetSymbol() for atom in replaced.GetAtoms()].count("O") == 1
    assert replaced.GetConformer().GetPositions().tolist() == prepared.GetConformer().GetPositions().tolist()


@pytest.mark.parametrize("name", ["r_groups_new_layout", "r_groups_new_layout_without_carbon"])
def test_r_groups_laid_out_anew_as_the_authors_do(name):
    """They replace the atoms of the molecule as it was read, and prepare what comes out for drawing."""
    changed = 0
    for smiles in (
        "CC(=O)Oc1ccccc1C(=O)O",
        "C[C@H](N)C(=O)NCCCl",
        "CN1CCC[C@H]1c1cccnc1",
        "O1CC[C@@H](NC(=O)[C@@H](Cc2cc3cc(ccc3nc2N)-c2ccccc2C)C)CC1(C)C",
    ):
        mol = Chem.RWMol(Chem.MolFromSmiles(smiles))
        for atom in list(mol.GetAtoms()):
            element = atom.GetSymbol()
            wanted = element in drawing.R_GROUPS and not (element == "C" and name.endswith("without_carbon"))
            if wanted and atom.GetDegree() == 1 and atom.GetBonds()[0].GetBondType() == Chem.BondType.SINGLE:
                group = Chem.Atom(0)
                group.SetNoImplicit(True)
                group.SetProp("_displayLabel", drawing.R_GROUPS[element])
                mol.ReplaceAtom(atom.GetIdx(), group)
        expected = drawing.draw(mol.GetMol())
        found = drawing.draw(smiles, drawing.drawing_style(name))
        assert np.array_equal(found, expected), smiles
        changed += not np.array_equal(found, drawing.draw(smiles, drawing.drawing_style("r_groups")))
    assert changed


def test_r_groups_are_black():
    def colours(image: np.ndarray) -> int:
        return int((np.ptp(image.astype(int), axis=2) > 30).sum())

    assert colours(drawing.draw("FC(Cl)(Br)I")) > 50
    assert colours(drawing.draw("FC(Cl)(Br)I", drawing.Style(r_groups=True))) == 0


@pytest.mark.parametrize("bad", ["", "not a molecule", Chem.Mol()])
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(ValueError, match=r"no atoms|SMILES"):
        drawing.draw(bad)
