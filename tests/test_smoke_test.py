"""Smoke tests: every profile is cut, checked and kept apart from its own runs."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from moleclip.io import files
from moleclip.workflow import params, smoke_test


def copied(folder):
    """Copy a project's parameters and notebooks."""
    for name in ("params", "notebooks"):
        shutil.copytree(files.ROOT / name, folder / name, ignore=shutil.ignore_patterns("smoke_test_*", ".ipynb_*"))
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project, to be changed."""
    monkeypatch.setattr(files, "ROOT", copied(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper's profile and its studies, cut, by the name of the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ROOT", copied(tmp_path_factory.mktemp("paper")))
        folder = smoke_test.write("paper")
        return {study: params.read_profile(folder, study) for study in (None, *params.studies(folder))}


def leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from leaves(value)
    else:
        yield values


@pytest.mark.parametrize("profile", params.profiles())
def test_it_is_short_small_and_apart(root, profile):
    parameters, fan_out = params.read_profile(smoke_test.write(profile))
    assert sorted(parameters) == params.notebooks()
    pretraining = parameters["03_pretrain"]
    assert (pretraining.epochs, pretraining.encoder, parameters["04_finetune"].epochs) == (
        1,
        "small/random",
        1,
    )
    assert {parameters[name].sample for name in ("01_depict_molecules", "02_cluster_structures")} == {150}
    texts = [text for p in [*parameters.values(), fan_out] for text in leaves(p.model_dump()) if isinstance(text, str)]
    assert not [text for text in texts if text.startswith((f"runs/{profile}", "figures"))]
    assert "small/random" in texts
    assert not [text for text in texts if "ViT" in text]


def test_a_study_has_all_its_models_once_and_one_on_each_other_set(paper):
    fan_out = paper["ablations"][1]
    whole = params.read_profile(files.ROOT / "params" / "paper", "ablations")[1]
    jobs = params.jobs(fan_out, "")
    assert [job.model for job in jobs if job.dataset == "bace"] == list(whole.models)
    others = [[job.model for job in jobs if job.dataset == name] for name in ("bbbp", "esol", "freesolv")]
    assert others == [[model] for model in list(whole.models)[1:4]]  # by turns
    assert set(fan_out.pretrain) == set(whole.pretrain)
    assert fan_out.publish is None
    assert fan_out.models["contrastive_only"]["encoder"] == "runs/smoke_test_paper/ablations/encoders/contrastive_only"
    # What the study is about stays; and the further encoders are trained by one process.
    assert fan_out.pretrain["contrastive_only"] == {"class_weight": 0.0, "processes": 1}


def test_an_encoder_named_after_a_corpus_keeps_its_name(root, monkeypatch):
    monkeypatch.setattr(smoke_test.downloads, "present", lambda name: name not in ("pubchem_10m", "chembl_25"))
    fan_out = params.read_profile(smoke_test.write("paper"), "ablations")[1]
    used = {str(values["encoder"]) for values in fan_out.models.values()}
    folder = "runs/smoke_test_paper/ablations/encoders/"
    assert {name for name in used if name.startswith(folder)} == {f"{folder}{name}" for name in fan_out.pretrain}
    assert fan_out.pretrain["pubchem_10m"]["labels"] == "chembl_25_subset"


def test_a_small_tower_that_stands_in_has_no_moments(paper):
    for study, model in ((None, "pretrained"), ("domain", "buried_volume")):
        models = paper[study][1].models
        assert (models["released"]["moments"], models[model]["moments"]) == (False, True)
    assert not paper["domain"][1].pretrain_domain["released_buried_volume"]["moments"]


def test_what_is_compared_on_plain_and_other_drawings_has_all_its_models_on_both(paper):
    fan_out = paper["r_groups"][1]
    models = {}
    for job in params.jobs(fan_out, ""):
        models.setdefault(job.overrides.get("drawing", "plain"), {}).setdefault(job.dataset, set()).add(job.model)
    first = {drawing: max(sets, key=lambda name: len(sets[name])) for drawing, sets in models.items()}
    assert first["r_groups_new_layout"] == f"{first['plain']}_r"
    assert {"pretrained", "released", "imagemol"} == models["r_groups_new_layout"][first["r_groups_new_layout"]]
    assert {"pretrained", "released", "imagemol"} < models["plain"][first["plain"]]


def test_a_map_is_of_small_towers_that_exist(root):
    study = files.ROOT / "params" / "paper" / "study_maps.yaml"
    text = "draw: {figures: [maps], maps: {CLIP: ViT-B-16-quickgelu/openai}}\n"
    study.write_text(text)
    assert params.read_profile(smoke_test.write("paper"), "maps")[1].draw["maps"] == {"CLIP": "small/random"}
    study.write_text(text.replace("openai", "opnai"))
    with pytest.raises(params.ParameterError, match="has no weights 'opnai'; open_clip knows openai"):
        smoke_test.write("paper")


def test_the_cell_is_chosen_from_two(paper):
    parameters, fan_out = paper[None]
    assert len(parameters["04_finetune"].head_lr) == len(fan_out.models["imagemol"]["head_lr"]) == 2
    assert parameters["04_finetune"].final_epochs == 1


def test_weights_that_are_not_there_are_named(root, monkeypatch, capsys):
    monkeypatch.setattr(smoke_test.downloads, "present", lambda name: False)
    smoke_test.write("paper")
    assert "imagemol/pretrained is not on this machine yet" in capsys.readouterr().out


def test_folders_named_by_epochs_follow_them(paper):
    parameters, fan_out = paper["domain"]
    assert parameters["05_pretrain_domain"].epochs == [1, 2]
    assert fan_out.pretrain_domain["without_chembl"]["epochs"] == [1, 2]
    folders = {values["encoder"].rpartition("/domain/encoders/")[2] for values in fan_out.models.values()}
    assert {"buried_volume/epochs_2", "buried_volume/epochs_1", "without_chembl/epochs_1"} <= folders


def test_a_model_without_final_training_has_none(paper):
    parameters, fan_out = paper[None]
    assert parameters["04_finetune"].final_epochs == 1
    assert fan_out.finetune["bace"]["final_epochs"] is None


@pytest.mark.parametrize("present", [True, False])
def test_a_smaller_corpus_stands_in_for_one_that_is_not_there(root, monkeypatch, present):
    monkeypatch.setattr(smoke_test.downloads, "present", lambda name: present)
    parameters, _ = params.read_profile(smoke_test.write("paper"))
    corpus = "chembl_25" if present else "chembl_25_subset"
    assert parameters["01_depict_molecules"].datasets[0] == corpus
    assert parameters["02_cluster_structures"].molecules == f"runs/smoke_test_paper/molecules/{corpus}.parquet"


def test_the_overlay_names_parameters_that_exist(root):
    overlay = params.read_yaml(root / "params" / "smoke_test.yaml")
    for name, values in overlay.items():
        if name in params.notebooks():
            params.read(name, None, **values)
        else:
            assert name in ("pretrain", "folders", "stand_ins")


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
        ("quickstart", {"table": "mine.csv"}, "quickstart.yaml: mine.csv: no such file"),
        ("explore_encoder", {"encoders": {"a": "ViT-B-16/opnai"}}, "explore_encoder.yaml: .*'opnai'"),
    ],
)
def test_what_a_profile_names_must_exist(root, file, change, message):
    path = root / "params" / "paper" / f"{file}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(params.ParameterError, match=message):
        smoke_test.write("paper")


def test_built_in_encoders_exist(root):
    path = root / "params" / "paper" / "pretrain.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"encoder": "lite/domain"}))
    assert smoke_test.write("paper").is_dir()


def test_the_command(root, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["smoke_test", "demo"])
    assert smoke_test.main() == 0
    assert "smoke test: params/smoke_test_demo" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["smoke_test", "dmo"])
    assert smoke_test.main() == 1
    assert "did you mean 'demo'" in capsys.readouterr().err
