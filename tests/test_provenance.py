"""Records: true to the files and to git, and never half-written."""

import hashlib
import json
import subprocess

import pandas as pd
import pytest
from rdkit import rdBase

from moleclip import params, provenance


def test_checksum_agrees_with_the_shell(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"molecules" * 1000)
    shell = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert provenance.sha256(file) == shell


def test_a_record_leads_back(tmp_path):
    p = params.read("10_draw_figures")
    source, written = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("in")
    written.write_text("out")
    table = provenance.Run("10_draw_figures", p).finish(tmp_path, [written], [source])
    record = json.loads((tmp_path / "10_draw_figures.json").read_text())
    assert record["parameters"] == p.model_dump()
    assert record["versions"]["rdkit"].split(".")[:2] == [str(int(x)) for x in rdBase.rdkitVersion.split(".")[:2]]
    assert record["inputs"] == {str(source): hashlib.sha256(b"in").hexdigest()}
    assert record["outputs"] == {str(written): hashlib.sha256(b"out").hexdigest()}
    assert table["file"].tolist() == [str(written)]
    assert record["command"].startswith("papermill notebooks/10_draw_figures.ipynb")


def test_git_state_agrees_with_git():
    state = provenance.git_state()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=params.ROOT, capture_output=True, text=True, check=False)
    assert state["commit"] == (git.stdout.strip() if git.returncode == 0 else None)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "table.parquet"
    provenance.write_parquet(file, pd.DataFrame({"a": [1]}))
    with pytest.raises(Exception, match="column names"):
        provenance.write_parquet(file, pd.DataFrame([[1, 2]], columns=["a", "a"]))
    assert pd.read_parquet(file)["a"].tolist() == [1]


def test_paths_in_records_are_relative_to_the_project():
    assert params.relative(params.ROOT / "runs" / "demo") == "runs/demo"
