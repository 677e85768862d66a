"""Estimators to compare with: forests, a fingerprint MLP, models on embeddings, chemprop, the mean."""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn import ensemble
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.model_selection import GridSearchCV, ParameterGrid, ShuffleSplit, StratifiedShuffleSplit
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR

from moleclip import encoder as encoders
from moleclip.datasets import Task
from moleclip.encoder import head
from moleclip.estimator import Labels, MoleculeEstimator, Molecules, by_label, values_of
from moleclip.finetune import FinetunedEncoder, Inputs, NetworkEstimator
from moleclip.io import errors

# Of the linear model on embeddings, from strong to weak.
PENALTIES = 10.0 ** np.arange(5, -4, -1)
# Of trees, the best settings hardly depend on more molecules, and on thousands the search takes hours.
MOST_TO_CHOOSE = 500


class Mean(MoleculeEstimator):
    """Predict the mean of the training labels, or for classification the frequency of class 1."""

    def __init__(self, *, task: Task = "regression", seed: int = 0) -> None:
        self.task, self.seed = task, seed

    def _fit(self, given: Molecules, labels: Labels, *_: Any) -> None:
        self.mean_ = np.nanmean(labels, axis=0)

    def _values(self, given: Molecules) -> Labels:
        return np.tile(self.mean_, (len(given), 1))


class Forest(MoleculeEstimator):
    """Decision trees on fingerprints or descriptors, one ensemble per label.

    Parameters
    ----------
    features : {"ecfp4", "counts", "descriptors"}
        Morgan fingerprints of 0 and 1, or of counts; or RDKit's descriptors.
    kind : {"forest", "extra_trees", "gradient_boosting"}
        Breiman's random forest, extremely randomised trees, or trees that each correct those before it.
    tuned : bool
        Choose the features that a split looks at and the size of the leaves (for gradient boosting the learning rate
        and the depth) by cross-validation on five parts of the training molecules, or on five draws of 500 of them.
    trees : int
    """

    def __init__(
        self,
        features: Literal["ecfp4", "counts", "descriptors"] = "ecfp4",
        kind: Literal["forest", "extra_trees", "gradient_boosting"] = "forest",
        *,
        tuned: bool = False,
        trees: int = 500,
        task: Task = "regression",
        seed: int = 0,
    ) -> None:
        self.features, self.kind, self.tuned, self.trees = features, kind, tuned, trees
        self.task, self.seed = task, seed

    def _fit(self, given: Molecules, labels: Labels, *_: Any) -> None:
        classes = {
            ("forest", "regression"): ensemble.RandomForestRegressor,
            ("forest", "classification"): ensemble.RandomForestClassifier,
            ("extra_trees", "regression"): ensemble.ExtraTreesRegressor,
            ("extra_trees", "classification"): ensemble.ExtraTreesClassifier,
            ("gradient_boosting", "regression"): ensemble.GradientBoostingRegressor,
            ("gradient_boosting", "classification"): ensemble.GradientBoostingClassifier,
        }
        # A third of the features a split, as Breiman has it for regression; scikit-learn's default is all of them.
        usual: dict[str, Any] = {"max_features": 1 / 3 if self.task == "regression" else "sqrt"}
        choices: dict[str, list[Any]] = {"max_features": ["sqrt", 0.1, 1 / 3, 1.0], "min_samples_leaf": [1, 3]}
        if self.kind == "gradient_boosting":
            usual = {"max_features": "sqrt", "subsample": 0.7}
            choices = {"learning_rate": [0.02, 0.05, 0.1], "max_depth": [3, 6]}
        trees = classes[self.kind, self.task](n_estimators=self.trees, random_state=self.seed, **usual)
        pipeline = Pipeline([("impute", SimpleImputer(strategy="median")), ("trees", trees)])
        if self.tuned:
            settings = {f"trees__{name}": values for name, values in choices.items()}
            self.models_ = _search(pipeline, settings, self._inputs(given), labels, self.task, MOST_TO_CHOOSE)
        else:
            self.models_ = by_label(partial(clone, pipeline), self._inputs(given), labels)

    def _values(self, given: Molecules) -> Labels:
        return values_of(self.models_, self._inputs(given), self.task)

    def _inputs(self, given: Molecules) -> NDArray[np.float32]:
        return given.descriptors() if self.features == "descriptors" else given.morgan(self.features == "counts")


class Tanimoto(Kernel):  # type: ignore[misc]
    """Tanimoto's similarity of counts as a kernel (Ralaivola et al., Neural Networks 2005, 18, 1093).

    Examples
    --------
    >>> Tanimoto()(np.array([[1.0, 1, 0], [0, 1, 1], [2, 0, 0]])).round(2).tolist()
    [[1.0, 0.33, 0.5], [0.33, 1.0, 0.0], [0.5, 0.0, 1.0]]
    """

    def __init__(self) -> None:
        """Without parameters: scikit-learn looks for them here."""

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:  # noqa: N803
        """Similarities [N, M], and their gradient by no parameters."""
        other = X if Y is None else Y
        common = X @ other.T
        similarity = common / np.maximum((X**2).sum(1)[:, None] + (other**2).sum(1) - common, 1e-9)
        return (similarity, np.empty((*similarity.shape, 0))) if eval_gradient else similarity

    def diag(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Similarity of each to itself."""
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        """Whether it depends on differences only."""
        return False


class TanimotoGP(MoleculeEstimator):
    """A Gaussian process on counts of Morgan fingerprints, with Tanimoto's kernel; scale and noise by likelihood."""

    def __init__(self, *, task: Task = "regression", seed: int = 0) -> None:
        self.task, self.seed = task, seed

    def _fit(self, given: Molecules, labels: Labels, *_: Any) -> None:
        kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Tanimoto()
        if self.task == "classification":
            make = partial(GaussianProcessClassifier, kernel, random_state=self.seed)
        else:
            noisy = kernel + WhiteKernel(0.1, (1e-4, 10.0))
            make = partial(GaussianProcessRegressor, noisy, normalize_y=True, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of scale or noise at an end of its range
            self.models_ = by_label(make, given.morgan(counts=True).astype(np.float64), labels)

    def _values(self, given: Molecules) -> Labels:
        return values_of(self.models_, given.morgan(counts=True).astype(np.float64), self.task)


class FingerprintMLP(NetworkEstimator):
    """The paper's baseline: Morgan fingerprints and the head of the finetuned encoder, trained by Adam.

    Parameters
    ----------
    lr : float
    epochs : int
        The one with the lowest validation loss counts; of equal ones the last.
    weight_decay : float
        L2; 1e-5 in the authors' code.
    """

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        epochs: int = 60,
        batch_size: int = 64,
        weight_decay: float = 0.0,
        task: Task = "regression",
        scale_labels: bool = False,
        validation_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.lr, self.epochs, self.batch_size, self.task = lr, epochs, batch_size, task
        self.scale_labels, self.validation_fraction, self.seed = scale_labels, validation_fraction, seed
        self.weight_decay = weight_decay

    def _fit(
        self, given: Molecules, labels: Labels, validation: tuple[Molecules, Labels] | None, _: NDArray[np.int64]
    ) -> None:
        assert validation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = head(given.morgan().shape[1], self.n_labels_)
        network.to(encoders.device())
        adam = torch.optim.Adam(network.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)
        self._train(network, adam, _bits(given), labels, (_bits(validation[0]), validation[1]))

    def _values(self, given: Molecules) -> Labels:
        return self._predict(_bits(given), len(given))


def _bits(given: Molecules) -> Inputs:
    fingerprints = torch.from_numpy(given.morgan())
    return lambda positions, _: fingerprints[positions]


class FrozenEncoder(MoleculeEstimator):
    """A scikit-learn model on what an encoder sees, which is not trained.

    Its setting, such as the penalty of a linear model, is chosen on the validation molecules, or without any by
    cross-validation on five parts.

    Parameters
    ----------
    encoder : str or Path
        As of `encoder.load`.
    model : str
        "linear" (ridge or logistic regression), "svm" (support vectors with a Gaussian kernel), "extra_trees", for
        regression also "pls" and "gaussian_process"; or "best", the one of them with the lowest validation loss.
    layers : {"all", "last"}
        Fit it to the features of all layers, or to the embedding; as of `Encoder.embed`.
    drawing, image_size, workers
        As of `FinetunedEncoder`.
    """

    def __init__(
        self,
        encoder: str | Path,
        *,
        model: str = "linear",
        layers: encoders.Layers = "all",
        task: Task = "regression",
        drawing: str = "plain",
        image_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.encoder, self.model, self.layers, self.task = encoder, model, layers, task
        self.drawing, self.image_size, self.workers, self.seed = drawing, image_size, workers, seed

    def _fit(self, given: Molecules, labels: Labels, validation: tuple[Molecules, Labels] | None, *_: Any) -> None:
        inputs, settings = self._embeddings(given), self._settings(len(given))
        pipeline = Pipeline([("scale", _scaler(inputs)), ("model", settings[0]["model"][0])])
        if validation is None:
            self.models_ = _search(pipeline, settings, inputs, labels, self.task)
            return
        val_inputs, found = self._embeddings(validation[0]), []
        for setting in ParameterGrid(settings):
            models = by_label(partial(_with, pipeline, setting), inputs, labels)
            values = values_of(models, val_inputs, self.task)
            found.append((_loss(validation[1], values, self.task), models))
        self.models_ = min(found, key=lambda pair: pair[0])[1]

    def _values(self, given: Molecules) -> Labels:
        return values_of(self.models_, self._embeddings(given), self.task)

    def _settings(self, size: int) -> list[dict[str, Any]]:
        known = _models(self.task, self.seed, size)
        if self.model != "best" and self.model not in known:
            raise ValueError(f"model={self.model!r}: expected best, or for {self.task} one of {', '.join(known)}")
        return [known[self.model]] if self.model in known else list(known.values())

    def _embeddings(self, given: Molecules) -> NDArray[np.float64]:
        def embed(everything: Molecules) -> NDArray[np.float64]:
            image_encoder = encoders.load(self.encoder, self.seed, self.image_size).to(encoders.device())
            images = everything.drawings(image_encoder.preprocess.size, self.drawing, self.workers)
            # Embeddings are so alike that fp32 would not do.
            found: NDArray[np.float64] = image_encoder.embed(images, layers=self.layers).cpu().double().numpy()
            return found

        return given.made(
            ("embeddings", str(self.encoder), self.layers, self.seed, self.image_size, self.drawing), embed
        )


def _search(
    pipeline: Pipeline, settings: Any, inputs: NDArray[Any], labels: Labels, task: Task, most: int | None = None
) -> list[Any]:
    """Choose a setting for each label by cross-validation on five parts, fewer where a class has fewer molecules.

    With `most`, larger sets choose on five draws of that many molecules, and fit the chosen setting to all.
    """
    found = []
    for column in labels.T:
        known = ~np.isnan(column)
        loss: str = "neg_mean_absolute_error"
        folds: Any = 5
        if task == "classification":
            loss, folds = "neg_log_loss", min(5, *np.unique(column[known], return_counts=True)[1].tolist())
            if folds < 2:
                raise ValueError("a class has 1 of the molecules to learn from: a model on embeddings needs 2")
        if most and known.sum() > most:
            draws = StratifiedShuffleSplit if task == "classification" else ShuffleSplit
            folds = draws(5, train_size=most * 4 // 5, test_size=most // 5, random_state=0)
        found.append(GridSearchCV(pipeline, settings, scoring=loss, cv=folds).fit(inputs[known], column[known]))
    return found


def _models(task: Task, seed: int, size: int) -> dict[str, dict[str, Any]]:
    """Models on top of embeddings of `size` molecules, by name: for each the settings to choose from."""
    strengths = 10.0 ** np.arange(-1, 4)
    if task == "classification":
        trees = ensemble.ExtraTreesClassifier(500, random_state=seed)
        return {
            "linear": {"model": [LogisticRegression(max_iter=5000)], "model__C": 1 / PENALTIES},
            "svm": {"model": [CalibratedClassifierCV(SVC(), ensemble=False)], "model__estimator__C": strengths},
            "extra_trees": {"model": [trees]},
        }
    svm = TransformedTargetRegressor(SVR(), transformer=StandardScaler())
    components = [count for count in (2, 4, 8, 16) if count < size // 2]
    found: dict[str, dict[str, Any]] = {
        "linear": {"model": [Ridge()], "model__alpha": PENALTIES},
        "pls": {"model": [PLSRegression(scale=False)], "model__n_components": components or [1]},
        "svm": {"model": [svm], "model__regressor__C": strengths},
        "extra_trees": {"model": [ensemble.ExtraTreesRegressor(500, max_features=1 / 3, random_state=seed)]},
    }
    if size <= 2000:  # beyond, it takes hours
        kernel = ConstantKernel() * RBF(30.0, (1.0, 1e3)) + WhiteKernel(0.1, (1e-4, 10.0))
        gaussian = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
        found["gaussian_process"] = {"model": [gaussian]}
    return found


def _scaler(embeddings: NDArray[np.float64]) -> Any:
    """Standardise, except on a sphere, where directions of almost no variance would be blown up."""
    lengths = np.linalg.norm(embeddings, axis=1)
    return FunctionTransformer(_spread) if np.allclose(lengths, lengths[0], rtol=1e-4) else StandardScaler()


def _spread(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give embeddings of one length features of about 1, for which the penalties are made."""
    return np.asarray(embeddings * np.sqrt(embeddings.shape[1] / (embeddings**2).sum(axis=1, keepdims=True)))


def _with(pipeline: Pipeline, setting: dict[str, Any]) -> Any:
    return clone(pipeline).set_params(**{name: clone(value, safe=False) for name, value in setting.items()})


def _loss(labels: Labels, values: Labels, task: Task) -> float:
    present = ~np.isnan(labels)
    if task == "regression":
        return float(mean_absolute_error(labels[present], values[present]))
    return float(log_loss(labels[present], values[present], labels=[0, 1]))


class Chemprop(MoleculeEstimator):
    """chemprop's D-MPNN (J. Chem. Inf. Model. 2024, 64, 9), trained by its own command line, with its own defaults.

    The validation molecules choose the epoch, as chemprop does. See `chemprop_command` for what must be installed.

    Parameters
    ----------
    foundation : str
        Weights to start from: "CheMeleon" (arXiv:2506.15792), which chemprop 2.2 and later downloads once, or a file
        of such weights. Without, random ones.
    """

    def __init__(
        self, foundation: str = "", *, task: Task = "regression", validation_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.foundation, self.task, self.validation_fraction, self.seed = foundation, task, validation_fraction, seed

    def _fit(self, given: Molecules, labels: Labels, validation: tuple[Molecules, Labels] | None, *_: Any) -> None:
        assert validation
        command, targets = chemprop_command(), [f"y{number}" for number in range(self.n_labels_)]
        table = pd.DataFrame(np.concatenate([labels, validation[1]]), columns=targets)
        table.insert(0, "smiles", [*given, *validation[0]])
        train, val = np.split(np.arange(len(table)), [len(given)])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            table.to_csv(folder / "molecules.csv", index=False)
            # chemprop wants molecules to test; none are shown to it.
            parts = {"train": train.tolist(), "val": val.tolist(), "test": val.tolist()}
            (folder / "splits.json").write_text(json.dumps([parts]))
            training = ["--data-path", "molecules.csv", "--splits-file", "splits.json", "--task-type", self.task]
            training += ["--target-columns", *targets, "--pytorch-seed", str(self.seed), "--output-dir", "model"]
            if self.foundation:
                file = Path(self.foundation)
                training += ["--from-foundation", str(file.resolve()) if file.is_file() else self.foundation]
            _run([*command, "train", *training], "train", folder)
            self.model_ = next(folder.glob("model/**/best.pt")).read_bytes()

    def _values(self, given: Molecules) -> Labels:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "best.pt").write_bytes(self.model_)
            pd.DataFrame({"smiles": list(given)}).to_csv(folder / "asked.csv", index=False)
            asking = ["-i", "asked.csv", "--model-paths", str(folder / "best.pt"), "-o", "predictions.csv"]
            _run([*chemprop_command(), "predict", *asking], "predict", folder)
            found = pd.read_csv(folder / "predictions.csv")
        if list(found["smiles"]) != list(given):
            raise RuntimeError(f"chemprop: {len(found)} molecules came back, not the {len(given)} that went in")
        return found.drop(columns="smiles").to_numpy(np.float64)[:, -self.n_labels_ :]


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


def _run(command: list[str], what: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"chemprop {what} failed:\n{(done.stdout + done.stderr)[-2000:]}")


# Estimators by the names that they have in parameters and tables, from simple to complex: of those between which
# nothing is sure, the first is the one to use. They choose their settings themselves, or have none.
BY_NAME: dict[str, Callable[..., MoleculeEstimator]] = {
    "mean": Mean,
    "ecfp4_forest": partial(Forest, "ecfp4", "forest"),
    "count_forest": partial(Forest, "counts", "forest"),
    "tanimoto_gp": TanimotoGP,
    "descriptor_forest": partial(Forest, "descriptors", "forest"),
    "ecfp4_extra_trees": partial(Forest, "ecfp4", "extra_trees"),
    "descriptor_extra_trees": partial(Forest, "descriptors", "extra_trees"),
    "tuned_forest": partial(Forest, "counts", "forest", tuned=True, trees=200),
    "gradient_boosting": partial(Forest, "counts", "gradient_boosting", tuned=True, trees=200),
    "fingerprint_mlp": FingerprintMLP,
    "frozen_linear": partial(FrozenEncoder, model="linear"),
    "frozen_pls": partial(FrozenEncoder, model="pls"),
    "frozen_gaussian_process": partial(FrozenEncoder, model="gaussian_process"),
    "frozen_svm": partial(FrozenEncoder, model="svm"),
    "frozen_best": partial(FrozenEncoder, model="best"),
    "chemprop": Chemprop,
    "chemeleon": partial(Chemprop, "CheMeleon"),
    # Of a few dozen molecules, a tenth is too few to choose the epoch.
    "finetuned": partial(FinetunedEncoder, validation_fraction=0.2),
}
SEEDLESS = ("mean", "tanimoto_gp")  # those of them that are the same for each seed
CHEMPROP = ("chemprop", "chemeleon")  # those that chemprop's command trains


def make(name: str, task: Task, seed: int, encoder: str | Path = "", **settings: Any) -> MoleculeEstimator:
    """Make an estimator by its name in `BY_NAME`; those that see drawings start from `encoder`.

    Raises
    ------
    ValueError
        The name is not known.

    Examples
    --------
    >>> make("frozen_pls", "regression", 0, "lite")
    FrozenEncoder(encoder='lite', model='pls')
    """
    if name not in BY_NAME:
        raise ValueError(f"unknown method {name!r}{errors.nearest(name, list(BY_NAME))}")
    if sees(name):
        settings["encoder"] = encoder
    return BY_NAME[name](task=task, seed=seed, **settings)


def sees(name: str) -> bool:
    """Whether an estimator predicts from drawings, by an encoder.

    >>> sees("frozen_linear"), sees("ecfp4_forest")
    (True, False)
    """
    return name == "finetuned" or name.startswith("frozen_")
