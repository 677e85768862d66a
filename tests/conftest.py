"""Small parameters and a small corpus, shared by the tests."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pandas as pd
import pytest
import yaml
from filelock import FileLock
from IPython.display import display
from matplotlib import pyplot as plt
from snakemake import cli

from moleclip import clustering, datasets
from moleclip.io import downloads, files
from moleclip.paper import workbook
from moleclip.plots.style import set_style
from moleclip.workflow import params, provenance  # noqa: F401 (for what is forked)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with one file that needs the small workflow, end with the others: no process waits while it is made."""
    needs = {item.path for item in items if "small" in getattr(item, "fixturenames", ())}
    first = max(needs, default=None)
    items.sort(key=lambda item: 0 if item.path == first else 1 + (item.path in needs))


@pytest.fixture
def style():
    """The project's look, and no figure left open."""
    set_style()
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def labels_file(tmp_path_factory):
    """Labels of 96 molecules, as notebook 02 writes them."""
    smiles = list(datasets.load("nci_5k").smiles[:400:4])[:96]
    keys = clustering.maccs(smiles)
    table = pd.DataFrame(
        {"row": range(96), "smiles": smiles, **{f"k_{k}": clustering.kmeans(keys, k, 0)[0] for k in (4, 12)}}
    )
    file = tmp_path_factory.mktemp("labels") / "labels.parquet"
    table.to_parquet(file)
    return file


@pytest.fixture
def pretrain_params(labels_file, tmp_path):
    def make(**overrides):
        small = {"epochs": 2, "batch_size": 16, "group_size": 4, "k": [4, 12], "workers": 0, "validation_fraction": 0.2}
        values = {"labels": str(labels_file), "output": str(tmp_path / "encoder"), **small, **overrides}
        return params.read("03_pretrain", None, **values)

    return make


@pytest.fixture
def finetune_params(tmp_path):
    def make(**overrides):
        small = {"split": "random", "epochs": 1, "head_lr": [1e-3], "baselines": ["mean"]}
        small |= {"scale_labels": False, "batch_size": 64}  # as in the paper
        small |= {"final_epochs": None, "final_repeats": 1}
        return params.read("04_finetune", None, **{"output": str(tmp_path / "job"), **small, **overrides})

    return make


SMALL = {
    "depict_molecules": {"datasets": ["chembl2321810"], "examples": 2},
    "cluster_structures": {
        "molecules": "runs/demo/molecules/chembl2321810.parquet",
        "k_sweep": [3, 5, 10, 20, 40],
        "k_labels": [5, 20],
    },
    "pretrain": {"k": [5, 20], "epochs": 1, "sample": 400},
    "finetune": {"epochs": 1, "sample": 150},
    "draw_figures": {},
    "explore_encoder": {
        "model": "runs/demo/finetune/chembl2321810/pretrained/split_1",
        # Gradients of the encoder that ships take a minute; other tests embed with it.
        "encoders": {"random": "small/random", "pretrained": "runs/demo/encoder"},
        "sample": 40,
        "explained": 2,
        "shown": 2,
        "redrawn": 6,
        "orders": 1,
    },
    "quickstart": {
        "encoder": "runs/demo/encoder",
        "model": "runs/demo/finetune/chembl2321810/pretrained/split_1",
        "neighbours": 30,
        "sample": 40,
        "advise": 0,
    },
    "train_model": {"sample": 20, "encoder": "small/random", "methods": ["frozen_linear"], "keep": True},
    "profile": {
        "finetune.chembl2321810.split_seeds": [1],
        "finetune.chembl2321810.models": ["pretrained", "random", "baselines"],
        "models.baselines.epochs": 2,
    },
}


def rules(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Rules of the jobs that a dry run tells of."""
    assert done.returncode == 0, done.stdout
    found = re.findall(r"^(?:local)?rule (\w+):", done.stdout + (done.stderr or ""), re.MULTILINE)
    return sorted(rule for rule in found if rule != "all")


class Project:
    """A copy of the project in a folder of its own, where a test may edit and run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def edit(self, name: str, **values: Any) -> None:
        """Change values of a parameter file of the demo profile."""
        file = self.folder / "params" / "demo" / f"{name}.yaml"
        content = yaml.safe_load(file.read_text())
        for key, value in values.items():
            *path, last = key.split(".")
            functools.reduce(lambda inner, part: inner[part], path, content)[last] = value
        file.write_text(yaml.safe_dump(content))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the workflow."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--rerun-incomplete", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def inside(self, call: Callable[[], object]) -> subprocess.CompletedProcess[str]:
        """Call a function in a fork of this process, which has imported everything, as a program in this project."""
        with TemporaryFile() as out:
            if not (child := os.fork()):
                status: object = 1
                try:
                    os.dup2(out.fileno(), 1)
                    os.dup2(out.fileno(), 2)
                    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
                    os.chdir(self.folder)
                    sys.path.insert(0, str(self.folder))
                    files.ROOT = self.folder
                    status = call()
                except SystemExit as error:
                    status = error.code
                except BaseException:
                    traceback.print_exc()
                if isinstance(status, str):
                    print(status)
                sys.stdout.flush()
                os._exit(bool(status))
            _, ended = os.waitpid(child, 0)
            out.seek(0)
            return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(ended), out.read().decode())

    def dry_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the workflow would do now, on standard output."""
        return self.inside(lambda: cli.main(["--dry-run", "--nolock", *arguments]))

    def planned(self, *arguments: str) -> list[str]:
        """Rules that a run would execute now, one per job."""
        return rules(self.dry_run(*arguments))

    def git(self, *arguments: str) -> str:
        """Run git in the project."""
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder)
        return Project(folder)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Project:
    """The whole walk, run once with small parameters. Copy it before changing anything."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small"
    done = folder.with_name("small.done")
    with FileLock(f"{folder}.lock"):  # the first of the processes that run tests makes it for all
        if not done.exists():
            _make_small(folder)
            done.touch()
    return Project(folder)


def _make_small(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("moleclip", "notebooks", "params"):
        shutil.copytree(
            files.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "smoke_test_*", ".ipynb_*")
        )
    for name in ("Snakefile", "Makefile", ".gitignore"):
        shutil.copy(files.ROOT / name, folder)
    project = Project(folder)
    for name, values in SMALL.items():
        project.edit(name, **values)
    project.git("init", "-q")
    project.git("add", ".")
    project.git("commit", "-qm", "the project")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def run_cells(monkeypatch, tmp_path):
    """Run the code of a notebook in this process, with other parameters; returns its names."""
    monkeypatch.chdir(tmp_path)

    def run(notebook: str, **values: Any) -> dict[str, Any]:
        names: dict[str, Any] = {"display": display}
        for cell in json.loads((files.ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)  # noqa: S102
            if "parameters" in cell["metadata"].get("tags", []):
                names |= values
        return names

    return run


@pytest.fixture(scope="session")
def workbook_file():
    """The authors' results workbook, where it is at hand."""
    found = downloads.mirrored("paper_results")
    if found is None:
        pytest.skip("needs the authors' results workbook in MOLECLIP_DATA_DIR")
    return found


@pytest.fixture(scope="session")
def released_runs(workbook_file):
    return workbook.runs(workbook_file)


@pytest.fixture(scope="session")
def printed_scores(workbook_file):
    return workbook.scores(workbook_file)
