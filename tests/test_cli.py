"""The command line: what people type, what comes out, and what it says when something is wrong."""

import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pandas as pd
import pytest
import torch

from moleclip import MoleCLIPFeaturizer, MoleCLIPPredictor, datasets, encoder, gridsearch
from moleclip.apply import cli, inference
from moleclip.io import files
from moleclip.workflow import params

SMALL = "small/random"
SMILES = list(datasets.load("nci_5k").smiles[:12])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "own.csv"
    pd.DataFrame({"id": [f"m{n}" for n in range(12)], "SMILES": SMILES, "size": range(12)}).to_csv(path, index=False)
    return path


def test_two_encoders_are_compared(tmp_path, capsys):
    other = encoder.load(SMALL)
    with torch.no_grad():
        other.visual.proj.mul_(0.5)
    other.save(tmp_path)
    assert cli.main(["compare", SMALL, str(tmp_path)]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert (lines["proj"], lines["conv1.weight"]) == (["0.5000", "1.0000", "0.0000"], ["1.0000"] * 3)
    assert float(lines["all"][2]) == pytest.approx(0.93, abs=0.05)
    assert cli.main(["compare", SMALL, "timm-resnet18/random"]) == 1
    assert "the towers differ" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pd.DataFrame({"smiles": SMILES, "size": np.arange(12) / 2}).to_csv(folder / "own.csv", index=False)
    given = {"dataset": str(folder / "own.csv"), "output": str(folder / "runs/job"), "holdout": 0.2, "encoder": SMALL}
    small = {"epochs": 1, "head_lr": [1e-3], "final_epochs": 1, "baselines": []}
    return gridsearch.run(params.read("04_finetune", None, **given, **small))


def test_embeddings_stand_beside_the_columns_of_the_input(table, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    assert cli.main(["embed", str(table), "--encoder", SMALL, "--out", str(out), "--smiles", "smiles"]) == 0
    found = pd.read_parquet(out)
    assert list(found.columns[:4]) == ["id", "SMILES", "size", "problem"]
    assert list(found["id"]) == [f"m{n}" for n in range(12)]
    np.testing.assert_allclose(
        found.filter(like="moleclip"), MoleCLIPFeaturizer(SMALL).transform(SMILES), rtol=1e-4, atol=1e-5
    )
    assert "12 molecules" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "own.csv"]


def test_predictions_as_csv_beside_a_column_of_the_same_name(table, model, tmp_path):
    out = tmp_path / "out.csv"
    assert cli.main(["predict", str(table), "--model", str(model), "--out", str(out), "--views", "2"]) == 0
    found = pd.read_csv(out)
    assert list(found["size_given"]) == list(range(12))
    predictor = MoleCLIPPredictor(model, views=2)
    expected = predictor.predict(SMILES)
    for column in ("size", "size_sd_repeats", "size_sd_views", "similarity"):
        step = 10.0 ** -predictor.decimals[column]
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-3, atol=0.51 * step)
        np.testing.assert_allclose(found[column] / step, (found[column] / step).round(), atol=1e-6)
    assert list(found["nearest"]) == list(expected["nearest"])


def test_from_standard_input_to_standard_output(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("CCO ethanol\nC1CC ring\n"))
    assert cli.main(["embed", "-", "--encoder", SMALL, "--quiet"]) == 0
    out, err = capsys.readouterr()
    found = pd.read_csv(io.StringIO(out), keep_default_na=False)
    assert list(found["name"]) == ["ethanol", "ring"]
    assert list(found["problem"]) == ["", "not a SMILES string"]
    assert "warning: 1 of 2 molecules cannot be read" in err


def test_strict_writes_nothing(table, tmp_path, capsys):
    table.write_text("smiles\nCCO\nC1CC\n")
    out = tmp_path / "out.csv"
    assert cli.main(["embed", str(table), "--encoder", SMALL, "--out", str(out), "--strict"]) == 1
    assert "line 3 (C1CC): not a SMILES string" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "none.csv", "--encoder", SMALL], "none.csv: no such file"),
        (["embed", "{table}", "--encoder", "runs/none"], "no encoder"),
        (["embed", "{table}", "--encoder", SMALL, "--out", "out.xlsx"], "ends with .parquet or .csv"),
        (["embed", "{table}", "--encoder", SMALL, "--out", "no/out.csv"], "no folder no"),
        (["embed", "{table}", "--encoder", SMALL, "--out", "{table}"], "this is the input, which stays as it is"),
        (["embed", "{table}", "--encoder", SMALL, "--smiles", "structure"], "no column 'structure'"),
        (["embed", "{table}", "{smi}", "--encoder", SMALL], "earlier files have"),
        (["predict", "{table}", "--model", "docs"], "keep_models"),
        (["predict", "{table}", "--model", "runs/none"], "runs/none: no such folder of a model"),
        (["embed", "{table}", "--encoder", SMALL, "--device", "abacus"], "abacus"),
        (["embed", "{table}", "--encoder", SMALL, "--batch-size", "0"], "batch_size=0"),
        (["models", "runs/none"], "runs/none: no such folder"),
        (["encoders", "runs/none"], "runs/none: no such folder"),
    ],
)
def test_errors_are_one_line_and_the_status_is_1(table, tmp_path, arguments, message, capsys):
    (tmp_path / "m.smi").write_text("CCO\n")
    given = [text.format(table=table, smi=tmp_path / "m.smi") for text in arguments]
    assert cli.main(given) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_wrong_command_has_status_2(capsys):
    for wrong in (["embed"], ["embed", "my.csv", "--jobs", "0"], ["embed", "my.csv", "--jobs", "two"]):
        with pytest.raises(SystemExit) as raised:
            cli.main(wrong)
        assert raised.value.code == 2
    with pytest.raises(SystemExit) as raised:
        cli.main(["embed", "--help"])
    assert raised.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_a_file_that_ends_badly_is_found_before_anything_is_computed(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "Computation", None)
    table.write_text("smiles,y\nCCO,1\nCC\n")
    assert cli.main(["embed", str(table), "--encoder", SMALL, "--out", str(tmp_path / "o.csv")]) == 1
    assert "line 3: has 1 fields" in capsys.readouterr().err


def test_what_a_killed_run_left_is_not_gone_on_with(table, tmp_path):
    (tmp_path / ".out.csv.part").write_text("id,old\n1,2\n")
    assert cli.main(["embed", str(table), "--encoder", SMALL, "--out", str(tmp_path / "out.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 12


def test_nothing_on_standard_input(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["embed", "-", "--encoder", SMALL, "--out", str(tmp_path / "out.csv")]) == 1
    assert "no molecules" in capsys.readouterr().err


def test_columns_of_its_own_output_stay_apart(table, tmp_path):
    for number in range(3):
        out = tmp_path / f"out{number}.parquet"
        assert cli.main(["embed", str(table), "--encoder", SMALL, "--out", str(out), "--quiet"]) == 0
        found = pd.read_parquet(out)
        assert found.columns.is_unique
        found[["id", "SMILES", *found.filter(like="problem")]].to_csv(table, index=False)
    assert {"problem", "problem_given", "problem_given_given"} <= set(found)


def test_lists(model, tmp_path, monkeypatch, capsys):
    for command, expected in (("encoders", "moleclip/primary"), ("datasets", "chembl2321810")):
        assert cli.main([command]) == 0
        assert expected in capsys.readouterr().out
    assert cli.main(["models", str(model.parents[1])]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{model}  random on own: size"
    monkeypatch.chdir(model.parent)
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == f"{model.name} random on own: size".split()
    encoder.load(SMALL).save(tmp_path / "mine")
    assert cli.main(["encoders", str(tmp_path)]) == 0
    assert f"{tmp_path / 'mine'}" in capsys.readouterr().out


def test_interrupted_and_started_again(tmp_path):
    """A real process, interrupted as by Ctrl-C, keeps what is done and says how to go on."""
    path, out = tmp_path / "many.smi", tmp_path / "out.parquet"
    path.write_text("\n".join(datasets.load("nci_5k").smiles[:800]))
    command = [sys.executable, "-m", "moleclip.apply.cli", "embed", str(path), "--encoder", SMALL, "--out", str(out)]
    command += ["--batch-size", "8"]
    # A shell lets what it runs in the background ignore interruptions, and so what that starts.
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    kept = tmp_path / "out.parquet.partial"
    deadline = time.monotonic() + 120
    while not any(file.stat().st_size > 10_000 for file in kept.glob("*.sqlite")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "repeat the command to continue" in err
    assert not out.exists()
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert "800 molecules" in again.stderr
    assert len(pd.read_parquet(out)) == 800
    assert not kept.exists()


def test_the_package_works_outside_the_checkout(table, tmp_path):
    """Every package is in the wheel, and help does not wait for PyTorch."""
    source = shutil.copytree(files.ROOT / "moleclip", tmp_path / "source" / "moleclip").parent
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(files.ROOT / name, source)
    build = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(tmp_path))
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(source), *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "unpacked", "zip")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}

    def run(program):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True, text=True).stdout

    for package in (path.parent for path in (files.ROOT / "moleclip").rglob("__init__.py")):
        assert (tmp_path / "unpacked" / package.relative_to(files.ROOT) / "__init__.py").is_file()
    help_ = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, 'pandas' in sys.modules))\n"
    shown = run(help_ + "from moleclip.apply import cli; cli.main(['--help'])")
    assert shown.startswith("usage: moleclip")
    assert shown.endswith("False False\n")
    # Nothing of the extra `notebooks` is needed to train, embed, predict and choose a method.
    extras = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    blocked = [re.match(r"[\w-]+", text)[0].replace("ipython", "IPython") for text in extras["notebooks"]]
    blocked.remove("threadpoolctl")  # which scikit-learn needs
    labelled = pd.read_csv(table).assign(y=range(12))
    labelled.to_csv(empty / "my.csv", index=False)
    commands = [
        ["train", "my.csv", "--target", "y", "--method", "frozen_linear", "--keep", "--out", "model"],
        ["embed", str(table), "--encoder", "lite", "--out", "out.parquet"],
        ["predict", str(table), "--model", "model", "--views", "1", "--out", "predictions.csv"],
    ]
    program = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\nimport moleclip\n"
    program += f"from moleclip.apply import cli, training\nassert not any(map(cli.main, {commands!r}))\n"
    assert "unpacked" in run(f"{program}print(moleclip.MoleCLIPFeaturizer, moleclip.__file__)")
    assert len(pd.read_parquet(empty / "out.parquet")) == len(pd.read_csv(empty / "predictions.csv")) == 12
