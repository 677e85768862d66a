"""What a profile amounts to, by hand."""

import functools
import shutil

import pandas as pd
import pytest
import yaml

from moleclip.io import files
from moleclip.workflow import cost, params

table = functools.cache(cost.table)


def test_a_study_by_hand():
    found = table("paper").set_index(["fan_out", "part"])
    # ESOL: 1128 molecules, 112 of them for validation and for test each. MoleCLIP: 5 x 3 cells x 3 repeats x 60 epochs
    # and 5 x 300, pretrained here or released; ImageMol: 4 learning rates instead of 5; 3 splits of each, and of the
    # baselines.
    epochs = 3 * (2 * (45 * 60 + 5 * 300) + (36 * 60 + 5 * 300))
    assert found.loc[("r_groups", "esol")].tolist() == pytest.approx(
        [12, 3 * (2 * 50 + 41), 904 * epochs / 1e6, 15 * epochs / 1e6, 904 * epochs / cost.RATE / 3600]
    )
    # 23 molecules to train on, in batches of 4: 6 steps an epoch. By ImageMol's own recipe they are one batch,
    # without a choice of augmentation. A step takes longer than its images.
    epochs = 5 * (4 * (45 * 100 + 10 * 300) + (36 * 100 + 10 * 300))
    seconds = (6 * epochs + 5 * (12 * 100 + 10 * 300)) * 0.01
    assert found.loc[("paper", "Phosphines_selectivity"), "gpu_hours"] == pytest.approx(seconds / 3600)
    assert found.loc[("paper", "pretraining"), "images"] == pytest.approx(1.870421 * 2 * 4)
    assert found.loc["baseline", "trainings"].sum() == 0  # no encoder, no GPU


@pytest.mark.parametrize("profile", params.profiles())
def test_all_jobs_count(profile):
    found = table(profile).set_index("fan_out")
    folder = files.ROOT / "params" / profile
    for study in (None, *params.studies(folder)):
        fan_out = params.read_profile(folder, study)[1]
        jobs = len(params.jobs(fan_out, "")) + len(fan_out.pretrain) + len(fan_out.pretrain_domain) + (study is None)
        assert found.loc[found.index == (study or profile), "jobs"].sum() == jobs


def test_one_task_alone_sees_one_view():
    p = {"labels": "moses", "sample": None, "epochs": 1}
    own = params.read_profile(files.ROOT / "params" / "paper")[0]
    both, one = (
        cost._pretraining(files.ROOT / "params" / "paper", own, p | {"contrastive": on})["images"]
        for on in (True, False)
    )
    assert (both, one) == (2 * 1936962, 1936962)


def test_a_set_of_ones_own(tmp_path, monkeypatch, capsys):
    root = files.ROOT
    monkeypatch.setattr(files, "ROOT", tmp_path)
    for name in ("params/demo", "notebooks"):
        shutil.copytree(root / name, tmp_path / name)
    (tmp_path / "own.csv").write_text("structure,y\n" + "".join(f"{'C' * n},{n}\n" for n in range(1, 41)))
    profile = tmp_path / "params" / "demo" / "profile.yaml"
    values = {"dataset": str(tmp_path / "own.csv"), "smiles_column": "structure", "split_seeds": [1], "holdout": 0.25}
    profile.write_text(yaml.safe_dump(yaml.safe_load(profile.read_text()) | {"finetune": {"mine": values}}))
    found = cost.table("demo").set_index(["fan_out", "part"])
    one = params.read("04_finetune", tmp_path / "params" / "demo" / "finetune.yaml")
    # Three models with an encoder, the last of them for two epochs.
    assert found.loc[("demo", "mine"), "images"] * 1e6 == pytest.approx(20 * (2 * one.epochs + 2))
    (tmp_path / "own.csv").write_text("smiles,y\nC,1\n")
    monkeypatch.setattr("sys.argv", ["cost", "demo"])
    assert cost.main() == 1
    assert "has no column 'structure'" in capsys.readouterr().err


def test_less_than_the_corpus():
    found = table("hour").set_index("part")
    assert found.loc["pretraining", "images"] == pytest.approx(0.2 * 2 * 4)


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cost", "hour", "--rate", "100"])
    assert cost.main() == 0
    assert "at 100 images a second" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["cost", "huor"])
    assert cost.main() == 1
    assert "did you mean 'hour'" in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["hour", "paper"])
def test_a_profile_says_what_it_costs(profile):
    own = table(profile).query("fan_out == @profile")
    digits = 1 if profile == "hour" else 0
    said = f"# {own['jobs'].sum()} jobs, about {own['gpu_hours'].sum():.{digits}f} GPU hours"
    assert said in (files.ROOT / "params" / profile / "profile.yaml").read_text()


def test_the_documentation_says_it_too():
    page = (files.ROOT / "docs" / "running.md").read_text()
    sums = pd.concat(map(table, ("hour", "paper"))).drop(columns="part").groupby("fan_out").sum()
    for name in ("hour", "paper", "released", "ablations", "domain", "r_groups"):
        jobs, trainings, images, _, hours = sums.loc[name]
        digits = 1 if name == "hour" else 0
        row = f"`{name}` | {jobs:.0f} | {trainings:,.0f} | {images:.{digits}f} | {hours:.{digits}f} |"
        assert row in page, row
