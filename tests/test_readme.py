"""The README is one page, and its lines of code and those of the documentation run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moleclip.io import files

README = (files.ROOT / "README.md").read_text()
OWN_MOLECULES = (files.ROOT / "docs" / "own_molecules.md").read_text()
WRITTEN = [files.ROOT / "README.md", files.ROOT / "CONTRIBUTING.md", *(files.ROOT / "docs").rglob("[!_]*.md")]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def place(small, tmp_path_factory) -> Path:
    """The project after `make demo`, with an environment where the README has it."""
    folder = small.copy(tmp_path_factory.mktemp("readme") / "project").folder
    os.symlink(sys.prefix, folder / ".venv")
    return folder


def run(command: list[str], place: Path) -> str:
    path = f"{place / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"  # as after `source .venv/bin/activate`
    environment = {**os.environ, "PYTHONPATH": str(place), "PATH": path}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_one_page():
    assert len(README.encode()) <= 8192
    assert README.count("![") == 1


def test_python_lines_run_one_after_another(place):
    """Those of the README, and then those of the documentation."""
    (first,), found = blocks(README, "python"), blocks(OWN_MOLECULES, "python")
    assert len([line for line in first.splitlines() if line]) <= 4
    assert len(found) == 6
    shape = "print(features.shape); del features"
    lines = "\n".join([first, shape, *found, shape])
    out = run([sys.executable, "-W", "error::UserWarning", "-c", lines], place)
    assert out.count("(2, 1792)") == 2
    assert "similarity" in out
    assert "cross-validation of 51 molecules" in out


def test_shell_lines_run(place):
    (found,) = blocks(OWN_MOLECULES, "bash")
    out = run(["bash", "-e", "-o", "pipefail", "-c", found], place)
    assert "runs/demo/encoder" in out
    assert "--views" in out
    assert pd.read_parquet(place / "embeddings.parquet")["name"].tolist() == ["aspirin"]
    assert pd.read_csv(place / "predictions.csv")["activity"].notna().all()


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (files.ROOT / name).exists(), name


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.name)
def test_targets_that_a_page_names_are_there(file):
    targets = re.findall(r"^([a-z-]+):", (files.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", file.read_text())) <= set(targets)
