"""Read molecules as SMILES, RDKit molecules, pictures, or files of them, and draw each for an encoder."""

import csv
import gzip
import hashlib
import itertools
import pickle
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from moleclip import drawing, molecules
from moleclip.drawing import Image, Style


class Unreadable(NamedTuple):
    """A record of an SDF file that RDKit cannot read, and why."""

    name: str
    reason: str


# A molecule: SMILES, an RDKit molecule, a picture as an array or PIL image, or the path of one. None: missing.
Item: TypeAlias = "str | Chem.Mol | Image | PIL.Image.Image | Path | Unreadable | None"

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".smi", ".smiles", ".txt", ".sdf")  # each may end with .gz too
ENDINGS = ", ".join((*TABLES, *PICTURES))
STDIN = "-"

# Data fields of an SDF record: "> <name>", lines of text, an empty line.
_FIELD = re.compile(r"^>[^\n]*?<([^>\n]+)>[^\n]*\n(.*?)(?:\n[ \t]*(?:\n|\Z)|\Z)", re.MULTILINE | re.DOTALL)


class Record(NamedTuple):
    """One molecule of a file, with the fields of its line or SDF record as text."""

    item: Item
    fields: dict[str, str]


def items(molecules: Any) -> list[Item]:
    """List molecules that are given in any form, in their order.

    Parameters
    ----------
    molecules : iterable of Item, array of pictures, or path
        A list, array, column or one-column table of SMILES, RDKit molecules, or pictures or paths of them; uint8
        pictures [N, H, W, 3] in one array; or the path of a file that `read` knows.

    Raises
    ------
    TypeError, ValueError
        It is empty, a single molecule, a table of several columns, or numbers.
    FileNotFoundError
        The file does not exist.

    Examples
    --------
    >>> items(["CCO", "c1ccccc1"])
    ['CCO', 'c1ccccc1']
    """
    if isinstance(molecules, (str, Path)):
        if not _kind(molecules):
            raise TypeError(f"{molecules!r}: give a list of SMILES, [{str(molecules)!r}], or a file ({ENDINGS})")
        return [record.item for record in read(molecules)]
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
    return found


def _kind(path: str | Path) -> str:
    """Tell the ending of a file of molecules, without .gz; "" for anything else."""
    ending = Path(str(path).lower().removesuffix(".gz")).suffix
    return ending if ending in (*TABLES, *PICTURES) else ""


def read(path: str | Path, smiles: str = "smiles") -> Iterator[Record]:
    """Read molecules from a file, one at a time.

    Parameters
    ----------
    path : str or Path
        CSV with a header; SMI, a line of which is a SMILES and perhaps a name; SDF; or a picture, which is one
        molecule. The first three may be gzipped. "-" is standard input, CSV or SMI.
    smiles : str
        Name of the SMILES column in a CSV file, in upper or lower case.

    Raises
    ------
    FileNotFoundError
    ValueError
        The ending is unknown, the column is missing, or a line has too many or too few fields; the message names it.
    """
    text, kind = str(path), _kind(path)
    if text != STDIN and not kind:
        raise ValueError(f"{path}: expected a file that ends with {ENDINGS}, or {STDIN}")
    if text != STDIN and not Path(text).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return iter([Record(Path(text), {"file": text})]) if kind in PICTURES else _read(text, kind, smiles)


def _read(path: str, kind: str, smiles: str) -> Iterator[Record]:
    try:
        with _opened(path, kind) as file:
            if kind == ".sdf":
                yield from _read_sdf(file)
                return
            first = next(file, "").removeprefix("\ufeff")
            lines = itertools.chain([first], file)
            named = _column(next(csv.reader([first]), []), smiles)
            # A SMILES has no comma; an extended one has them behind a blank.
            if kind == ".csv" or (path == STDIN and (named or "," in first.split(" ")[0])):
                yield from _read_csv(lines, path, smiles)
            else:
                yield from _read_smi(lines)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}") from None


def _opened(path: str, kind: str) -> Any:
    if path == STDIN:
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        return nullcontext(sys.stdin)
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    # Names in another encoding are common in SDF files, and no reason to stop.
    return opener(path, "rt", encoding="utf-8-sig", errors="replace" if kind == ".sdf" else "strict")


def _column(header: Iterable[str], smiles: str) -> str | None:
    """Find a column by its exact name, or else ignoring upper and lower case."""
    return next((column for column in sorted(header, key=smiles.__ne__) if column.lower() == smiles.lower()), None)


def _read_csv(lines: Iterable[str], path: str, smiles: str) -> Iterator[Record]:
    """Read CSV by the standard library: pandas fills or shifts rows of the wrong length in silence."""
    reader = csv.DictReader(lines, strict=True)
    try:
        header = list(reader.fieldnames or ())
        if not header or len(set(header)) < len(header):
            raise ValueError(f"{path}: has no header, or one that names a column twice")
        column = _column(header, smiles)
        if column is None:
            raise ValueError(f"{path}: has no column {smiles!r}; it has {', '.join(map(repr, header))}")
        for fields in reader:
            count = len(fields.pop(None, ())) + sum(text is not None for text in fields.values())
            if count != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: has {count} fields, the header has {len(header)}")
            yield Record(fields[column], fields)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _read_smi(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines):
        text, *names = line.split(None, 1) or [""]
        if text and not (number == 0 and text.lower() == "smiles"):
            yield Record(text, {"smiles": text, "name": "".join(names).strip()})


def _read_sdf(file: Any) -> Iterator[Record]:
    """Read SDF record by record: RDKit's suppliers give neither name nor fields of a record that they cannot read."""
    columns = dict.fromkeys(["smiles", "name"])
    for block in _blocks(file):  # records may have different fields, a table has the same columns
        columns |= dict.fromkeys(field for field, _ in _FIELD.findall(block))
    file.seek(0)
    for block in _blocks(file):
        name = block.partition("\n")[0].strip()
        with rdBase.BlockLogs():
            item: Item = Chem.MolFromMolBlock(block)
            if item is None:
                unsanitized = Chem.MolFromMolBlock(block, sanitize=False)
                problems = Chem.DetectChemistryProblems(unsanitized) if unsanitized is not None else []
                item = Unreadable(name, problems[0].Message() if problems else "not a molecule of an SDF file")
        smiles = Chem.MolToSmiles(item) if isinstance(item, Chem.Mol) else ""
        fields = {"smiles": smiles, "name": name, **dict(_FIELD.findall(block))}
        yield Record(item, {column: fields.get(column, "") for column in columns})


def _blocks(file: Iterable[str]) -> Iterator[str]:
    for ends, lines in itertools.groupby(file, lambda line: line.startswith("$$$$")):
        if not ends and (block := "".join(lines)).strip():
            yield block


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
    if isinstance(item, Unreadable):
        raise ValueError(item.reason)
    if _missing(item):
        raise ValueError("missing")
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
