"""Records: true to the files and to git, and never half-written."""

import hashlib
import json
import shlex
import subprocess

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from rdkit import rdBase

from moleclip.io import files
from moleclip.workflow import params, provenance


def test_checksum_agrees_with_the_shell(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"molecules" * 1000)
    shell = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert files.sha256(file) == shell


def test_a_record_leads_back(tmp_path):
    p = params.read("09_draw_figures", caption="of ImageNet's weights")
    source, written = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("in")
    written.write_text("out")
    table = provenance.Run("09_draw_figures", p).finish(tmp_path, [written], [source], molecules=3)
    record = json.loads((tmp_path / "09_draw_figures.json").read_text())
    assert record["parameters"] == p.model_dump()
    assert record["versions"]["rdkit"].split(".")[:2] == [str(int(x)) for x in rdBase.rdkitVersion.split(".")[:2]]
    assert record["inputs"] == {str(source): hashlib.sha256(b"in").hexdigest()}
    assert record["outputs"] == {str(written): hashlib.sha256(b"out").hexdigest()}
    assert record["molecules"] == 3
    assert table["file"].tolist() == [str(written)]
    command = shlex.split(record["command"])
    assert command[:2] == ["papermill", "notebooks/09_draw_figures.ipynb"]
    assert json.loads(command[-1]) == p.model_dump()


P = params.read("10_reproduce_paper")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A project of two files under git: one that results are made by, and a figure."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setattr(files, "ROOT", tmp_path)
    git("init", "-q")
    for name in ("moleclip/code.py", "figures/figure.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-qm", "both")
    return git


def test_a_commit_of_figures_leaves_the_code_the_same(repository, tmp_path):
    head = repository("rev-parse", "HEAD")
    assert provenance.git_state() == {"commit": head, "dirty": False}
    (tmp_path / "figures" / "figure.png").write_text("2")
    assert provenance.git_state() == {"commit": head, "dirty": False}
    repository("commit", "-qam", "the figure")
    assert provenance.git_state() == {"commit": head, "dirty": False}
    (tmp_path / "moleclip" / "code.py").write_text("2")
    assert provenance.git_state() == {"commit": head, "dirty": True}


def test_a_new_module_and_a_new_notebook_are_uncommitted(repository, tmp_path):
    (tmp_path / "moleclip" / "more").mkdir()
    (tmp_path / "moleclip" / "more" / "new.py").write_text("1")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "11_new.ipynb").write_text('{"cells": [{"cell_type": "code", "source": ["1"]}]}')
    assert provenance.uncommitted("11_new") == ["moleclip/more/new.py", "notebooks/11_new.ipynb"]


@pytest.mark.parametrize(("place", "expected"), [("figures/studies/one", ["09"]), ("runs/demo/one", ["02", "09"])])
def test_the_way_back_ends_at_what_is_kept_with_the_code(tmp_path, monkeypatch, place, expected):
    """Else a figure's bytes would depend on which runs are at hand."""
    monkeypatch.setattr(files, "ROOT", tmp_path)
    source, table = tmp_path / "runs" / "labels" / "sweep.parquet", tmp_path / place / "knee.csv"
    for file, notebook, inputs in ((source, "02_cluster_structures", []), (table, "09_draw_figures", [source])):
        file.parent.mkdir(parents=True)
        file.write_text(notebook)
        provenance.Run(notebook, P).finish(file.parent, [file], inputs)
    assert sorted(run["notebook"][:2] for run in provenance.lineage([table]).values()) == expected


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "table.parquet"
    files.write_parquet(file, pd.DataFrame({"a": [1]}))
    with pytest.raises(Exception, match="column names"):
        files.write_parquet(file, pd.DataFrame([[1, 2]], columns=["a", "a"]))
    assert pd.read_parquet(file)["a"].tolist() == [1]


def test_paths_in_records_are_relative_to_the_project():
    assert files.relative(files.ROOT / "runs" / "demo") == "runs/demo"


@pytest.fixture
def figure(style):
    drawn, ax = plt.subplots()
    ax.plot([1, 2])
    return drawn


@pytest.fixture
def record():
    return provenance.collect("09_draw_figures", params.read("09_draw_figures"))


def test_same_figure_and_record_same_bytes_at_any_commit(tmp_path, record, repository):
    for folder in ("first", "second"):
        drawn, ax = plt.subplots()
        ax.plot([1, 2])
        provenance.save_figure(drawn, "line", tmp_path / folder, record)
        plt.close(drawn)
        repository("commit", "-q", "--allow-empty", "-m", "another")
    for ending in ("png", "pdf", "json"):
        first, second = ((tmp_path / folder / f"line.{ending}").read_bytes() for folder in ("first", "second"))
        assert first == second
        assert b"commit" not in first


def test_provenance_is_in_the_metadata_and_in_the_json_file(tmp_path, figure, record):
    png, pdf, table = provenance.save_figure(figure, "line", tmp_path, record)
    assert json.loads(Image.open(png).info["Description"]) == json.loads(table.read_text()) == record
    assert b"09_draw_figures" in pdf.read_bytes()
    assert b"CreationDate" not in pdf.read_bytes()


def test_the_footer_changes_with_data_parameters_and_versions(record):
    footers = [
        provenance.footer(one)
        for one in (
            record,
            {**record, "inputs": {"scores.csv": "ab"}},
            {**record, "parameters": {"seed": 1}},
            {**record, "versions": {**record["versions"], "rdkit": "0.1"}},
        )
    ]
    assert len(set(footers)) == 4
    assert footers[0].startswith("09_draw_figures | data ")
    assert footers[3].split(" | ")[3] == "rdkit 0.1"
