"""The figures of a profile, a study or the paper, on one page: each drawn from the runs that count."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from moleclip import config, datasets, gridsearch, metrics
from moleclip.io import files
from moleclip.io.files import relative, sha256
from moleclip.paper import own, printed, redraw, released
from moleclip.plots import figures
from moleclip.workflow import provenance


def study_scores(folder: str, missing: str, only: Sequence[str] | None = None) -> tuple[pd.DataFrame, list[Path]]:
    """Scores by split of a study's finished jobs, and the files they are read from; an empty table if there are none.

    Raises
    ------
    FileNotFoundError
        There are none, and `missing` is "fail".
    """
    try:
        table, _, files = read_jobs(f"{folder}/finetune", only)
    except FileNotFoundError as error:
        if missing == "fail":
            raise
        print(f"skipped: {error}")
        return pd.DataFrame(), []
    return gridsearch.by_split(table), files


def read_jobs(folder: str | Path, only: Sequence[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame, list[Path]]:
    """Collect scores and predictions of the finished finetuning jobs below a folder: all, or `only` these folders.

    Only what a finished notebook recorded, checksum and all, counts: a half-written job is not taken for a result.

    Returns
    -------
    scores : DataFrame
        With the column set: the name of the data set in the fan-out.
    predictions : DataFrame
        With the columns set, split_seed and drawing.
    files : list of Path
        What they were read from.
    """
    found = sorted(Path(folder).glob("*/*/split_*/04_finetune.json"))
    wanted = {path.parent.resolve() for path in found} if only is None else {Path(job).resolve() for job in only}
    records = [path for path in found if path.parent.resolve() in wanted and _vouched(path)]
    if not records:
        raise FileNotFoundError(f"{folder}: no finished finetuning job below it; run notebook 04 first")
    score_tables, prediction_tables, files = [], [], []
    for record in records:
        content = json.loads(record.read_text())
        seed, drawing = (content["parameters"][name] for name in ("split_seed", "drawing"))
        job = record.parent
        name = job.parts[-3]
        score_tables.append(pd.read_parquet(job / "scores.parquet").assign(set=name))
        place = {"set": name, "split_seed": seed, "drawing": drawing}
        prediction_tables.append(pd.read_parquet(job / "predictions.parquet").assign(**place))
        files += [job / "scores.parquet", job / "predictions.parquet"]
    return pd.concat(score_tables, ignore_index=True), pd.concat(prediction_tables, ignore_index=True), files


def _vouched(record: Path) -> bool:
    """Whether a job's tables are those that its record was written for."""
    written = json.loads(record.read_text())["outputs"]
    files = [record.parent / f"{name}.parquet" for name in ("scores", "predictions")]
    return all(file.is_file() and written.get(relative(file)) == sha256(file) for file in files)


class Page:
    """The figures of a profile: draws each, saves it with its provenance, and remembers what was missing."""

    def __init__(self, notebook: str, p: Any) -> None:
        self.notebook, self.p = notebook, p
        self.files: list[Path] = []
        self.inputs: list[Path] = []
        self.skipped: dict[str, str] = {}

    def draw(self, name: str) -> None:
        """Draw one figure, if it is among the wanted ones and its runs are there."""
        if name not in self.p.figures:
            self.skipped[name] = "not asked for"
            return
        try:
            figure, inputs = self._of_paper(name) if name in redraw.FIGURES else getattr(self, f"_{name}")()
        except FileNotFoundError as error:
            if self.p.missing == "fail":
                raise
            self.skipped[name] = str(error)
            print(f"skipped: {error}")
            return
        record = provenance.collect(self.notebook, self.p, inputs)
        self.files += provenance.save_figure(figure, name, self.p.output, record)
        self.inputs += [file for file in inputs if file not in self.inputs]

    @functools.cached_property
    def jobs(self) -> tuple[pd.DataFrame, pd.DataFrame, list[Path]]:
        """The finetuning jobs that count, read and checked once."""
        return read_jobs(f"{self.p.runs}/finetune", self.p.jobs)

    @functools.cached_property
    def by_split(self) -> pd.DataFrame:
        """Score of each model on each split, of the jobs that count."""
        return gridsearch.by_split(self.jobs[0])

    def scores(self) -> pd.DataFrame:
        """Score of each model on each split, with its optimism; empty if there are no jobs."""
        try:
            return self.by_split
        except FileNotFoundError as error:
            print(f"skipped: {error}")
            return pd.DataFrame()

    def differences(self) -> pd.DataFrame:
        """How much worse than the reference each model tests, paired by split; below zero, it is better."""
        rows, table = {}, self.scores()
        for name, part in table.groupby("set", sort=False) if len(table) else ():
            by_split = part.pivot_table(index="seed", columns="encoder", values="test")
            if self.p.reference not in by_split:
                print(f"{name}: has no model {self.p.reference!r} to compare with")
                continue
            sign = -1 if metrics.higher_is_better(part["metric"].iloc[0]) else 1
            others = [model for model in map(str, by_split) if model != self.p.reference]
            for model in sorted(others, key=[*figures.MODEL_NAMES, *others].index):
                pairs = by_split[[model, self.p.reference]].dropna()
                worse = metrics.paired(list(sign * pairs[model]), list(sign * pairs[self.p.reference]))
                rows[name, figures.MODEL_NAMES.get(model, model)] = worse
        return pd.DataFrame(rows, index=list(metrics.Paired._fields)).T

    @functools.cached_property
    def paper(self) -> redraw.Paper:
        """The paper's runs and ours, read once."""
        return redraw.Paper(released.runs(), printed.scores(), own.read())

    def _of_paper(self, name: str) -> tuple[Figure, list[Path]]:
        table, figure = redraw.FIGURES[name](self.paper)
        self._table(name, table)
        return figure, [*datasets.files("paper_results"), *self.paper.ours.files]

    def _gallery(self) -> tuple[Figure, list[Path]]:
        return figures.gallery(list(figures.GALLERY.values()), self.p.seed), []

    def _knee(self) -> tuple[Figure, list[Path]]:
        file = _need(f"{self.p.runs}/labels/sweep.parquet", "02")
        curve = pd.read_parquet(file)
        corpus = Path(self._recorded("labels", "02_cluster_structures")["molecules"]).stem
        self._table("knee", curve.assign(corpus=corpus))
        at = curve.loc[curve["knee"], "k"]
        return figures.knee(curve, None if at.empty else int(at.iloc[0])), [file]

    def _loss(self) -> tuple[Figure, list[Path]]:
        file = _need(f"{self.p.runs}/encoder/metrics.jsonl", "03")
        return figures.loss_curves(pd.read_json(file, lines=True)), [file]

    def _scores(self) -> tuple[Figure, list[Path]]:
        files = self.jobs[2]
        self._table("scores", self.by_split)
        return figures.caption(figures.scores(self.by_split), self.p.caption), files

    def _contrasts(self) -> tuple[Figure, list[Path]]:
        kept = Path(self.p.output) / "scores.csv"
        try:
            table, files = self.by_split, self.jobs[2]
        except FileNotFoundError:  # the runs may be gone, and their scores left
            if not kept.is_file():
                raise
            table, files = pd.read_csv(kept), [kept]
            print(f"no runs: from the scores in {kept}")
        found = gridsearch.contrasts(table, self.p.contrasts)
        if found.empty:
            raise FileNotFoundError(
                f"{self.p.runs}/finetune: no set has both models of a contrast ({self.p.contrasts})"
            )
        print(found.round(3).to_string(index=False))
        self._table("contrasts", found)
        return figures.caption(figures.contrasts(found), self.p.caption), files

    def _maps(self) -> tuple[Figure, list[Path]]:
        """Map the molecules that were held out of the pretraining of the first encoder that has a record of it."""
        # Torch and all towers: seconds that no other figure needs.
        from moleclip import pretrain
        from moleclip.explain import latent

        records = [Path(source) / "03_pretrain.json" for source in self.p.maps.values()]
        record = next((file for file in records if file.is_file()), None)
        if record is None:
            raise FileNotFoundError(f"maps ({self.p.maps}): no pretrained encoder among them; run notebook 03 first")
        values = config.Pretrain(**json.loads(record.read_text())["parameters"])
        corpus = pretrain.read_corpus(values)
        smiles, classes = [corpus.smiles[row] for row in corpus.held_out], corpus.classes[corpus.held_out, 0]
        table = latent.maps(self.p.maps, smiles, classes, self.p.seed)
        print(table.groupby("encoder", sort=False)[["purity", "chance"]].first().round(3).to_string())
        self._table("maps", table.assign(K=corpus.ks[0]))
        encoders = [file for source in self.p.maps.values() for file in datasets.files(source)]
        return figures.maps(table), [Path(values.labels), *encoders]

    def _recorded(self, folder: str, notebook: str) -> dict[str, Any]:
        """Parameters of the run that wrote a folder."""
        record: dict[str, Any] = json.loads(Path(f"{self.p.runs}/{folder}/{notebook}.json").read_text())
        return dict(record["parameters"])

    def _table(self, name: str, table: pd.DataFrame) -> None:
        """Write what a figure shows beside it."""
        self.files.append(files.write_csv(Path(self.p.output) / f"{name}.csv", table))

    def _baseline(self) -> tuple[Figure, list[Path]]:
        table, _, files = self.jobs
        beside = released.beside(table)
        print(beside.round(4).to_string(index=False))
        self._table("baseline", beside)
        return figures.baseline(beside), [*files, *datasets.files("paper_results")]

    def _parity(self) -> tuple[Figure, list[Path]]:
        table, predictions, files = self.jobs
        regression = table[table["metric"] != "ROC-AUC"]
        if regression.empty:
            raise FileNotFoundError(f"{self.p.runs}/finetune: no regression among the finished jobs")
        dataset, unit = regression[["dataset", "unit"]].iloc[0]
        means = gridsearch.mean_predictions(predictions, table)
        return figures.parity(means[means["dataset"] == dataset], unit, ["pretrained", "random", "ecfp4_forest"]), files


def _need(path: str, notebook: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; run notebook {notebook} first")
    return Path(path)
