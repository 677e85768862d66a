"""Baselines: fingerprints, descriptors, forests, a linear head, and the mean. A score without them says little."""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import ensemble
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moleclip import config, molecules
from moleclip.datasets import Task
from moleclip.splits import Split

TREES = 500
SEEDED = (*config.FORESTS, "chemprop")
# Of the linear head, from strong to weak.
PENALTIES = 10.0 ** np.arange(5, -4, -1)


def predict(
    name: str,
    features: molecules.Features,
    labels: NDArray[np.float64],
    train: NDArray[np.int64],
    task: Task,
    seed: int,
) -> NDArray[np.float64]:
    """Fit a baseline that is not trained in epochs, one model per label column, on the labelled training molecules.

    Parameters
    ----------
    name : str
        "mean", or an untuned forest: "ecfp4_forest", "ecfp4_extra_trees", "descriptor_forest",
        "descriptor_extra_trees".

    Returns
    -------
    ndarray of float64, shape [N, T]
        Predictions for all molecules: values, or the probability of class 1.
    """
    if name == "mean":
        return np.broadcast_to(np.nanmean(labels[train], axis=0), labels.shape).copy()
    kind, _, model = name.partition("_")
    inputs = features.morgan if kind == "ecfp4" else features.descriptors
    forest = _forest(model, task, seed)
    return _by_column(lambda: make_pipeline(SimpleImputer(strategy="median"), forest), inputs, labels, train, task)


def _forest(model: str, task: Task, seed: int) -> Any:
    forests = {
        ("forest", "regression"): ensemble.RandomForestRegressor,
        ("forest", "classification"): ensemble.RandomForestClassifier,
        ("extra_trees", "regression"): ensemble.ExtraTreesRegressor,
        ("extra_trees", "classification"): ensemble.ExtraTreesClassifier,
    }
    # A third of the features a split, as Breiman has it for regression; scikit-learn's default is all of them.
    features = 1 / 3 if task == "regression" else "sqrt"
    return forests[model, task](TREES, max_features=features, random_state=seed)


def chemprop_command() -> list[str]:
    """Find chemprop's command, and what is to stand between it and its own arguments.

    Raises
    ------
    FileNotFoundError
        There is no such command; the message says how to get it.
    """
    name, *arguments = shlex.split(os.environ.get("MOLECLIP_CHEMPROP") or "chemprop")
    command = shutil.which(name)
    if not command:
        raise FileNotFoundError(
            f"{name}: no such command. chemprop needs another RDKit than this project, so give it an environment of "
            "its own: `pipx install chemprop`, or name its command in MOLECLIP_CHEMPROP"
        )
    return [os.path.abspath(command), *arguments]


def chemprop(
    smiles: Sequence[str], labels: NDArray[np.float64], split: Split, task: Task, seed: int
) -> NDArray[np.float64]:
    """Train chemprop's D-MPNN (J. Chem. Inf. Model. 2024, 64, 9) by its own command line, with its own defaults.

    Parameters
    ----------
    split : Split
        Its validation part chooses the epoch, as chemprop does.

    Returns
    -------
    ndarray of float64, shape [N, T]
        As `predict` gives them.

    Raises
    ------
    FileNotFoundError
        See `chemprop_command`.
    RuntimeError
        The command failed; the message ends as its output does.
    """
    command = chemprop_command()
    targets = [f"y{number}" for number in range(labels.shape[1])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = pd.DataFrame(labels, columns=targets)
        table.insert(0, "smiles", list(smiles))
        table.to_csv(folder / "molecules.csv", index=False)
        parts = {part: getattr(split, part).tolist() for part in ("train", "val", "test")}
        (folder / "splits.json").write_text(json.dumps([parts]))
        training = ["--data-path", "molecules.csv", "--splits-file", "splits.json", "--task-type", task]
        training += ["--target-columns", *targets, "--pytorch-seed", str(seed), "--output-dir", "model"]
        _run([*command, "train", *training], "train", folder)
        model = str(next(folder.glob("model/**/best.pt")))
        # Without labels, which could be read for predictions.
        table[["smiles"]].to_csv(folder / "asked.csv", index=False)
        asking = ["-i", "asked.csv", "--model-paths", model, "-o", "predictions.csv"]
        _run([*command, "predict", *asking], "predict", folder)
        found = pd.read_csv(folder / "predictions.csv")
    if list(found["smiles"]) != list(smiles):
        raise RuntimeError(f"chemprop: {len(found)} molecules came back, not the {len(smiles)} that went in, in order")
    return found.drop(columns="smiles").to_numpy(np.float64)[:, -len(targets) :]


def _run(command: list[str], what: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"chemprop {what} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def linear(
    inputs: NDArray[np.float32],
    labels: NDArray[np.float64],
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    task: Task,
) -> NDArray[np.float64]:
    """Ridge or logistic regression, its penalty chosen on validation.

    Parameters
    ----------
    inputs : ndarray of float32, shape [N, D]
        Embeddings.

    Returns
    -------
    ndarray of float64, shape [N, T]
        As `predict` gives them.
    """
    regression = task == "regression"
    exact = inputs.astype(np.float64)  # embeddings are so alike that fp32 would not do
    found = []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty) if regression else LogisticRegression(C=1 / penalty, max_iter=5000)
        predictions = _by_column(lambda m=model: make_pipeline(StandardScaler(), m), exact, labels, train, task)  # type: ignore[misc]
        found.append((_loss(labels[val], predictions[val], task), predictions))
    return min(found, key=lambda pair: pair[0])[1]


def _loss(labels: NDArray[np.float64], predictions: NDArray[np.float64], task: Task) -> float:
    present = ~np.isnan(labels)
    if task == "regression":
        return float(mean_absolute_error(labels[present], predictions[present]))
    return float(log_loss(labels[present], predictions[present], labels=[0, 1]))


def _by_column(
    make: Callable[[], Any],
    inputs: NDArray[Any],
    labels: NDArray[np.float64],
    train: NDArray[np.int64],
    task: Task,
) -> NDArray[np.float64]:
    columns = []
    for known in labels.T:
        rows = train[~np.isnan(known[train])]
        model = make().fit(inputs[rows], known[rows])
        columns.append(model.predict(inputs) if task == "regression" else model.predict_proba(inputs)[:, 1])
    return np.stack(columns, axis=1).astype(np.float64)
