"""Only finished jobs count; notebook 09 draws what it is asked for, and each figure names its own inputs."""

import json
import re
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from test_figures import SCORES

from moleclip.io import files
from moleclip.workflow import params, provenance, results

pytestmark = pytest.mark.usefixtures("style")


@pytest.fixture
def draw(tmp_path, run_cells):
    """Run notebook 09 on the runs in a temporary folder; returns the files written, by name."""

    def run(**overrides):
        values = {"runs": str(tmp_path), "output": str(tmp_path / "figures"), "missing": "fail", **overrides}
        return {path.name: path for path in run_cells("09_draw_figures", **values)["written"]}

    return run


def write_job(folder, scores):
    """Write a job as notebook 04 does."""
    chosen = scores.rename(columns={"seed": "split_seed"})
    molecules = pd.DataFrame({"row": [0, 1], "smiles": ["C", "CC"], "label": [0.0, 1.0], "prediction": [0.2, 0.7]})
    predictions = chosen.assign(part="test", target="gap").merge(molecules, how="cross")
    columns = ["dataset", "encoder", "stage", "repeat", "head_lr", "augmentation", "part", "target", *molecules]
    files.write_parquet(folder / "scores.parquet", scores)
    files.write_parquet(folder / "predictions.parquet", predictions[columns])
    tables = [folder / f"{name}.parquet" for name in ("scores", "predictions")]
    p = params.read("04_finetune", None, split_seed=int(scores["seed"].iloc[0]), output=str(folder))
    provenance.Run("04_finetune", p).finish(folder, tables)
    return tables


@pytest.fixture
def jobs(tmp_path):
    found = []
    for (model, seed), scores in SCORES.groupby(["encoder", "seed"]):
        found += write_job(tmp_path / "finetune" / "made" / str(model) / f"split_{seed}", scores)
    return found


def test_missing_runs_are_skipped_or_fail(draw, capsys):
    assert draw(figures=["knee", "scores"], missing="skip") == {}
    told = capsys.readouterr().out
    assert "run notebook 02 first" in told
    assert "run notebook 04 first" in told
    assert "skipped: nothing to draw these figures from: knee, scores" in told
    with pytest.raises(FileNotFoundError, match="run notebook 03 first"):
        draw(figures=["loss"])
    with pytest.raises(FileNotFoundError, match="no finished finetuning job"):
        draw(figures=["parity"])


def test_a_job_without_its_record_is_not_a_result(tmp_path):
    job = tmp_path / "finetune" / "made" / "mean" / "split_1"
    files.write_parquet(job / "scores.parquet", SCORES)
    record = {"parameters": {"split_seed": 1, "drawing": "plain"}, "outputs": {str(job / "scores.parquet"): "0" * 64}}
    for name in ("04_finetune.json.part", "04_finetune.json"):  # none, and one of other scores
        files.write_json(job / name, record)
        with pytest.raises(FileNotFoundError, match="no finished finetuning job"):
            results.read_jobs(tmp_path / "finetune")


def test_a_finished_job_counts_until_its_tables_change(tmp_path, jobs):
    scores, predictions, read = results.read_jobs(tmp_path / "finetune")
    assert sorted(read) == sorted(jobs)
    assert len(scores) == len(SCORES)
    assert set(scores["set"]) == set(predictions["set"]) == {"made"}
    assert set(predictions["split_seed"]) == {1, 2, 3}
    only = results.read_jobs(tmp_path / "finetune", [str(jobs[0].parent)])[0]
    assert (len(only), only["encoder"].iloc[0], only["seed"].iloc[0]) == (1, "mean", 1)
    files.write_parquet(jobs[0], SCORES)
    assert not set(results.read_jobs(tmp_path / "finetune")[2]) & set(jobs[:2])


def test_each_figure_names_the_inputs_it_was_drawn_from(tmp_path, draw, jobs):
    log = tmp_path / "encoder" / "metrics.jsonl"
    losses = pd.DataFrame({"step": [1, 2], "chance": 0.1})
    losses["contrastive"] = [3.0, 2.0]
    files.write(log, lambda part: losses.to_json(part, orient="records", lines=True))
    pair = {"a pair": ["pretrained", "mean"]}
    written = draw(figures=["loss", "scores", "contrasts"], contrasts=pair)
    inputs = {name: json.loads(written[f"{name}.json"].read_text())["inputs"] for name in ("loss", "scores")}
    assert inputs["loss"] == {str(log): files.sha256(log)}
    assert inputs["scores"] == {str(file): files.sha256(file) for file in jobs if file.stem == "scores"}
    page = json.loads((tmp_path / "figures" / "09_draw_figures.json").read_text())
    assert set(page["inputs"]) == {str(file) for file in [log, *jobs]}
    assert set(page["outputs"]) == {str(path) for path in written.values()}
    assert pd.read_csv(written["scores.csv"])["test"].tolist() == [0.9, 1.0, 0.8, 0.5, 0.6, 0.4]
    assert pd.read_csv(written["contrasts.csv"])["percent"].tolist() == pytest.approx([100 * 4 / 9], rel=1e-4)


@pytest.mark.usefixtures("jobs")
def test_a_page_of_two_corpora_and_without_the_reference(tmp_path, draw):
    sweep = pd.DataFrame({"k": [3, 5, 10], "inertia": [9.0, 4.0, 3.0], "molecules": 100, "knee": [False, True, False]})
    files.write_parquet(tmp_path / "labels" / "sweep.parquet", sweep)
    corpora = {"parameters": {"molecules": ["runs/molecules/moses.parquet", "mine.smi.gz"]}}
    files.write_json(tmp_path / "labels" / "02_cluster_structures.json", corpora)
    written = draw(figures=["knee", "parity"], reference="lite")
    assert set(pd.read_csv(written["knee.csv"])["corpus"]) == {"moses, mine"}
    assert written["parity.png"].is_file()


def test_the_page_draws_every_figure_it_may_be_asked_for():
    source = Path(files.ROOT / "notebooks" / "09_draw_figures.ipynb").read_text()
    drawn = re.findall(r'\\"(\w+)\\" in p\.figures', source)
    assert sorted(drawn) == sorted(get_args(params.PageFigure))
