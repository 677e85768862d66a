"""Files of molecules, one molecule at a time: spreadsheets, delimited text, SMILES, SDF, Parquet, standard input.

Nothing is guessed silently: the log names the encoding of a file, what separates its columns, and which column holds
the SMILES. If a line does not fit, an error names file and line.
"""

import codecs
import csv
import datetime
import difflib
import gzip
import io
import itertools
import logging
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import openpyxl
import pyarrow.parquet as pq
from rdkit import Chem, rdBase

log = logging.getLogger(__name__)

STDIN = "-"
TEXTS = (".csv", ".tsv", ".tab", ".txt", ".smi", ".smiles")
ENDINGS = (*TEXTS, ".sdf", ".xlsx", ".parquet")
ZIPPED = (*TEXTS, ".sdf")  # those that may end with .gz too

_PLAIN = (".txt", ".smi", ".smiles")  # a SMILES per line, unless the first line has a column of SMILES
_DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
_ABOVE = 20  # rows of a sheet, as titles, among which its header may be
_SAMPLE = 1 << 16  # bytes that are looked at to find an encoding
# Data fields of an SDF record: "> <name>", lines of text, an empty line.
_FIELD = re.compile(r"^>[^\n]*?<([^>\n]+)>[^\n]*\n(.*?)(?:\n[ \t]*(?:\n|\Z)|\Z)", re.MULTILINE | re.DOTALL)


class Unreadable(NamedTuple):
    """A record of an SDF file that RDKit cannot read, and why."""

    name: str
    reason: str


class Record(NamedTuple):
    """One molecule of a file, with the fields of its line or SDF record as text."""

    item: Any  # SMILES, RDKit molecule, `Unreadable`, or the path of a picture
    fields: dict[str, str]
    line: int  # where it ends; of an SDF or Parquet file its number


Lines: TypeAlias = Iterator[tuple[int, list[str]]]
Commas: TypeAlias = Literal["", "all", "some"]


@dataclass(frozen=True)
class MoleculeFile:
    """A file that is being read.

    Attributes
    ----------
    path : str
    columns : list of str
        Every record has a field for each.
    smiles : str
        Column of the SMILES.
    commas : {"", "all", "some"}
        Which of a column's numbers may have decimal commas: none, where commas separate the columns; all, in a text;
        or some, in a sheet, where those written as text stand between stored numbers.
    records : iterator of Record
    """

    path: str
    columns: list[str]
    smiles: str
    commas: Commas
    records: Iterator[Record]


def kind(path: str | Path) -> str:
    """Tell the ending of a file of molecules, without .gz; "" for anything else.

    >>> kind("a/My molecules.CSV.gz"), kind("esol"), kind("a.xlsx.gz")
    ('.csv', '', '')
    """
    text = str(path).lower()
    ending = Path(text.removesuffix(".gz")).suffix
    return ending if ending in (ZIPPED if text.endswith(".gz") else ENDINGS) else ""


def read(path: str | Path, smiles: str = "smiles") -> MoleculeFile:
    """Open a file of molecules; its records are read one at a time.

    Parameters
    ----------
    path : str or Path
        - .csv, .tsv, .tab: a table with a header, separated by commas, semicolons or tabs;
        - .smi, .smiles, .txt: a SMILES and perhaps a name per line, or a table whose header names a column of SMILES;
        - .xlsx: the first sheet that has a column of SMILES;
        - .sdf, .parquet;
        - "-": standard input, which is any of them but Parquet.

        Text may be gzipped, and in UTF-8, UTF-16 or cp1252.
    smiles : str
        Name of the SMILES column, in upper or lower case. "": smiles or, if there is none, the only column that holds
        SMILES; a warning names it.

    Raises
    ------
    FileNotFoundError
    ValueError
        The ending is unknown, the column is missing, or a line has too many or too few fields; the message names it.
    """
    text, ending = str(path), kind(path)
    if text != STDIN and not ending:
        sheet = text.lower().endswith((".xls", ".ods", ".numbers"))
        advice = "; save the spreadsheet as .xlsx or .csv" if sheet else ""
        raise ValueError(f"{path}: expected a file that ends with {', '.join(ENDINGS)}, or {STDIN}{advice}")
    if text != STDIN and not Path(text).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if ending == ".parquet":
        return _parquet(text, smiles)
    content, ending = _standard_input() if text == STDIN else (Path(text), ending)
    if ending == ".xlsx":
        return _spreadsheet(text, content, smiles)
    encoding = "utf-8-sig" if ending == ".sdf" else _encoding(text, content)
    if ending == ".sdf":
        return _sdf(text, content)
    return _text(text, content, ending, encoding, smiles)


def _standard_input() -> tuple[bytes, str]:
    """All of it, unzipped, and what it is: its encoding shows only at its end."""
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    given = getattr(sys.stdin, "buffer", None)
    content = given.read() if given else sys.stdin.read().encode()
    if content.startswith(b"\x1f\x8b"):
        with _whole(STDIN):
            content = gzip.decompress(content)
    if content.startswith(b"PK\x03\x04"):
        return content, ".xlsx"
    return content, ".sdf" if re.search(rb"^\$\$\$\$", content, re.MULTILINE) else ""


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Turn what the end of a damaged file raises into an error that names the file."""
    try:
        yield
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}") from None


def _bytes(content: Path | bytes) -> BinaryIO:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    opened: Any = gzip.open(content) if content.suffix.lower() == ".gz" else open(content, "rb")  # noqa: SIM115
    return opened  # type: ignore[no-any-return]


def _encoding(path: str, content: Path | bytes) -> str:
    """Tell the encoding of a text: by its mark, by its zeros (UTF-16), UTF-8 if all of it is, or else cp1252."""
    with _whole(path), closing(_bytes(content)) as file:
        block = file.read(_SAMPLE)
        if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        even, odd = block[::2], block[1::2]
        for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if len(zeros) > 1 and zeros.count(0) > 0.9 * len(zeros) and others.count(0) == 0:
                return name
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block:
                decoder.decode(block)
                block = file.read(_SAMPLE)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def _strings(path: str, content: Path | bytes, encoding: str, errors: str = "strict") -> Iterator[str]:
    """Lines of a text, with their ends."""
    with _whole(path), closing(_bytes(content)) as file:
        yield from io.TextIOWrapper(file, encoding, errors, newline="")


def _text(path: str, content: Path | bytes, ending: str, encoding: str, smiles: str) -> MoleculeFile:
    first = next(_strings(path, content, encoding), "")
    delimiter, header = _delimiter(first, smiles)
    table = ending not in (*_PLAIN, "") or _column(header, smiles) is not None
    if ending in (".txt", "") and len(header) > 1:  # a table, too, where it begins with the name of a column
        table = table or not _parsed(header[0])
    said = {"utf-8-sig": "UTF-8", "cp1252": "cp1252, as it is not UTF-8"}.get(encoding, encoding.upper())
    lines = _strings(path, content, encoding)
    if not table:
        log.info("%s: %s, a SMILES per line, and a name if there is one", path, said)
        return MoleculeFile(path, ["smiles", "name"], "smiles", "", _smi(lines))
    rows = _fields(lines, path, delimiter)
    return _table(
        path, rows, smiles, f"{said}, {_DELIMITERS[delimiter]} between columns", "" if delimiter == "," else "all"
    )


def _delimiter(first: str, smiles: str) -> tuple[str, list[str]]:
    """Find what separates the fields of a header: what shows a column of SMILES, or else the most fields."""
    found = {delimiter: next(csv.reader([first], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    # Of equal ones the last: a single column has commas.
    best = max(
        reversed(found), key=lambda delimiter: (_column(found[delimiter], smiles) is not None, len(found[delimiter]))
    )
    return best, found[best]


def _column(header: Iterable[str], smiles: str) -> str | None:
    """Find a column by its name: as it is written, or ignoring case and blanks around it."""
    smiles = smiles or "smiles"
    wanted = smiles.strip().lower()
    return next((name for name in sorted(header, key=smiles.__ne__) if name.strip().lower() == wanted), None)


def _table(path: str, rows: Lines, smiles: str, form: str, commas: Commas) -> MoleculeFile:
    """Read a table whose first row is its header."""
    _, header = next(rows, (0, []))
    if not header or len(set(header)) < len(header):
        twice = ", ".join(sorted({repr(name) for name in header if header.count(name) > 1}))
        raise ValueError(f"{path}: has no header, or one that names a column twice{f' ({twice})' if twice else ''}")
    column = _column(header, smiles)
    if column is None:
        first = list(itertools.islice(rows, 20))
        likely = _likely(header, first)
        if smiles or len(likely) != 1:
            raise ValueError(f"{path}: {_no_column(header, smiles or 'smiles', likely)}")
        column, rows = likely[0], itertools.chain(first, rows)
        log.warning("%s: has no column 'smiles'; SMILES are read from %r, which alone holds any", path, column)
    log.info("%s: %s; SMILES in %r, other columns: %s", path, form, column, _named(header, column))
    records = (Record(fields[header.index(column)], dict(zip(header, fields, strict=True)), n) for n, fields in rows)
    return MoleculeFile(path, header, column, commas, records)


def _named(header: Sequence[str], column: str) -> str:
    return ", ".join(repr(name) for name in header if name != column) or "none"


def _likely(header: Sequence[str], rows: list[tuple[int, list[str]]]) -> list[str]:
    """Columns that hold SMILES, by their first rows or their name."""
    texts = {name: [fields[n] for _, fields in rows if fields[n].strip()] for n, name in enumerate(header)}
    likely = [name for name, found in texts.items() if found and all(map(_parsed, found))]
    return likely + [name for name in header if "smiles" in name.lower() and name not in likely]


def _no_column(header: Sequence[str], smiles: str, likely: list[str]) -> str:
    """Say which columns there are, and which of them holds SMILES or has a similar name."""
    hint = f"; SMILES seem to be in {' or '.join(map(repr, likely))}: name that column" if likely else ""
    close = [] if likely else difflib.get_close_matches(smiles, header, n=1)
    hint += f"; did you mean {close[0]!r}?" if close else ""
    return f"has no column {smiles!r}; it has {', '.join(map(repr, header))}{hint}"


def _parsed(text: str) -> Any:
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(text)


def _fields(lines: Iterable[str], path: str, delimiter: str) -> Lines:
    """Read delimited text by the standard library: pandas fills or shifts rows of the wrong length in silence."""
    reader, header = csv.reader(lines, delimiter=delimiter, strict=True), list[str]()
    try:
        for number, texts in enumerate(reader):
            header = header if number else texts
            if len(texts) not in (0, len(header)):
                raise ValueError(
                    f"{path}, line {reader.line_num}: has {len(texts)} fields, the header has {len(header)}"
                    + (f" ({header[0]}): delete what is above the header" if len(header) == 1 and number == 1 else "")
                )
            if texts or not number:
                yield reader.line_num, texts
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _smi(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        text, *names = line.split(None, 1) or [""]
        if text and not (number == 1 and text.lower() == "smiles"):
            yield Record(text, {"smiles": text, "name": "".join(names).strip()}, number)


def _spreadsheet(path: str, content: Path | bytes, smiles: str) -> MoleculeFile:
    """Read the first sheet with a column of SMILES (without any, that with the most columns: to say what it has)."""

    def opened(values: bool) -> Any:
        try:
            return openpyxl.load_workbook(
                io.BytesIO(content) if isinstance(content, bytes) else content, read_only=True, data_only=values
            )
        except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
            raise ValueError(f"{path}: not an .xlsx file: {error}") from None

    with closing(opened(True)) as book:
        sheets = [sheet.title for sheet in book.worksheets]
        headers = {sheet.title: _header(sheet, smiles) for sheet in book.worksheets}
    title = max(headers, key=lambda name: (_column(headers[name][1], smiles) is not None, len(headers[name][1])))
    top = headers[title][0]

    def rows() -> Lines:
        with closing(opened(True)) as values, closing(opened(False)) as formulas:
            width = 0
            for (number, row), (_, written) in zip(_cells(values[title]), _cells(formulas[title]), strict=True):
                if number < top:
                    continue
                texts = [_as_text(value) for value in row]
                for value, formula in zip(row, written, strict=True):
                    if value is None and str(formula).startswith("="):
                        raise ValueError(
                            f"{path}, row {number}: the formula {formula!r} has no stored result; open the file in a "
                            "spreadsheet program and save it"
                        )
                while texts and not texts[-1]:
                    texts.pop()
                if not texts:
                    continue
                width = width or len(texts)
                if len(texts) > width:
                    raise ValueError(f"{path}, row {number}: has {len(texts)} fields, the header has {width}")
                yield number, texts + [""] * (width - len(texts))

    above = f", without what is above its header in row {top}" if top > 1 else ""
    others = f" of {len(sheets)} ({', '.join(map(repr, sheets))})" if len(sheets) > 1 else ""
    return _table(path, rows(), smiles, f"sheet {title!r}{others}{above}", "some")


def _header(sheet: Any, smiles: str) -> tuple[int, list[str]]:
    """Find the header of a sheet: of its first rows that with a column of SMILES, or else the first below a title."""
    filled = ((number, [*map(_as_text, row)]) for number, row in _cells(sheet) if any(row))
    rows = list(itertools.islice(filled, _ABOVE))
    named = (row for row in rows if _column(row[1], smiles) is not None)
    several = (row for row in rows if sum(map(bool, row[1])) > 1)
    return next(itertools.chain(named, several, rows), (1, []))


def _cells(sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    return enumerate(sheet.iter_rows(values_only=True), 1)


def _as_text(value: Any) -> str:
    """Text of a cell; what is true is 1."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return "" if value is None else str(value)


def _parquet(path: str, smiles: str) -> MoleculeFile:
    def rows() -> Lines:
        with pq.ParquetFile(path) as file:
            yield 0, list(file.schema_arrow.names)
            first = 1
            for batch in file.iter_batches():
                columns = [[_as_text(value) for value in column.to_pylist()] for column in batch]
                yield from enumerate(map(list, zip(*columns, strict=True)), first)
                first += len(batch)

    try:
        return _table(path, rows(), smiles, "Parquet", "")
    except OSError as error:  # of which pyarrow's are a kind
        raise ValueError(f"{path}: not a Parquet file: {error}") from None


def _sdf(path: str, content: Path | bytes) -> MoleculeFile:
    """Read SDF record by record: RDKit's suppliers give neither name nor fields of a record that they cannot read."""

    def blocks() -> Iterator[str]:
        # Names in another encoding are common in SDF files, and no reason to stop.
        lines = (line.replace("\r\n", "\n") for line in _strings(path, content, "utf-8-sig", "replace"))
        for ends, block in itertools.groupby(lines, lambda line: line.startswith("$$$$")):
            if not ends and (text := "".join(block)).strip():
                yield text

    columns = dict.fromkeys(["smiles", "name"])
    for block in blocks():  # records may have different fields, a table has the same columns
        columns |= dict.fromkeys(_sdf_fields(block))

    def records() -> Iterator[Record]:
        for number, block in enumerate(blocks(), 1):
            name, item = block.partition("\n")[0].strip(), _mol(block)
            smiles = Chem.MolToSmiles(item) if isinstance(item, Chem.Mol) else ""
            fields = {"smiles": smiles, "name": name, **_sdf_fields(block)}
            yield Record(item, {column: fields.get(column, "") for column in columns}, number)

    log.info("%s: SDF with the fields %s", path, _named(list(columns), "smiles"))
    return MoleculeFile(path, list(columns), "smiles", "", records())


def _sdf_fields(block: str) -> dict[str, str]:
    """Fields of a record; one called smiles is not its structure and gets the ending _given."""
    return {f"{field}_given" if field == "smiles" else field: text for field, text in _FIELD.findall(block)}


def _mol(block: str) -> "Chem.Mol | Unreadable":
    with rdBase.BlockLogs():
        found = Chem.MolFromMolBlock(block)
        if found is not None:
            return found
        unsanitized = Chem.MolFromMolBlock(block, sanitize=False)
        problems = Chem.DetectChemistryProblems(unsanitized) if unsanitized is not None else []
    name = block.partition("\n")[0].strip()
    return Unreadable(name, problems[0].Message() if problems else "not a molecule of an SDF file")
