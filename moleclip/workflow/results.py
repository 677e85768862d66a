"""What the notebooks that draw a profile or a study need: its finished jobs, and figures saved with what they show."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from moleclip.io.files import relative, sha256, write_csv
from moleclip.workflow import params, provenance


def available(found: object, problem: str, missing: str) -> bool:
    """Whether a figure has what it needs; if not, print what is skipped and why, or fail.

    Parameters
    ----------
    found : object
        What the figure needs; it is missing if it is false or empty.
    problem : str
        What is missing, and what to do.
    missing : {"skip", "fail"}

    Raises
    ------
    FileNotFoundError
        It is missing, and `missing` is "fail".

    Examples
    --------
    >>> available([], "runs/demo: no table; run notebook 02 first", "skip")
    skipped: runs/demo: no table; run notebook 02 first
    False
    """
    if found:
        return True
    if missing == "fail":
        raise FileNotFoundError(problem)
    print(f"skipped: {problem}")
    return False


def read_jobs(
    folder: str | Path, only: Sequence[str] | None = None, missing: str = "fail"
) -> tuple[pd.DataFrame, pd.DataFrame, list[Path]]:
    """Collect scores and predictions of the finished finetuning jobs below a folder: all, or `only` these folders.

    A job is finished if its notebook has recorded the checksums of its tables, and they still hold.

    Returns
    -------
    scores : DataFrame
        With the column set: the name of the data set in the fan-out.
    predictions : DataFrame
        With the columns set, split_seed and drawing.
    files : list of Path
        What they were read from. All three are empty if there is no job and `missing` is "skip".

    Raises
    ------
    FileNotFoundError
        There is no finished job, and `missing` is "fail".
    """
    records = sorted(Path(folder).glob(f"*/*/split_*/{params.FINETUNE}.json"))
    if only is not None:
        wanted = {Path(job).resolve() for job in only}
        records = [record for record in records if record.parent.resolve() in wanted]
    score_tables, prediction_tables, files = [], [], []
    for record in records:
        content = json.loads(record.read_text())
        tables = [record.parent / f"{name}.parquet" for name in ("scores", "predictions")]
        if not all(file.is_file() and content["outputs"].get(relative(file)) == sha256(file) for file in tables):
            continue
        scores, predictions = map(pd.read_parquet, tables)
        place = {"set": record.parts[-4]}
        score_tables.append(scores.assign(**place))
        place |= {name: content["parameters"][name] for name in ("split_seed", "drawing")}
        prediction_tables.append(predictions.assign(**place))
        files += tables
    if not available(files, f"{folder}: no finished finetuning job below it; run notebook 04 first", missing):
        return pd.DataFrame(), pd.DataFrame(), []
    return pd.concat(score_tables, ignore_index=True), pd.concat(prediction_tables, ignore_index=True), files


def save(
    run: provenance.Run,
    figure: Figure,
    place: str | Path,
    inputs: Iterable[str | Path] = (),
    table: pd.DataFrame | None = None,
) -> list[Path]:
    """Save a figure with its provenance, and the table that it shows as CSV.

    Parameters
    ----------
    place : str or Path
        Folder and name of the figure, without an ending.
    inputs : iterable of str or Path
        Files that this figure is drawn from. Its record names them, and the runs that wrote them.

    Returns
    -------
    list of Path
        The files written.
    """
    place, inputs = Path(place), list(inputs)
    record = provenance.collect(run.notebook, run.parameters, inputs)
    written = [] if table is None else [write_csv(place.parent / f"{place.name}.csv", table)]
    return written + provenance.save_figure(figure, place.name, place.parent, record)
