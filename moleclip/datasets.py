"""Molecule tables: the paper's sets, those that ship with RDKit, your own, and the checks that lose no molecule."""

import csv
import gzip
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from rdkit import Chem, RDConfig, rdBase

from moleclip import molecules as molecule_limits
from moleclip.io import chunks, downloads, errors, seeds

log = logging.getLogger(__name__)

Task = Literal["regression", "classification", "pretraining"]

# Columns of the tables of molecules and of predictions, which no label can be called.
_MOLECULES = ("row", "smiles", "canonical_smiles", "heavy_atoms", "duplicate_of", "part")
RESERVED = (*_MOLECULES, "molecule", "problem", "nearest", "similarity")

# "12 %", "<5", "ca. 3.1mM", "4.2 +/- 0.1 kcal/mol", "1.2x10^-5", "12.5 (2)", "12.5*": a number that is not plain;
# "2-chlorophenol" is none.
_NUMBER = r"[-+\u2212]?\d+(?:[.,]\d+)?(?: \d{3})*(?:e[-+]?\d+|\^[-\u2212]?\d+|\s*[x\u00d7]\s*10\^?[-\u2212]?\d+)?"
_MEASURED = re.compile(
    rf"(?:[<>~=\u2264\u2265\u2248$\u20ac\u00a3]+|ca\.?|approx\.?)?\s*{_NUMBER}\s*"
    rf"(?:(?:\u00b1|\+/-)\s*{_NUMBER}\s*|\(\d+\)|\*+)?([%\u00b0\u00b5\u03bca-z][^\s-]{{0,11}}(?:\s\S{{1,6}})?)?",
    re.IGNORECASE,
)

_MOLECULENET = "Chem. Sci., 2018, 9, 513, doi:10.1039/C7SC02664A"
_OSCAR = "Chem. Sci., 2022, 13, 13782, doi:10.1039/D2SC04251G"


def _known(label_names: str, unit: str, metric: str, reference: str, **others: Any) -> dict[str, Any]:
    fixed = {"label_names": tuple(label_names.split()), "unit": unit, "metric": metric, "reference": reference}
    return {"task": "regression", **fixed, **others}


@dataclass(frozen=True)
class Dataset:
    """Molecules as their source writes them, with labels.

    Attributes
    ----------
    name : str
    smiles : tuple of str
        One per molecule, as written in the source: unreadable ones are still there (see `clean`).
    labels : ndarray of float64, shape [N, T]
        NaN where a label is missing; T is 0 for a pretraining corpus.
    label_names : tuple of str, length T
    task, metric, unit : str
        "" where a corpus has none.
    split : {"random", "scaffold"}
        The split its published scores are for.
    holdout : float
        Share of the molecules in the validation set, and again in the test set.
    reference : str
        Where the data were first published.
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
    reference: str = ""

    def __post_init__(self) -> None:
        expected = (len(self.smiles), len(self.label_names))
        if self.labels.shape != expected:
            raise ValueError(f"{self.name}: labels have shape {self.labels.shape}, expected {expected}")

    def __len__(self) -> int:
        return len(self.smiles)


# What is known of each finetuning set beside its file (paper, Methods and ESI). Which NHC charge is which, and the
# unit of Kraken's volumes, the sources do not say.
_PAPER: dict[str, dict[str, Any]] = {
    "bace": _known("class", "", "ROC-AUC", _MOLECULENET, split="scaffold", task="classification"),
    "bbbp": _known("class", "", "ROC-AUC", _MOLECULENET, split="scaffold", task="classification"),
    "esol": _known("log_solubility", "log mol/L", "RMSE", _MOLECULENET, split="scaffold"),
    "freesolv": _known("hydration_free_energy", "kcal/mol", "RMSE", _MOLECULENET, split="scaffold"),
    "DHBDs": _known("homo_lumo_gap", "eV", "MAE", _OSCAR),
    "NHCs": _known("charge_1 charge_2 charge_3 charge_4", "e", "MAE", "Chem. Sci., 2025, 16, 10833"),
    "Phosphines_yield": _known(
        "yield_1 yield_2 yield_3 yield_4 yield_5", "fraction", "MAE", "Science, 2021, doi:10.1126/science.abj4213"
    ),
    "Phosphines_selectivity": _known(
        "ddG", "kcal/mol", "MAE", "Nature Chem., 2016, doi:10.1038/nchem.2501", holdout=0.2
    ),
    "Kraken_buried": _known(
        "buried_volume_larger buried_volume_smaller",
        "probably A^3",
        "MAE",
        "J. Am. Chem. Soc., 2022, 144, 1205, doi:10.1021/jacs.1c09718",
    ),
}


# What ships inside the rdkit package: the columns of each file.
_SHIPPED = {"nci_5k": "smiles, number", "chembl2321810": "smiles, name; name, activity"}
# The labels are -log10 of an activity in mol/L; the file names neither target nor assay.
_SERIES = _known("activity", "log units", "MAE", "ChEMBL document CHEMBL2321810")
_CORPORA = {
    "chembl_25_subset": "ChEMBL 25, a sample by the paper's authors",
    "chembl_25": "ChEMBL 25, doi:10.6019/CHEMBL.database.25",
    "moses": "Front. Pharmacol., 2020, 11, 565644, doi:10.3389/fphar.2020.565644",
}


# How many molecules each set has, readable or not.
MOLECULES = {
    "nci_5k": 4999,
    "chembl2321810": 1017,
    "bace": 1513,
    "bbbp": 2039,
    "esol": 1128,
    "freesolv": 642,
    "DHBDs": 6994,
    "NHCs": 95,
    "Phosphines_yield": 90,
    "Phosphines_selectivity": 37,
    "Kraken_buried": 1540,
    "chembl_25_subset": 3000,
    "chembl_25": 1_870_421,
    "moses": 1_936_962,
}


def names() -> list[str]:
    """Names that `load` knows.

    >>> names()[:3]
    ['nci_5k', 'chembl2321810', 'bace']
    """
    return [*_SHIPPED, *_PAPER, *_CORPORA]


def load(name: str, sha256: str | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `names`. "nci_5k" (the first 4,999 compounds of the NCI database) and "chembl2321810" (one chemical
        series with measured activities) ship inside the rdkit package; the paper's sets are downloaded once, or
        read from the folder that MOLECLIP_DATA_DIR names; "moses" are files of the package molsets.
    sha256 : str, optional
        Pins a file whose checksum the registry does not know (that of "chembl_25").

    Raises
    ------
    KeyError
        The name is unknown; the message lists the known ones.
    FileNotFoundError
        The installed rdkit does not ship the file.
    sources.DataError
        The file of a set is damaged, or can be neither found nor downloaded.
    """
    if name == "nci_5k":
        return _load_nci()
    if name == "chembl2321810":
        return _load_series()
    if name in _PAPER:
        return _load_paper(name)
    if name in _CORPORA:
        smiles = tuple(text for path in _corpus_files(name, sha256) for text in _read_smiles(path))
        return Dataset(name, smiles, np.empty((len(smiles), 0)), reference=_CORPORA[name])
    raise KeyError(f"unknown data set {name!r}: known are {', '.join(names())}")


def registry() -> pd.DataFrame:
    """List what is known of each data set without reading it.

    Returns
    -------
    DataFrame
        set, molecules, task, metric, unit, labels, split, holdout, reference, and of its file: columns, licence, url,
        sha256, bytes.
    """
    rows = []
    defaults = {entry.name: entry.default for entry in fields(Dataset)}
    for name in names():
        reference = _CORPORA.get(name, f"rdkit {rdBase.rdkitVersion}")
        known = {**defaults, "reference": reference, **_PAPER.get(name, _SERIES if name == "chembl2321810" else {})}
        file = downloads.FILES.get(name, downloads.File("", "", None, None, "BSD-3-Clause", _SHIPPED.get(name, "")))
        rows.append(
            {
                "set": name,
                "molecules": MOLECULES[name],
                **{key: known[key] for key in ("task", "metric", "unit", "split", "holdout", "reference")},
                "labels": ", ".join(known["label_names"]),
                "columns": file.columns,
                "licence": file.licence,
                "url": file.url or "inside rdkit",
                "sha256": file.sha256 or "",
                "bytes": file.size,
            }
        )
    return pd.DataFrame(rows).convert_dtypes()


def _load_paper(name: str) -> Dataset:
    """Read a CSV file of the authors' repository, by position: headers vary, labels stand in one field."""
    table = pd.read_csv(downloads.fetch(name), dtype=str)
    labels = np.array([text.split() for text in table.iloc[:, 2]], np.float64)
    return Dataset(name, tuple(table.iloc[:, 1]), labels, **_PAPER[name])


def _corpus_files(name: str, sha256: str | None = None) -> list[Path]:
    """Files of a corpus; MOSES is one file of a mirror, or three of a package in the same order."""
    if name == "moses" and not downloads.mirrored(name):
        return [downloads.fetch(f"moses/{part}") for part in ("train", "test", "test_scaffolds")]
    return [downloads.fetch(name, sha256)]


def _read_smiles(path: Path) -> Iterator[str]:
    """SMILES of a corpus file: the only field of a line, or the one that the header names."""
    try:
        with gzip.open(path, "rt", encoding="ascii") if path.suffix == ".gz" else open(path, encoding="ascii") as file:
            first = file.readline().split()
            headers = [number for number, field in enumerate(first) if field.lower().endswith("smiles")]
            width, position = len(first), headers[0] if headers else 0
            if not headers:
                yield first[0]
            for number, line in enumerate(file, 2):
                fields = line.split()
                if len(fields) != width:
                    raise errors.DataError(f"{path}, line {number}: has {len(fields)} fields, expected {width}")
                yield fields[position]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise errors.DataError(f"{path}: cannot be read to its end ({error}); delete it and fetch it again") from None


def read_csv(path: str | Path, smiles: str = "smiles", labels: Sequence[str] | None = None) -> Dataset:
    """Read your own table.

    Parameters
    ----------
    path : str or Path
        CSV file with a header.
    smiles : str
        Name of the column of SMILES.
    labels : sequence of str, optional
        Names of the label columns; by default every other column that holds a number. Empty fields are missing
        labels. Labels that are all 0 or 1 make a classification task, others a regression.

    Raises
    ------
    ValueError
        A column is missing, a label has a name of `RESERVED`, or is not a finite number, or what looks like the labels
        has units in its fields; the message names column, line and text.
    """
    table = _read_table(path)
    for column in (smiles, *(labels or ())):
        if column not in table:
            raise ValueError(f"{path}: has no column {column!r}; it has {', '.join(map(repr, table))}")
    chosen = list(labels) if labels is not None else [str(name) for name in table if name != smiles]
    if twice := [name for name in chosen if chosen.count(name) > 1]:
        raise ValueError(f"{path}: label {twice[0]!r} is named twice")
    if labels is None and (numbering := [name for name in chosen if not name or name.startswith("Unnamed: ")]):
        log.warning("%s: column %r has no name and is not used as a label: give it one to use it", path, numbering[0])
        chosen = [name for name in chosen if name not in numbering]
    reserved = [name for name in chosen if name in RESERVED]
    if reserved and labels is not None:
        raise ValueError(f"{path}: {reserved[0]!r} cannot be the name of a label: tables have such a column; rename it")
    for name in reserved:
        log.warning("%s: column %r is not used as a label: tables have such a column; rename it to use it", path, name)
    chosen = [name for name in chosen if name not in reserved]
    numbers = {name: pd.to_numeric(table[name].str.strip().replace("", "nan"), errors="coerce") for name in chosen}
    bad = {name: _not_numbers(table[name], values) for name, values in numbers.items()}
    if labels is None:
        # A column without any number is a name or a note; one bad field among numbers is an error, not a note.
        notes = [name for name in chosen if not np.isfinite(numbers[name]).any()]
        chosen = [name for name in chosen if name not in notes]
        _check_units(path, table[notes], chosen)
        others = [str(name) for name in table if name not in (smiles, *chosen)]
        log.info(
            "%s: labels are %s; not used: %s", path, *(", ".join(map(repr, x)) or "none" for x in (chosen, others))
        )
    for name in chosen:
        if bad[name].any():
            row = int(np.flatnonzero(bad[name])[0])
            text = table[name].iloc[row]
            raise ValueError(f"{path}, line {table.index[row]}, column {name!r}: {text!r} is not a finite number")
    values = np.stack([numbers[name] for name in chosen], axis=1) if chosen else np.empty((len(table), 0))
    known = values[~np.isnan(values)]
    task: Task = "classification" if known.size and np.isin(known, (0, 1)).all() else "regression"
    return Dataset(
        Path(path).stem,
        tuple(table[smiles]),
        values.astype(np.float64),
        tuple(chosen),
        task=task if chosen else "pretraining",
        metric=("ROC-AUC" if task == "classification" else "MAE") if chosen else "",
    )


def _check_units(path: str | Path, notes: pd.DataFrame, chosen: Sequence[str]) -> None:
    """Refuse to learn other columns where one that looks like measurements has no plain numbers."""
    for name, texts in notes.items():
        texts = texts.str.strip()[lambda column: column != ""]
        units = [(found[1] or "").strip() for found in map(_MEASURED.fullmatch, texts) if found]
        # Units recur, if mixed ("nM", "uM"); what follows the digits of names and codes ("4hhb") does not.
        recurring = sum(units.count(unit) for unit in set(units) if not unit or units.count(unit) > 1)
        if not units or 2 * (recurring or 1) < len(texts):
            continue
        problem = (
            f"{path}: column {name!r} is not used as a label: its fields, such as {texts.iloc[0]!r}, are no plain "
            "numbers. Write the unit into the column's name, not beside the number"
        )
        if chosen:
            raise ValueError(f"{problem}; or name the columns that are labels ({', '.join(map(repr, chosen))}?)")
        log.warning(problem)


def _read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file as text, by line number; pandas would fill or shift rows of the wrong length in silence."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        header, lines = csv_lines(file, path)
        return pd.DataFrame.from_dict(dict(lines), orient="index", columns=header, dtype=str)


def csv_lines(file: Iterable[str], path: str | Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Read a CSV file: its header, and number and fields of each line that is not empty, as they are asked for.

    Raises
    ------
    ValueError
        There is no header, it names a column twice, or a line has another number of fields.
    """
    reader = csv.reader(file, strict=True)
    lines = _csv_fields(reader, path)
    _, header = next(lines, (0, []))
    if not header or len(set(header)) < len(header):
        raise ValueError(f"{path}: has no header, or one that names a column twice")
    return header, _of_width(lines, header, path)


def _csv_fields(reader: Any, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    try:
        for texts in reader:
            yield reader.line_num, texts
    except (csv.Error, UnicodeDecodeError) as error:
        line = reader.line_num + isinstance(error, UnicodeDecodeError)  # which is raised before the line is counted
        raise ValueError(f"{path}, line {line}: not a CSV table in UTF-8: {error}") from None


def _of_width(
    lines: Iterator[tuple[int, list[str]]], header: list[str], path: str | Path
) -> Iterator[tuple[int, list[str]]]:
    for number, texts in lines:
        if len(texts) not in (0, len(header)):
            raise ValueError(f"{path}, line {number}: has {len(texts)} fields, the header has {len(header)}")
        if texts:
            yield number, texts


def _not_numbers(texts: "pd.Series[str]", values: "pd.Series[float]") -> NDArray[np.bool_]:
    """Where a field is neither a finite number nor empty."""
    empty = texts.str.strip().str.lower().isin(("", "nan", "na"))
    return np.asarray(~np.isfinite(values) & ~empty)


def _load_nci() -> Dataset:
    lines = _shipped(RDConfig.RDDataDir, "NCI/first_5K.smi").read_text().splitlines()
    smiles = tuple(line.split()[0] for line in lines)
    return Dataset("nci_5k", smiles, np.empty((len(smiles), 0)))


def _load_series() -> Dataset:
    folder = "FreeWilson/data"
    lines = _shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810.smi").read_text().splitlines()
    smiles, keys = zip(*(line.split() for line in lines), strict=True)
    activity = pd.read_csv(_shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810_act.csv"), dtype={"Name": str})
    labels = activity.set_index("Name")["Act"].reindex(list(keys)).to_numpy(np.float64)[:, None]
    return Dataset("chembl2321810", smiles, labels, **_SERIES)


def _shipped(folder: str, path: str) -> Path:
    file = Path(folder) / path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: rdkit {rdBase.rdkitVersion} does not ship this file; install the rdkit of requirements.lock"
        )
    return file


def readable(dataset: Dataset, limit: int | None, seed: int) -> pd.DataFrame:
    """Take the molecules that can be read, of all or of a sample, and warn of each that is left out.

    Returns
    -------
    DataFrame
        As `clean` gives it.
    """
    molecules, unreadable = clean(dataset, rows=seeds.sample(len(dataset), limit, seed))
    for line in unreadable.itertuples():
        log.warning("%s, row %d: left out, %r: %s", dataset.name, line.row, line.smiles, line.reason)
    return molecules


def clean(
    dataset: Dataset, folder: str | Path | None = None, workers: int = 1, rows: NDArray[np.int64] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Separate the molecules that can be read from those that cannot.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int64, optional
        Positions in the data set of the molecules to read, from `seeds.sample`; all of them by default.
    folder, workers
        For corpora of millions: see `chunks.run`.

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
    table = chunks.run(_read, smiles, folder, workers).to_pandas()
    table.insert(0, "row", rows)
    # A lone half of a character, which no file can hold, is written as its number.
    texts = [text.encode(errors="backslashreplace").decode() for text in smiles]
    table.insert(1, "smiles", pd.Series(texts, dtype=str))
    readable = table["reason"] == ""
    molecules = table[readable].drop(columns="reason").reset_index(drop=True)
    first = molecules.groupby("canonical_smiles", sort=False)["row"].transform("first")
    molecules["duplicate_of"] = first.where(first != molecules["row"], -1)
    for name, values in zip(dataset.label_names, dataset.labels.T, strict=True):
        molecules[name] = values[molecules["row"]]
    return molecules, table.loc[~readable, ["row", "smiles", "reason"]].reset_index(drop=True)


def _read(smiles: Sequence[str]) -> pa.Table:
    """Canonical SMILES and size of each molecule, or the reason why it cannot be read."""
    schema = pa.schema({"canonical_smiles": pa.string(), "heavy_atoms": pa.int64(), "reason": pa.string()})
    return pa.Table.from_pylist([_read_one(text) for text in smiles], schema)


def _read_one(smiles: str) -> dict[str, object]:
    try:
        molecule = molecule_limits.parse(smiles)
    except ValueError as reason:
        return {"canonical_smiles": "", "heavy_atoms": 0, "reason": str(reason)}
    return {"canonical_smiles": Chem.MolToSmiles(molecule), "heavy_atoms": molecule.GetNumHeavyAtoms(), "reason": ""}


def summary(dataset: Dataset, molecules: pd.DataFrame, unreadable: pd.DataFrame) -> dict[str, object]:
    """One line of the table in notebook 01: counts, label ranges, sizes."""
    sizes = molecules["heavy_atoms"]
    ranges = [
        f"{name} {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
        for name, values in zip(dataset.label_names, dataset.labels.T, strict=True)
        if np.isfinite(values).any()
    ]
    copies = molecules[molecules["duplicate_of"] >= 0]
    differ = dataset.labels[copies["row"]] != dataset.labels[copies["duplicate_of"]]
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


def read_molecules(source: str) -> pd.DataFrame:
    """Readable molecules of a Parquet table that notebook 01 wrote, or of a data set by name.

    Raises
    ------
    FileNotFoundError
        The table does not exist.
    """
    if not source.endswith(".parquet"):
        return clean(load(source))[0]
    if not Path(source).is_file():
        raise FileNotFoundError(f"{source}: no such table; run the notebook that writes it, or give a data set's name")
    return pd.read_parquet(source)


def files(source: str, sha256: str | None = None) -> list[Path]:
    """Files behind a source, for records: the table, those of an encoder, or those of a data set (as in `load`)."""
    path = Path(source)
    if path.is_dir():
        return sorted(path.glob("*.safetensors")) + [card for card in [path / "config.json"] if card.is_file()]
    if source in _CORPORA:
        return _corpus_files(source, sha256)
    if source in downloads.FILES:
        return [downloads.fetch(source)]
    # An encoder of "<tower>@<file>" too.
    return [file for file in (path, Path(source.partition("@")[2])) if file.is_file()]
