"""Rehearsals: every profile is cut, checked and kept apart from its own runs."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from moleclip.io import files
from moleclip.workflow import params, smoke_test


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's parameters and notebooks, to be changed."""
    for name in ("params", "notebooks"):
        shutil.copytree(files.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("rehearsal_*", ".ipynb_*"))
    monkeypatch.setattr(files, "ROOT", tmp_path)
    return tmp_path


def leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from leaves(value)
    else:
        yield values


@pytest.mark.parametrize("profile", params.profiles())
def test_it_is_short_small_and_apart(root, profile):
    parameters, fan_out = params.read_profile(smoke_test.write(profile))
    assert set(parameters) == set(params.MODELS)
    pretraining = parameters["03_pretrain"]
    assert (pretraining.epochs, pretraining.encoder, parameters["04_finetune"].epochs) == (
        1,
        "small/random",
        1,
    )
    assert {parameters[name].sample for name in ("01_depict_molecules", "02_cluster_structures")} == {150}
    texts = [text for p in [*parameters.values(), fan_out] for text in leaves(p.model_dump()) if isinstance(text, str)]
    assert not [text for text in texts if text.startswith((f"runs/{profile}", f"figures/{profile}"))]
    assert "small/random" in texts
    assert not [text for text in texts if "ViT" in text]


def test_a_study_has_all_its_models_once_and_one_on_each_other_set(root):
    fan_out = params.read_profile(smoke_test.write("paper"), "ablations")[1]
    whole = params.read_profile(files.ROOT / "params" / "paper", "ablations")[1]
    jobs = params.jobs(fan_out, "")
    assert [job.model for job in jobs if job.dataset == "bace"] == list(whole.models)
    others = [[job.model for job in jobs if job.dataset == name] for name in ("bbbp", "esol", "freesolv")]
    assert others == [[model] for model in list(whole.models)[1:4]]  # by turns
    assert set(fan_out.pretrain) == set(whole.pretrain)
    assert fan_out.draw["output"] == "figures/rehearsal_paper/studies/ablations"


def test_what_is_compared_on_plain_and_other_drawings_has_all_its_models_on_both(root):
    fan_out = params.read_profile(smoke_test.write("paper"), "r_groups")[1]
    models = {}
    for job in params.jobs(fan_out, ""):
        models.setdefault(job.overrides.get("drawing", "plain"), {}).setdefault(job.dataset, set()).add(job.model)
    first = {drawing: max(sets, key=lambda name: len(sets[name])) for drawing, sets in models.items()}
    assert first["r_groups"] == f"{first['plain']}_r"
    assert {"pretrained", "imagemol"} == models["r_groups"][first["r_groups"]]
    assert {"pretrained", "imagemol"} < models["plain"][first["plain"]]


def test_a_map_is_of_small_towers_that_exist(root):
    study = files.ROOT / "params" / "paper" / "study_maps.yaml"
    text = "draw: {output: figures/studies/maps, figures: [maps], maps: {CLIP: ViT-B-16-quickgelu/openai}}\n"
    study.write_text(text)
    assert params.read_profile(smoke_test.write("paper"), "maps")[1].draw["maps"] == {"CLIP": "small/random"}
    study.write_text(text.replace("openai", "opnai"))
    with pytest.raises(params.ParameterError, match="has no weights 'opnai'; open_clip knows openai"):
        smoke_test.write("paper")


def test_the_cell_is_chosen_from_two(root):
    parameters, fan_out = params.read_profile(smoke_test.write("paper"))
    assert len(parameters["04_finetune"].head_lr) == len(fan_out.models["imagemol"]["head_lr"]) == 2
    assert parameters["04_finetune"].final_epochs == 1


def test_weights_that_are_not_there_are_named(root, monkeypatch, capsys):
    monkeypatch.setattr(smoke_test.downloads, "present", lambda name: False)
    smoke_test.write("paper")
    assert "imagemol/pretrained is not on this machine yet" in capsys.readouterr().out


def test_written_again_it_is_left_as_it_is(root):
    """Else the workflow would run again what is done."""
    files = sorted(smoke_test.write("paper").iterdir())
    for file in files:
        os.utime(file, (0, 0))
    smoke_test.write("paper")
    assert [file.stat().st_mtime for file in files] == [0] * len(files)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("pretrain", {"encoder": "ViT-B-16/openai"}, "pretrain.yaml.*Use ViT-B-16-quickgelu/openai"),
        ("pretrain", {"encoder": "ViT-B-16-quickgelu/opnai"}, "no weights 'opnai'"),
        ("pretrain", {"encoder": "ViT-B16/random"}, "did you mean 'ViT-B-16'"),
        ("pretrain", {"epoch": 3}, "did you mean 'epochs'"),
        ("pretrain", {"output": "/scratch/encoder"}, "'/scratch/encoder' is not below runs/paper"),
        ("depict_molecules", {"datasets": ["chembl25"]}, "did you mean 'chembl_25'"),
        (
            "profile",
            {"finetune": {"base": {}}},
            "did you mean 'bace'",
        ),
    ],
)
def test_what_a_profile_names_must_exist(root, file, change, message):
    path = root / "params" / "paper" / f"{file}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(params.ParameterError, match=message):
        smoke_test.write("paper")


def test_the_command(root, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rehearsal", "demo"])
    assert smoke_test.main() == 0
    assert "rehearsing with params/rehearsal_demo" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["rehearsal", "dmo"])
    assert smoke_test.main() == 1
    assert "did you mean 'demo'" in capsys.readouterr().err
