"""What a GPU is measured by runs on a CPU, at a small size; and says what is missing without a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moleclip import encoder

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
PARTS = ["checks", "feed", "train_step", "embed", "finetune", "pretrain"]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GPU), "--out", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "", **environment})


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_each_part_runs_on_a_cpu(tmp_path):
    done = run(tmp_path, "--small", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    found = lines(tmp_path)
    assert found[0]["device"] == "no GPU"
    assert [line["part"] for line in found if line.get("ended") == "done"] == PARTS
    checks = [line for line in found if "check" in line]
    assert len(checks) == 7
    assert all(line["passed"] for line in checks), checks
    assert {line["tower"] for line in found if "images_per_s" in line and line["part"] == "train_step"} == {"small"}
    assert encoder.load(tmp_path / "pretrained").preprocess.size == 224


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run(tmp_path)
    assert done.returncode != 0
    assert "missing: a GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_part_that_takes_too_long_is_cut_off_and_what_it_wrote_is_kept(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("gpu", GPU)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    gpu.write(tmp_path, part="machine")
    assert not gpu.run("checks", tmp_path, True, 0.5)
    assert [line.get("ended", "") for line in lines(tmp_path)] == ["", "cut off after 0 s"]
