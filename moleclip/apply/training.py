"""From a file with labels to a model: estimators compared by cross-validation, the best one refitted and kept."""

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from tqdm.auto import tqdm

from moleclip import baselines, config, datasets, gridsearch, metrics
from moleclip import encoder as encoders
from moleclip.apply import learning_curves
from moleclip.apply.learning_curves import Words
from moleclip.baselines import FrozenEncoder
from moleclip.datasets import Dataset, Task
from moleclip.encoder import LITE
from moleclip.estimator import Labels, MoleculeEstimator, Molecules
from moleclip.finetune import FinetunedEncoder
from moleclip.io import errors, files, seeds
from moleclip.io.seeds import Stream
from moleclip.splits import Indices

log = logging.getLogger(__name__)

ENCODER = LITE  # default of the command line and of `train`

LEAST = 10  # labelled molecules
FOLDS = 5
REPEATED = 200  # molecules up to which the cross-validation is done twice
MODELS = 2  # finetunings that are kept: other heads, other orders

MOLECULES, COMPARISON, WEIGHTS = "molecules.parquet", "comparison", "encoder"
PARTS = "parts"  # what each method predicted in each part, for a call that goes on


def methods(task: Task) -> list[str]:
    """Name the methods that are compared, from simple to complex."""
    kernel = "gaussian_process" if task == "regression" else "svm"
    return ["mean", "ecfp4_forest", "descriptor_forest", "frozen_linear", f"frozen_{kernel}", "finetuned"]


class Trained(NamedTuple):
    """What `train` has found.

    Attributes
    ----------
    method : str
        The one that is kept.
    table : DataFrame
        A row per method, the best first: method, score (mean over parts), sd, parts, and how much better than the mean
        of the labels in the same parts (gain) it is, with the ends of the 95 % interval and p (gain_low, ...).
    sentence : str
    folder : Path
        For `MoleCLIPPredictor` and `moleclip predict`.
    predictions : DataFrame
        Each molecule, label and repeat (split_seed) as a method that had not seen it predicts it, in the form of
        `tables.mean_predictions`, where the method is in the column encoder.
    """

    method: str
    table: pd.DataFrame
    sentence: str
    folder: Path
    predictions: pd.DataFrame


def train(
    source: str | Path | Dataset,
    target: str | Sequence[str] | None = None,
    *,
    out: str | Path,
    smiles: str = "smiles",
    encoder: str | Path = ENCODER,
    method: str | Sequence[str] | None = None,
    keep: bool = False,
    sample: int | None = None,
    seed: int = 0,
    verbose: bool = False,
) -> Trained:
    """Compare methods on your labels by repeated cross-validation, and keep the best, trained on all of them.

    The molecules are tested in five parts, each by models of the other four; up to 200 molecules twice, in other parts,
    except by finetuning, which takes a hundred times as long as a forest.
    An interrupted call goes on where it stopped.

    Parameters
    ----------
    source : str, Path or Dataset
        Your file, as of `datasets.read_table`, or a data set by name.
    target : str or sequence of str, optional
        Columns of the labels; by default the one that holds numbers.
    out : str or Path
        Folder of the model.
    smiles : str
        Column of the SMILES.
    encoder : str or Path
        As of `encoder.load`.
    method : str or sequence of str, optional
        Those of `methods` to compare; by default all. Finetuning takes most of the time: without it, seconds. A single
        one is compared with the mean only.
    keep : bool
        Keep a model that does not beat the mean of the labels. Its predictions say so.
    sample : int, optional
        Use so many molecules, drawn at random.
    seed : int
        Of folds and models.
    verbose : bool
        Show progress.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        There are fewer than 10 molecules, a label does not vary, no method beats the mean, or the folder holds another
        model.
    """
    targets = [target] if isinstance(target, str) else target
    dataset = source if isinstance(source, Dataset) else datasets.load(str(source), smiles=smiles, labels=targets)
    molecules = learning_curves.labelled(dataset, sample, seed, LEAST)
    names, folder = methods(dataset.task), Path(out)
    asked = [method] if isinstance(method, str) else list(method or names)
    for name in asked:
        if name not in names:
            raise ValueError(f"unknown method {name!r}{errors.nearest(name, names)}")
    job = _Job(dataset, molecules, str(encoder), seed, folder)
    job.refuse_another(asked, keep)
    scores, predictions = job.compare(list(dict.fromkeys(["mean", *asked])), verbose)
    table = _table(scores, job)
    chosen = next((name for name in table.index if name != "mean"), "mean")
    gain, p, score = (float(table[name][chosen]) for name in ("gain", "gain_p", "score"))
    sentence, note = _sentence(table, chosen, job)
    if not gain > 0 and not keep and chosen != "mean":
        raise ValueError(f"{sentence} Nothing is kept; ask for it to be kept all the same (keep=True, --keep)")
    job.keep(chosen, scores, {"score": score, "gain_p": p, "note": note}, asked, keep)
    return Trained(chosen, table.reset_index(), sentence, folder, predictions)


def shown(table: pd.DataFrame) -> str:
    """Write the table of `Trained` as text, with equal digits in a column."""
    digits = Words.of(pd.DataFrame({"score": table["score"], "metric": "", "unit": ""})).decimals
    scores = zip(table["score"], table["sd"], strict=True)
    columns = {"method": table["method"], "score": [f"{mean:.{digits}f} \u00b1 {sd:.{digits}f}" for mean, sd in scores]}
    ends = zip(table["gain"], table["gain_low"], table["gain_high"], strict=True)
    columns["better than the mean by"] = [
        "" if name == "mean" else f"{gain:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
        for name, (gain, low, high) in zip(table["method"], ends, strict=True)
    ]
    return pd.DataFrame(columns).to_string(index=False)


def estimator(method: str, task: Task, source: str | Path, seed: int) -> MoleculeEstimator:
    """Make the estimator of a method."""
    shared: dict[str, Any] = {"task": task, "seed": seed}
    if method == "finetuned":
        return FinetunedEncoder(source, validation_fraction=0.2, **shared)
    if method.startswith("frozen_"):
        return FrozenEncoder(source, model=method.removeprefix("frozen_"), **shared)
    return baselines.BY_NAME[method](**shared)


def fit(model: MoleculeEstimator, *given: Any) -> MoleculeEstimator:
    """Fit, without the warnings of optimisers that could go on a little."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*given)


class _Job:
    """Cross-validation of one set, kept in a folder step by step."""

    def __init__(self, dataset: Dataset, molecules: pd.DataFrame, source: str, seed: int, folder: Path) -> None:
        self.dataset, self.source, self.seed, self.folder = dataset, source, seed, folder
        self.table = molecules[["smiles", *dataset.label_names]]
        self.molecules = Molecules(molecules["smiles"])
        self.labels: Labels = molecules[list(dataset.label_names)].to_numpy(np.float64)
        self.identity = {
            "molecules": hashlib.sha256(self.table.to_csv(index=False).encode()).hexdigest(),
            "task": dataset.task,
            "metric": dataset.metric,
            "encoder": encoders.digest(encoders.load(source, seed)),
            "seed": seed,
            "results": config.RESULTS,
            "versions": [*map(version, gridsearch.LIBRARIES), encoders.device().type],
        }

    def splits(self) -> list[tuple[Indices, Indices]]:
        """Positions to train on and to test; one label's classes are stratified."""
        repeats = 2 if len(self.labels) <= REPEATED else 1
        classes = self.labels[:, 0] if self.dataset.task == "classification" and self.labels.shape[1] == 1 else None
        if classes is None:
            return list(RepeatedKFold(n_splits=FOLDS, n_repeats=repeats, random_state=self.seed).split(self.labels))
        rarer = int(min(np.unique(classes, return_counts=True)[1]))
        if rarer < 2:
            raise ValueError(f"{self.dataset.name}: a class has {rarer} molecule: at least 2 are needed, better 10")
        folds = RepeatedStratifiedKFold(n_splits=min(FOLDS, rarer), n_repeats=repeats, random_state=self.seed)
        return list(folds.split(self.labels, classes))

    def compare(self, names: Sequence[str], verbose: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Score each method in each split (NaN: diverged), with the epoch that was chosen; and its predictions."""
        scores, predictions = [], []
        for name in names:
            splits = self.splits()[: FOLDS if name == "finetuned" else None]
            for number, (train, test) in enumerate(tqdm(splits, desc=name, disable=not verbose)):
                digest = hashlib.sha256(json.dumps([self.identity, name, number]).encode()).hexdigest()[:20]
                file = self.folder / PARTS / f"{digest}.json"
                if not file.is_file():
                    files.write_json(file, self._tested(name, number, train, test))
                kept, score = json.loads(file.read_text()), np.nan
                if kept["values"]:
                    values = np.array(kept["values"])
                    score = metrics.score(self.dataset.metric, self.labels[test], values)
                    predictions += self._rows(name, test, values)
                scores.append((name, number, score, kept["epoch"]))
        found = pd.concat(predictions, ignore_index=True)
        found["split_seed"] = 1 + found.groupby(["encoder", "row", "target"]).cumcount()
        return pd.DataFrame(scores, columns=["method", "split", "score", "epoch"]), found

    def _tested(self, name: str, number: int, train: Indices, test: Indices) -> dict[str, Any]:
        # A frozen encoder with random weights must be the same in all splits, to be embedded with once.
        seed = self.seed if name.startswith("frozen") else self._seed(number)
        model = estimator(name, self.dataset.task, self.source, seed)
        try:
            found = fit(model, self.molecules[train], self.labels[train]).predict_values(self.molecules[test])
        except FloatingPointError:
            return {"values": None, "epoch": 0}
        return {"values": found.tolist(), "epoch": int(getattr(model, "epoch_", 0))}

    def _rows(self, name: str, test: Indices, values: Labels) -> list[pd.DataFrame]:
        """Predictions of one part, a table per label."""
        place: dict[str, Any] = {"dataset": self.dataset.name, "encoder": name, "part": "test", "runs": 1, "row": test}
        molecules = pd.DataFrame({"smiles": list(self.molecules[test])}).assign(**place)
        each = zip(self.dataset.label_names, self.labels[test].T, values.T, strict=True)
        return [molecules.assign(target=name, label=known, prediction=found) for name, known, found in each]

    def _seed(self, number: int) -> int:
        return int(seeds.generator(Stream.REPEAT, self.seed, number).integers(2**31))

    def refuse_another(self, asked: list[str], keep: bool) -> None:
        """Refuse a folder that holds a model of other molecules or parameters."""
        card = self.folder / encoders.CARD
        if card.is_file():
            before = json.loads(card.read_text()).get("identity", {})
            files.refuse_another(card, before, self._whole(asked, keep), finished=True)

    def _whole(self, asked: list[str], keep: bool) -> dict[str, Any]:
        return {**self.identity, "methods": asked, "keep": keep}

    def keep(self, method: str, scores: pd.DataFrame, found: dict[str, Any], asked: list[str], keep: bool) -> None:
        """Train on all labels, and write models, molecules and, last, the card."""
        kept = []
        if method == "finetuned":
            epochs = max(1, round(scores.loc[scores["method"] == method, "epoch"].median()))
            for number in range(MODELS):
                model = FinetunedEncoder(
                    self.source, epochs=epochs, task=self.dataset.task, seed=self._seed(1000 + number)
                )
                # All labels are trained on, for as long as was best where others chose the epoch.
                fit(model, self.molecules, self.labels, (self.molecules, self.labels))
                kept.append(f"model_{number + 1}")
                assert isinstance(model, FinetunedEncoder)
                model.save(self.folder / kept[-1])
        if method.startswith("frozen"):
            encoders.load(self.source, self.seed).save(self.folder / WEIGHTS)
        molecules = files.write_parquet(self.folder / MOLECULES, self.table.assign(part="train"))
        files.write_csv(self.folder / f"{COMPARISON}.csv", scores)
        card = {
            "name": method,
            "method": method,
            **{name: getattr(self.dataset, name) for name in ("task", "metric", "unit", "label_names")},
            "dataset": self.dataset.name,
            "molecules": files.sha256(molecules),
            "models": kept,
            "seed": self.seed,
            **found,
            "identity": self._whole(asked, keep),
        }
        files.write_json(self.folder / encoders.CARD, card)


def _table(scores: pd.DataFrame, job: _Job) -> pd.DataFrame:
    """Compare with the mean of the labels in the same parts, by `metrics.paired`; the best method first."""
    by_method = {name: found.set_index("split")["score"] for name, found in scores.groupby("method", sort=False)}
    train, test = job.splits()[0]
    sign, rows = 1 if metrics.higher_is_better(job.dataset.metric) else -1, {}
    for name, found in by_method.items():
        if found.isna().any():
            log.warning("%s diverged in one of the parts, and is not compared", name)
            continue
        mean = by_method["mean"][found.index]
        gain = metrics.paired(sign * found, sign * mean, len(test) / len(train))[:4]
        rows[name] = (found.mean(), found.std(), len(found), *gain)
    columns = ["score", "sd", "parts", "gain", "gain_low", "gain_high", "gain_p"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")
    return table.sort_values("gain", ascending=False, kind="stable")


def _sentence(table: pd.DataFrame, chosen: str, job: _Job) -> tuple[str, str]:
    """Say what is kept and how sure it is that it beats the mean; and what each of its predictions must say."""
    scores = pd.DataFrame({"score": table["score"], "metric": job.dataset.metric, "unit": job.dataset.unit})
    say, parts = Words.of(scores), table["parts"][chosen]
    tested = f"cross-validation of {len(job.labels)} molecules ({parts} test parts)"
    others = len(table) - 1 - ("mean" in table.index and chosen != "mean")
    place = f", the best of {others + 1} methods" if others and chosen == table.index[0] else ""
    found = metrics.Difference(*table.loc[chosen, "gain":"gain_p"])
    sentence = f"{say.name(chosen)[:1].upper()}{say.name(chosen)[1:]}{place}: {say.score(table, chosen)} in {tested}"
    if chosen == "mean":
        return f"{sentence}.", "the mean of all labels, whatever the molecule"
    if not found.difference > 0:
        note = f"no better than {say.name('mean')}"
        return f"{sentence}. This is {note} ({say.score(table, 'mean')}).", note
    sentence += f", {say.interval(found)} {say.better} than {say.than('mean')}."
    if found.p < metrics.LEVEL:
        return sentence, ""
    note = f"not surely better than {say.name('mean')}"
    return f"{sentence} It is {note}: label more, before you rely on it.", note
