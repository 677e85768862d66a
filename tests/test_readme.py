"""The README's lines for your own molecules, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moleclip.io import files

README = (files.ROOT / "README.md").read_text()


def blocks(section: str, language: str) -> list[str]:
    """Code blocks of a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", README, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def place(small, tmp_path_factory) -> Path:
    """The project after `make demo`, with an environment where the README has it."""
    folder = small.copy(tmp_path_factory.mktemp("readme") / "project").folder
    os.symlink(sys.prefix, folder / ".venv")
    return folder


def run(command: list[str], place: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_lines_run_one_after_another(place):
    found = blocks("Your own molecules", "python")
    assert len(found) == 4
    out = run([sys.executable, "-W", "error::UserWarning", "-c", "\n".join([*found, "print(embeddings.shape)"])], place)
    assert "(2, 128)" in out
    assert "similarity" in out
    assert "given 45 labelled molecules" in out


def test_shell_lines_run(place):
    (found,) = blocks("Your own molecules", "bash")
    out = run(["bash", "-e", "-o", "pipefail", "-c", found], place)
    assert "runs/demo/encoder" in out
    assert "--views" in out
    assert pd.read_parquet(place / "embeddings.parquet")["name"].tolist() == ["aspirin"]
    assert pd.read_csv(place / "predictions.csv")["activity"].notna().all()


def test_files_and_targets_that_it_names_are_there():
    for name in set(re.findall(r"\]\(((?:notebooks|figures|benchmarks)/[^)#]*)\)", README)):
        assert (files.ROOT / name).exists(), name
    targets = re.findall(r"^([a-z]+):", (files.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", README)) <= set(targets)
