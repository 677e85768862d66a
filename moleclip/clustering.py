"""Structural pseudo-labels: MACCS keys, k-means, and the knee of inertia(K) (paper, Fig. S2)."""

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from kneed import KneeLocator
from numpy.typing import NDArray
from rdkit import DataStructs
from rdkit.Chem import rdMolDescriptors
from sklearn.cluster import kmeans_plusplus

from moleclip import config, datasets, molecules
from moleclip.io import chunks, files

Fingerprints = NDArray[np.uint8]  # [N, 21]: 166 keys of a molecule, packed

ROWS = 1024  # fingerprints compared with all centres at a time; as many as fit into the processor's cache
SECONDS = 30.0  # between two saved states of k-means

log = logging.getLogger(__name__)


def maccs(smiles: Sequence[str], cache: str | Path | None = None, workers: int = 1) -> Fingerprints:
    """MACCS keys, packed.

    Parameters
    ----------
    smiles : sequence of str, length N
    cache, workers
        For millions of molecules: see `chunks.run`.

    Returns
    -------
    ndarray of uint8, shape [N, 21]
        RDKit's 167 bits in its order, the first of which is never set; see `unpack`.

    Raises
    ------
    ValueError
        A SMILES that cannot be read.
    """
    column = chunks.run(_keys, smiles, config.cache(cache), workers)["maccs"].combine_chunks()
    return np.frombuffer(column.buffers()[1], np.uint8)[21 * column.offset :][: 21 * len(smiles)].reshape(-1, 21)


def _keys(smiles: Sequence[str]) -> pa.Table:
    prints = (rdMolDescriptors.GetMACCSKeysFingerprint(molecules.parse(text)) for text in smiles)
    packed = [DataStructs.BitVectToBinaryText(bits) for bits in prints]
    return pa.table({"maccs": pa.array(packed, pa.binary(21))})


def unpack(fingerprints: Fingerprints) -> NDArray[np.uint8]:
    """Unpack MACCS keys to zeros and ones, [N, 166].

    Examples
    --------
    >>> unpack(maccs(["CCO", "c1ccccc1"])).sum(axis=1).tolist()
    [9, 3]
    """
    return np.unpackbits(fingerprints, axis=1, bitorder="little")[:, 1:167]


def kmeans(
    fingerprints: Fingerprints,
    k: int,
    seed: int,
    cache: str | Path | None = None,
    max_passes: int = 50,
    tolerance: float = 1e-5,
) -> tuple[NDArray[np.int64], float]:
    """Cluster fingerprints: k-means++ on a seeded sample, then Lloyd's passes over all molecules.

    A pass streams over the packed fingerprints, on the GPU if there is one, so that memory does not grow with K times
    N. Equal fingerprints are computed once and counted as often as they occur. scikit-learn's KMeans would need the
    fingerprints as floats (8 times the memory as float32), and could not continue an interrupted run.

    DEVIATION: full k-means from an explicit seed, and the inertia over all molecules; the authors run one
    unseeded pass of mini-batch k-means and read the inertia of the last batch.

    Parameters
    ----------
    fingerprints : ndarray of uint8, shape [N, 21]
    k, seed : int
    cache : str or Path, optional
        Folder of the state, from which an interrupted call continues, and of the result.
    max_passes : int
    tolerance : float
        Stop after a pass that lowers the inertia by less than this fraction.

    Returns
    -------
    labels : ndarray of int64, shape [N]
    inertia : float
        Sum over all molecules of the squared distance to the nearest centre.

    Raises
    ------
    ValueError
        There are fewer different fingerprints than clusters.
    """
    distinct, inverse, counts = _distinct(fingerprints)
    if k > len(distinct):
        problem = f"K = {k} clusters asked of {len(distinct)} different fingerprints"
        raise ValueError(f"{problem}: take a smaller K, or more molecules")
    key = hashlib.sha256(repr((k, seed, max_passes, tolerance)).encode() + distinct.tobytes() + counts.tobytes())
    file = folder / f"kmeans_{k}-{key.hexdigest()[:16]}.npz" if (folder := config.cache(cache)) else None
    state: dict[str, Any] = {"passes": 0, "inertia": np.inf, "last": np.inf}
    if file and file.is_file():
        state = dict(np.load(file))
    else:
        state["centres"] = _first_centres(distinct, counts, k, seed)
    started = saved = time.monotonic()
    while state["passes"] < max_passes and not state["last"] - state["inertia"] < tolerance * state["inertia"]:
        _, inertia, centres = _pass(distinct, counts, state["centres"])
        state = {"passes": state["passes"] + 1, "inertia": inertia, "last": state["inertia"], "centres": centres}
        if time.monotonic() - saved > SECONDS:
            saved = time.monotonic()
            log.info("K = %d: pass %d, inertia %.6g, %.0f s", k, state["passes"], inertia, saved - started)
            if file:
                files.write_npz(file, state)
    if file:
        files.write_npz(file, state)
    labels, inertia, _ = _pass(distinct, counts, state["centres"])
    return labels[inverse], inertia


def _distinct(fingerprints: Fingerprints) -> tuple[Fingerprints, NDArray[np.int64], NDArray[np.int64]]:
    rows = np.ascontiguousarray(fingerprints).view("V21").ravel()
    distinct, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
    return distinct.view(np.uint8).reshape(-1, 21), inverse, counts


def _first_centres(distinct: Fingerprints, counts: NDArray[np.int64], k: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(distinct), min(len(distinct), max(20_000, 10 * k)), replace=False)
    sample, weights = unpack(distinct[rows]).astype(np.float32), counts[rows].astype(np.float32)
    centres, _ = kmeans_plusplus(sample, k, sample_weight=weights, random_state=seed)
    return np.asarray(centres, np.float64)


def _pass(
    distinct: Fingerprints, counts: NDArray[np.int64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.int64], float, NDArray[np.float64]]:
    """Assign each fingerprint to its nearest centre; return labels, inertia and the means of the new clusters.

    The sums behind the means are whole numbers and therefore exact: neither order nor number of threads matters.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    c = torch.from_numpy(centres).to(device)
    transposed, lengths = c.T.float().contiguous(), c.square().sum(1).float()
    sums, sizes = torch.zeros_like(c), torch.zeros(len(c), dtype=torch.float64, device=device)
    labels, inertia = np.empty(len(distinct), np.int64), 0.0
    for start in range(0, len(distinct), ROWS):
        x = torch.from_numpy(unpack(distinct[start : start + ROWS])).to(device)
        weights = torch.from_numpy(counts[start : start + ROWS]).to(device).double()
        distances, nearest = torch.addmm(lengths, x.float(), transposed, alpha=-2).min(1)
        sums.index_add_(0, nearest, x * weights[:, None])
        sizes.index_add_(0, nearest, weights)
        inertia += float((weights * (distances + x.sum(1))).sum())
        labels[start : start + ROWS] = nearest.cpu().numpy()
    means = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp(min=1), c)  # an empty cluster stays in place
    return labels, inertia, means.cpu().numpy()


def sweep(
    fingerprints: Fingerprints, ks: Sequence[int], seed: int, cache: str | Path | None = None
) -> tuple[pd.DataFrame, dict[int, NDArray[np.int64]]]:
    """Cluster at each K.

    Returns
    -------
    DataFrame
        k, inertia, seconds.
    dict of int to ndarray
        Labels at each K.
    """
    rows, labels = [], {}
    for k in ks:
        started = time.monotonic()
        labels[k], inertia = kmeans(fingerprints, k, seed, cache)
        rows.append({"k": k, "inertia": inertia, "seconds": time.monotonic() - started})
        log.info("K = %d: inertia %.6g, %.0f s", k, inertia, rows[-1]["seconds"])
    return pd.DataFrame(rows), labels


def knee(curve: pd.DataFrame) -> int | None:
    """K at the knee of inertia(K), by kneedle (convex, decreasing); None where the curve has none.

    Examples
    --------
    >>> knee(pd.DataFrame({"k": [1, 2, 3, 4, 5], "inertia": [100.0, 40.0, 10.0, 8.0, 6.0]}))
    3
    """
    found = KneeLocator(curve["k"], curve["inertia"], curve="convex", direction="decreasing").knee
    return None if found is None else int(found)


def read_labels(
    source: str, ks: Sequence[int], seed: int, cache: str | Path | None = None, workers: int = 1
) -> pd.DataFrame:
    """Molecules with labels at each K: read from a Parquet table of notebook 02, or computed for a data set by name.

    Returns
    -------
    DataFrame
        smiles, and k_<K> for each K.

    Raises
    ------
    FileNotFoundError, ValueError
        The table does not exist, or lacks labels at one of the K, or the set has too few molecules for that many.
    """
    table = datasets.read_molecules(source)
    columns = [f"k_{k}" for k in ks]
    if not source.endswith(".parquet"):
        table = table[table["duplicate_of"] < 0]
        fingerprints = maccs(list(table["smiles"]), cache, workers)
        try:
            return table.assign(**{f"k_{k}": kmeans(fingerprints, k, seed, cache)[0] for k in ks})
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    missing = [column for column in columns if column not in table]
    if missing:
        found = ", ".join(column for column in map(str, table) if column.startswith("k_"))
        raise ValueError(f"{source}: lacks the labels {', '.join(missing)}; it has {found or 'none'}")
    return table[["smiles", *columns]]
