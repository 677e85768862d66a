"""Molecule tables: the paper's sets, those that ship with RDKit, your own, and the checks that lose no molecule."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem, RDConfig, rdBase

from moleclip import sources

Task = Literal["regression", "classification", "pretraining"]

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


def names() -> list[str]:
    """Names that `load` knows.

    >>> names()[:3]
    ['nci_5k', 'chembl2321810', 'bace']
    """
    return ["nci_5k", "chembl2321810", *_PAPER, "chembl_25_subset"]


def load(name: str) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `names`. "nci_5k" (the first 5,000 compounds of the NCI database) and "chembl2321810" (one chemical
        series with measured activities) ship inside the rdkit package; the paper's sets are downloaded once, or
        read from the folder that MOLECLIP_DATA_DIR names.

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
    if name == "chembl_25_subset":
        smiles = tuple(sources.fetch(name).read_text().split())
        return Dataset(name, smiles, np.empty((len(smiles), 0)), reference="ChEMBL 25")
    raise KeyError(f"unknown data set {name!r}: known are {', '.join(names())}")


def _load_paper(name: str) -> Dataset:
    """Read a CSV file of the authors' repository, by position: headers vary, labels stand in one field."""
    table = pd.read_csv(sources.fetch(name), dtype=str)
    labels = np.array([text.split() for text in table.iloc[:, 2]], np.float64)
    return Dataset(name, tuple(table.iloc[:, 1]), labels, **_PAPER[name])


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
        A column is missing, or a label is not a finite number; the message names column, line and text.
    """
    table = _read_table(path)
    for column in (smiles, *(labels or ())):
        if column not in table:
            raise ValueError(f"{path}: has no column {column!r}; it has {', '.join(map(repr, table))}")
    chosen = list(labels) if labels is not None else [str(name) for name in table if name != smiles]
    numbers = {name: pd.to_numeric(table[name].str.strip().replace("", "nan"), errors="coerce") for name in chosen}
    bad = {name: _not_numbers(table[name], values) for name, values in numbers.items()}
    if labels is None:
        # A column without any number is a name or a note; one bad field among numbers is an error, not a note.
        chosen = [name for name in chosen if np.isfinite(numbers[name]).any()]
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


def _read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file as text, by line number; pandas would fill or shift rows of the wrong length in silence."""
    lines: dict[int, list[str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            for fields in reader:
                if len(fields) not in (0, len(header)):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: has {len(fields)} fields, the header has {len(header)}"
                    )
                if fields:
                    lines[reader.line_num] = fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}, line {reader.line_num + 1}: not a CSV table in UTF-8: {error}") from None
    if not header or len(set(header)) < len(header):
        raise ValueError(f"{path}: has no header, or one that names a column twice")
    return pd.DataFrame.from_dict(lines, orient="index", columns=header, dtype=str)


def _not_numbers(texts: "pd.Series[str]", values: "pd.Series[float]") -> NDArray[np.bool_]:
    """Where a field is neither a finite number nor empty."""
    empty = texts.str.strip().str.lower().isin(("", "nan", "na"))
    return np.asarray(~np.isfinite(values) & ~empty)


def _load_nci() -> Dataset:
    lines = _shipped(RDConfig.RDDataDir, "NCI/first_5K.smi").read_text().splitlines()
    smiles = tuple(line.split()[0] for line in lines)
    return Dataset("nci_5k", smiles, np.empty((len(smiles), 0)))


def _load_series() -> Dataset:
    # The labels are -log10 of an activity in mol/L; the file names neither target nor assay.
    folder = "FreeWilson/data"
    lines = _shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810.smi").read_text().splitlines()
    smiles, keys = zip(*(line.split() for line in lines), strict=True)
    activity = pd.read_csv(_shipped(RDConfig.RDContribDir, f"{folder}/CHEMBL2321810_act.csv"), dtype={"Name": str})
    labels = activity.set_index("Name")["Act"].reindex(list(keys))
    return Dataset(
        "chembl2321810",
        smiles,
        labels.to_numpy(np.float64)[:, None],
        ("activity",),
        task="regression",
        metric="MAE",
        unit="log units",
    )


def _shipped(folder: str, path: str) -> Path:
    file = Path(folder) / path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: rdkit {rdBase.rdkitVersion} does not ship this file; install the rdkit of requirements.lock"
        )
    return file


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
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            unsanitized = Chem.MolFromSmiles(smiles, sanitize=False)
            problems = Chem.DetectChemistryProblems(unsanitized) if unsanitized else []
            raise ValueError(problems[0].Message() if problems else "not a SMILES string")
    if molecule.GetNumAtoms() == 0:
        raise ValueError("no atoms")
    return molecule


def clean(dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Separate the molecules that can be read from those that cannot.

    Returns
    -------
    molecules : DataFrame
        row (position in the data set), smiles (as written), canonical_smiles, heavy_atoms,
        duplicate_of (row of the first molecule with the same canonical SMILES, -1 for that first one),
        and one column per label.
    unreadable : DataFrame
        row, smiles, reason. The two tables together have one line per molecule of the data set.
    """
    readable, unreadable = [], []
    for row, smiles in enumerate(dataset.smiles):
        try:
            molecule = parse(smiles)
        except ValueError as reason:
            unreadable.append((row, smiles, str(reason)))
        else:
            readable.append((row, smiles, Chem.MolToSmiles(molecule), molecule.GetNumHeavyAtoms()))
    molecules = pd.DataFrame(readable, columns=["row", "smiles", "canonical_smiles", "heavy_atoms"])
    first = molecules.groupby("canonical_smiles")["row"].transform("first")
    molecules["duplicate_of"] = first.where(first != molecules["row"], -1)
    for name, values in zip(dataset.label_names, dataset.labels.T, strict=True):
        molecules[name] = values[molecules["row"]]
    return molecules, pd.DataFrame(unreadable, columns=["row", "smiles", "reason"])


def summary(dataset: Dataset, molecules: pd.DataFrame, unreadable: pd.DataFrame) -> dict[str, object]:
    """One line of the table in notebook 01: counts, label ranges, sizes."""
    labels = dataset.labels
    return {
        "set": dataset.name,
        "molecules": len(dataset),
        "unreadable": len(unreadable),
        "duplicates": int((molecules["duplicate_of"] >= 0).sum()),
        "labels": ", ".join(dataset.label_names) or "-",
        "label range": f"{np.nanmin(labels):.3g} to {np.nanmax(labels):.3g} {dataset.unit}" if labels.size else "-",
        "missing labels": int(np.isnan(labels).sum()),
        "heavy atoms (median)": float(molecules["heavy_atoms"].median()),
        "largest molecule": int(molecules["heavy_atoms"].max()),
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


def files(source: str) -> list[Path]:
    """Files behind a source, for records: the table or the folder's files; none for a name."""
    path = Path(source)
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
