"""Pretraining: losses by hand, a tower that can overfit, and runs that go on where they stopped."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from moleclip import batches, datasets, encoder, pretrain


def test_losses_by_hand():
    objective = pretrain.Objective(encoder.load("small/random"), [3, 5], logit_scale=15.0, contrastive=True)
    generator = torch.Generator().manual_seed(0)
    plain, randomised = (torch.randint(0, 256, (4, 224, 224, 3), generator=generator).byte() for _ in range(2))
    classes = torch.tensor([[0, 4], [1, 3], [2, 0], [0, 1]])
    with torch.no_grad():
        losses = objective(plain, randomised, classes)
        a, b = (objective.encoder(images).double().numpy() for images in (plain, randomised))
        heads = [(h.weight.double().numpy(), h.bias.double().numpy()) for h in objective.heads]

    def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), targets]))

    similarity = 15 * (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    right = np.arange(4)
    expected = {
        "class_3": cross_entropy(a @ heads[0][0].T + heads[0][1], classes[:, 0].numpy()),
        "class_5": cross_entropy(a @ heads[1][0].T + heads[1][1], classes[:, 1].numpy()),
        "contrastive": (cross_entropy(similarity, right) + cross_entropy(similarity.T, right)) / 2,
    }
    expected["loss"] = sum(expected.values())
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, abs=1e-4)


def test_optimiser_is_the_papers(pretrain_params):
    p = pretrain_params(weight_decay=0.1)
    adam = pretrain.optimizer(pretrain.Objective(encoder.load("small/random"), [4], 15.0, True), p)
    tower, heads = adam.param_groups
    assert (tower["betas"], tower["eps"], tower["weight_decay"], tower["lr"]) == ((0.9, 0.98), 1e-6, 0.1, p.lr)
    assert (heads["betas"], heads["weight_decay"], heads["lr"]) == ((0.9, 0.98), 0, p.head_lr)
    assert type(adam) is torch.optim.Adam


def test_retrieval_by_hand():
    eye = torch.eye(4)
    assert pretrain.retrieval([eye], [eye]) == {"held_out_top1": 1.0, "chance": 0.25}
    # Swapping two molecules' drawings makes half of the answers wrong, in both directions.
    assert pretrain.retrieval([eye], [eye[[1, 0, 2, 3]]])["held_out_top1"] == 0.5
    pools = pretrain.retrieval([eye, eye], [eye, eye[[1, 0, 2, 3]]])
    assert pools == {"held_out_top1": 0.75, "chance": 0.25}


def test_held_out_molecules_are_not_trained_on(pretrain_params):
    corpus = pretrain.read_corpus(pretrain_params())
    assert sorted([*corpus.train, *corpus.held_out]) == list(range(96))
    assert len(corpus.held_out) == 19


def test_what_cannot_be_drawn_is_left_out_and_recorded(pretrain_params, tmp_path):
    smiles = [*datasets.load("nci_5k").smiles[:400:5][:60], "C" * 1001, "not a molecule"]
    table = pd.DataFrame({"row": range(62), "smiles": smiles, "k_4": np.arange(62) % 4, "k_12": np.arange(62) % 12})
    table.to_parquet(tmp_path / "labels.parquet")
    p = pretrain_params(labels=str(tmp_path / "labels.parquet"), epochs=1)
    corpus = pretrain.read_corpus(p)
    assert sorted([*corpus.train, *corpus.held_out]) == list(range(60))
    assert corpus.left_out.index.tolist() == [60, 61]
    left_out = pd.read_parquet(pretrain.run(p) / "left_out.parquet")
    assert left_out["row"].tolist() == [60, 61]
    assert "1001 atoms" in left_out["reason"][0]
    assert "SMILES" in left_out["reason"][1]


def test_a_cache_changes_nothing(pretrain_params, tmp_path):
    cached = pretrain.read_corpus(pretrain_params(cache=str(tmp_path / "cache")))
    again = pretrain.read_corpus(pretrain_params(cache=str(tmp_path / "cache")))
    fresh = pretrain.read_corpus(pretrain_params())
    assert cached.molecules.to_pylist() == again.molecules.to_pylist() == fresh.molecules.to_pylist()


def test_it_overfits_a_handful_of_molecules(pretrain_params):
    """The same 16 views again and again: all losses must fall far below chance."""
    corpus = pretrain.read_corpus(pretrain_params())
    views = batches.Views(corpus.molecules, np.arange(16), "none", seed=0)
    plain, randomised, _ = (
        torch.stack(images) if i < 2 else None
        for i, images in enumerate(zip(*(views[0, j] for j in range(16)), strict=True))
    )
    classes = torch.from_numpy(corpus.classes[:16])
    objective = pretrain.Objective(encoder.load("small/random"), corpus.counts, 15.0, True)
    adam = pretrain.optimizer(objective, pretrain_params(lr=1e-3, head_lr=1e-2))
    for _ in range(150):
        losses = objective(plain, randomised, classes)
        losses["loss"].backward()
        adam.step()
        adam.zero_grad()
    assert losses["contrastive"] < 0.2 * math.log(16)
    assert losses["class_12"] < 0.2 * math.log(12)


def weights(folder) -> dict[str, torch.Tensor]:
    return encoder.load(folder).visual.state_dict()


@pytest.mark.parametrize("step", [2, 4, 6])  # in the middle of an epoch, at its end, and in the next one
def test_an_interrupted_run_goes_on_bit_for_bit(pretrain_params, tmp_path, monkeypatch, step):
    often = {"log_every": 1, "checkpoint_every": 2, "workers": 1}
    straight = pretrain.run(pretrain_params(output=str(tmp_path / "straight"), **often))
    original = pretrain._checkpoint

    def interrupt(*arguments):
        original(*arguments)
        if arguments[2] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "_checkpoint", interrupt)
    p = pretrain_params(output=str(tmp_path / "interrupted"), **often)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(p)
    assert not (tmp_path / "interrupted" / encoder.CARD).exists()
    monkeypatch.setattr(pretrain, "_checkpoint", original)
    resumed = pretrain.run(p)
    expected = weights(straight)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    without_speed = [
        pretrain.read_metrics(folder).drop(columns="molecules_per_s").round(6) for folder in (straight, resumed)
    ]
    assert without_speed[0].equals(without_speed[1])
    assert not (resumed / "checkpoint").exists()


def test_going_on_with_other_parameters_is_refused(pretrain_params, monkeypatch):
    original = pretrain._checkpoint
    monkeypatch.setattr(pretrain, "_checkpoint", lambda *a: (original(*a), (_ for _ in ()).throw(KeyboardInterrupt))[0])
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(pretrain_params())
    with pytest.raises(ValueError, match=r"lr was 0.0005, is 0.001"):
        pretrain.run(pretrain_params(lr=1e-3))


def test_metrics_have_every_loss_and_the_chance_level(pretrain_params):
    folder = pretrain.run(pretrain_params(epochs=1, log_every=2))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[1]) == {"epoch", "step", "class_4", "class_12", "contrastive", "loss", "molecules_per_s"}
    assert lines[0]["chance"] == pytest.approx(1 / 19)
    assert set(lines[-1]) == set(lines[0])


def test_a_diverging_run_says_so(pretrain_params):
    with pytest.raises(FloatingPointError, match="smaller lr"):
        pretrain.run(pretrain_params(lr=1e30, head_lr=1e30))


@pytest.mark.parametrize("ablation", [{"k": []}, {"contrastive": False}])
def test_one_task_alone(pretrain_params, ablation):
    assert (pretrain.run(pretrain_params(epochs=1, **ablation)) / encoder.CARD).is_file()
