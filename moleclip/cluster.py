"""Structural pseudo-labels: MACCS keys, k-means, and the knee of inertia(K) (paper, Fig. S2)."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from kneed import KneeLocator
from numpy.typing import NDArray
from rdkit import DataStructs
from rdkit.Chem import rdMolDescriptors
from sklearn.cluster import KMeans

from moleclip import datasets

Fingerprints = NDArray[np.uint8]


def maccs(smiles: Iterable[str]) -> Fingerprints:
    """MACCS keys.

    Parameters
    ----------
    smiles : iterable of str, length N

    Returns
    -------
    ndarray of uint8, shape [N, 166]
        0 or 1; RDKit's bit 0, which is never set, is left out.

    Raises
    ------
    ValueError
        A SMILES that cannot be read.

    Examples
    --------
    >>> maccs(["CCO", "c1ccccc1"]).sum(axis=1).tolist()
    [9, 3]
    """
    return np.stack([_keys(text) for text in smiles])


def _keys(smiles: str) -> Fingerprints:
    keys = np.zeros(167, np.uint8)
    DataStructs.ConvertToNumpyArray(rdMolDescriptors.GetMACCSKeysFingerprint(datasets.parse(smiles)), keys)
    return keys[1:]


def kmeans(fingerprints: Fingerprints, k: int, seed: int) -> tuple[NDArray[np.int64], float]:
    """Cluster fingerprints with scikit-learn's k-means.

    DEVIATION: full k-means from an explicit seed, and the inertia over all molecules; the authors run one
    unseeded pass of mini-batch k-means and read the inertia of the last batch.

    Returns
    -------
    labels : ndarray of int64, shape [N]
    inertia : float
        Sum of squared distances to the nearest centre.
    """
    if k > len(fingerprints):
        raise ValueError(f"K = {k} clusters asked of {len(fingerprints)} molecules")
    model = KMeans(k, n_init=1, random_state=seed).fit(fingerprints.astype(np.float32))
    return model.labels_.astype(np.int64), float(model.inertia_)


def sweep(
    fingerprints: Fingerprints, ks: Sequence[int], seed: int
) -> tuple[pd.DataFrame, dict[int, NDArray[np.int64]]]:
    """Cluster at each K.

    Returns
    -------
    DataFrame
        k, inertia.
    dict of int to ndarray
        Labels at each K.
    """
    runs = {k: kmeans(fingerprints, k, seed) for k in ks}
    curve = pd.DataFrame({"k": list(runs), "inertia": [inertia for _, inertia in runs.values()]})
    return curve, {k: labels for k, (labels, _) in runs.items()}


def knee(curve: pd.DataFrame) -> int | None:
    """K at the knee of inertia(K), by kneedle (convex, decreasing); None where the curve has none.

    Examples
    --------
    >>> knee(pd.DataFrame({"k": [1, 2, 3, 4, 5], "inertia": [100.0, 40.0, 10.0, 8.0, 6.0]}))
    3
    """
    found = KneeLocator(curve["k"], curve["inertia"], curve="convex", direction="decreasing").knee
    return None if found is None else int(found)


def read_labels(source: str, ks: Sequence[int], seed: int) -> pd.DataFrame:
    """Molecules with labels at each K: from a Parquet table of notebook 02, or made here for a data set by name.

    Returns
    -------
    DataFrame
        smiles, and k_<K> for each K.

    Raises
    ------
    FileNotFoundError, ValueError
        The table does not exist, or lacks labels at one of the K.
    """
    table = datasets.read_molecules(source)
    columns = [f"k_{k}" for k in ks]
    if not source.endswith(".parquet"):
        table = table[table["duplicate_of"] < 0]
        fingerprints = maccs(table["smiles"])
        return table.assign(**{f"k_{k}": kmeans(fingerprints, k, seed)[0] for k in ks})
    missing = [column for column in columns if column not in table]
    if missing:
        found = ", ".join(column for column in map(str, table) if column.startswith("k_"))
        raise ValueError(f"{source}: lacks the labels {', '.join(missing)}; it has {found or 'none'}")
    return table[["smiles", *columns]]
