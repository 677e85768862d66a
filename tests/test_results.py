"""A page draws what it is asked for, from the runs that count."""

import json
import re
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from test_figures import SCORES

from moleclip import gridsearch
from moleclip.io import files
from moleclip.plots import figures
from moleclip.workflow import params, results

pytestmark = pytest.mark.usefixtures("style")


def draw_params(tmp_path, **overrides):
    return params.read("09_draw_figures", None, runs=str(tmp_path), output=str(tmp_path / "figures"), **overrides)


def test_missing_runs_are_skipped_or_fail(tmp_path):
    drawn = results.Page("09_draw_figures", draw_params(tmp_path))
    drawn.draw("knee")
    assert "run notebook 02 first" in drawn.skipped["knee"]
    assert drawn.files == []
    with pytest.raises(FileNotFoundError, match="run notebook 03 first"):
        results.Page("09_draw_figures", draw_params(tmp_path, missing="fail")).draw("loss")


def test_a_job_without_its_record_is_not_a_result(tmp_path):
    job = tmp_path / "finetune" / "made" / "mean" / "split_1"
    files.write_parquet(job / "scores.parquet", SCORES)
    record = {"parameters": {"split_seed": 1, "drawing": "plain"}, "outputs": {str(job / "scores.parquet"): "0" * 64}}
    for name in ("04_finetune.json.part", "04_finetune.json"):  # none, and one of other scores
        files.write_json(job / name, record)
        with pytest.raises(FileNotFoundError, match="no finished finetuning job"):
            results.read_jobs(tmp_path / "finetune")


def test_each_data_set_has_its_own_panel_and_differences(tmp_path, monkeypatch):
    other = SCORES.assign(dataset="other", metric="ROC-AUC", unit="", test=0.5)
    both = pd.concat([SCORES, other])
    both["set"] = both["dataset"]
    figure = figures.scores(gridsearch.by_split(both))
    assert [ax.get_xlabel() for ax in figure.axes] == ["test MAE (eV)", "test ROC-AUC"]
    # By ROC-AUC, the mean is better here; the sign says so.
    both.loc[(both["set"] == "other") & (both["encoder"] == "mean"), "test"] = 0.7
    monkeypatch.setattr(results, "read_jobs", lambda *_: (both, None, []))
    found = results.Page("09_draw_figures", draw_params(tmp_path)).differences()
    expected = {("made", "training mean"): 0.4, ("other", "training mean"): -0.2}
    assert found["difference"].to_dict() == pytest.approx(expected)
    against = draw_params(tmp_path, reference="mean")
    assert results.Page("09_draw_figures", against).differences()["difference"].tolist() == pytest.approx([-0.4, 0.2])


def test_contrasts_can_be_drawn_again_when_the_runs_are_gone(tmp_path):
    options = {"figures": ["contrasts"], "contrasts": {"a pair": ["pretrained", "mean"]}, "missing": "fail"}
    p = draw_params(tmp_path, **options)
    with pytest.raises(FileNotFoundError, match="no finished finetuning job"):
        results.Page("09_draw_figures", p).draw("contrasts")
    kept = gridsearch.by_split(SCORES.assign(set="made"))
    Path(p.output).mkdir(exist_ok=True)
    kept.to_csv(Path(p.output) / "scores.csv", index=False)
    drawn = results.Page("09_draw_figures", p)
    drawn.draw("contrasts")
    assert pd.read_csv(Path(p.output) / "contrasts.csv")["percent"].tolist() == pytest.approx([100 * 4 / 9], rel=1e-4)
    assert drawn.inputs == [Path(p.output) / "scores.csv"]


def test_the_page_draws_every_figure_it_may_be_asked_for():
    cells = json.loads((files.ROOT / "notebooks" / "09_draw_figures.ipynb").read_text())["cells"]
    drawn = re.findall(r'page\.draw\("(\w+)"\)', "".join("".join(cell["source"]) for cell in cells))
    assert sorted(drawn) == sorted(get_args(params.PageFigure))
