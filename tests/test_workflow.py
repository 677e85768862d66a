"""The workflow: what reruns after which change, and how it fails and goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import Project, rules

from moleclip.io import files
from moleclip.workflow import params, publish

FAN_OUTS = [
    (name, study) for name in params.profiles() for study in (None, *params.studies(files.ROOT / "params" / name))
]


EVERYTHING = ["cluster", "depict", "draw", "explore", *["finetune"] * 3, "pretrain", "quickstart", "train"]


@pytest.fixture(scope="module")
def copy(small, tmp_path_factory):
    return small.copy(tmp_path_factory.mktemp("planned") / "project")


@pytest.fixture
def project(small, copy):
    """One project for all tests that only plan: what they have changed is set back."""
    yield copy
    shutil.rmtree(copy.folder / "params")
    shutil.copytree(small.folder / "params", copy.folder / "params")


@pytest.fixture
def runnable(small, tmp_path):
    return small.copy(tmp_path / "project")


@pytest.mark.parametrize(("profile", "study"), FAN_OUTS)
def test_dry_run_of_a_profile(profile, study):
    options = ["--forceall", "--config", f"profile={profile}", *([f"study={study}"] if study else [])]
    done = Project(files.ROOT).dry_run(*options)
    assert done.returncode == 0, done.stdout
    _, fan_out = params.read_profile(files.ROOT / "params" / profile, study)
    assert done.stdout.count("rule finetune:") == len(params.jobs(fan_out, "runs"))
    if not study:
        assert f"runs/{profile}/encoder/model.safetensors" in done.stdout


def test_a_study_asks_only_for_the_data_that_it_needs(monkeypatch):
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    assert Project(files.ROOT).dry_run("--config", "profile=laptop", "study=lite").returncode == 0  # no corpus
    done = Project(files.ROOT).dry_run("--config", "profile=laptop", "study=curve")
    assert done.returncode == 1
    assert "Missing input files for rule depict" in done.stdout


@pytest.fixture
def unrun(tmp_path):
    """The project before any run, with a profile of one's own that has mistakes to be made."""
    for name in ("moleclip", "notebooks", "Snakefile"):
        (tmp_path / name).symlink_to(files.ROOT / name)
    shutil.copytree(files.ROOT / "params/demo", tmp_path / "params/demo")
    (tmp_path / "mylabels.csv").write_text("structure,logP,pKi\nC,1,2\nCC,2,3\n")
    (tmp_path / "corpus.csv").write_text("structure\nC\nCC\n")
    tower = tmp_path / "towers/mobile"
    tower.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (tower / name).touch()
    project = Project(tmp_path)
    project.edit("depict_molecules", datasets=["corpus.csv"])
    project.edit("cluster_structures", molecules="runs/demo/molecules/corpus.parquet")
    project.edit("pretrain", encoder="towers/mobile")
    labels = {"dataset": "mylabels.csv", "smiles_column": "structure", "label_columns": ["logP", "pKi"]}
    project.edit("profile", finetune={"mylabels": {**labels, "split_seeds": [1, 2]}})
    project.edit("quickstart", model="runs/demo/finetune/mylabels/pretrained/split_2")
    project.edit("explore_encoder", model="")
    return project


def test_own_corpus_tower_and_labels_are_inputs_of_what_reads_them(unrun):
    done = unrun.dry_run()
    assert rules(done).count("finetune") == 8
    inputs = dict(re.findall(r"rule (\w+):\n +input: (.*)", done.stdout))
    assert inputs["depict"] == "corpus.csv"
    tower = "towers/mobile/model.safetensors, towers/mobile/config.json"
    assert inputs["pretrain"] == f"runs/demo/labels/labels.parquet, {tower}"
    unrun.edit("profile", **{"models.random.encoder": "ViT-B-16@towers/mobile/model.safetensors"})
    unrun.edit("profile", **{"finetune.mylabels.models": ["random"]})
    unrun.edit("quickstart", model="")
    assert "input: mylabels.csv, towers/mobile/model.safetensors\n" in unrun.dry_run().stdout


def test_what_is_not_there_is_told_before_anything_runs_all_at_once(unrun):
    unrun.edit("pretrain", encoder="towers/mobil")
    unrun.edit("depict_molecules", datasets=["corpse.csv"])
    unrun.edit(
        "profile", **{"finetune.mylabels.label_columns": ["logP", "pKI"], "models.random.encoder": "smal/random"}
    )
    unrun.edit("profile", **{"finetune.NHC": {}, "finetune.again": {"dataset": "mylabels.csv"}})
    unrun.edit("profile", **{"models.lite.encoder": "timm-resnet18@weights/mine.pt"})
    unrun.edit("explore_encoder", dataset="mylabels.csv", smiles_column="structure", label="logD")
    told = unrun.dry_run().stdout
    assert "explore_encoder.yaml: mylabels.csv: has no column 'logD' of labels; did you mean 'logP'?" in told
    assert "params/demo/pretrain.yaml: no encoder 'towers/mobil': no such folder or file, nor such a tower; did" in told
    assert "did you mean 'towers/mobile'?" in told
    assert "params/demo/depict_molecules.yaml: corpse.csv: no such file in" in told
    for part in (
        "mylabels.csv: has no column 'pKI' of labels; did you mean 'pKi'?",
        "no encoder 'smal/random': no such folder or file, nor such a tower; did you mean 'small/random'?",
        "no encoder 'timm-resnet18@weights/mine.pt': no such folder or file",
        "unknown data set 'NHC'; did you mean 'NHCs'?",
        "mylabels.csv: has no column 'smiles'; it has 'structure', 'logP', 'pKi'; SMILES seem to be in 'structure'",
    ):
        assert told.count(f"params/demo/profile.yaml: {part}") == 1
    assert "quickstart" not in told


def test_a_second_run_does_nothing(small):
    assert small.planned() == []


@pytest.mark.parametrize(
    ("file", "change", "rerun"),
    [
        # Finetuning reads a set by name, not notebook 01's table: only the pretrained encoder depends on it.
        (
            "depict_molecules",
            {"examples": 3},
            ["cluster", "depict", "draw", "explore", "finetune", "pretrain", "quickstart"],
        ),
        ("cluster_structures", {"seed": 1}, ["cluster", "draw", "explore", "finetune", "pretrain", "quickstart"]),
        ("pretrain", {"lr": "1e-3"}, ["draw", "explore", "finetune", "pretrain", "quickstart"]),
        # The third job, of the baselines, has epochs of its own.
        ("finetune", {"epochs": 2}, ["draw", "explore", "finetune", "finetune", "quickstart"]),
        ("draw_figures", {"seed": 1}, ["draw"]),
        ("explore_encoder", {"clusters": 3}, ["explore"]),
        ("train_model", {"seed": 1}, ["train"]),
        ("profile", {"models.random.seed": 3}, ["draw", "finetune"]),
        (
            "profile",
            {"finetune.chembl2321810.split_seeds": [1, 2]},
            ["draw", "finetune", "finetune", "finetune"],
        ),
    ],
)
def test_one_value_reruns_its_notebook_and_what_follows(project, file, change, rerun):
    project.edit(file, **change)
    assert project.planned() == rerun


def test_an_edited_comment_reruns_nothing_a_raised_number_everything(runnable):
    """By a program of its own: what is forked has the module as it was."""
    for path in [*runnable.folder.glob("moleclip/**/*.py"), *runnable.folder.glob("params/demo/*.yaml")]:
        path.write_text(f"{path.read_text()}# edited\n")
    for path in runnable.folder.glob("notebooks/*.ipynb"):
        path.write_text(path.read_text().replace(" # ", " # edited: ").replace('"# ', '"# Edited: '))
    assert rules(runnable.snakemake("--dry-run")) == []
    path = runnable.folder / "moleclip" / "config.py"
    path.write_text(re.sub(r"^RESULTS = \d+", "RESULTS = 99", path.read_text(), flags=re.MULTILINE))
    assert rules(runnable.snakemake("--dry-run")) == EVERYTHING


@pytest.mark.parametrize(
    ("library", "rerun"),
    [
        ("rdkit", EVERYTHING),
        ("matplotlib", ["draw", "explore"]),
    ],
)
def test_another_version_of_a_library_reruns_what_depends_on_it(project, library, rerun):
    """Found before the installed one, as the project's folder comes first."""
    information = project.folder / f"{library}-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 0.1\n")
    assert project.planned() == rerun
    shutil.rmtree(information)


def test_a_table_of_your_own_is_an_input(project):
    (project.folder / "mine.csv").write_text("smiles,y\nC,1\n")
    project.edit("explore_encoder", dataset="mine.csv")
    assert re.search(r"rule explore:\n +input: mine\.csv,", project.dry_run().stdout)


def test_a_misspelt_parameter_stops_everything_before_it_starts(project):
    project.edit("pretrain", epoch=3)
    # `make` with this environment instead of one of its own.
    make = ["make", "--old-file=.venv/installed", f"BIN={os.path.dirname(sys.executable)}", "demo"]
    done = subprocess.run(
        make, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "03_pretrain: unknown parameter 'epoch'; did you mean 'epochs'?" in done.stderr + done.stdout
    assert "started" not in done.stdout


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "profile",
            {"models.random.encodr": "small/random"},
            "profile.yaml, 04_finetune: unknown parameter 'encodr'; did you mean 'encoder'?",
        ),
        (
            "profile",
            {"models.pretrained.encoder": "runs/demo/encodr"},
            "no notebook writes 'runs/demo/encodr'; did you mean 'runs/demo/encoder'?",
        ),
        (
            "explore_encoder",
            {"model": "runs/demo/finetune/chembl2321810/pretraind/split_1"},
            "did you mean 'runs/demo/finetune/chembl2321810/pretrained/split_1'?",
        ),
    ],
)
def test_a_bad_fan_out_is_refused(project, file, change, message):
    project.edit(file, **change)
    done = project.dry_run()
    assert done.returncode != 0
    assert message in done.stdout


def test_a_pretraining_follows_the_one_that_it_starts_from(project):
    """As the paper's control: on molecules of the one kind after those of the other."""
    encoder = project.folder / "runs" / "demo" / "encoder"
    encoder.rename(encoder.with_name("away"))
    study = project.folder / "params" / "demo" / "study_second.yaml"
    text = "pretrain: {again: {encoder: runs/demo/encoder, labels: nci_5k}, alone: {labels: nci_5k}}\n"
    text += "draw: {figures: [gallery], maps: {}}\n"
    study.write_text(text)
    options = ("--config", "profile=demo", "study=second")
    again, alone = (
        project.planned(f"runs/demo/second/encoders/{name}/03_pretrain.json", *options) for name in ("again", "alone")
    )
    assert (again, alone) == (["pretrain", "pretrain_another"], ["pretrain_another"])
    for wrong in (text.replace("runs/demo/encoder", "runs/demo/encodr"), text.replace("{}", "{a: runs/demo/encodr}")):
        study.write_text(wrong)
        done = project.dry_run(*options)
        assert "no notebook writes 'runs/demo/encodr'; did you mean 'runs/demo/encoder'?" in done.stdout
    encoder.with_name("away").rename(encoder)


def test_a_failing_notebook_ends_the_run_and_the_next_goes_on_from_there(runnable):
    project = runnable
    project.edit("pretrain", lr=1e30, head_lr=1e30)
    done = project.snakemake()
    assert done.returncode != 0
    assert "ERROR in 03_pretrain, step 'Train'" in done.stderr
    assert "FloatingPointError" in done.stderr
    encoder = project.folder / "runs/demo/encoder"
    assert not list(encoder.glob("config.json")) + list(encoder.glob("*.safetensors"))
    assert (project.folder / "runs/demo/notebooks/03_pretrain.failed.ipynb").exists()
    assert not (project.folder / "runs/demo/notebooks/03_pretrain.ipynb").exists()
    assert project.planned() == ["draw", "explore", "finetune", "pretrain", "quickstart"]


def test_a_killed_run_goes_on(runnable):
    project = runnable
    project.edit("pretrain", seed=1)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    log = project.folder / "log.txt"
    with open(log, "w") as file:
        run = subprocess.Popen(
            command, cwd=project.folder, env=project.environment, stdout=file, stderr=file, start_new_session=True
        )
    for _ in range(600):
        if "03_pretrain | epoch 1/1" in log.read_text():
            break
        assert run.poll() is None, log.read_text()
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert project.planned() == ["draw", "explore", "finetune", "pretrain", "quickstart"]


def test_a_run_leaves_the_checkout_clean(small):
    assert small.git("status", "--porcelain") == ""
    assert (small.folder / "runs/demo/figures/scores.png").is_file()


def test_a_page_has_the_same_bytes_at_another_commit_and_is_published(runnable):
    project = runnable
    page, published = (project.folder / name for name in ("runs/demo/figures", "figures/demo"))
    before = {file.name: file.read_bytes() for file in page.glob("*.*") if "draw_figures" not in file.name}
    with open(project.folder / "moleclip" / "__init__.py", "a") as file:
        file.write("# edited\n")
    done = project.inside(lambda: publish.publish("demo") and 0)
    assert done.returncode == 1
    assert "uncommitted changes of the code that draws: moleclip/__init__.py" in done.stdout
    assert not published.exists()
    project.git("commit", "-qam", "edited")
    assert project.snakemake("--forcerun", "draw", "--until", "draw").returncode == 0
    assert {name: (page / name).read_bytes() for name in before} == before
    assert project.inside(lambda: publish.publish("demo") and 0).returncode == 0
    assert {name: (published / name).read_bytes() for name in before} == before
    assert (published / "explore" / "saliency.png").is_file()
