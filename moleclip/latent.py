"""What encoders make of molecules that they were not trained on: embeddings, maps, neighbours."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from moleclip import encoder, finetune

NEIGHBOURS = 10


def embed(source: str, smiles: Sequence[str], seed: int = 0, batch_size: int = 64) -> NDArray[np.float32]:
    """Embed the plain drawings of molecules.

    Parameters
    ----------
    source : str
        As of `encoder.load`.
    seed : int
        Of random weights.

    Returns
    -------
    ndarray of float32, shape [N, D]
    """
    image_encoder = encoder.load(source, seed).to(finetune.device())
    images = finetune.draw_all(list(smiles), image_encoder.preprocess.size, "plain", 0)
    rows = np.arange(len(images))
    outputs = finetune.predict(
        image_encoder, lambda part, _: torch.from_numpy(images[part]), rows, batch_size, finetune.device()
    )
    return outputs.numpy()


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
    search = NearestNeighbors(n_neighbors=neighbours + 1, metric="cosine").fit(embeddings)
    found = search.kneighbors(embeddings, return_distance=False)
    others = [row[row != number][:neighbours] for number, row in enumerate(found)]
    return float(np.mean([np.mean(classes[row] == own) for row, own in zip(others, classes, strict=True)]))


def plane(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Place molecules in the plane by t-SNE of the cosines of their embeddings; the same input gives the same bits.

    Parameters
    ----------
    embeddings : ndarray of float32, shape [N, D]

    Returns
    -------
    ndarray of float32, shape [N, 2]
    """
    with threadpool_limits(1):  # sums of several threads differ from run to run
        placed: NDArray[np.float32] = TSNE(
            metric="cosine", init="random", random_state=seed, perplexity=min(20, len(embeddings) / 4)
        ).fit_transform(embeddings)
    return placed


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
    counts = np.bincount(classes)[classes]
    chance = float(np.mean((counts - 1) / (len(classes) - 1)))
    parts = []
    for name, source in encoders.items():
        embeddings = embed(source, smiles, seed)
        x, y = plane(embeddings, seed).T
        place = {"encoder": name, "smiles": list(smiles), "class": classes, "x": x, "y": y}
        parts.append(pd.DataFrame({**place, "purity": purity(embeddings, classes), "chance": chance}))
    return pd.concat(parts, ignore_index=True)
