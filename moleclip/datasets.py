"""Molecule tables: the sets that ship with RDKit, and the checks that keep molecules from getting lost."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem, RDConfig, rdBase

Task = Literal["regression", "classification", "pretraining"]


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

    def __post_init__(self) -> None:
        expected = (len(self.smiles), len(self.label_names))
        if self.labels.shape != expected:
            raise ValueError(f"{self.name}: labels have shape {self.labels.shape}, expected {expected}")

    def __len__(self) -> int:
        return len(self.smiles)


def names() -> list[str]:
    """Names that `load` knows.

    >>> names()
    ['nci_5k', 'chembl2321810']
    """
    return ["nci_5k", "chembl2321810"]


def load(name: str) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `names`: "nci_5k" (the first 5,000 compounds of the NCI database) or "chembl2321810"
        (one chemical series with measured activities), both shipped inside the rdkit package.

    Raises
    ------
    KeyError
        The name is unknown; the message lists the known ones.
    FileNotFoundError
        The installed rdkit does not ship the file.
    """
    if name == "nci_5k":
        return _load_nci()
    if name == "chembl2321810":
        return _load_series()
    raise KeyError(f"unknown data set {name!r}: known are {', '.join(names())}")


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
