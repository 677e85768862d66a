"""Molecule -> uint8 RGB drawing, in the plain style, a randomised one, or with R-groups (paper, Methods; ESI)."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import datasets

Image = NDArray[np.uint8]

# The 21 faces the authors draw from; matplotlib ships each of them.
FONTS = tuple(
    [f"DejaVuSans{face}" for face in ("", "-Bold", "-BoldOblique", "-Oblique")]
    + [f"DejaVuSansMono{face}" for face in ("", "-Bold", "-BoldOblique", "-Oblique")]
    + [f"DejaVuSerif{face}" for face in ("", "-Bold", "-BoldItalic", "-Italic")]
    + [f"STIXGeneral{face}" for face in ("", "Bol", "BolIta", "Italic")]
    + ["cmb10", "cmmi10", "cmr10", "cmss10", "cmtt10"]
)

# Terminal atoms of these elements become R1..R8 (R-group robustness study).
R_GROUPS = {element: f"R{number}" for number, element in enumerate(("C", "O", "N", "S", "F", "Cl", "Br", "I"), 1)}

_PREPARED = "_moleclip_prepared"


@dataclass(frozen=True)
class Style:
    """How a molecule is drawn; None leaves RDKit's own choice.

    Attributes
    ----------
    bond_width : int
        Line width of bonds, pixels.
    font_size : int or None
        Size of atom labels, pixels.
    bond_length : float or None
        Upper limit of the drawn bond length, pixels; larger molecules are shrunk to fit anyway.
    bond_offset : float
        Distance between the lines of a multiple bond, as a share of the bond length.
    rotation : float
        Degrees.
    font : str or None
        One of `FONTS`.
    r_groups : bool
        Draw terminal atoms as R1..R8.
    """

    bond_width: int = 2
    font_size: int | None = None
    bond_length: float | None = None
    bond_offset: float = 0.15
    rotation: float = 0.0
    font: str | None = None
    r_groups: bool = False


PLAIN = Style()


def random_style(rng: np.random.Generator) -> Style:
    """Draw the style of the second view of a contrastive pair (paper, Methods: generation-level randomisation).

    Examples
    --------
    >>> random_style(np.random.default_rng(0)) == random_style(np.random.default_rng(0))
    True
    """
    return Style(
        bond_width=int(rng.integers(2, 6)),
        font_size=int(rng.integers(14, 25)),
        bond_length=20 + 80 * rng.random(),
        bond_offset=0.1 + 0.3 * rng.random(),
        rotation=360 * rng.random(),
        font=FONTS[rng.integers(len(FONTS))],
    )


def prepare(molecule: str | Chem.Mol) -> Chem.Mol:
    """Lay a molecule out once, for any number of drawings.

    Parameters
    ----------
    molecule : str or Mol
        SMILES or an RDKit molecule (not changed).

    Returns
    -------
    Mol
        With 2D coordinates, Kekule bonds and wedges: what `draw` needs to skip the costly part.

    Raises
    ------
    ValueError
        A SMILES that cannot be read, or a molecule without atoms.
    """
    mol = datasets.parse(molecule) if isinstance(molecule, str) else molecule
    if mol.HasProp(_PREPARED):
        return mol
    if mol.GetNumAtoms() == 0:
        raise ValueError("no atoms")
    prepared = rdMolDraw2D.PrepareMolForDrawing(mol)
    prepared.SetBoolProp(_PREPARED, True)
    return prepared


def draw(molecule: str | Chem.Mol, style: Style = PLAIN, size: int = 224) -> Image:
    """Draw a molecule.

    The same (molecule, style) gives the same pixels in any process, for one RDKit release.

    Parameters
    ----------
    molecule : str or Mol
        SMILES, an RDKit molecule, or the output of `prepare` (much faster for repeated drawings).
    style : Style
    size : int
        Height and width, pixels.

    Returns
    -------
    ndarray of uint8, shape [size, size, 3]
        RGB on a white background.

    Raises
    ------
    ValueError
        A SMILES that cannot be read, or a molecule without atoms.

    Examples
    --------
    >>> image = draw("c1ccccc1O")
    >>> image.shape, int(image.max())
    ((224, 224, 3), 255)
    """
    mol = prepare(molecule)
    if style.r_groups:
        mol = replace_terminal_atoms(mol)
    canvas = rdMolDraw2D.MolDraw2DCairo(size, size)
    _apply(style, canvas.drawOptions())
    canvas.DrawMolecule(mol)
    canvas.FinishDrawing()
    png = np.frombuffer(canvas.GetDrawingText(), np.uint8)
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), np.uint8)


def replace_terminal_atoms(prepared: Chem.Mol) -> Chem.Mol:
    """Turn terminal atoms with one single bond into R1..R8, keeping the layout (paper, R-group study; ESI)."""
    mol = Chem.RWMol(prepared)
    for atom in prepared.GetAtoms():
        label = R_GROUPS.get(atom.GetSymbol())
        if label and atom.GetDegree() == 1 and atom.GetBonds()[0].GetBondType() == Chem.BondType.SINGLE:
            group = Chem.Atom(0)
            group.SetNoImplicit(True)
            group.SetProp("_displayLabel", label)
            mol.ReplaceAtom(atom.GetIdx(), group)
    return mol


def _apply(style: Style, options: Any) -> None:
    options.prepareMolsBeforeDrawing = False
    options.includeMetadata = False
    options.bondLineWidth = style.bond_width
    options.multipleBondOffset = style.bond_offset
    options.rotate = style.rotation
    options.updateAtomPalette({0: (0.0, 0.0, 0.0)})
    if style.font_size is not None:
        options.minFontSize = options.maxFontSize = style.font_size
    if style.bond_length is not None:
        options.fixedBondLength = style.bond_length
    if style.font is not None:
        options.fontFile = font_path(style.font)


@cache
def font_path(name: str) -> str:
    """Path of a face of `FONTS`; RDKit would fall back silently to its own font if it were missing."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: matplotlib {matplotlib.__version__} does not ship the font {name!r}")
    return str(path)
