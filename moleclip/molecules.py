"""SMILES -> molecule, within limits; mirror images; fingerprints and descriptors."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdFingerprintGenerator

# Beyond these, a drawing of 224 pixels shows no detail, and RDKit may take minutes.
MAX_LENGTH = 5_000  # characters of a SMILES string
MAX_ATOMS = 1_000


def parse(smiles: str) -> Chem.Mol:
    """Parse a SMILES string.

    Raises
    ------
    ValueError
        Nothing can be drawn from it; the message is RDKit's reason.

    Examples
    --------
    >>> parse("CCO").GetNumAtoms()
    3
    >>> parse("F[Si](F)(F)(F)(F)F")
    Traceback (most recent call last):
    ValueError: Explicit valence for atom # 1 Si, 6, is greater than permitted
    """
    text = smiles.strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("has a blank, or another character that no SMILES string has")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text)} characters: at most {MAX_LENGTH} are read")
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text)
        if molecule is None:
            unsanitized = Chem.MolFromSmiles(text, sanitize=False)
            problems = Chem.DetectChemistryProblems(unsanitized) if unsanitized else []
            raise ValueError(problems[0].Message() if problems else "not a SMILES string")
    return check_size(molecule)


def check_size(molecule: Chem.Mol) -> Chem.Mol:
    """Return the molecule; raise ValueError if it has no atoms, or more than `MAX_ATOMS`."""
    atoms = molecule.GetNumAtoms()
    if not 0 < atoms <= MAX_ATOMS:
        raise ValueError(f"{atoms} atoms: at most {MAX_ATOMS} can be told apart" if atoms else "no atoms")
    return molecule


def mirror(smiles: str) -> str:
    """Mirror a molecule: every tetrahedral centre is inverted.

    The order of the atoms stays, so that both are laid out alike: their drawings differ in wedges only.

    Raises
    ------
    ValueError
        It is its own mirror image, as far as its configuration is known.

    Examples
    --------
    >>> mirror("C[C@H](N)C(=O)O")
    'C[C@@H](N)C(=O)O'
    """
    # The marks of other shapes, such as @SP1, have a name; a hydrogen may follow too, but a number after it cannot.
    other = re.sub(r"@@?(?!@|[A-Z]{2}\d)", lambda mark: "@" if mark[0] == "@@" else "@@", smiles)
    if other == smiles or Chem.MolToSmiles(parse(other)) == Chem.MolToSmiles(parse(smiles)):
        raise ValueError(f"{smiles}: is its own mirror image, or no stereocentre has a configuration")
    return other


def chiral(smiles: str) -> bool:
    """Whether a molecule has a mirror image that is another one, by the configuration that is known of it."""
    try:
        mirror(smiles)
    except ValueError:
        return False
    return True


def has_open_centre(smiles: str) -> bool:
    """Whether a molecule has a stereocentre whose configuration is not stated.

    >>> has_open_centre("CC(N)C(=O)O"), has_open_centre("C[C@H](N)C(=O)O"), has_open_centre("CCO")
    (True, False, False)
    """
    centres = Chem.FindMolChiralCenters(parse(smiles), includeUnassigned=True, useLegacyImplementation=False)
    return any("?" in configuration for _, configuration in centres)


def morgan(smiles: Sequence[str], counts: bool = False) -> NDArray[np.float32]:
    """Morgan fingerprints, float32 [N, 2048]: of 0 and 1 as the paper's baseline has them, or counts of environments.

    They are ECFP4, as the radius is 2.
    """
    generator = _morgan()
    make = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    return np.stack([make(_named(text)) for text in smiles]).astype(np.float32)


def _named(smiles: str) -> Chem.Mol:
    try:
        return parse(smiles)
    except ValueError as error:
        raise ValueError(f"{smiles}: cannot be read ({error}); leave it out") from None


def fingerprint(molecule: Chem.Mol) -> Any:
    """Compute the same fingerprint, of 0 and 1, as RDKit has it."""
    return _morgan().GetFingerprint(molecule)


def _morgan() -> rdFingerprintGenerator.FingerprintGenerator64:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def descriptors(smiles: Sequence[str]) -> NDArray[np.float32]:
    """All of `rdkit.Chem.Descriptors`, float32 [N, D]; NaN where one is not defined or not finite."""
    rows = [list(Descriptors.CalcMolDescriptors(_named(text), missingVal=np.nan).values()) for text in smiles]
    values = np.array(rows, np.float64)
    values[~(np.abs(values) < np.finfo(np.float32).max)] = np.nan
    return values.astype(np.float32)
