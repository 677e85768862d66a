"""Baselines without images: Morgan fingerprints and what can be made of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rdkit.Chem import rdFingerprintGenerator
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from moleclip import datasets
from moleclip.datasets import Task


def morgan(smiles: Sequence[str], radius: int = 2, bits: int = 2048) -> NDArray[np.float32]:
    """Morgan fingerprints (ECFP4 at radius 2), the input of the paper's fingerprint baseline.

    Returns
    -------
    ndarray of float32, shape [N, bits]
        0 or 1.
    """
    fingerprints = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    return np.stack([fingerprints.GetFingerprintAsNumPy(datasets.parse(text)) for text in smiles]).astype(np.float32)


def random_forest(
    inputs: NDArray[np.float32], labels: NDArray[np.float64], train: NDArray[np.int64], task: Task, seed: int
) -> NDArray[np.float64]:
    """Untuned random forest, one per label column, fitted on the labelled training molecules.

    Returns
    -------
    ndarray of float64, shape [N, T]
        Predictions for all molecules: values, or the probability of class 1.
    """
    columns = []
    for known in labels.T:
        rows = train[~np.isnan(known[train])]
        if task == "classification":
            forest = RandomForestClassifier(500, random_state=seed).fit(inputs[rows], known[rows])
            columns.append(forest.predict_proba(inputs)[:, 1])
        else:
            forest = RandomForestRegressor(500, random_state=seed, max_features=1 / 3).fit(inputs[rows], known[rows])
            columns.append(forest.predict(inputs))
    return np.stack(columns, axis=1)


def mean(labels: NDArray[np.float64], train: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of the training labels, for every molecule: what a model without any input can do."""
    return np.broadcast_to(np.nanmean(labels[train], axis=0), labels.shape).copy()
