"""Parameters: wrong names and types are refused by name, and every profile's files are right."""

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
        ({"lr": float("nan")}, "'lr' = nan"),
        ({"contrastive": "no"}, "'contrastive' = 'no'"),
        ({"augmentation": "strong"}, "'augmentation' = 'strong'"),
        ({"k": 300}, "'k' = 300"),
        ({"group_size": 7}, "not a multiple of group_size 7"),
        ({"k": [], "contrastive": False}, "nothing to train on"),
    ],
)
def test_an_ill_typed_value_is_named(values, part):
    assert part in refusal("03_pretrain", **values)


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
    assert set(parameters) == set(params.MODELS)


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
