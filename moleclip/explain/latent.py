"""What encoders make of molecules that they were not trained on: embeddings, maps, neighbours."""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from moleclip import drawing, encoder
from moleclip.encoder import Encoder

NEIGHBOURS = 10


def embed(source: str | Encoder, smiles: Sequence[str], seed: int = 0, batch_size: int = 64) -> NDArray[np.float32]:
    """Embed the plain drawings of molecules.

    Parameters
    ----------
    source : str or Encoder
        As of `encoder.load`, or what it returns.
    seed : int
        Of random weights.

    Returns
    -------
    ndarray of float32, shape [N, D]
    """
    loaded = encoder.load(source, seed) if isinstance(source, str) else source
    image_encoder = loaded.to(encoder.device()).eval()
    images = drawing.draw_all(list(smiles), image_encoder.preprocess.size, "plain", 0)
    outputs: NDArray[np.float32] = encoder.embed_drawings(image_encoder, images, batch_size).float().cpu().numpy()
    return outputs


def purity(embeddings: NDArray[np.float32], classes: NDArray[np.int64], neighbours: int = NEIGHBOURS) -> float:
    """Share of a molecule's nearest neighbours, by cosine, that are of its class, averaged over molecules.

    Parameters
    ----------
    embeddings : ndarray, shape [N, D]
    classes : ndarray of int64, shape [N]

    Examples
    --------
    >>> purity(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], np.float32), np.array([0, 0, 1, 1]), 1)
    1.0
    """
    others = _nearest(embeddings, neighbours)
    return float(np.mean([np.mean(classes[row] == own) for row, own in zip(others, classes, strict=True)]))


def difference(
    embeddings: NDArray[np.float32], labels: NDArray[np.float64], neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Compare labels of nearest neighbours, by cosine: the smaller their difference, the more the space knows of them.

    Parameters
    ----------
    embeddings : ndarray, shape [N, D]
    labels : ndarray of float64, shape [N]
        Molecules without one (NaN) are left out before neighbours are looked for.

    Returns
    -------
    nearest : float
        Mean absolute difference of labels between a molecule and its nearest neighbours, averaged over molecules.
    chance : float
        The same for a random order: the mean over all pairs.

    Raises
    ------
    ValueError
        Too few molecules have a label.

    Examples
    --------
    >>> embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    >>> near, chance = difference(embeddings, np.array([1.0, 2, 5, 6]), 1)
    >>> near, round(chance, 3)
    (1.0, 3.0)
    """
    known = np.flatnonzero(~np.isnan(labels))
    if len(known) <= neighbours:
        raise ValueError(f"{len(known)} molecules have a label: too few for {neighbours} neighbours")
    values, others = labels[known], _nearest(embeddings[known], neighbours)
    near = np.mean([np.abs(values[row] - own).mean() for row, own in zip(others, values, strict=True)])
    pairs = np.abs(values[:, None] - values[None])
    return float(near), float(pairs.sum() / (len(values) * (len(values) - 1)))


def _nearest(embeddings: NDArray[np.float32], neighbours: int) -> list[NDArray[np.int64]]:
    """Nearest neighbours of each row, by cosine, without itself."""
    search = NearestNeighbors(n_neighbors=neighbours + 1, metric="cosine").fit(embeddings)
    found = search.kneighbors(embeddings, return_distance=False)
    return [row[row != number][:neighbours] for number, row in enumerate(found)]


def neighbours(
    embeddings: Mapping[str, NDArray[np.float32]],
    classes: NDArray[np.int64],
    labels: NDArray[np.float64],
    count: int = NEIGHBOURS,
) -> pd.DataFrame:
    """Measure what neighbours have in common, one row per embedding of the same molecules.

    Returns
    -------
    DataFrame
        encoder, molecules, neighbours, purity, purity_chance (of a random order), difference (of labels),
        difference_chance.
    """
    chance = _chance(classes)
    rows = []
    for name, values in embeddings.items():
        near, far = difference(values, labels, count)
        rows.append((name, len(classes), count, purity(values, classes, count), chance, near, far))
    columns = ["encoder", "molecules", "neighbours", "purity", "purity_chance", "difference", "difference_chance"]
    return pd.DataFrame(rows, columns=columns)


def _chance(classes: NDArray[np.int64]) -> float:
    """Purity of a random order."""
    counts = np.bincount(classes)[classes]
    return float(np.mean((counts - 1) / (len(classes) - 1)))


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None


def plane(embeddings: NDArray[np.float32], seed: int, method: Literal["tsne", "umap"] = "tsne") -> NDArray[np.float32]:
    """Place molecules in the plane by the cosines of their embeddings; by t-SNE, the same input gives the same bits.

    Parameters
    ----------
    embeddings : ndarray of float32, shape [N, D]
    method : {"tsne", "umap"}
        UMAP needs the extra `umap`.

    Returns
    -------
    ndarray of float32, shape [N, 2]

    Raises
    ------
    ModuleNotFoundError
        umap-learn is asked for and not installed.
    ValueError
        The method is neither of them.
    """
    if method == "umap":
        return _umap(embeddings, seed)
    if method != "tsne":
        raise ValueError(f"method {method!r}: expected 'tsne' or 'umap'")
    with threadpool_limits(1):  # sums of several threads differ from run to run
        placed: NDArray[np.float32] = TSNE(
            metric="cosine", init="random", random_state=seed, perplexity=min(20, len(embeddings) / 4)
        ).fit_transform(embeddings)
    return placed


def _umap(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    if not has_umap():
        raise ModuleNotFoundError("method 'umap' needs umap-learn: pip install umap-learn, or take method 'tsne'")
    from umap import UMAP

    # One job: with more, UMAP gives up its seed.
    model = UMAP(metric="cosine", random_state=seed, n_jobs=1, n_neighbors=min(15, len(embeddings) - 1))
    return np.asarray(model.fit_transform(embeddings), np.float32)


def maps(encoders: Mapping[str, str], smiles: Sequence[str], classes: NDArray[np.int64], seed: int) -> pd.DataFrame:
    """Map molecules to the plane by t-SNE, once per encoder.

    Parameters
    ----------
    encoders : mapping of str to str
        Sources, by a name.
    classes : ndarray of int64, shape [N]
        Of the molecules.

    Returns
    -------
    DataFrame
        encoder, smiles, class, x, y, purity (of all molecules of this encoder), chance (the purity of a random order).
    """
    chance = _chance(classes)
    parts = []
    for name, source in encoders.items():
        embeddings = embed(source, smiles, seed)
        x, y = plane(embeddings, seed).T
        place = {"encoder": name, "smiles": list(smiles), "class": classes, "x": x, "y": y}
        parts.append(pd.DataFrame({**place, "purity": purity(embeddings, classes), "chance": chance}))
    return pd.concat(parts, ignore_index=True)
