"""Whatever molecules come as (SMILES, RDKit molecules, tables, SDF files, pictures) -> drawings for an encoder."""

import csv
import gzip
import hashlib
import itertools
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import pandas as pd
import PIL.Image
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from moleclip import datasets, drawing, molecules
from moleclip.drawing import Image, Style


class Unreadable(NamedTuple):
    """A record of a file from which RDKit makes no molecule, and why."""

    name: str
    reason: str


# A molecule: SMILES, an RDKit molecule, a picture as an array or PIL image, or the path of one. None: missing.
Item: TypeAlias = "str | Chem.Mol | Image | PIL.Image.Image | Path | Unreadable | None"

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".smi", ".smiles", ".txt", ".sdf")  # each may end with .gz too
STDIN = "-"

_DAMAGE = (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error)
# Data fields of an SDF record: "> <name>", lines of text, an empty line.
_FIELD = re.compile(r"^>[^\n]*?<([^>\n]+)>[^\n]*\n(.*?)(?:\n[ \t]*(?:\n|\Z)|\Z)", re.MULTILINE | re.DOTALL)


class Record(NamedTuple):
    """One line of a file: its molecule, and its fields as text."""

    item: Item
    fields: dict[str, str]


def items(molecules: Any) -> list[Item]:
    """Take molecules in any form, in their order.

    Parameters
    ----------
    molecules : iterable of Item, array of pictures, or path
        A list, array, column or one-column table of SMILES, RDKit molecules, or pictures or paths of them; uint8
        pictures [N, H, W, 3] in one array; or the path of a file that `read` knows.

    Raises
    ------
    TypeError, ValueError
        It is a single molecule, a table of several columns, or numbers.
    FileNotFoundError
        The path of a file that is not there.

    Examples
    --------
    >>> items(["CCO", "c1ccccc1"])
    ['CCO', 'c1ccccc1']
    """
    if isinstance(molecules, (str, Path)):
        if not str(molecules).lower().removesuffix(".gz").endswith((*TABLES, *PICTURES)):
            raise TypeError(
                f"{molecules!r} is one text: give a list of SMILES, [{str(molecules)!r}], or the path of a file "
                f"({', '.join((*TABLES, *PICTURES))})"
            )
        return [record.item for record in read(molecules)]
    if isinstance(molecules, Chem.Mol):
        raise TypeError("X is one molecule: give a list, [molecule]")
    if isinstance(molecules, (pd.DataFrame, pd.Series)):
        molecules = molecules.to_numpy(object)
    if isinstance(molecules, np.ndarray):
        return _of_array(molecules)
    return _no_numbers(list(molecules))


def _of_array(array: NDArray[Any]) -> list[Item]:
    if array.ndim in (2, 3) and array.dtype == np.uint8 and (array.ndim == 2 or array.shape[2] in (1, 3, 4)):
        raise TypeError(f"X is one picture {array.shape}: give a list, [picture]")
    if array.ndim == 4 or (array.ndim == 3 and array.dtype != object):
        return list(array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"X has shape {array.shape}: expected one column of molecules, or pictures [N, H, W, 3]")
    return _no_numbers(list(array))


def _no_numbers(listed: list[Any]) -> list[Item]:
    if any(isinstance(item, (int, float, complex, np.number)) and not _missing(item) for item in listed):
        raise TypeError("X holds numbers, expected SMILES, RDKit molecules, or pictures")
    return listed


def read(path: str | Path, smiles: str = "smiles") -> Iterator[Record]:
    """Read molecules from a file, one at a time.

    Parameters
    ----------
    path : str or Path
        CSV with a header; SMI, a SMILES and perhaps a name a line; SDF; or a picture, which is one molecule. The first
        three may be gzipped. "-" is standard input, CSV or SMI.
    smiles : str
        Column of SMILES of a CSV file; upper and lower case are the same.

    Raises
    ------
    FileNotFoundError
    ValueError
        The ending is unknown, the column is missing, or a line has too many or too few fields; the message names it.
    """
    text = str(path)
    kind = Path(text.lower().removesuffix(".gz")).suffix
    if text != STDIN and kind not in (*TABLES, *PICTURES):
        raise ValueError(f"{path}: expected a file that ends with {', '.join((*TABLES, *PICTURES))}, or {STDIN}")
    if text != STDIN and not Path(text).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if kind in PICTURES:
        return iter([Record(Path(text), {"file": text})])
    return _read_sdf(text) if kind == ".sdf" else _read_lines(text, smiles, kind)


def _read_lines(path: str, smiles: str, kind: str) -> Iterator[Record]:
    with _opened(path) as file:
        try:
            first = next(file, "").removeprefix("\ufeff")
            lines = itertools.chain([first], file)
            named = _column(next(csv.reader([first]), []), smiles)
            # A SMILES has no comma; an extended one has them behind a blank.
            if kind == ".csv" or (path == STDIN and (named or "," in first.split(" ")[0])):
                yield from _read_csv(lines, path, smiles)
            else:
                yield from _read_smi(lines)
        except _DAMAGE as error:
            raise ValueError(f"{path}: cannot be read to its end: {error}") from None


def _read_csv(lines: Iterable[str], path: str, smiles: str) -> Iterator[Record]:
    header, rows = datasets.csv_lines(lines, path)
    column = _column(header, smiles)
    if column is None:
        raise ValueError(f"{path}: has no column {smiles!r}; it has {', '.join(map(repr, header))}")
    for _, fields in rows:
        named = dict(zip(header, fields, strict=True))
        yield Record(named[column], named)


def _opened(path: str, errors: str = "strict") -> Any:
    if path == STDIN:
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        return nullcontext(sys.stdin)
    opener: Any = gzip.open if path.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="", errors=errors)


def _column(header: list[str], smiles: str) -> str | None:
    """Find the column that is called so, if need be but for upper and lower case."""
    return next((column for column in sorted(header, key=smiles.__ne__) if column.lower() == smiles.lower()), None)


def _read_smi(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines):
        text, *names = line.split(None, 1) or [""]
        if text and not (number == 0 and text.lower() == "smiles"):
            yield Record(text, {"smiles": text, "name": "".join(names).strip()})


def _read_sdf(path: str) -> Iterator[Record]:
    columns = dict.fromkeys(["smiles", "name"])
    for block in _sdf_blocks(path):  # records may have different fields, a table has the same columns
        columns |= dict.fromkeys(field for field, _ in _FIELD.findall(block))
    for block in _sdf_blocks(path):
        item = _of_block(block)
        smiles = Chem.MolToSmiles(item) if isinstance(item, Chem.Mol) else ""
        fields = {"smiles": smiles, "name": block.partition("\n")[0].strip(), **dict(_FIELD.findall(block))}
        yield Record(item, {column: fields.get(column, "") for column in columns})


def _sdf_blocks(path: str) -> Iterator[str]:
    lines: list[str] = []
    try:
        with _opened(path, "replace") as file:  # names in other encodings are no reason to stop
            for line in file:
                text = line.rstrip("\r\n")
                if not text.startswith("$$$$"):
                    lines.append(text)
                elif lines:
                    yield "\n".join(lines)
                    lines = []
    except _DAMAGE as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}") from None
    if "".join(lines).strip():
        yield "\n".join(lines)


def _of_block(block: str) -> Item:
    """Molecule of an SDF record, or why there is none."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(block)
        if molecule is not None:
            return molecule
        unsanitized = Chem.MolFromMolBlock(block, sanitize=False)
        problems = Chem.DetectChemistryProblems(unsanitized) if unsanitized is not None else []
    return Unreadable(
        block.partition("\n")[0].strip(), problems[0].Message() if problems else "not a molecule of an SDF file"
    )


def name(item: Item) -> str:
    """Name a molecule in messages and tables: its SMILES or path."""
    if isinstance(item, Chem.Mol):
        return Chem.MolToSmiles(item)
    if isinstance(item, (np.ndarray, PIL.Image.Image)):
        return "picture"
    if isinstance(item, Unreadable):
        return item.name
    return "" if _missing(item) else str(item)


def molecule(item: Item) -> Chem.Mol | None:
    """Molecule of an item as its SMILES has it, without explicit hydrogens and coordinates; None for a picture.

    Raises
    ------
    ValueError
        Why there is none.
    """
    if isinstance(item, str) and not item.lower().endswith(PICTURES):
        return molecules.parse(item)
    if not isinstance(item, Chem.Mol):
        return None
    hydrogens = any(atom.GetAtomicNum() == 1 for atom in item.GetAtoms())
    if not (hydrogens or item.GetNumConformers() or item.NeedsUpdatePropertyCache()):
        return molecules.check_size(item)  # as it is: another order of its rings would be laid out otherwise
    with rdBase.BlockLogs():
        try:
            # As SMILES are read. A layout that came along, perhaps in 3D, is not what encoders have seen.
            plain = Chem.RemoveHs(item)
        except Exception as error:  # of several kinds, for several violated rules of chemistry
            raise ValueError(str(error).strip() or type(error).__name__) from None
    plain.RemoveAllConformers()
    return molecules.check_size(plain)


def key(item: Item) -> bytes:
    """Digest of what an item is drawn from; of a file that is there, of its content."""
    if isinstance(item, Chem.Mol):
        content = item.ToBinary(int(Chem.PropertyPickleOptions.AllProps))
    elif isinstance(item, (np.ndarray, PIL.Image.Image)):
        array = np.asarray(item if isinstance(item, np.ndarray) or item.mode == "F" else item.convert("RGBA"))
        content = f"{array.shape} {array.dtype}".encode() + array.tobytes()
    elif _is_file(item) and Path(str(item)).is_file():
        content = Path(str(item)).read_bytes()
    else:
        content = str(item).encode(errors="surrogatepass")
    return hashlib.sha256(type(item).__name__.encode() + b"\0" + content).digest()


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
    if found is not None:
        prepared = drawing.prepare(found)
        return np.stack([drawing.draw(prepared, style, size) for style in styles])
    return np.stack([square(_pixels(item), size)] * len(styles))


def draw_all(chunk: Sequence[Item], styles: Sequence[Style], size: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw some molecules: uint8 [N, len(styles), size, size, 3], and for each why it could not be drawn, or ""."""
    images = np.full((len(chunk), len(styles), size, size, 3), 255, np.uint8)
    reasons = []
    for place, item in zip(images, chunk, strict=True):
        try:
            place[:] = draw(item, styles, size)
        except ValueError as error:
            reasons.append(str(error))
        else:
            reasons.append("")
    return images, reasons


def square(pixels: Image, size: int) -> Image:
    """Pad a picture with white to a square, and resize it: nothing is distorted or cut off.

    Parameters
    ----------
    pixels : ndarray of uint8, shape [H, W, 3]

    Returns
    -------
    ndarray of uint8, shape [size, size, 3]
        The picture itself if it has this size already.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    side = max(height, width)
    canvas = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=method), np.uint8)


def _pixels(item: Any) -> Image:
    """Pixels uint8 [H, W, 3] of a picture, on white where it is transparent."""
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3) or item.shape[2:] not in ((), (1,), (3,), (4,)):
            raise ValueError(f"a {item.dtype} array {item.shape}: expected a uint8 picture [H, W], or [H, W, 3 or 4]")
        item = PIL.Image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item)
    elif _is_file(item):
        try:
            item = PIL.Image.open(Path(str(item)))
            item.load()
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ValueError(f"no picture: {error}") from None
    if not isinstance(item, PIL.Image.Image):
        raise ValueError(f"{type(item).__name__}: expected SMILES, an RDKit molecule, or a picture")
    if item.mode.startswith(("I", "F")):
        raise ValueError(f"a picture of mode {item.mode}: expected 8 bits a channel")
    white = PIL.Image.new("RGBA", item.size, "white")
    return np.array(PIL.Image.alpha_composite(white, item.convert("RGBA")).convert("RGB"))


def _is_file(item: Any) -> bool:
    return isinstance(item, Path) or (isinstance(item, str) and item.lower().endswith(PICTURES))


def _missing(item: Any) -> bool:
    """Whether there is nothing: None, NaN, or an empty text."""
    return item is None or item is pd.NA or (isinstance(item, float) and np.isnan(item)) or str(item).strip() == ""


def batched(many: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut into lists of `size`; the last may be shorter."""
    rest = iter(many)
    while batch := list(itertools.islice(rest, size)):
        yield batch
