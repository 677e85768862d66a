"""Maps and neighbours: which molecules an encoder puts close together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from moleclip import datasets, drawing, encoder
from moleclip.io import seeds
from moleclip.metrics import nearest

NEIGHBOURS = 10


def choose(
    dataset: datasets.Dataset,
    label: str = "",
    count: int | None = None,
    seed: int = 0,
    finetuned: tuple[Mapping[str, Any], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Choose molecules of a data set at random, each structure once.

    Parameters
    ----------
    label : str
        Name of the label column; by default the first.
    count : int, optional
        Molecules to draw; by default all.
    finetuned : tuple of mapping and DataFrame, optional
        Card and molecules of a finetuned model. Then only its test molecules are taken: it was trained on the labels
        of the others.

    Returns
    -------
    DataFrame
        smiles, and the label under its name (NaN where unknown).

    Raises
    ------
    ValueError
        The set has no such label, or the model was finetuned on another set or label; what is there is named.
    """
    label = label or next(iter(dataset.label_names), "")
    if label not in dataset.label_names:
        known = ", ".join(dataset.label_names) or "none"
        raise ValueError(f"{dataset.name}: has no label {label!r}; it has {known}")
    if finetuned is None:
        table = datasets.readable(dataset, count, seed)
    else:
        card, table = finetuned
        if card["dataset"] != dataset.name or label not in card["label_names"]:
            trained = f"{card['dataset']} ({', '.join(card['label_names'])})"
            raise ValueError(f"the model was finetuned on {trained}, not on {dataset.name} ({label})")
        table = table[table["part"] == "test"]
        table = table.iloc[seeds.sample(len(table), count, seed)]
    table = table.drop_duplicates("canonical_smiles")
    return pd.DataFrame({"smiles": table["smiles"], label: table[label].astype(float)}).reset_index(drop=True)


def label_agreement(
    embeddings: NDArray[np.float32], classes: NDArray[np.int64], count: int = NEIGHBOURS
) -> tuple[float, float]:
    """Compute the kNN label agreement: how many of a molecule's nearest neighbours, by cosine, are of its class.

    Parameters
    ----------
    embeddings : ndarray, shape [N, D]
    classes : ndarray of int64, shape [N]
    count : int
        Neighbours of each molecule.

    Returns
    -------
    agreement : float
        Fraction of the neighbours, averaged over molecules.
    chance : float
        The same for neighbours at random.

    Examples
    --------
    >>> embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    >>> agreement, chance = label_agreement(embeddings, np.array([0, 0, 1, 1]), 1)
    >>> agreement, round(chance, 3)
    (1.0, 0.333)
    """
    same = classes[nearest(embeddings, count)] == classes[:, None]
    others = np.bincount(classes)[classes] - 1
    return float(same.mean(axis=1).mean()), float(np.mean(others / (len(classes) - 1)))


def neighbours(
    embeddings: Mapping[str, NDArray[np.float32]],
    classes: NDArray[np.int64],
    labels: NDArray[np.float64],
    count: int = NEIGHBOURS,
) -> pd.DataFrame:
    """Measure what nearest neighbours, by cosine, have in common, one row per embedding of the same molecules.

    Parameters
    ----------
    embeddings : mapping of str to ndarray, shape [N, D]
    classes : ndarray of int64, shape [N]
    labels : ndarray of float64, shape [N]
        Numbers. Molecules without one (NaN) do not count as neighbours where labels are compared.

    Returns
    -------
    DataFrame
        encoder, molecules, neighbours; label_agreement (of the classes, see there) and label_agreement_chance;
        difference (mean absolute difference of labels between a molecule and its neighbours, averaged over molecules)
        and difference_chance (the mean over all pairs).

    Raises
    ------
    ValueError
        Too few molecules have a label.

    Examples
    --------
    >>> embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    >>> found = neighbours({"made": embeddings}, np.array([0, 0, 1, 1]), np.array([1.0, 2, 5, 6]), 1)
    >>> found[["label_agreement", "difference", "difference_chance"]].round(3).values.tolist()
    [[1.0, 1.0, 3.0]]
    """
    known = ~np.isnan(labels)
    values = labels[known]
    if len(values) <= count:
        raise ValueError(f"{len(values)} molecules have a label: too few for {count} neighbours")
    far = float(np.abs(values[:, None] - values).sum() / (len(values) * (len(values) - 1)))
    rows: list[tuple[object, ...]] = []
    for name, points in embeddings.items():
        near = np.abs(values[nearest(points[known], count)] - values[:, None]).mean(axis=1).mean()
        rows.append((name, len(classes), count, *label_agreement(points, classes, count), near, far))
    columns = ["encoder", "molecules", "neighbours", "label_agreement", "label_agreement_chance"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_chance"])


def plane(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Place molecules in the plane by the cosines of their embeddings (t-SNE); the same input gives the same bits.

    Parameters
    ----------
    embeddings : ndarray of float32, shape [N, D]

    Returns
    -------
    ndarray of float32, shape [N, 2]
    """
    model = TSNE(metric="cosine", init="random", random_state=seed, perplexity=min(20, len(embeddings) / 4))
    with threadpool_limits(1):  # sums of several threads differ from run to run
        return np.asarray(model.fit_transform(embeddings), np.float32)


def table(sources: Mapping[str, str], smiles: Sequence[str], classes: NDArray[np.int64], seed: int) -> pd.DataFrame:
    """Map molecules to the plane by t-SNE, once per encoder.

    Parameters
    ----------
    sources : mapping of str to str
        What `encoder.load` takes, by a name.
    classes : ndarray of int64, shape [N]
        Of the molecules.

    Returns
    -------
    DataFrame
        encoder, smiles, class, x, y, agreement and chance (of all molecules of this encoder, see `label_agreement`).
    """
    parts = []
    for name, source in sources.items():
        loaded = encoder.load(source, seed).to(encoder.device())
        images = drawing.draw_all(list(smiles), loaded.preprocess.size, "plain", 0)
        embeddings = encoder.embed_drawings(loaded, images).float().cpu().numpy()
        (x, y), (agreement, chance) = plane(embeddings, seed).T, label_agreement(embeddings, classes)
        values = {"encoder": name, "smiles": list(smiles), "class": classes, "x": x, "y": y}
        parts.append(pd.DataFrame({**values, "agreement": agreement, "chance": chance}))
    return pd.concat(parts, ignore_index=True)
