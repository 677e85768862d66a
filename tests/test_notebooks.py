"""Notebooks: their shape, what they show when executed, and how they fail.

`small` runs the whole walk once, through the workflow, with small parameters on one bundled set.
"""

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from moleclip.io import files
from moleclip.io.files import ROOT, relative, sha256, write_json, write_parquet
from moleclip.workflow import notebooks

NOTEBOOKS = sorted((files.ROOT / "notebooks").glob("*.ipynb"))


def made(folder: Path, *sources: str) -> Path:
    """A notebook with a heading above each cell."""
    cells = []
    for number, source in enumerate(sources, 1):
        cells += [nbformat.v4.new_markdown_cell(f"## Part {number}"), nbformat.v4.new_code_cell(source)]
    path = folder / "made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebooks.KERNEL}), path)
    return path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shape(path):
    assert notebooks.lint(path) == []


def test_lint_sees_what_is_wrong(tmp_path):
    path = made(tmp_path, "class A:\n    pass")
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="left over")]
    nbformat.write(notebook, path)
    problems = "\n".join(notebooks.lint(path))
    for part in ("does not start with a title", "has outputs", "0 cells tagged", "defines a class", "state question"):
        assert part in problems


def outputs(path: Path, kind: str) -> list:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return [out["data"][kind] for cell in cells for out in cell.outputs if kind in out.get("data", {})]


@pytest.mark.parametrize(
    ("number", "pictures"), [("00", 3), ("01", 2), ("02", 2), ("03", 2), ("07", 4), ("08", 2), ("09", 5)]
)
def test_executed_notebooks_show_pictures_and_tables(small, number, pictures):
    (path,) = (small.folder / "runs/demo/notebooks").glob(f"{number}_*.ipynb")
    assert len(outputs(path, "image/png")) >= pictures
    assert outputs(path, "text/html")


def test_executed_finetuning_shows_pictures_and_tables(small):
    path = small.folder / "runs/demo/notebooks/04_finetune/chembl2321810/pretrained/split_1.ipynb"
    assert len(outputs(path, "image/png")) >= 4
    assert outputs(path, "text/html")


def test_recorded_values(small):
    runs = small.folder / "runs/demo"
    assert len(pd.read_parquet(runs / "molecules/chembl2321810.parquet")) == 1017
    labels = pd.read_parquet(runs / "labels/labels.parquet")
    assert labels["k_5"].nunique() == 5
    record = json.loads((runs / "encoder/03_pretrain.json").read_text())
    assert set(record["inputs"]) == {"runs/demo/labels/labels.parquet"}
    scores = [pd.read_parquet(path) for path in sorted(runs.glob("finetune/*/*/*/scores.parquet"))]
    assert set(pd.concat(scores)["encoder"]) == {
        *("pretrained", "pretrained_frozen", "random", "random_frozen"),
        *(
            "fingerprint_mlp",
            "mean",
            "ecfp4_forest",
            "ecfp4_extra_trees",
            "descriptor_forest",
            "descriptor_extra_trees",
            "count_forest",
            "gradient_boosting",
            "tanimoto_gp",
        ),
    }


def test_figures_of_the_walk_lead_back(small):
    for name in ("gallery", "knee", "loss", "scores", "parity"):
        file = small.folder / f"runs/demo/figures/{name}.json"
        record = json.loads(file.read_text())
        assert record["notebook"] == "09_draw_figures"
        assert all((small.folder / path).is_file() for path in record["inputs"])
        assert file.stat().st_size < 5000
    assert list(json.loads((small.folder / "runs/demo/figures/knee.json").read_text())["inputs"]) == [
        "runs/demo/labels/sweep.parquet"
    ]
    run = json.loads((small.folder / "runs/demo/figures/09_draw_figures.json").read_text())
    assert (run["commit"], run["dirty"]) == (small.git("rev-parse", "HEAD").strip(), False)
    lineage = run["lineage"]
    # Three jobs, and through the pretrained one the encoder, its labels and its molecules.
    assert sorted(run["notebook"][:2] for run in lineage.values()) == ["01", "02", "03", "04", "04", "04"]
    encoder = ["runs/demo/encoder/model.safetensors", "runs/demo/encoder/config.json"]
    job = lineage["runs/demo/finetune/chembl2321810/pretrained/split_1/04_finetune.json"]
    assert job["inputs"] == {file: hashlib.sha256((small.folder / file).read_bytes()).hexdigest() for file in encoder}


def test_exploration_of_the_walk(small):
    """All three encoders in every table; a map with drawings inside; and the way back to the job."""
    folder = small.folder / "runs/demo/figures/explore"
    for name in ("neighbours", "faithfulness", "robustness"):
        assert {"random", "pretrained", "finetuned"} <= set(pd.read_csv(folder / f"{name}.csv")["encoder"])
    card = pd.read_csv(folder / "robustness.csv").set_index("encoder")
    assert card.loc["finetuned", "shift"].notna().all()
    assert card.loc[["random", "pretrained"], "shift"].isna().all()
    path = small.folder / "runs/demo/notebooks/07_explore_encoder.ipynb"
    (page,) = [part for part in outputs(path, "text/html") if "<svg" in part]
    assert page.count("data:image/png;base64,") == 15  # the test molecules of the job
    lineage = json.loads((folder / "07_explore_encoder.json").read_text())["lineage"]
    assert "runs/demo/finetune/chembl2321810/pretrained/split_1/04_finetune.json" in lineage


def test_domain_pretraining_by_itself(tmp_path):
    overrides = {"output": str(tmp_path / "domain"), "sample": 30, "epochs": [1, 2]}
    path = notebooks.run(files.ROOT / "notebooks/05_pretrain_domain.ipynb", tmp_path / "out.ipynb", None, overrides)
    assert len(outputs(path, "image/png")) == 3
    assert "1017" in str(outputs(path, "text/html"))  # molecules of the set that overlaps
    record = json.loads((tmp_path / "domain/05_pretrain_domain.json").read_text())
    assert len(record["outputs"]) == 6


def test_r_groups_from_the_jobs_of_a_study(tmp_path, run_cells, capsys):
    """Two models, two drawings, two splits: the figure and the table; without any jobs, only a word."""
    place = {"dataset": "made", "split": "random", "holdout": 0.1, "metric": "MAE", "unit": "eV"}
    place |= {"stage": "grid", "repeat": 1}
    cell = {"head_lr": 1e-3, "augmentation": "none", "chosen": True, "val": 1.0}
    for encoder, drawing, seed in itertools.product(("pretrained", "random"), ("plain", "r_groups"), (1, 2)):
        job = tmp_path / f"finetune/made_{drawing}/{encoder}/split_{seed}"
        test = seed + 0.5 * (encoder == "random") + 0.2 * (drawing == "r_groups")
        row = {**place, **cell, "encoder": encoder, "drawing": drawing, "seed": seed, "test": test}
        write_parquet(job / "scores.parquet", pd.DataFrame([row]))
        write_parquet(job / "predictions.parquet", pd.DataFrame({"prediction": [0.0]}))
        files = [job / f"{name}.parquet" for name in ("scores", "predictions")]
        written = {relative(file): sha256(file) for file in files}
        content = {"notebook": "04_finetune", "commit": None, "dirty": None, "inputs": {}, "outputs": written}
        content |= {"parameters": {"split_seed": seed, "drawing": drawing}}
        write_json(job / "04_finetune.json", content)
    notebook, figure = ROOT / "notebooks/06_replace_r_groups.ipynb", tmp_path / "figure"
    path = notebooks.run(notebook, tmp_path / "out.ipynb", None, {"runs": str(tmp_path), "output": str(figure)})
    assert len(outputs(path, "image/png")) == 2
    gaps = pd.read_csv(figure / "r_groups.csv").set_index("quantity")
    assert gaps.loc["gap, plain", "percent"] == pytest.approx(100 * 0.5 / 1.5, rel=1e-5)  # of the mean error
    assert gaps.loc["loss, pretrained", "percent"] == pytest.approx(100 * 0.2 / 1.5, rel=1e-5)
    assert (figure / "r_groups.png").is_file()
    few = [f"{tmp_path}/finetune/made_plain/{encoder}/split_1" for encoder in ("pretrained", "random")]
    gaps = run_cells(notebook.stem, runs=str(tmp_path), output=str(figure), jobs=few)["gaps"]
    assert gaps[["quantity", "splits"]].to_numpy().tolist() == [["gap, plain", 1]]
    nothing = {"runs": str(tmp_path / "nothing"), "output": str(tmp_path / "empty")}
    run_cells(notebook.stem, **nothing)
    assert "no finished finetuning job" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="run notebook 04 first"):
        run_cells(notebook.stem, **nothing, missing="fail")


def test_a_cell_that_raises_names_notebook_and_step_and_success_leaves_only_the_output(tmp_path):
    output = tmp_path / "out.ipynb"
    with pytest.raises(notebooks.NotebookError, match=r"made .*/out, step 'Part 2' \(cell 4\): ZeroDivisionError"):
        notebooks.run(made(tmp_path, "a = 1", "b = a / 0"), output)
    assert sorted(path.name for path in tmp_path.glob("out.*")) == ["out.failed.ipynb"]
    code = f"import os; assert sorted(n for n in os.listdir({str(tmp_path)!r}) if 'out.' in n) == ['out.running.ipynb']"
    notebooks.run(made(tmp_path, code), output)
    assert sorted(path.name for path in tmp_path.glob("out.*")) == ["out.ipynb"]


def test_an_interrupted_notebook_is_kept_as_one_that_failed(tmp_path, monkeypatch):
    def interrupted(notebook, output, *_):
        shutil.copy(notebook, output)
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "_execute", interrupted)
    with pytest.raises(notebooks.NotebookError, match=r"step 'Part 1' \(cell 1\): interrupted\nlook at .*out\.failed"):
        notebooks.run(made(tmp_path, "a = 1"), tmp_path / "out.ipynb")
    assert sorted(path.name for path in tmp_path.glob("out.*")) == ["out.failed.ipynb"]


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    path, output = (
        made(tmp_path, "a = 1", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        tmp_path / "out.ipynb",
    )
    with pytest.raises(notebooks.NotebookError, match=r"made .*/out, step 'Part 2' \(cell 4\): the kernel died"):
        notebooks.run(path, output)
    assert not output.exists()


def test_the_documented_papermill_command_refuses_a_misspelt_parameter(tmp_path):
    command = [Path(sys.executable).with_name("papermill"), "notebooks/09_draw_figures.ipynb", tmp_path / "out.ipynb"]
    command += ["-k", "python3", "-p", "missin", "fail", "-p", "output", tmp_path / "figures"]
    done = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "unknown parameter 'missin'; did you mean 'missing'?" in done.stderr
    assert not (tmp_path / "figures").exists()


def test_a_missing_input_ends_the_run(tmp_path, run_cells):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.parquet: no such table; run the notebook that writes it"):
        run_cells("03_pretrain", labels="nowhere.parquet", output=str(tmp_path / "encoder"))
    assert not (tmp_path / "encoder" / "config.json").exists()


def test_the_runner_refuses_a_misspelt_parameter_before_it_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files.ROOT)
    assert notebooks.main(["run", "notebooks/03_pretrain.ipynb", str(tmp_path / "out.ipynb"), "-y", "{epoch: 1}"]) == 1
    assert "unknown parameter 'epoch'; did you mean 'epochs'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pretraining_with_drawings_of_another_size(tmp_path, labels_file, run_cells, style):
    """The whole notebook: what it shows after the training needs drawings of that size too."""
    values = {"labels": str(labels_file), "output": str(tmp_path / "encoder"), "encoder": "timm-resnet10t/random"}
    values |= {"image_size": 64, "epochs": 1, "batch_size": 16, "group_size": 4, "k": [4], "validation_fraction": 0.2}
    run_cells("03_pretrain", **values)
    assert json.loads((tmp_path / "encoder/03_pretrain.json").read_text())["parameters"]["image_size"] == 64
    assert not (tmp_path / "encoder/checkpoint.pt").exists()
