"""Domain-focused pretraining: what it learns, where it goes on, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import Crippen, rdMolDescriptors
from safetensors.torch import load_file

from moleclip import datasets, domain, encoder
from moleclip.io import seeds
from moleclip.workflow import params


@pytest.fixture
def domain_params(tmp_path):
    def make(**overrides):
        small = {"sample": 40, "epochs": [1, 3], "batch_size": 16, "checkpoint_every": 1, "overlap": []}
        return params.read("05_pretrain_domain", None, **{"output": str(tmp_path / "domain"), **small, **overrides})

    return make


def weights(folder) -> dict[str, torch.Tensor]:
    return encoder.load(folder).visual.state_dict()


def same(a, b) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_descriptors_are_rdkits(domain_params):
    learnt = domain.read(domain_params(descriptors=["MolLogP", "TPSA"]))
    molecules = [Chem.MolFromSmiles(smiles) for smiles in learnt.molecules["smiles"]]
    expected = [[Crippen.MolLogP(m), rdMolDescriptors.CalcTPSA(m)] for m in molecules]
    assert learnt.labels == pytest.approx(np.array(expected))
    scaled = (learnt.labels - learnt.shift) / learnt.scale
    assert scaled.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert scaled.std(axis=0) == pytest.approx([1, 1])


def test_labels_of_the_set_are_taken_as_they_are(domain_params):
    learnt = domain.read(domain_params(descriptors=[], scale_labels=False))
    rows = seeds.sample(1017, 40, 0)
    assert learnt.labels[:, 0].tolist() == datasets.load("chembl2321810").labels[rows, 0].tolist()
    assert (learnt.names, learnt.shift.tolist(), learnt.scale.tolist()) == (["activity"], [0.0], [1.0])


def test_an_encoder_is_kept_after_each_number_of_epochs(domain_params, tmp_path):
    first, last = domain.run(domain_params())
    assert (first.name, last.name) == ("epochs_1", "epochs_3")
    shorter = domain.run(domain_params(epochs=[1], output=str(tmp_path / "shorter")))
    assert same(weights(first), weights(shorter[0]))
    assert not same(weights(first), weights(last))
    curves = pd.read_parquet(first.parent / "curves.parquet")
    assert curves["epoch"].tolist() == [1, 2, 3]
    moved = [json.loads((folder / encoder.CARD).read_text())["provenance"]["drift"] for folder in (first, last)]
    assert 1 > moved[0]["correlation"] > moved[1]["correlation"]


def test_it_learns(domain_params):
    p = domain_params(epochs=[30], descriptors=["MolLogP"])
    domain.run(p)
    known = pd.read_parquet(f"{p.output}/predictions.parquet")
    error = (known["label"] - known["prediction"]).abs().mean()
    assert error < 0.4 * (known["label"] - known["label"].median()).abs().mean()


@pytest.mark.parametrize("more", [{"arithmetic": "fp16_l2"}, {"precision": "fp16"}])
def test_an_interrupted_run_goes_on_to_the_same_weights(domain_params, tmp_path, monkeypatch, more):
    options = {"augmentation": "default", "sample": 20, **more}
    straight = domain.run(domain_params(output=str(tmp_path / "straight"), **options))[-1]
    original, epochs = domain.finetune.train_epoch, []

    def interrupted(*arguments):
        if len(epochs) == 2:
            raise KeyboardInterrupt
        epochs.append(1)
        return original(*arguments)

    monkeypatch.setattr(domain.finetune, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        domain.run(domain_params(**options))
    with pytest.raises(ValueError, match=r"of an unfinished run with other settings \(lr was"):
        domain.run(domain_params(lr=1e-3, **options))
    monkeypatch.setattr(domain.finetune, "train_epoch", original)
    assert same(weights(straight), weights(domain.run(domain_params(**options))[-1]))
    assert not (tmp_path / "domain" / domain.CHECKPOINT).exists()


def test_a_finished_encoder_is_not_overwritten_by_another(domain_params):
    folder = domain.run(domain_params(epochs=[1]))[0]
    before = weights(folder)
    with pytest.raises(ValueError, match=r"of a finished run with other settings \(lr was .*choose another folder"):
        domain.run(domain_params(epochs=[1], lr=1e-3))
    with pytest.raises(ValueError, match="of a finished run with other settings"):  # it has the same tables
        domain.run(domain_params(epochs=[2], lr=1e-3))
    assert same(weights(folder), before)
    (folder.parent / "predictions.parquet").unlink()  # as the workflow does before it runs a notebook again
    assert not same(weights(domain.run(domain_params(epochs=[1], lr=1e-3))[0]), before)


def test_it_goes_on_from_moments_and_keeps_them(domain_params, tmp_path):
    first = domain.run(domain_params(epochs=[1], keep_moments=True))[0]
    second = domain.run(
        domain_params(encoder=str(first), epochs=[1], moments=True, keep_moments=True, output=str(tmp_path / "second"))
    )[0]
    counted = [load_file(folder / encoder.MOMENTS)["step.visual.proj"].item() for folder in (first, second)]
    assert counted == [3, 6]
    (first.parent / domain.PREDICTIONS).unlink()
    domain.run(domain_params(epochs=[1], lr=1e-3))
    assert not (first / encoder.MOMENTS).exists()  # those of other weights
    with pytest.raises(FileNotFoundError, match="finetune without moments"):
        domain.run(domain_params(moments=True, output=str(tmp_path / "third")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"descriptors": ["MolLogp"]}, "no descriptor 'MolLogp'; did you mean 'MolLogP'"),
        ({"descriptors": ["NumRadicalElectrons"]}, "NumRadicalElectrons is the same for all molecules"),
        ({"dataset": "nci_5k", "descriptors": []}, "has no labels; name descriptors"),
        ({"lr": 1e30, "head_lr": 1e30}, "smaller lr"),
    ],
)
def test_what_cannot_be_learnt_says_why(domain_params, options, message):
    with pytest.raises((ValueError, FloatingPointError), match=message):
        domain.run(domain_params(**options))


def test_overlap_counts_structures():
    seen = datasets.clean(datasets.load("chembl2321810"))[0][:10]
    found = domain.overlap(seen, ["chembl2321810"])
    assert found.to_dict("records") == [{"set": "chembl2321810", "molecules": 1017, "seen": 10}]
