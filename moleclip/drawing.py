"""Molecule -> uint8 RGB drawing, in the plain style, a randomised one, or with R-groups (paper, Methods; ESI)."""

import os
import resource
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import molecules, rasterize
from moleclip.io import chunks

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

# RDKit's layout of a large molecule can take minutes and cannot be stopped, so it runs in a process that can be.
LARGE = 150  # atoms
LAYOUT_SECONDS = 5  # of processor time

PREPARED = "_moleclip_prepared"
# Without all of these, another drawing comes back (float coordinates change 24 % of them).
_BINARY = int(Chem.PropertyPickleOptions.AllProps | Chem.PropertyPickleOptions.CoordsAsDouble)


@dataclass(frozen=True)
class Style:
    """How a molecule is drawn; None leaves the choice to RDKit.

    Attributes
    ----------
    bond_width : int
        Line width of bonds, pixels.
    font_size : int or None
        Size of atom labels, pixels.
    bond_length : float or None
        Upper limit of the drawn bond length, pixels; larger molecules are shrunk to fit anyway.
    bond_offset : float
        Distance between the lines of a multiple bond, as a fraction of the bond length.
    rotation : float
        Degrees.
    font : str or None
        One of `FONTS`.
    r_groups : bool
        Draw terminal atoms as R1..R8.
    r_layout : {"kept", "new"}
        Of the molecule with its R-groups: that of the plain drawing, so that only labels differ, or laid out anew.
    r_elements : tuple of str
        Elements whose terminal atoms are replaced.
    """

    bond_width: int = 2
    font_size: int | None = None
    bond_length: float | None = None
    bond_offset: float = 0.15
    rotation: float = 0.0
    font: str | None = None
    r_groups: bool = False
    r_layout: Literal["kept", "new"] = "kept"
    r_elements: tuple[str, ...] = tuple(R_GROUPS)


PLAIN = Style()
_WITHOUT_CARBON = tuple(element for element in R_GROUPS if element != "C")
# Drawings that data sets are trained on. The authors lay out anew, which changes a quarter to a half of them; their
# list of elements lacked carbon when the sets DHBDs-R and yield-R were added, and had it again two hours later.
# DEVIATION: "r_groups" keeps the layout, as it isolates the effect of the labels.
DRAWINGS = {
    "plain": PLAIN,
    "r_groups": Style(r_groups=True),
    "r_groups_without_carbon": Style(r_groups=True, r_elements=_WITHOUT_CARBON),
    "r_groups_new_layout": Style(r_groups=True, r_layout="new"),
    "r_groups_new_layout_without_carbon": Style(r_groups=True, r_layout="new", r_elements=_WITHOUT_CARBON),
}


def drawing_style(drawing: str) -> Style:
    """Look up a style of `DRAWINGS` by name.

    >>> drawing_style("r_groups").r_groups
    True
    """
    if drawing not in DRAWINGS:
        variants = ", ".join(list(DRAWINGS)[2:])
        raise ValueError(f"drawing={drawing!r}: expected 'plain' or 'r_groups', or one of its variants: {variants}")
    return DRAWINGS[drawing]


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
        A SMILES that cannot be read, a molecule without atoms or with too many, or one whose layout takes more than
        `LAYOUT_SECONDS`.
    """
    mol = molecules.parse(molecule) if isinstance(molecule, str) else molecules.check_size(molecule)
    if mol.HasProp(PREPARED):
        return mol
    return _read_binary(_bounded(mol)) if mol.GetNumAtoms() > LARGE else _lay_out(mol)


def _lay_out(mol: Chem.Mol) -> Chem.Mol:
    try:
        prepared = rdMolDraw2D.PrepareMolForDrawing(mol)
    except RuntimeError as error:  # a violated invariant inside RDKit
        raise ValueError(f"no 2D layout: {str(error).strip().splitlines()[0]}") from None
    prepared.SetBoolProp(PREPARED, True)
    return prepared


def _bounded(mol: Chem.Mol) -> bytes:
    """Lay out in a forked process, which the system ends when its processor time is up."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # Python warns of threads: the child calls RDKit and ends
        child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (LAYOUT_SECONDS, LAYOUT_SECONDS))
            with open(writer, "wb") as pipe:
                pipe.write(_lay_out(mol).ToBinary(_BINARY))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        binary = pipe.read()
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        if used.ru_utime + used.ru_stime < LAYOUT_SECONDS - 0.5:
            # Not the molecule's fault: next time it may be laid out.
            raise RuntimeError(f"the process that lays out was killed by signal {os.WTERMSIG(status)} (out of memory?)")
        raise ValueError(f"no 2D layout within {LAYOUT_SECONDS} s for {mol.GetNumAtoms()} atoms")
    if not binary:
        raise ValueError(f"no 2D layout for {mol.GetNumAtoms()} atoms")
    return binary


def prepare_all(smiles: Sequence[str]) -> pa.Table:
    """Prepare molecules for the store of `chunks.run`.

    Returns
    -------
    pyarrow.Table
        molecule (compressed binary form, read by `from_store`), and reason ("" unless it could not be prepared).
    """
    schema = pa.schema({"molecule": pa.large_binary(), "reason": pa.string()})
    rows: list[dict[str, object]] = []
    for text in smiles:
        try:
            rows.append({"molecule": zlib.compress(prepare(text).ToBinary(_BINARY), 1), "reason": ""})
        except ValueError as reason:
            rows.append({"molecule": None, "reason": str(reason)})
    return pa.Table.from_pylist(rows, schema)


def from_store(stored: bytes) -> Chem.Mol:
    """Read a molecule of `prepare_all` back, ready to be drawn."""
    return _read_binary(zlib.decompress(stored))


def draw(molecule: str | Chem.Mol, style: Style = PLAIN, size: int = 224) -> Image:
    """Draw a molecule.

    The same (molecule, style) gives the same pixels in any process, for one release of RDKit and matplotlib.

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
    return rasterize.rasterise(svg(prepare(molecule), style, size), size)


def svg(prepared: Chem.Mol, style: Style = PLAIN, size: int = 224) -> str:
    """Draw a molecule that `prepare` laid out, as RDKit's SVG."""
    return str(_drawn(prepared, style, size).GetDrawingText())


def atom_positions(prepared: Chem.Mol, style: Style = PLAIN, size: int = 224) -> NDArray[np.float64]:
    """Where the atoms of a molecule that `prepare` laid out are in its drawing.

    Returns
    -------
    ndarray of float64, shape [atoms, 2]
        x (to the right) and y (downwards), pixels.
    """
    canvas = _drawn(prepared, style, size)
    points = [canvas.GetDrawCoords(number) for number in range(prepared.GetNumAtoms())]
    return np.array([(point.x, point.y) for point in points])


def _drawn(prepared: Chem.Mol, style: Style, size: int) -> Any:
    canvas = rdMolDraw2D.MolDraw2DSVG(size, size)
    _apply(style, canvas.drawOptions())
    if style.r_groups:
        prepared = replace_terminal_atoms(prepared, style.r_elements)
        if style.r_layout == "new":
            prepared.RemoveAllConformers()
            for bond in prepared.GetBonds():  # else the wedges of the old layout count
                bond.SetBondDir(Chem.BondDir.NONE)
            prepared = _lay_out(prepared)
    canvas.DrawMolecule(prepared)
    canvas.FinishDrawing()
    return canvas


def replace_terminal_atoms(prepared: Chem.Mol, elements: Sequence[str] = tuple(R_GROUPS)) -> Chem.Mol:
    """Turn terminal atoms with one single bond into R1..R8, keeping the layout (paper, R-group study; ESI)."""
    mol = Chem.RWMol(prepared)
    for atom in prepared.GetAtoms():
        label = R_GROUPS.get(atom.GetSymbol())
        if (
            atom.GetSymbol() in elements
            and atom.GetDegree() == 1
            and atom.GetBonds()[0].GetBondType() == Chem.BondType.SINGLE
        ):
            group = Chem.Atom(0)
            group.SetNoImplicit(True)
            group.SetProp("_displayLabel", str(label))
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


def _read_binary(binary: bytes) -> Chem.Mol:
    return Chem.Mol(binary)  # type: ignore[call-overload, no-any-return]  # RDKit's stubs say str


def draw_all(smiles: list[str], size: int, drawing: str, workers: int) -> NDArray[np.uint8]:
    """Draw molecules in a style of `drawing_style`: uint8 [N, size, size, 3].

    Raises
    ------
    ValueError
        A molecule cannot be drawn.
    """
    style = drawing_style(drawing)
    prepared = chunks.run(prepare_all, smiles, None, max(1, workers), 500)
    for text, reason in zip(smiles, prepared["reason"].to_pylist(), strict=True):
        if reason:
            raise ValueError(f"{text}: cannot be drawn ({reason}); leave it out of the set")
    molecules = (from_store(stored) for stored in prepared["molecule"].to_pylist())
    return np.stack([draw(molecule, style, size) for molecule in molecules])
