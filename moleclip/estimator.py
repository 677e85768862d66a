"""Base of all models: molecules in, labels out, by scikit-learn's rules."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from numbers import Integral
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.validation import check_is_fitted

from moleclip import drawing as drawings
from moleclip import molecules
from moleclip.datasets import Task

Labels = NDArray[np.float64]  # [N, T], NaN where missing


class Molecules(Sequence[str]):
    """SMILES with the inputs that models need, each made once: drawings, fingerprints, descriptors, embeddings.

    A part of them, `molecules[rows]`, shares what has been made. Wherever an estimator takes SMILES, it takes these
    too: cross-validation and grid searches then draw every molecule once.

    Examples
    --------
    >>> some = Molecules(["CCO", "CCN", "CCC"])
    >>> list(some[[2, 0]]), some.morgan()[[2, 0]].shape
    (['CCC', 'CCO'], (2, 2048))
    """

    def __init__(self, smiles: Iterable[str], rows: NDArray[np.int64] | None = None) -> None:
        self.whole = tuple(map(str, smiles))
        self.rows = np.arange(len(self.whole)) if rows is None else rows
        self._made: dict[Hashable, NDArray[Any]] = {}

    @classmethod
    def of(cls, smiles: Any) -> "Molecules":
        """Pass molecules on; wrap a list, an array or a column of SMILES."""
        if isinstance(smiles, cls):
            return smiles
        if isinstance(smiles, str):
            raise TypeError(f"{smiles!r}: expected a list of SMILES, not one alone")
        return cls(np.asarray(smiles, object).reshape(len(smiles)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int]:
        """Number of molecules, as scikit-learn asks an array for it."""
        return (len(self.rows),)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: Any) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, Integral):
            return self.whole[self.rows[key]]
        return self._part(self.rows[key[0] if isinstance(key, tuple) else key])  # scikit-learn asks for [rows, ...]

    def _part(self, rows: NDArray[np.int64]) -> "Molecules":
        part = Molecules((), rows)
        part.whole, part._made = self.whole, self._made
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        return Molecules, (self.whole, self.rows)

    def made(self, key: Hashable, make: Callable[["Molecules"], NDArray[Any]]) -> NDArray[Any]:
        """Rows of an array [all molecules, ...], which `make` makes of all of them when first asked for the key."""
        if key not in self._made:
            self._made[key] = make(self._part(np.arange(len(self.whole))))
        array = self._made[key]
        return array if np.array_equal(self.rows, np.arange(len(array))) else array[self.rows]

    def drawings(self, size: int, drawing: str = "plain", workers: int = 0) -> NDArray[np.uint8]:
        """Drawings in one of the styles of `drawing.DRAWINGS`: uint8 [N, size, size, 3]."""
        return self.made(
            ("drawings", size, drawing), lambda all_: drawings.draw_all(list(all_), size, drawing, workers)
        )

    def morgan(self, counts: bool = False) -> NDArray[np.float32]:
        """Morgan fingerprints, float32 [N, 2048]; see `molecules.morgan`."""
        return self.made(("morgan", counts), lambda all_: molecules.morgan(all_, counts))

    def descriptors(self) -> NDArray[np.float32]:
        """RDKit's descriptors, float32 [N, D]; see `molecules.descriptors`."""
        return self.made("descriptors", molecules.descriptors)


class MoleculeEstimator(BaseEstimator):  # type: ignore[misc]
    """A model that learns labels of molecules: a regressor, or a classifier of 0 and 1.

    Subclasses have the parameters `task` and `seed`, and define `_fit` and `_values`. Those that choose something on
    validation molecules (an epoch, a penalty) hold out `validation_fraction` of what they are given, unless `fit` is
    told which to take.
    """

    task: Task = "regression"
    seed: int = 0
    validation_fraction: float | None = None

    def fit(
        self,
        smiles: Any,
        y: ArrayLike,
        validation: tuple[Any, ArrayLike] | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> Self:
        """Learn.

        Parameters
        ----------
        smiles : sequence of str, or Molecules, length N
        y : array_like, shape [N] or [N, T]
            Labels, NaN where missing; 0 or 1 for classification.
        validation : (smiles, y), optional
            Molecules that choose the epoch or the penalty, and are not trained on.
        numbers : ndarray of int64, shape [N], optional
            Seed the augmentation of each molecule's drawings; by default its position. With those of the whole data
            set, a molecule is augmented in the same way in each split.

        Raises
        ------
        ValueError
            The numbers of molecules and labels differ, a label has no known value, a class is not 0 or 1, or there
            are no validation molecules for what needs them.
        FloatingPointError
            The training diverged.
        """
        given, labels = Molecules.of(smiles), self._labels(y)
        numbers = np.arange(len(given)) if numbers is None else np.asarray(numbers)
        if not len(given) == len(labels) == len(numbers):
            raise ValueError(f"{len(given)} molecules, {len(labels)} labels and {len(numbers)} numbers: must be equal")
        if missing := np.flatnonzero(np.isnan(labels).all(axis=0)).tolist():
            raise ValueError(f"label columns {missing} have no known value: there is nothing to learn")
        self.several_ = np.ndim(y) > 1
        self.n_labels_ = labels.shape[1]
        if self.task == "classification":
            self.classes_ = np.array([0, 1])
        if validation is None and self.validation_fraction is not None:
            if not self.validation_fraction:
                raise ValueError("no validation molecules: give some, or a validation_fraction above 0")
            train, held_out = self._hold_out(labels)
            validation = given[held_out], labels[held_out]
            given, labels, numbers = given[train], labels[train], numbers[train]
        chosen_on = None if validation is None else (Molecules.of(validation[0]), self._labels(validation[1]))
        self._fit(given, labels, chosen_on, numbers)
        return self

    def predict_values(self, smiles: Any) -> Labels:
        """Predict labels, or for classification the probability of class 1: float64 [N, T]."""
        check_is_fitted(self)
        return self._values(Molecules.of(smiles))

    def predict(self, smiles: Any) -> NDArray[Any]:
        """Predict labels, or for classification the class: shape [N], or [N, T] where `y` had two dimensions."""
        values: NDArray[Any] = self.predict_values(smiles)
        if self.task == "classification":
            values = (values > 0.5).astype(int)
        return values if self.several_ else values[:, 0]

    def predict_proba(self, smiles: Any) -> Any:
        """Predict the probabilities of both classes: float64 [N, 2], or a list of these where `y` had two dimensions.

        Raises
        ------
        AttributeError
            The task is regression.
        """
        if self.task != "classification":
            raise AttributeError("predict_proba: the task is regression")
        found = [np.stack([1 - column, column], axis=1) for column in self.predict_values(smiles).T]
        return found if self.several_ else found[0]

    def score(self, smiles: Any, y: ArrayLike) -> float:
        """R squared, or for classification the accuracy, averaged over labels; missing ones are left out."""
        measure = accuracy_score if self.task == "classification" else r2_score
        labels, found = self._labels(y), np.reshape(self.predict(smiles), (-1, self.n_labels_))
        known = ~np.isnan(labels)
        return float(np.mean([measure(a[k], b[k]) for a, b, k in zip(labels.T, found.T, known.T, strict=True)]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if self.task == "classification" else "regressor"
        tags.classifier_tags = ClassifierTags(multi_class=False) if self.task == "classification" else None
        tags.regressor_tags = RegressorTags() if self.task == "regression" else None
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = tags.target_tags.multi_output = True
        return tags

    def _fit(
        self,
        given: Molecules,
        labels: Labels,
        validation: tuple[Molecules, Labels] | None,
        numbers: NDArray[np.int64],
    ) -> None:
        raise NotImplementedError

    def _values(self, given: Molecules) -> Labels:
        raise NotImplementedError

    def _labels(self, y: ArrayLike) -> Labels:
        labels = np.asarray(y, np.float64)
        labels = labels[:, None] if labels.ndim == 1 else labels
        if np.isinf(labels).any():
            raise ValueError("a label is infinite")
        if self.task == "classification" and not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
            raise ValueError("classification: labels must be 0 or 1, or NaN where missing")
        return labels

    def _hold_out(self, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions to train on and to hold out, of molecules with a label; one label's classes are stratified."""
        known = np.flatnonzero(~np.isnan(labels).all(axis=1))
        classes = labels[known, 0] if self.task == "classification" and labels.shape[1] == 1 else None
        if classes is not None and min(np.unique(classes, return_counts=True)[1]) < 2:
            classes = None
        if len(known) < 2:
            raise ValueError(f"{len(known)} molecules have a label: at least 2 are needed")
        size = max(1 if classes is None else 2, round((self.validation_fraction or 0) * len(known)))
        train, held_out = train_test_split(known, test_size=size, random_state=self.seed, stratify=classes)
        return np.sort(train), np.sort(held_out)


def by_label(make: Callable[[], Any], inputs: NDArray[Any], labels: Labels) -> list[Any]:
    """Fit one of scikit-learn's models to each label, on the molecules where it is known."""
    return [make().fit(inputs[~np.isnan(known)], known[~np.isnan(known)]) for known in labels.T]


def values_of(models: Sequence[Any], inputs: NDArray[Any], task: Task) -> Labels:
    """Predictions of the models of `by_label`: values, or the probability of class 1."""
    found = [m.predict(inputs) if task == "regression" else m.predict_proba(inputs)[:, 1] for m in models]
    return np.stack(found, axis=1).astype(np.float64)
