"""Molecule tables: the sets of `data.yaml` by name, your own files, and cleaning that loses no molecule."""

import dataclasses
import gzip
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from rdkit import Chem, RDConfig, rdBase

from moleclip import config
from moleclip import molecules as reading
from moleclip.io import chunks, downloads, errors, molecule_files, seeds
from moleclip.io import files as whole_files
from moleclip.io.molecule_files import Commas

log = logging.getLogger(__name__)

Task = Literal["regression", "classification", "pretraining"]

# Columns of the tables of molecules and of predictions, which no label can be called.
RESERVED = (
    *("row", "smiles", "canonical_smiles", "heavy_atoms", "duplicate_of", "part"),
    *("molecule", "problem", "nearest", "similarity"),
)

# A quantity begins with a number, perhaps after a sign such as "<" or "~" ("12 %", "<5", "4.2 +/- 0.1 eV"). A number
# before a hyphen begins a name, a date or a CAS number ("2-chlorophenol", "64-17-5").
_QUANTITY = r"\W*\d[\d.,]*(?![\d.,]|-)"

# Columns that number or name molecules, and are no labels unless they are asked for.
_IDENTIFIER = re.compile(
    r"(?:index|indices|idx|id|nr|no|num|number|row|line|entry|sample|compound|molecule|cas|cid|registry|year|date|"
    r"unnamed: \d+)(?:[ _-]?(?:index|id|nr|no|num|number))?[.#]?|#|.*[ _-]id|.*ID"
)
_UNIT = re.compile(r"(log[ _]?)?.*[(\[]([^()\[\]]+)[)\]]\s*$", re.IGNORECASE)  # at the end of a column's name
_COUNTED = 10  # rows from which on 0, 1, 2, ... or 1, 2, 3, ... count them, whatever the name

# Numbers with a decimal comma, and those that could as well be thousands.
_DECIMAL_COMMA = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"


@dataclass(frozen=True)
class Dataset:
    """Molecules as their source writes them, with labels.

    Attributes
    ----------
    name : str
    smiles : tuple of str
        One per molecule, as written in the source, readable or not (see `clean`).
    labels : ndarray of float64, shape [N, T]
        NaN where a label is missing; T is 0 for a pretraining corpus.
    label_names : tuple of str, length T
    task, metric, unit : str
        "" where a corpus has none.
    split : {"random", "scaffold"}
        The split that its published scores are for.
    holdout : float
        Fraction of the molecules in the validation set, and again in the test set.
    margin : float
        Difference of test scores, in their unit, below which two models serve equally well: our judgement, to be able
        to call models equivalent. NaN where none is stated.
    reference : str
        First publication of the data.
    lines : tuple of int
        Where each molecule is in a file of your own, as people count: its line, row of the sheet, or record.
    """

    name: str
    smiles: tuple[str, ...]
    labels: NDArray[np.float64] = field(repr=False)
    label_names: tuple[str, ...] = ()
    task: Task = "pretraining"
    metric: str = ""
    unit: str = ""
    split: str = "random"
    holdout: float = 0.1
    margin: float = np.nan
    reference: str = ""
    lines: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        expected = (len(self.smiles), len(self.label_names))
        if self.labels.shape != expected:
            raise ValueError(f"{self.name}: labels have shape {self.labels.shape}, expected {expected}")

    def __len__(self) -> int:
        return len(self.smiles)

    def place(self, row: int) -> str:
        """Say where a molecule is, for messages."""
        return f"{self.name}, {self.line(row)}"

    def line(self, row: int) -> str:
        """Say where in its set a molecule is: by the line of its file, if it is from one."""
        return f"line {self.lines[row]}" if self.lines else f"row {row}"


def names() -> list[str]:
    """Names that `load` knows.

    >>> names()[:3]
    ['nci_5k', 'chembl2321810', 'bace']
    """
    return [name for name, entry in downloads.table().items() if "molecules" in entry]


def registry() -> pd.DataFrame:
    """List what is known about each data set, without reading it.

    Returns
    -------
    DataFrame
        set, molecules (how many, readable or not), task, metric, unit, split, holdout, margin, reference, labels, and
        of its file: columns, licence, url, sha256, bytes.
    """
    defaults = {entry.name: entry.default for entry in dataclasses.fields(Dataset)}
    defaults |= {"reference": f"rdkit {rdBase.rdkitVersion}", "url": "inside rdkit", "sha256": "", "size": None}
    rows = []
    for name in names():
        file = downloads.known().get(name)
        known = {**defaults, **(dataclasses.asdict(file) if file else {}), **downloads.table()[name]}
        known |= {"set": name, "labels": ", ".join(known["label_names"]), "bytes": known["size"]}
        rows.append({**known, "sha256": known["sha256"] or ""})
    columns = ["set", "molecules", "task", "metric", "unit", "split", "holdout", "margin", "reference", "labels"]
    return pd.DataFrame(rows)[[*columns, "columns", "licence", "url", "sha256", "bytes"]].convert_dtypes()


def load(
    name: str, sha256: str | None = None, smiles: str = "smiles", labels: Sequence[str] | Literal["all"] | None = None
) -> Dataset:
    """Load a data set by name, or a file of molecules.

    Parameters
    ----------
    name : str
        One of `names`, or the path of a file (see `find`). "nci_5k" (the first 4,999 compounds of the NCI database)
        and "chembl2321810" (one chemical series with measured activities) ship inside the rdkit package; the paper's
        sets are downloaded once, or read from the folder that MOLECLIP_DATA_DIR names; "moses" is part of the package
        molsets.
    sha256 : str, optional
        Checksum of a file that has none in `data.yaml` yet ("chembl_25").
    smiles, labels
        Of a file: see `read_table`; a corpus needs no labels, `labels=[]`. Of a set by name, `labels` may name some of
        its labels.

    Raises
    ------
    KeyError
        The name is unknown; the message lists the known ones.
    FileNotFoundError
        The installed rdkit does not ship the file, or there is none at that path.
    ValueError
        The file cannot be read as a table, its labels are not clear, or the set has no such label.
    DataError
        The file of a set is damaged, or can be neither found nor downloaded.
    """
    if path := find(name):
        return read_table(path, smiles, labels)
    found = _by_name(name, sha256)
    if not labels or labels == "all":
        return found
    if unknown := [label for label in labels if label not in found.label_names]:
        near = errors.nearest(unknown[0], list(found.label_names))
        raise ValueError(f"{name}: has no label {unknown[0]!r}{near}")
    columns = [found.label_names.index(label) for label in labels]
    return dataclasses.replace(found, labels=found.labels[:, columns], label_names=tuple(labels))


def _by_name(name: str, sha256: str | None) -> Dataset:
    if name not in names():
        raise KeyError(f"unknown data set {name!r}: known are {', '.join(names())}")
    entry = downloads.table()[name]
    known = {key.name: entry[key.name] for key in dataclasses.fields(Dataset) if key.name in entry}
    known["label_names"] = tuple(known.get("label_names", ()))
    if name == "chembl2321810":
        return Dataset(name, *_read_series(), **known)
    paths = _files(name, sha256) or [_shipped(RDConfig.RDDataDir, "NCI/first_5K.smi")]
    if known["label_names"]:
        # By position: headers vary, and one field holds all labels of a molecule.
        table = pd.read_csv(paths[0], dtype=str)
        return Dataset(
            name, tuple(table.iloc[:, 1]), np.array([*map(str.split, table.iloc[:, 2])], np.float64), **known
        )
    found = tuple(text for path in paths for text in _read_smiles(path))
    return Dataset(name, found, np.empty((len(found), 0)), **known)


def find(source: str) -> Path | None:
    """Find a file of molecules: at its path, in the folder of the notebooks, or in the one of MOLECLIP_DATA_DIR.

    Parameters
    ----------
    source : str
        A path with an ending of `molecule_files`. Anything else is the name of a data set, and None is returned.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    if not molecule_files.kind(source):
        return None
    # JupyterLab puts what is uploaded beside the notebooks.
    folders = [Path(), whole_files.ROOT / "notebooks", Path(os.environ.get("MOLECLIP_DATA_DIR") or ".")]
    found = next((folder / source for folder in folders if (folder / source).is_file()), None)
    if found is None:
        there = [path.name for folder in folders for path in folder.glob("*") if molecule_files.kind(path)]
        raise FileNotFoundError(
            f"{source}: no such file in {Path.cwd()}, in the folder of the notebooks, or in the one that "
            f"MOLECLIP_DATA_DIR names{errors.nearest(Path(source).name, there)}"
        )
    return found


def short_name(source: str) -> str:
    """Name of a data set, or that of a file without its folder and ending.

    >>> short_name("moses"), short_name("corpora/mine.smi.gz")
    ('moses', 'mine')
    """
    return Path(source).name.partition(".")[0]


def _files(name: str, sha256: str | None = None) -> list[Path]:
    """Files of a data set, fetched; none where it ships inside rdkit."""
    parts = downloads.table()[name].get("parts")
    if parts and not downloads.mirrored(name):
        return [downloads.fetch(part) for part in parts]
    return [downloads.fetch(name, sha256)] if name in downloads.known() else []


def _read_smiles(path: Path) -> Iterator[str]:
    """SMILES of a corpus file: the first field of a line, or the one that the header calls SMILES."""
    try:
        with gzip.open(path, "rt", encoding="ascii") if path.suffix == ".gz" else open(path, encoding="ascii") as file:
            first = file.readline().split()
            headers = [number for number, text in enumerate(first) if text.lower().endswith("smiles")]
            position = headers[0] if headers else 0
            if not headers:
                yield first[0]
            for number, line in enumerate(file, 2):
                texts = line.split()
                if len(texts) != len(first):
                    raise errors.DataError(f"{path}, line {number}: has {len(texts)} fields, expected {len(first)}")
                yield texts[position]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise errors.DataError(f"{path}: damaged or incomplete ({error}); delete it to download it again") from None


def _read_series() -> tuple[tuple[str, ...], NDArray[np.float64]]:
    folder = "FreeWilson/data"
    lines = _shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810.smi").read_text().splitlines()
    smiles, keys = zip(*(line.split() for line in lines), strict=True)
    activity = pd.read_csv(_shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810_act.csv"), dtype={"Name": str})
    return smiles, activity.set_index("Name")["Act"].reindex(list(keys)).to_numpy(np.float64)[:, None]


def _shipped(folder: str, path: str) -> Path:
    file = Path(folder) / path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: rdkit {rdBase.rdkitVersion} does not ship this file; install the rdkit of requirements.lock"
        )
    return file


def read_table(
    path: str | Path, smiles: str = "smiles", labels: Sequence[str] | Literal["all"] | None = None
) -> Dataset:
    """Read your own molecules.

    Parameters
    ----------
    path : str or Path
        A file that `molecule_files.read` knows, such as .csv, .xlsx, .sdf or .smi.
    smiles : str
        Name of the column of SMILES, in upper or lower case. A corpus (`labels` is `[]` or "all") may have another: if
        there is no column "smiles", the only one that holds SMILES is taken, with a warning.
    labels : sequence of str or "all", optional
        Names of the label columns; by default the one column that holds numbers. `[]`: none; "all": each that does.
        Empty fields are missing labels. Labels that are all 0 or 1 make a classification task, others a regression,
        whose unit is what ends the name of a single label in parentheses: "ddG (kcal/mol)".

    Raises
    ------
    ValueError
        A column is missing; a label has a name of `RESERVED`, or is not a finite number; or labels are not named, and
        several columns hold numbers, or one holds quantities that are not plain numbers. The message names column, line
        and text.
    """
    corpus = labels == [] or labels == "all"
    file = molecule_files.read(path, "" if corpus and smiles == "smiles" else smiles)
    texts, fields, lines = [], [], []
    for item, given, line in file.records:
        if isinstance(item, molecule_files.Unreadable):
            log.warning("%s, record %d (%s): cannot be read: %s", path, line, item.name, item.reason)
        texts.append(given[file.smiles])
        fields.append([] if labels == [] else list(given.values()))
        lines.append(line)
    table = pd.DataFrame(fields, index=lines, columns=[] if labels == [] else file.columns, dtype=str)
    table = table.drop(columns=file.smiles, errors="ignore")
    if labels is None or labels == "all":
        chosen = _label_columns(path, table, file.commas, labels == "all")
    else:
        chosen = list(labels)
    for name in chosen:
        if name not in table:
            raise ValueError(
                f"{path}: has no column {name!r} of labels{errors.nearest(name, [str(column) for column in table])}"
            )
        if chosen.count(name) > 1:
            raise ValueError(f"{path}: label {name!r} is named twice")
        if name in RESERVED:
            raise ValueError(
                f"{path}: {name!r} cannot be the name of a label: tables of results use it; rename the column"
            )
        if _identifies(table[name]):
            log.warning("%s: column %r looks like a row number or an identifier: should it be a label?", path, name)
    values = np.array([_numbers(path, table[name], file.commas) for name in chosen]).reshape(len(chosen), len(texts)).T
    known = values[~np.isnan(values)]
    classes = bool(known.size) and bool(np.isin(known, (0, 1)).all())
    task: tuple[Task, str] = ("classification", "ROC-AUC") if classes else ("regression", "MAE")
    task = task if chosen else ("pretraining", "")
    found = _UNIT.match(chosen[0]) if len(chosen) == 1 and not classes else None
    unit = f"{'log ' if found[1] and not found[2].startswith('log') else ''}{found[2]}" if found else ""
    dataset = Dataset(short_name(str(path)), tuple(texts), values, tuple(chosen), *task)
    return dataclasses.replace(dataset, unit=unit, lines=tuple(lines))


def column(source: str | Path, name: str, smiles: str = "smiles") -> list[str]:
    """Read one column of your own file, as text, with a field for each molecule of `load`.

    Raises
    ------
    ValueError
        The source is no file, or has no such column.
    """
    path = find(str(source))
    file = molecule_files.read(path, smiles) if path else None
    if file is None or name not in file.columns:
        known = errors.nearest(name, file.columns) if file else ": only a file of your own has columns"
        raise ValueError(f"{source}: has no column {name!r}{known}")
    return [given[name] for _, given, _ in file.records]


def _numbers(path: str | Path, texts: "pd.Series[str]", commas: Commas) -> NDArray[np.float64]:
    """Numbers of a label column, by the line of each; NaN where a field is empty."""
    stripped = _points(texts, commas)
    values = pd.to_numeric(stripped, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values) & ~stripped.str.lower().isin(("", "nan", "na"))
    if bad.any():
        line, *others = texts.index[bad]
        problem = f"{path}, line {line}, column {texts.name!r}: {texts[line]!r} is not a finite number"
        if others:
            listed = ", ".join(f"{texts[other]!r} in line {other}" for other in others[:10])
            problem += f" (nor is {listed}{', ...' if others[10:] else ''})"
        if commas and re.fullmatch(_THOUSANDS, stripped[line]):
            raise ValueError(f"{problem}: its comma may separate decimals or thousands; write numbers with a point")
        raise ValueError(
            f"{problem}; leave a field without a measured value empty, write classes as 0 and 1, and units and remarks "
            "into the column's name, or into another column"
        )
    return values


def _points(texts: "pd.Series[str]", commas: Commas) -> "pd.Series[str]":
    """Texts without blanks around them and with points for decimal commas.

    In a text, where a column has them and no points; in a sheet, each number that is written as text with one.
    """
    stripped = texts.str.strip()
    written = stripped[stripped.str.contains(r"\d", regex=True)]
    having = written[written.str.contains(",", regex=False)]
    decimal = written.str.fullmatch(_DECIMAL_COMMA)
    if commas == "some" and not decimal.all():
        found = having[having.str.fullmatch(_DECIMAL_COMMA) & ~having.str.fullmatch(_THOUSANDS)]
        for line, text in found.items():
            log.info("column %r, line %d: %r is read as %s", texts.name, line, text, text.replace(",", "."))
        return stripped.mask(stripped.index.isin(found.index), stripped.str.replace(",", ".", regex=False))
    if not commas or not len(having) or not decimal.all():
        return stripped
    if having.str.fullmatch(_THOUSANDS).all():
        return stripped
    log.info("column %r has decimal commas", texts.name)
    return stripped.str.replace(",", ".", regex=False)


def _identifies(texts: "pd.Series[str]") -> bool:
    """Whether a column numbers or names molecules: by what it is called, or because it counts the rows."""
    name = str(texts.name).strip()
    if _IDENTIFIER.fullmatch(name.lower()) or re.fullmatch(r".*[a-z_ -]ID", name):
        return True
    written = list(texts.str.strip())
    return len(written) >= _COUNTED and any(
        written == [str(number) for number in range(first, first + len(written))] for first in (0, 1)
    )


def _label_columns(path: str | Path, table: pd.DataFrame, commas: Commas, several: bool) -> list[str]:
    """Choose the column that holds numbers, and say which are left out.

    A column without any plain number is taken for names or notes, and left out. Where it may hold labels all the same
    ("12 %"), learning only the other columns would be a silent mistake: then the labels must be named. So they must
    where several columns hold numbers, unless all of them are wanted.
    """
    chosen, quantities = [], {}
    for name in map(str, table):
        texts = _points(table[name], commas)
        written = texts[texts != ""]
        if not name or name.startswith("Unnamed: "):
            log.warning("%s: column %r has no name and is not used as a label: give it one to use it", path, name)
        elif name in RESERVED:
            log.warning(
                "%s: column %r is not used as a label, as tables of results use this name; rename it", path, name
            )
        elif _identifies(table[name]):
            log.info("%s: column %r looks like a row number or an identifier and is not used as a label", path, name)
        elif np.isfinite(pd.to_numeric(written, errors="coerce")).any():
            chosen.append(name)
        elif 2 * written.str.match(_QUANTITY).sum() >= max(1, len(written)):
            quantities[name] = written.iloc[0]
    for name, text in quantities.items():
        problem = (
            f"{path}: column {name!r} is not used as a label: its fields, such as {text!r}, are not plain numbers. "
            "Write the unit into the column's name"
        )
        if chosen:
            raise ValueError(f"{problem}; or name the columns that are labels ({', '.join(map(repr, chosen))}?)")
        log.warning(problem)
    if len(chosen) > 1 and not several:
        raise ValueError(f"{path}: several columns hold numbers: {', '.join(map(repr, chosen))}. Name those to predict")
    others = ", ".join(repr(name) for name in table if name not in chosen) or "none"
    log.info("%s: labels are %s; not used: %s", path, ", ".join(map(repr, chosen)) or "none", others)
    return chosen


def readable(dataset: Dataset, limit: int | None, seed: int) -> pd.DataFrame:
    """Clean a data set, or a random sample of it, and log a warning for each molecule that cannot be read.

    Returns
    -------
    DataFrame
        The molecules of `clean`.
    """
    molecules, unreadable = clean(dataset, rows=seeds.sample(len(dataset), limit, seed))
    for line in unreadable.to_dict("records"):
        log.warning("%s: left out, %r: %s", dataset.place(line["row"]), line["smiles"], line["reason"])
    return molecules


def clean(
    dataset: Dataset, folder: str | Path | None = None, workers: int = 1, rows: NDArray[np.int64] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Separate the molecules that can be read from those that cannot.

    Parameters
    ----------
    dataset : Dataset
    folder, workers
        For corpora of millions: see `chunks.run`.
    rows : ndarray of int64, optional
        Positions of the molecules to read, from `seeds.sample`; by default all.

    Returns
    -------
    molecules : DataFrame
        row (position in the data set), smiles (as written), canonical_smiles, heavy_atoms,
        duplicate_of (row of the first molecule with the same canonical SMILES, -1 for that first one),
        and one column per label.
    unreadable : DataFrame
        row, smiles, reason. The two tables together have one line per molecule that was to be read.
    """
    rows = np.arange(len(dataset)) if rows is None else rows
    smiles = [dataset.smiles[row] for row in rows]
    table = chunks.run(_read, smiles, config.cache(folder), workers).to_pandas()
    table.insert(0, "row", rows)
    # A lone surrogate, which no file can hold, is written as its number.
    texts = [text.encode(errors="backslashreplace").decode() for text in smiles]
    table.insert(1, "smiles", pd.Series(texts, dtype=str))
    readable = table["reason"] == ""
    molecules = table[readable].drop(columns="reason").reset_index(drop=True)
    molecules = _mark_duplicates(molecules)
    for name, values in zip(dataset.label_names, dataset.labels.T, strict=True):
        molecules[name] = values[molecules["row"]]
    return molecules, table.loc[~readable, ["row", "smiles", "reason"]].reset_index(drop=True)


def _mark_duplicates(molecules: pd.DataFrame) -> pd.DataFrame:
    first = molecules.groupby("canonical_smiles", sort=False)["row"].transform("first")
    return molecules.assign(duplicate_of=first.where(first != molecules["row"], -1))


def _read(smiles: Sequence[str]) -> pa.Table:
    """Canonical SMILES and size of each molecule, or the reason why it cannot be read."""
    schema = pa.schema({"canonical_smiles": pa.string(), "heavy_atoms": pa.int64(), "reason": pa.string()})
    rows: list[tuple[str, int, str]] = []
    for text in smiles:
        try:
            molecule = reading.parse(text)
            rows.append((Chem.MolToSmiles(molecule), molecule.GetNumHeavyAtoms(), ""))
        except ValueError as reason:
            rows.append(("", 0, str(reason)))
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


def summary(dataset: Dataset, molecules: pd.DataFrame, unreadable: pd.DataFrame) -> dict[str, object]:
    """One line of the table in notebook 01: counts, label ranges, sizes."""
    sizes = molecules["heavy_atoms"]
    ranges = [
        f"{name} {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
        for name, values in zip(dataset.label_names, dataset.labels.T, strict=True)
        if np.isfinite(values).any()
    ]
    copies = molecules[molecules["duplicate_of"] >= 0]
    differ = np.abs(dataset.labels[copies["row"]] - dataset.labels[copies["duplicate_of"]]) > 0  # not of missing ones
    return {
        "set": dataset.name,
        "molecules": len(molecules) + len(unreadable),
        "unreadable": len(unreadable),
        "duplicates": len(copies),
        "in conflict": int(differ.any(axis=1).sum()),
        "label ranges": f"{'; '.join(ranges)} {dataset.unit}" if ranges else "-",
        "missing labels": int(np.isnan(dataset.labels).sum()),
        "heavy atoms (median)": float(sizes.median()),
        "largest molecule": int(sizes.max()) if len(sizes) else 0,
    }


def labelled(dataset: Dataset, sample: int | None, seed: int, least: int) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Readable, labelled molecules, each once: a repeated one might be trained on and tested; and which are `doubtful`.

    The doubtful ones are named by their lines or rows, for each reason.

    Raises
    ------
    ValueError
        There are no labels, fewer than `least` molecules, or a label does not vary.
    """
    name, columns = dataset.name, list(dataset.label_names)
    if not columns:
        raise ValueError(f"{name}: has no labels to learn: no column of plain numbers")
    every = readable(dataset, None, seed)
    known = every[every[columns].notna().any(axis=1)]
    kept = known.drop_duplicates("canonical_smiles")
    found = doubtful(known, columns, np.nan_to_num(dataset.margin)).loc[kept.index]
    doubts = {str(name): [dataset.line(row) for row in kept.loc[found[name], "row"]] for name in found}
    without, repeated = every[~every["row"].isin(known["row"])], len(known) - len(kept)
    if len(without) or repeated:
        log.warning("%s: left out, %d without a label and %d that are repeated", name, len(without), repeated)
        _name_repeated(dataset, known)
    if len(kept) < least:
        raise ValueError(
            f"{name}: {len(kept)} different readable molecules with a label; at least {least} are needed, as fewer "
            f"cannot tell methods apart. Label more"
        )
    kept = kept.iloc[seeds.sample(len(kept), sample, seed)].reset_index(drop=True)
    for column in columns:
        if kept[column].nunique() < 2:
            raise ValueError(f"{name}: all labels {column!r} are the same: there is nothing to learn; leave it out")
    return kept, doubts


def _name_repeated(dataset: Dataset, known: pd.DataFrame, most: int = 5) -> None:
    """Log which molecules are repeated, with their labels: people may want to correct one, or take the mean."""
    groups = [same for _, same in known.groupby("canonical_smiles", sort=False) if len(same) > 1]
    for same in groups[:most]:
        where = " and ".join(map(dataset.line, same["row"]))
        labels = "; ".join(f"{name}: {', '.join(f'{v:g}' for v in same[name])}" for name in dataset.label_names)
        log.warning("%s: %s are one molecule (%s); the first is used", dataset.name, where, labels)
    if len(groups) > most:
        log.warning("%s: and %d more molecules are repeated", dataset.name, len(groups) - most)


def doubtful(molecules: pd.DataFrame, labels: Sequence[str], margin: float = 0.0) -> pd.DataFrame:
    """Say of readable molecules, as of `clean`, what is doubtful in them or their labels.

    Returns
    -------
    DataFrame
        For each molecule yes or no: repeated (its structure occurs more than once), conflicts (with labels that differ
        by more than `margin`), differ_in_stereo_only (another one is the same but for stereochemistry),
        open_stereocentres, several_fragments.
    """
    smiles = molecules["canonical_smiles"]
    same = molecules.groupby(smiles)[list(labels)]
    flat = smiles.map(lambda text: Chem.MolToSmiles(reading.parse(text), isomericSmiles=False))
    found = {
        "repeated": smiles.duplicated(keep=False),
        "conflicts": (same.transform("max") - same.transform("min") > margin).any(axis=1),
        "differ_in_stereo_only": smiles.groupby(flat).transform("nunique") > 1,
        "open_stereocentres": smiles.map(reading.has_open_centre).astype(bool),
        "several_fragments": smiles.str.contains(".", regex=False),
    }
    return pd.DataFrame(found, molecules.index)


def read_molecules(source: str | Sequence[str]) -> pd.DataFrame:
    """Readable molecules of a Parquet table that notebook 01 wrote, or of a data set by name or path.

    Parameters
    ----------
    source : str or sequence of str
        Several are joined: a column `set` says where a molecule is from, and `row` and `duplicate_of` count in the
        joined table.

    Raises
    ------
    FileNotFoundError
        The table does not exist.
    """
    if not isinstance(source, str):
        tables = [read_molecules(one).assign(set=short_name(one)) for one in source]
        joined = pd.concat(tables, ignore_index=True, join="inner")
        joined["row"] = np.arange(len(joined))
        return _mark_duplicates(joined)
    if not source.endswith(".parquet"):
        return clean(load(source, labels=[]))[0]
    if not Path(source).is_file():
        raise FileNotFoundError(f"{source}: no such table; run the notebook that writes it, or give a data set's name")
    table = pd.read_parquet(source)
    # A table of one's own has not been cleaned; those of notebooks 01 and 02 have rows, duplicates or classes.
    ours = any(name == "duplicate_of" or re.fullmatch(r"k_\d+", name) for name in map(str, table))
    return table if ours else clean(load(source, labels=[]))[0]


def files(source: str | Sequence[str], sha256: str | None = None) -> list[Path]:
    """Files behind sources, for records: a table, an encoder's files, or those of a data set (as in `load`)."""
    if not isinstance(source, str):
        return [path for one in source for path in files(one, sha256)]
    path = Path(source)
    if path.is_dir():
        return sorted(path.glob("*.safetensors")) + [card for card in [path / "config.json"] if card.is_file()]
    if source in downloads.table():
        return _files(source, sha256)
    # An encoder may be "<tower>@<file>".
    found = [file for file in (path, Path(source.partition("@")[2])) if file.is_file()]
    return found or [file for file in [find(source)] if file]
