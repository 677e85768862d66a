"""From labels to a model: methods compared by cross-validation, the best and simplest one advised, and kept."""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from moleclip import baselines, datasets, metrics, tables
from moleclip import encoder as encoders
from moleclip.apply import cross_validation
from moleclip.apply.cross_validation import PARTS, CrossValidation, Tested
from moleclip.datasets import Dataset, Task
from moleclip.encoder import LITE
from moleclip.finetune import FinetunedEncoder
from moleclip.io import files
from moleclip.metrics import LEVEL, Difference
from moleclip.plots.style import MODEL_NAMES, decimals

log = logging.getLogger(__name__)

ENCODER = LITE  # default of the command line and of `train`

LEAST = 10  # labelled molecules
REPEATED = 200  # molecules up to which the cross-validation is done twice
ONCE = ("finetuned", *baselines.CHEMPROP)  # which take a hundred times as long as a forest
SHUFFLES = 5
# Too slow to be repeated on shuffled labels.
SLOW = (*ONCE, "fingerprint_mlp", "tuned_forest", "gradient_boosting", "frozen_best")

MOLECULES, COMPARISON, WEIGHTS, TESTED = "molecules.parquet", "comparison", "encoder", "tested.parquet"
Shuffled = tuple[str, float, list[float]]  # method, its score on the labels, and on each shuffle of them
ENDINGS = ("low", "high", "sd_repeats", "sd_views")  # of columns of predictions, behind the name of a label


def methods(task: Task) -> list[str]:
    """Name the methods that are compared by default, from simple to complex."""
    kernel = "gaussian_process" if task == "regression" else "svm"
    structures = ("ecfp4_forest", "tanimoto_gp", "descriptor_forest")
    return ["mean", *structures, "frozen_linear", f"frozen_{kernel}", "finetuned"]


class Comparison(NamedTuple):
    """What a comparison of methods says.

    Attributes
    ----------
    method : str
        The best and simplest one: of all that are not surely worse than the best, the simplest.
    sure : bool
        Whether it is surely better than the mean of the labels, and better than on shuffled labels. If not, use none.
    table : DataFrame
        A row per method, the best first: method, score (mean over parts), sd, parts; how much better than the mean of
        the labels it is (gain) and how much worse than the best (behind), each with the ends of the 95 % interval, p
        and what could have been shown (gain_low, gain_high, gain_p, gain_detectable, ...), by `metrics.paired` on the
        parts that both have been tested on; in how many repeats it is the best (wins).
    sentence : str
    remarks : list of str
        What to know before it is relied on.
    note : str
        What each prediction of the method must say; "" if it is sure.
    scores, predictions : DataFrame
        As of `cross_validation.Tested`.
    job : CrossValidation, optional
    folder : Path, optional
        Of the kept model, for `MoleCLIPPredictor` and `moleclip predict`.
    """

    method: str
    sure: bool
    table: pd.DataFrame
    sentence: str
    remarks: list[str]
    note: str
    scores: pd.DataFrame
    predictions: pd.DataFrame = pd.DataFrame()
    job: CrossValidation | None = None
    folder: Path | None = None

    def __str__(self) -> str:
        """One table and one sentence, with equal digits in a column; and the remarks."""
        form, rows = f".{decimals(self.table['score'])}f", []
        best = next(iter(self.table.loc[self.table["method"] != "mean", "method"]), "mean")
        for row in self.table.to_dict("records"):
            differences = [
                f"{row[key]:{form}} ({row[f'{key}_low']:{form}} to {row[f'{key}_high']:{form}})"
                * (row["method"] != other)
                for key, other in (("gain", "mean"), ("behind", best))
            ]
            rows.append((row["method"], f"{row['score']:{form}} \u00b1 {row['sd']:{form}}", *differences))
        first = self.scores.iloc[0]
        score = f"{first['metric']}, {first['unit']}" if first["unit"] else first["metric"]
        shown = pd.DataFrame(rows, columns=["method", score, "better than the mean by", "worse than the best by"])
        return "\n".join([shown.to_string(index=False), "", self.sentence, *(f"- {line}" for line in self.remarks)])


def compare(
    source: str | Path | Dataset,
    target: str | Sequence[str] | None = None,
    *,
    smiles: str = "smiles",
    encoder: str | Path = ENCODER,
    method: str | Sequence[str] | None = None,
    split: str = "random",
    repeats: int | None = None,
    size: int | None = None,
    difference: float | None = None,
    sample: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    verbose: bool = False,
) -> Comparison:
    """Compare methods on your labels by repeated cross-validation, and say which to use, and how sure that is.

    The molecules are tested in five parts, each by models of the other four. An interrupted call with a folder goes on
    where it stopped.

    Parameters
    ----------
    source : str, Path or Dataset
        Your file, as of `datasets.read_table`, or a data set by name.
    target : str or sequence of str, optional
        Columns of the labels; by default the one that holds numbers.
    smiles : str
        Column of the SMILES.
    encoder : str or Path
        As of `encoder.load`.
    method : str or sequence of str, optional
        Names of `baselines.BY_NAME` to compare; by default `methods`. Finetuning takes most of the time: without it,
        seconds. A single one is compared with the mean only.
    split : str
        "random"; "scaffold" or "cluster": molecules that are alike are never in two parts, so that scores are those for
        new kinds of molecules; or a column of your file that says which are kept together, such as a series or a batch.
    repeats : int, optional
        Of the cross-validation, with other parts; by default 2 up to 200 molecules, else 1, and 1 for `ONCE`.
    size : int, optional
        Train on so many molecules only, for a point of a learning curve.
    difference : float, optional
        Difference of scores that would matter, for the number of labels that would show it; by default the margin of
        the data set, or a tenth of the score.
    sample : int, optional
        Use so many molecules, drawn at random.
    seed : int
        Of folds and models.
    folder : str or Path, optional
        Keeps what is done.
    verbose : bool
        Show progress.

    Raises
    ------
    ValueError
        There are fewer than 10 molecules, a label does not vary, a method is unknown, the molecules cannot be divided,
        or the folder holds another model.
    """
    if not isinstance(source, (str, Path, Dataset)):
        raise TypeError(
            f"a {type(source).__name__} is no file or data set by name: write the table to a .csv file first"
        )
    if repeats is not None and repeats < 1:
        raise ValueError(f"repeats = {repeats}: expected 1 or more")
    if difference is not None and not difference > 0:
        raise ValueError(f"difference = {difference}: expected a number above 0")
    if folder and Path(folder).is_file():
        raise ValueError(f"{folder}: is a file, and a model is kept in a folder: choose another name")
    targets = [target] if isinstance(target, str) else target
    dataset = source if isinstance(source, Dataset) else datasets.load(str(source), smiles=smiles, labels=targets)
    for name in dataset.label_names:
        if clash := [f"{name}_{end}" for end in ENDINGS if f"{name}_{end}" in dataset.label_names]:
            raise ValueError(f"predictions of {name!r} have the column {clash[0]!r}, as a label is called: rename that")
    asked = [method] if isinstance(method, str) else list(method or methods(dataset.task))
    names = list(dict.fromkeys(["mean", *asked]))
    for name in names:
        baselines.make(name, dataset.task, seed)
    molecules, doubts = datasets.labelled(dataset, sample, seed, LEAST)
    molecules = cross_validation.with_groups(molecules, split, "" if isinstance(source, Dataset) else source, smiles)
    often, once = repeats or (2 if len(molecules) <= REPEATED else 1), ONCE if repeats is None else ()
    if "finetuned" in names:
        log.info(
            "finetuning takes most of the time, a few minutes for 40 molecules; name other methods to leave it out"
        )
    path = Path(folder) if folder else None
    job = CrossValidation(dataset, molecules, str(encoder), repeats=often, size=size, seed=seed, folder=path)
    if path and (card := path / encoders.CARD).is_file():
        before = json.loads(card.read_text()).get("identity", {})
        files.refuse_another(card, before, _identity(job, names), finished=True)
    tested = job.run(names, once, keep=path is not None, verbose=verbose)
    given = np.nan_to_num(dataset.margin) if difference is None else difference
    table = ranked(tested.scores)
    shuffled = _shuffled(job, choose(table), tested.scores, verbose)
    found = advise(tested.scores, given, shuffled, table)
    remarks, note = [*found.remarks, *_about(job, doubts)], found.note
    if len(dataset.label_names) > 1:
        of_each, note = _each_label(job, tested, found)
        remarks = [*of_each, *remarks]
    return found._replace(remarks=remarks, note=note, predictions=tested.predictions, job=job)


def train(
    source: str | Path | Dataset,
    target: str | Sequence[str] | None = None,
    *,
    out: str | Path,
    keep: bool = False,
    **options: Any,
) -> Comparison:
    """Compare methods on your labels as `compare` does, and keep the best and simplest one, trained on all of them.

    A finetuned encoder is kept as the five models of the cross-validation, whose mean is the prediction: each label has
    trained four of them.

    Parameters
    ----------
    source, target
        As of `compare`.
    out : str or Path
        Folder of the model.
    keep : bool
        Keep a model that does not beat the mean of the labels. Its predictions say so.
    **options
        Of `compare`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        As of `compare`; or no method beats the mean.
    """
    found = compare(source, target, folder=out, **options)
    row: Any = found.table.set_index("method").loc[found.method]
    if not row["gain"] > 0 and not keep and found.method != "mean":
        raise ValueError(
            "No method beats the training mean. Nothing is kept; ask for it to be kept all the same (keep=True, "
            f"--keep).\n{found}"
        )
    _keep(found, float(row["score"]))
    return found._replace(folder=Path(out))


def _identity(job: CrossValidation, methods: Iterable[str]) -> dict[str, Any]:
    return {**job.identity, "layers": job.layers, "repeats": job.repeats, "methods": list(dict.fromkeys(methods))}


def _keep(found: Comparison, score: float) -> None:
    """Write models, molecules, what each was predicted to be without having been seen and, last, the card."""
    job, method = found.job, found.method
    assert job
    assert job.folder
    kept = []
    if method == "finetuned":
        for part in (part for part in job.parts if part.repeat == 1):
            place = job.model_folder(method, part)
            if not (place / encoders.CARD).is_file():  # of a call that kept another method
                model = job.fitted(method, part)
                assert isinstance(model, FinetunedEncoder)
                model.save(place)
            kept.append(str(place.relative_to(job.folder)))
    if baselines.sees(method) and not kept:
        encoders.load(job.encoder, job.seed).save(job.folder / WEIGHTS)
    table = job.molecules[["smiles", *job.dataset.label_names]].assign(part="train")
    rows = found.predictions.query("encoder == @method and split_seed == 1").sort_values("row")
    by_target = {f"tested {name}": part["prediction"].to_numpy() for name, part in rows.groupby("target")}
    tested = pd.DataFrame({"fold": rows.drop_duplicates("row")["fold"].to_numpy(), **by_target})
    written = [
        files.write_parquet(job.folder / MOLECULES, table),
        files.write_parquet(job.folder / TESTED, tested),
    ]
    files.write_csv(job.folder / f"{COMPARISON}.csv", found.scores)
    card = {
        "name": method,
        "method": method,
        **{name: getattr(job.dataset, name) for name in ("task", "metric", "unit", "label_names")},
        "dataset": job.dataset.name,
        "molecules": files.sha256(written[0]),
        "tested": files.sha256(written[1]),
        "models": kept,
        "layers": job.layers,
        "seed": job.seed,
        "score": score,
        "note": found.note,
        "identity": _identity(job, found.scores["method"]),
    }
    files.write_json(job.folder / encoders.CARD, card)
    for place in set(filter(Path.is_dir, (job.folder / PARTS).iterdir())) - {job.folder / name for name in kept}:
        shutil.rmtree(place)


def ranked(scores: pd.DataFrame) -> pd.DataFrame:
    """Make the table of `Comparison`, by method, from the scores of a cross-validation of the mean and others."""
    wide, overlap = tables.by_part(scores)
    lost = sorted(set(scores.loc[scores["score"].isna(), "method"]))
    if lost:
        log.warning("%s diverged in one of the parts, and is not compared", ", ".join(lost))
    wide = wide.drop(columns=lost)
    better = wide if metrics.higher_is_better(scores["metric"].iloc[0]) else -wide

    def difference(a: str, b: str) -> Difference:
        both = better[[a, b]].dropna()
        return metrics.paired(both.iloc[:, 0], both.iloc[:, -1], overlap)

    gains = {name: difference(name, "mean") for name in map(str, wide)}
    order = sorted(gains, key=lambda name: -gains[name].difference)
    best = next((name for name in order if name != "mean"), "mean")
    by_repeat = better.drop(columns="mean").groupby(level="repeat").mean()
    # A repeat without the best one, which may be tested in the first only, says nothing of it.
    winners = [] if best == "mean" else list(map(str, by_repeat[by_repeat[best].notna()].idxmax(axis=1)))
    rows = {}
    for name in order:
        known = wide[name].dropna()
        row: dict[str, Any] = {"score": known.mean(), "sd": known.std(), "parts": len(known)}
        for key, found in {"gain": gains[name], "behind": difference(best, name)}.items():
            ends = zip(("", "_low", "_high", "_p", "_detectable"), found, strict=True)
            row |= {f"{key}{ending}": value for ending, value in ends}
        rows[name] = row | {"wins": winners.count(name)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def choose(table: pd.DataFrame) -> str:
    """Choose the best and simplest method of `ranked`.

    Of all that are not surely worse than the best, the simplest. If the best is surely better than the mean, or better
    at all, then so must be the one that is chosen.
    """
    others = table.drop(index="mean")
    if others.empty:
        return "mean"
    best = others.iloc[0]
    sure = (others["gain"] > 0) & (others["gain_p"] < LEVEL)
    fit = (others["behind_p"] >= LEVEL) | (others.index == others.index[0])
    if best["gain"] > 0:
        fit &= sure if sure.iloc[0] else others["gain"] > 0
    return min(map(str, others.index[fit]), key=list(baselines.BY_NAME).index)


def _shuffled(job: CrossValidation, name: str, scores: pd.DataFrame, verbose: bool) -> Shuffled | None:
    """Score a method, or a forest where that takes long, on the labels and on shuffled ones."""
    if name == "mean":
        return None
    name = "ecfp4_forest" if name in SLOW else name
    real = scores[(scores["method"] == name) & (scores["repeat"] == 1)]
    if real.empty:
        real = job.run([name], once=[name]).scores
    others = []
    for number in tqdm(range(1, SHUFFLES + 1), desc="shuffled labels", disable=not verbose):
        other = job.shuffled(number)
        try:
            other.parts  # noqa: B018 - made once
        except ValueError:  # a part of so few has one class only
            continue
        others.append(float(other.run([name]).scores["score"].mean()))
    return (name, float(real["score"].mean()), others) if others else None


def _each_label(job: CrossValidation, tested: Tested, found: Comparison) -> tuple[list[str], str]:
    """Say of each label how good the chosen method is, and in the note for which it is not surely good."""
    said, unsure = [], []
    for name in job.dataset.label_names if found.method != "mean" else ():
        table = ranked(job.of_label(tested, name))
        gain, digits = Difference(*table.loc[found.method, "gain":"gain_detectable"]), decimals(table["score"])
        sure = gain.difference > 0 and gain.p < LEVEL
        unsure += [] if sure else [name]
        ours, mean = (f"{table['score'][method]:.{digits}f}" for method in (found.method, "mean"))
        surely = "" if sure else ", not surely better"
        said.append(f"{name}: {job.dataset.metric} of {ours}, that of the training mean is {mean}{surely}.")
    if not said or len(unsure) == len(said):
        return said, found.note
    return said, f"not surely better than the training mean for {', '.join(unsure)}" if unsure else ""


def _about(job: CrossValidation, doubts: dict[str, list[str]], most: int = 5) -> list[str]:
    """Say what is doubtful in the molecules, and how alike those tested are to those trained on."""
    bits, nearest = job.some.morgan(), []
    for part in job.parts:
        if part.repeat == 1:
            nearest += baselines.Tanimoto()(bits[part.test], bits[part.train]).max(axis=1).tolist()
    said = [
        f"The molecules tested have a median similarity of {np.median(nearest):.2f} to the nearest trained on "
        "(Tanimoto, ECFP4): for molecules that are less alike, errors are larger than this score says."
    ]
    texts = {
        "conflicts": "Structures with different labels, of which the first is used",
        "open_stereocentres": "Molecules with an undefined stereocentre",
        "several_fragments": "Salts or mixtures, which count as other molecules than their parts",
        "differ_in_stereo_only": "Structures like another but for stereochemistry, which fingerprints do not see",
    }
    for key, text in texts.items():
        if where := doubts[key]:
            named = ", ".join([*where[:most], *([f"{len(where) - most} more"] if len(where) > most else [])])
            said.append(f"{text}: {len(where)} ({named}).")
    return said


def advise(
    scores: pd.DataFrame,
    difference: float = 0.0,
    shuffled: Shuffled | None = None,
    table: pd.DataFrame | None = None,
) -> Comparison:
    """Say which method to use, and how sure that is.

    Parameters
    ----------
    scores : DataFrame
        Of a cross-validation, as of `cross_validation.Tested`.
    difference : float
        One that would matter; 0: a tenth of the score.
    table : DataFrame, optional
        From `ranked`, where it has been made.
    """
    table, first = ranked(scores) if table is None else table, scores.iloc[0]
    chosen, higher = choose(table), metrics.higher_is_better(first["metric"])
    better, digits, mean = "higher" if higher else "lower", decimals(table["score"]), "the training mean"

    def number(value: float) -> str:
        return f"{value:.{digits}f} {first['unit']}".strip()

    def score(name: str) -> str:
        return f"{first['metric']} of {number(float(table['score'][name]))}"

    def interval(found: Difference) -> str:
        ends = " to ".join(f"{value:.{digits}f}" for value in found[1:3])
        p = f"= {found.p:.2g}" if found.p >= 0.001 else "< 0.001"
        return f"{found.difference:.{digits}f} (95 % {ends}; corrected p {p})"

    def name(method: str) -> str:
        return MODEL_NAMES.get(method, method)

    count, remarks, note = int(first["given"] + first["tested"]), list[str](), ""
    facts = f"{score(chosen)} in cross-validation of {count} molecules ({int(table['parts'][chosen])} test parts)"
    if chosen == "mean":
        note = "the mean of all labels, whatever the molecule"
        return Comparison("mean", False, table.reset_index(), f"{mean.capitalize()}: {facts}.", [], note, scores)
    gain = Difference(*table.loc[chosen, "gain":"gain_detectable"])
    if shuffled:
        model, real, others = shuffled
        signal = real > max(others) if higher else real < min(others)
        remarks.append(
            f"{name(model)} is {'' if signal else 'NOT '}better than on each of {len(others)} shuffles of labels."
        )
    if not gain.difference > 0:
        note = f"no better than {mean}"
        sentence = f"Use none: {name(chosen)} has an {facts}, {note} ({score('mean')})."
    else:
        if gain.p >= LEVEL:
            note = f"not surely better than {mean}"
        elif shuffled and not signal:
            note = "not surely better than on shuffled labels"
        start = f"Use none yet: {name(chosen)} is {note}, with an" if note else f"Use {name(chosen)} ({chosen}):"
        sentence = f"{start} {facts}, {interval(gain)} {better} than that of {mean}."
    ranks = [name for name in table.index if name != "mean"]
    if len(ranks) > 1:
        # The chosen one and the best of the others; where that is better, what is chosen is simpler.
        other = next(name for name in ranks if name != chosen)
        found = Difference(*table.loc[other if chosen == ranks[0] else chosen, "behind":"behind_detectable"])
        said = f"is better than {name(other)}, the next best, by {interval(found)}"
        if chosen != ranks[0]:
            sentence += f" {name(other)} is better by {interval(found)}: not surely, and not as simple."
        else:
            sentence += f" It {said}." if found.p < LEVEL else f" It {said}: not surely."
        matters = difference or 0.1 * float(table["score"][chosen])
        if found.detectable > 0:
            more = "would have been seen."
            if found.detectable > matters:
                needed = float(f"{metrics.labels_needed(count, found, matters):.2g}")
                root = "if the spread of differences falls as one over the root of their number."
                more = f"takes about {needed:.0f}, {root}"
            remarks.append(
                f"Between these two, {count} labels would show a difference of {number(found.detectable)} (in 80 % of "
                f"cases). One of {number(matters)} {more}"
            )
        wins = table["wins"][table["wins"] > 0].sort_values(ascending=False, kind="stable")
        each = ", ".join(f"{name(str(winner))} in {times}" for winner, times in wins.items())
        agree = "agree" if len(wins) == 1 else "do NOT agree"
        times = int(wins.sum())
        remarks.append(
            f"{times} repeats {agree} on the best: {each}."
            if times > 1
            else "One repeat only: another may have another best."
        )
    return Comparison(chosen, not note, table.reset_index(), sentence, remarks, note, scores)
