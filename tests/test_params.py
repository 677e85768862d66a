"""Parameters: wrong names and types are refused by name, and every profile's files are right."""

import json
import shutil
import subprocess

import pytest
import yaml

from moleclip.io import files
from moleclip.workflow import params


def refusal(notebook: str, **values) -> str:
    with pytest.raises(params.ParameterError) as error:
        params.read(notebook, None, **values)
    return str(error.value)


@pytest.mark.parametrize(
    ("wrong", "right"), [("epoch", "epochs"), ("batchsize", "batch_size"), ("weight_deca", "weight_decay")]
)
def test_a_misspelt_name_suggests_the_nearest(wrong, right):
    assert refusal("03_pretrain", **{wrong: 1}) == f"03_pretrain: unknown parameter {wrong!r}; did you mean {right!r}?"


def test_a_name_near_nothing_lists_them_all():
    assert "known are labels, sample, output, encoder, image_size, epochs" in refusal("03_pretrain", xyzzy=1)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"epochs": "three"}, "'epochs' = 'three'"),
        ({"epochs": 2.5}, "'epochs' = 2.5"),
        ({"epochs": True}, "'epochs' = True"),
        ({"epochs": 0}, "'epochs' = 0"),
        ({"lr": "fast"}, "'lr' = 'fast'"),
        ({"warmup_steps": -1}, "'warmup_steps' = -1"),
        ({"decay": "step"}, "'decay' = 'step'"),
        ({"lr": float("nan")}, "'lr' = nan"),
        ({"contrastive": "no"}, "'contrastive' = 'no'"),
        ({"augmentation": "strong"}, "'augmentation' = 'strong'"),
        ({"k": 300}, "'k' = 300"),
        ({"group_size": 7}, "not a multiple of group_size 7"),
        ({"k": [], "contrastive": False}, "nothing to train on"),
        ({"arithmetic": "fp16_l2", "precision": "bf16"}, "precision must be 'no', not 'bf16'"),
    ],
)
def test_an_ill_typed_value_is_named(values, part):
    assert part in refusal("03_pretrain", **values)


@pytest.mark.parametrize(
    ("notebook", "values", "part"),
    [
        ("00_quickstart", {"advise": -1}, "'advise' = -1"),
        ("00_quickstart", {"folds": 1}, "'folds' = 1"),
        ("00_quickstart", {"neighbours": "many"}, "'neighbours' = 'many'"),
        ("00_quickstart", {"table": ""}, "'table' = ''"),
        ("00_quickstart", {"molecules": []}, "'molecules' = []"),
        ("00_quickstart", {"molecules": ["C", 1]}, "'molecules.1' = 1"),
        ("01_depict_molecules", {"checksums": {"moses": "abc"}}, "'checksums.moses' = 'abc'"),
        ("01_depict_molecules", {"seed": -1}, "'seed' = -1"),
        ("02_cluster_structures", {"unique": 1}, "'unique' = 1"),
        ("02_cluster_structures", {"k_sweep": [1]}, "'k_sweep.0' = 1"),
        ("02_cluster_structures", {"k_labels": [31]}, "k_labels has [31], which is missing in k_sweep"),
        ("07_explore_encoder", {"sample": 19}, "'sample' = 19"),
        ("07_explore_encoder", {"encoders": {}}, "'encoders' = {}"),
        ("09_draw_figures", {"missing": "stop"}, "'missing' = 'stop'"),
        ("09_draw_figures", {"figures": ["galery"]}, "'figures.0' = 'galery'"),
        ("09_draw_figures", {"contrasts": {"a": ["b"]}}, "'contrasts.a' = ['b']"),
    ],
)
def test_what_the_default_says_is_checked_too(notebook, values, part):
    assert part in refusal(notebook, **values)


def test_a_misspelt_baseline_suggests_the_nearest_also_among_the_groups():
    assert "unknown baseline 'forest'; did you mean 'forests'?" in refusal("04_finetune", baselines=["mean", "forest"])
    assert "known are forests, classical, frozen" in refusal("04_finetune", baselines=["xyzzy"])


def test_what_a_default_leaves_open_may_stay_open():
    p = params.read("00_quickstart", None, model="", sample=None, label_columns=None, advise=0)
    assert (p.model, p.sample, p.label_columns, p.advise) == ("", None, None, 0)
    assert params.read("02_cluster_structures", None, k_labels=[31], sweep_sample=10).k_labels == [31]


@pytest.mark.parametrize("default", [None, [], {}])
def test_a_default_without_a_type_is_named(tmp_path, monkeypatch, default):
    (tmp_path / "notebooks").mkdir()
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": [f"limits = {default!r}  # of all"]}
    (tmp_path / "notebooks/11_more.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(files, "ROOT", tmp_path)
    assert "11_more, limits: its default" in refusal("11_more")


@pytest.mark.parametrize("notebook", ["03_pretrain", "04_finetune", "05_pretrain_domain"])
def test_what_was_added_later_has_one_default(notebook):
    """A run's identity leaves such a parameter out at the default of its field, which must be the notebook's."""
    p = params.read(notebook)
    later = {name: field.default for name, field in type(p).model_fields.items() if not field.is_required()}
    assert {name: getattr(p, name) for name in later} == later
    assert not later.keys() & p.identity().keys()


def test_no_type_is_written_down_for_nothing():
    used = {name for notebook in params.notebooks() for name in params.defaults(notebook)}
    assert {name.rpartition(".")[2] for name in params._TYPES} <= used


def test_a_sample_by_set():
    values = {"datasets": ["moses", "my/file.smi.gz"], "sample": {"moses": 9}}
    assert params.read("01_depict_molecules", None, **values).sample == {"moses": 9}
    assert "sample names 'mose'" in refusal("01_depict_molecules", sample={"mose": 9})
    assert "twice" in refusal("01_depict_molecules", datasets=["nci_5k", "elsewhere/nci_5k.smi"])


def test_several_problems_are_all_reported():
    message = refusal("03_pretrain", epoch=1, lr="fast")
    assert "'epochs'?" in message
    assert "'lr' = 'fast'" in message


def test_yaml_numbers_without_a_dot_work(tmp_path):
    file = tmp_path / "pretrain.yaml"
    file.write_text("lr: 1e-4\n")
    assert yaml.safe_load(file.read_text()) == {"lr": "1e-4"}
    assert params.read("03_pretrain", file).lr == 1e-4


@pytest.mark.parametrize("profile", params.profiles())
def test_profiles_are_right_and_complete(profile):
    parameters, _ = params.read_profile(files.ROOT / "params" / profile)
    assert list(parameters) == sorted(params.notebooks(), key=params.parameter_file)


def test_a_file_of_no_notebook_is_refused(tmp_path):
    (tmp_path / "profile.yaml").write_text((files.ROOT / "params/demo/profile.yaml").read_text())
    (tmp_path / "pretran.yaml").write_text("epochs: 1\n")
    with pytest.raises(params.ParameterError, match=r"did you mean 'pretrain\.yaml'"):
        params.read_profile(tmp_path)


def test_an_unknown_profile_is_refused():
    with pytest.raises(params.ParameterError, match="did you mean 'demo'"):
        params.read_profile(files.ROOT / "params" / "dem")


def test_what_is_not_a_mapping_is_refused(tmp_path):
    file = tmp_path / "pretrain.yaml"
    file.write_text("- 1\n- 2\n")
    with pytest.raises(params.ParameterError, match="mapping"):
        params.read("03_pretrain", file)
    file.write_text("a: [1\n")
    with pytest.raises(params.ParameterError, match="not YAML"):
        params.read("03_pretrain", file)


def test_names_that_papermill_injects_are_seen():
    namespace = params.defaults("09_draw_figures")
    params.from_notebook("09_draw_figures", namespace)
    cells = ["", "# Parameters\nrunz = 'runs/demo'\nseed = 1\n"]
    with pytest.raises(params.ParameterError, match="did you mean 'runs'"):
        params.from_notebook("09_draw_figures", {**namespace, "runz": "runs/demo", "In": cells})


def test_an_unknown_study_is_refused():
    with pytest.raises(params.ParameterError, match="profile 'paper' has no study 'baselin'; did you mean 'baseline'"):
        params.read_profile(files.ROOT / "params" / "paper", "baselin")


def test_jobs_are_sets_times_models_times_seeds():
    fan_out = params.Profile(
        models={"a": {"encoder": "small/random", "epochs": 9}, "b": {}},
        finetune={
            "NHCs": {"split_seeds": [1, 2], "epochs": 3},
            "esol_r": {"dataset": "esol", "drawing": "r_groups"},
        },
    )
    jobs = params.jobs(fan_out, "runs/x")
    assert [(job.dataset, job.model, job.seed) for job in jobs] == [
        *(("NHCs", "a", seed) for seed in (1, 2)),
        *(("NHCs", "b", seed) for seed in (1, 2)),
        *(("esol_r", model, 1) for model in "ab"),
    ]
    place = {"name": "a", "split_seed": 2, "output": "runs/x/NHCs/a/split_2"}
    # What a model sets for itself wins over what a set has for all models.
    assert jobs[1].overrides == {"dataset": "NHCs", "epochs": 9, "encoder": "small/random", **place}
    assert jobs[4].overrides["dataset"] == "esol"


def test_a_profile_of_ones_own_writes_elsewhere_and_names_the_file_of_a_misspelt_key(tmp_path):
    shutil.copytree(files.ROOT / "params/demo", tmp_path / "params/demo")
    shutil.copy(files.ROOT / "Makefile", tmp_path)
    made = subprocess.run(["make", "profile", "NAME=mine"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "make run PROFILE=mine" in made.stdout
    texts = [file.read_text() for file in (tmp_path / "params/mine").iterdir()]
    assert not any("runs/demo" in text for text in texts)
    assert any("runs/mine" in text for text in texts)
    params.read_profile(tmp_path / "params/mine")
    again = subprocess.run(["make", "profile", "NAME=mine"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    with open(tmp_path / "params/mine/pretrain.yaml", "a") as file:
        file.write("epochz: 3\n")
    with pytest.raises(params.ParameterError, match=r"params/mine/pretrain\.yaml, 03_pretrain: .* 'epochz'"):
        params.read_profile(tmp_path / "params/mine")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["NAME=lite"], 0, "--config profile=laptop study=lite"),
        (["NAME=baseline"], 0, "--config profile=paper study=baseline"),
        (["NAME=domain", "PROFILE=demo"], 0, "--config profile=demo study=domain"),
        ([], 2, "NAME=... says which study: ablations baseline"),
    ],
)
def test_a_study_is_found_by_its_name(arguments, status, said):
    command = ["make", "--dry-run", "--old-file=.venv/installed", "study", *arguments]
    done = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_the_paper_profile_has_the_authors_settings():
    """As their code and their released runs have them; each is a parameter, and departures.md says why."""
    folder = files.ROOT / "params" / "paper"
    own, fan_out = params.read_profile(folder)
    studies = {name: params.read_profile(folder, name)[1] for name in params.studies(folder)}
    known = {
        "03_pretrain": {
            **{"arithmetic": "fp16_l2", "channel_order": "BGR", "redraw": False, "class_weight": 1.0},
            **{"hold_out_groups": True, "slow_steps": 5, "keep_moments": True, "k": [300, 3000], "epochs": 4},
            **{"batch_size": 256, "group_size": 32, "lr": 5e-6, "head_lr": 0.01, "weight_decay": 0.1},
            **{"logit_scale": 15.0, "augmentation": "default", "validation_fraction": 0.001},
            **{"encoder": "ViT-B-16-quickgelu/openai", "contrastive": True},
        },
        "04_finetune": {
            **{"arithmetic": "fp16_l2", "head_adam": "pytorch", "mlp_weight_decay": 1e-5, "batch_size": 64},
            **{"head_lr": [1e-3, 4e-4, 1e-4, 4e-5, 1e-5], "augmentation": ["none", "default", "intense_2024"]},
            **{"lr": 5e-6, "weight_decay": 1e-5, "scale_labels": False, "epochs": 100, "final_epochs": 300},
            **{"repeats": 3, "final_repeats": 10, "head_layers": 3, "regression_loss": "l1"},
        },
        "05_pretrain_domain": {
            **{"arithmetic": "fp16_l2", "moments": True, "keep_moments": True, "epochs": [100, 300]},
            **{"lr": 5e-6, "weight_decay": 1e-5, "batch_size": 64, "scale_labels": False},
        },
    }
    for notebook, values in known.items():
        assert own[notebook].model_dump(include=set(values)) == values, notebook
    pretrained = [values for study in (fan_out, *studies.values()) for values in study.models.values()]
    pretrained = [values for values in pretrained if values["encoder"].startswith(("runs/paper", "moleclip/primary"))]
    assert all(values["moments"] for values in pretrained)
    ablations, domain = studies["ablations"].pretrain, studies["domain"].pretrain
    assert ablations["contrastive_only"] == {"class_weight": 0.0}  # grouped by class all the same
    assert ablations["pubchem_10m"] == {"labels": "pubchem_10m", "epochs": 2}
    assert (domain["phosphines_only"]["k"], domain["chembl_then_phosphines"]["epochs"]) == ([30, 300], 10)
    whole = [studies["baseline"].finetune[name] for name in ("NHCs_grid", "NHCs_grid_batch_8", "NHCs_grid_batch_4")]
    assert [values.get("batch_size", own["04_finetune"].batch_size) for values in whole] == [64, 8, 4]
    assert not any("head_lr" in values for values in whole)
