"""Read molecules as SMILES, RDKit molecules, pictures, or files of them, and draw each for an encoder."""

import hashlib
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from moleclip import drawing, molecules
from moleclip.drawing import Image, Style
from moleclip.io import molecule_files
from moleclip.io.molecule_files import STDIN as STDIN
from moleclip.io.molecule_files import Record, Unreadable

# A molecule: SMILES, an RDKit molecule, a picture as an array or PIL image, or the path of one. None: missing.
Item: TypeAlias = "str | Chem.Mol | Image | PIL.Image.Image | Path | Unreadable | None"

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ENDINGS = ", ".join((*molecule_files.ENDINGS, *PICTURES))


def records(molecules: Any, smiles: str = "smiles") -> list[Record]:
    """List molecules that are given in any form, in their order; those of a file with the fields of their lines.

    Parameters
    ----------
    molecules : iterable of Item, array of pictures, or path
        A list, array, column or one-column table of SMILES, RDKit molecules, or pictures or paths of them; uint8
        pictures [N, H, W, 3] in one array; or the path of a file that `read` knows.
    smiles : str
        Column of the SMILES in a file.

    Raises
    ------
    TypeError, ValueError
        It is empty, a single molecule, a table of several columns, or numbers.
    FileNotFoundError
        The file does not exist.

    Examples
    --------
    >>> [record.item for record in records(["CCO", "c1ccccc1"])]
    ['CCO', 'c1ccccc1']
    """
    if isinstance(molecules, (str, Path)):
        if not _known(molecules):
            raise TypeError(f"{molecules!r}: give a list of SMILES, [{str(molecules)!r}], or a file ({ENDINGS})")
        return list(read(molecules, smiles))
    if isinstance(molecules, Chem.Mol):
        raise TypeError("X is one molecule: give a list, [molecule]")
    if isinstance(molecules, (pd.DataFrame, pd.Series)):
        molecules = molecules.to_numpy(object)
    if isinstance(molecules, np.ndarray):
        shape, pictures = molecules.shape, molecules.dtype == np.uint8
        if pictures and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))):
            raise TypeError(f"X is one picture {shape}: give a list, [picture]")
        if len(shape) == 2 and shape[1] == 1:
            molecules = molecules[:, 0]
        elif len(shape) != 1 and not (pictures and len(shape) in (3, 4)):
            raise ValueError(f"X has shape {shape}: expected one column of molecules, or uint8 pictures [N, H, W, 3]")
    found = list(molecules)
    if not found:
        raise ValueError("X holds no molecules: at least 1 is required")
    if any(isinstance(item, (int, float, complex, np.number)) and not _missing(item) for item in found):
        raise TypeError("X holds numbers: expected SMILES, RDKit molecules, or pictures")
    return list(numbered(found))


def numbered(items: Iterable[Item]) -> Iterator[Record]:
    """Make records of molecules that are from no file: they have no fields, and their rows count from 0."""
    return (Record(item, {}, row) for row, item in enumerate(items))


def _known(path: str | Path) -> bool:
    return bool(molecule_files.kind(path)) or str(path).lower().endswith(PICTURES)


def read(path: str | Path, smiles: str = "smiles") -> Iterator[Record]:
    """Read molecules from a file as `molecule_files.read` does, or from a picture, which is one molecule."""
    if not str(path).lower().endswith(PICTURES):
        yield from molecule_files.read(path, smiles).records
    elif Path(path).is_file():
        yield Record(Path(path), {"file": str(path)}, 1)
    else:
        raise FileNotFoundError(f"{path}: no such file")


def name(item: Item) -> str:
    """Name a molecule in messages and tables: its SMILES or path."""
    if isinstance(item, Chem.Mol):
        return Chem.MolToSmiles(item)
    if isinstance(item, (np.ndarray, PIL.Image.Image)):
        return "picture"
    return item.name if isinstance(item, Unreadable) else "" if _missing(item) else str(item)


def molecule(item: Item) -> Chem.Mol | None:
    """Molecule of an item as its SMILES has it, without explicit hydrogens and coordinates; None for a picture.

    Raises
    ------
    ValueError
        Why there is none.
    """
    if isinstance(item, Unreadable):
        raise ValueError(item.reason)
    if _missing(item):
        raise ValueError("missing")
    if isinstance(item, str) and not _is_file(item):
        return molecules.parse(item)
    if not isinstance(item, Chem.Mol):
        return None
    hydrogens = any(atom.GetAtomicNum() == 1 for atom in item.GetAtoms())
    if not (hydrogens or item.GetNumConformers() or item.NeedsUpdatePropertyCache()):
        return molecules.check_size(item)  # unchanged: another order of its rings would be laid out differently
    with rdBase.BlockLogs():
        try:
            # As SMILES are read. Encoders have not seen layouts that come with a molecule, perhaps in 3D.
            plain = Chem.RemoveHs(item)
        except Exception as error:  # of several kinds, for several violated rules of chemistry
            raise ValueError(str(error).strip() or type(error).__name__) from None
    plain.RemoveAllConformers()
    plain.ClearProp(drawing.PREPARED)  # its layout is gone
    return molecules.check_size(plain)


def key(item: Item) -> bytes:
    """Digest of what an item is drawn from: for a file that exists, its content."""
    if isinstance(item, Chem.Mol):
        content = item.ToBinary(int(Chem.PropertyPickleOptions.AllProps))
    elif _is_file(item) and Path(str(item)).is_file():
        content = Path(str(item)).read_bytes()
    else:
        content = pickle.dumps(item)
    return hashlib.sha256(content).digest()


def draw(item: Item, styles: Sequence[Style], size: int) -> NDArray[np.uint8]:
    """Draw a molecule in each style; a picture is taken as it is, padded and resized.

    Returns
    -------
    ndarray of uint8, shape [len(styles), size, size, 3]
        RGB.

    Raises
    ------
    ValueError
        Why it cannot be read or drawn.
    """
    found = molecule(item)
    if found is None:
        return np.stack([picture(item, size)] * len(styles))
    prepared = drawing.prepare(found)
    return np.stack([drawing.draw(prepared, style, size) for style in styles])


def draw_all(chunk: Sequence[Item], styles: Sequence[Style], size: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw molecules: uint8 [N, len(styles), size, size, 3], and for each why it could not be drawn, or ""."""
    images = np.full((len(chunk), len(styles), size, size, 3), 255, np.uint8)
    reasons = [""] * len(chunk)
    for number, item in enumerate(chunk):
        try:
            images[number] = draw(item, styles, size)
        except ValueError as error:
            reasons[number] = str(error)
    return images, reasons


def picture(item: Any, size: int) -> Image:
    """Take a picture as a drawing: padded with white to a square, also where it is transparent, and resized.

    Nothing is distorted or cut off.

    Parameters
    ----------
    item : ndarray of uint8, shape [H, W] or [H, W, 1, 3 or 4], PIL image, or path

    Returns
    -------
    ndarray of uint8, shape [size, size, 3]
        The same pixels, if the picture has this size already.

    Raises
    ------
    ValueError
        Why it cannot be used.
    """
    try:
        if isinstance(item, np.ndarray):
            item = PIL.Image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item)
        elif _is_file(item):
            item = PIL.Image.open(Path(str(item)))
            item.load()
    except (OSError, SyntaxError, TypeError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture: {error}") from None
    if not isinstance(item, PIL.Image.Image):
        raise ValueError(f"{type(item).__name__}: expected SMILES, an RDKit molecule, or a picture")
    if item.mode.startswith(("I", "F")):
        raise ValueError(f"a picture of mode {item.mode}: expected 8 bits per channel")
    white = PIL.Image.new("RGBA", item.size, "white")
    opaque = PIL.Image.alpha_composite(white, item.convert("RGBA")).convert("RGB")
    return np.array(PIL.ImageOps.pad(opaque, (size, size), color="white"))


def _is_file(item: Any) -> bool:
    return isinstance(item, Path) or (isinstance(item, str) and item.lower().endswith(PICTURES))


def _missing(item: Any) -> bool:
    """Whether there is nothing: None, NaN, or an empty text."""
    return not item.strip() if isinstance(item, str) else bool(pd.api.types.is_scalar(item) and pd.isna(item))
