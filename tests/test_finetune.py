"""Finetuning: losses by hand, a model that can overfit, and a test set that chooses nothing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem

from moleclip import baselines, datasets, finetune, splits, stats

SERIES = datasets.load("chembl2321810")


@pytest.fixture
def job() -> finetune.Problem:
    """40 molecules from all over the series, which is sorted by activity in parts."""
    small = dataclasses.replace(SERIES, smiles=SERIES.smiles[::26], labels=SERIES.labels[::26])
    molecules, _ = datasets.clean(small)
    return finetune.Problem(small, molecules, splits.random(40, 1, 0.2))


def with_labels(job: finetune.Problem, labels: np.ndarray) -> finetune.Problem:
    return dataclasses.replace(job, molecules=job.molecules.assign(activity=labels))


def test_head_is_the_papers():
    shapes = [tuple(layer.weight.shape) for layer in finetune.head(128, 2) if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(512, 128), (512, 512), (512, 512), (2, 512)]


def test_losses_leave_missing_labels_out():
    outputs = torch.tensor([[1.0, 0.0], [3.0, -2.0]], requires_grad=True)
    labels = torch.tensor([[2.0, float("nan")], [1.0, float("nan")]])
    value = finetune.loss(outputs, labels, "regression")
    value.backward()
    assert value.item() == 1.5
    assert outputs.grad[:, 1].tolist() == [0, 0]
    bce = finetune.loss(torch.tensor([[0.3], [7.0]]), torch.tensor([[1.0], [float("nan")]]), "classification")
    assert bce.item() == pytest.approx(np.log(1 + np.exp(-0.3)), rel=1e-5)


def test_it_overfits_a_few_molecules(job, finetune_params):
    """Validation on the training molecules: the loss must fall to a fraction of the labels' spread."""
    rows = job.split.train
    memorised = dataclasses.replace(job, split=splits.Split(rows, rows, job.split.test))
    result = finetune.train_encoder(
        memorised, finetune_params(epochs=40, batch_size=8, lr=2e-4, head_lr=4e-4, encoder="small/random")
    )
    spread = np.abs(job.labels[rows] - np.median(job.labels[rows])).mean()
    assert result.curves["val_loss"].min() < 0.35 * spread


def test_the_chosen_epoch_is_the_last_best_on_validation(job, monkeypatch):
    outputs = iter([3.0, 1.0, 2.0, 1.0, 5.0])
    current = {}

    class Scripted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def train(self, mode: bool = True) -> torch.nn.Module:
            if mode and current is not None:
                current["value"] = next(outputs, 0.0)
            return super().train(mode)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.weight * 0 + torch.full((len(inputs), 1), current["value"])

    zero = with_labels(job, np.zeros(40))
    model = Scripted()
    adam = torch.optim.Adam(model.parameters())
    result = finetune.fit("scripted", model, adam, lambda rows, epoch: torch.zeros(len(rows), 1), zero, 5, 64, seed=0)
    assert result.curves["val_loss"].tolist() == [3.0, 1.0, 2.0, 1.0, 5.0]
    assert result.epoch == 4
    assert set(result.predictions[zero.split.test, 0]) == {1.0}


def test_test_labels_change_no_prediction(job, finetune_params):
    p = finetune_params(encoder="small/random", epochs=2)
    scrambled = job.labels[:, 0].copy()
    scrambled[job.split.test] = 1000.0
    for train in (finetune.train_encoder, lambda job, p: finetune.train_baseline("random_forest", job, p)):
        first, second = train(job, p), train(with_labels(job, scrambled), p)
        assert first.epoch == second.epoch
        assert np.array_equal(first.predictions, second.predictions, equal_nan=True)


def test_a_job_stores_predictions_from_which_its_scores_follow(finetune_params):
    p = finetune_params(encoder="", baselines=["mean", "fingerprint_mlp"])
    folder = finetune.run(p)
    scores, predictions, curves = (
        pd.read_parquet(folder / f"{n}.parquet") for n in ("scores", "predictions", "curves")
    )
    split = splits.random(1017, p.split_seed)
    for _, score in scores.iterrows():
        mine = predictions[predictions["encoder"] == score["encoder"]]
        for part, rows in (("val", split.val), ("test", split.test)):
            of_part = mine[mine["part"] == part].set_index("row").loc[rows]
            assert of_part["label"].tolist() == SERIES.labels[rows, 0].tolist()
            assert (of_part["label"] - of_part["prediction"]).abs().mean() == pytest.approx(score[part])
    assert curves["model"].unique().tolist() == ["fingerprint_mlp"]
    mean = SERIES.labels[split.train].mean()
    expected = np.abs(SERIES.labels[split.test] - mean).mean()
    assert scores.set_index("encoder").loc["mean", "test"] == pytest.approx(expected)


def test_same_seed_same_predictions(job, finetune_params):
    p = finetune_params(encoder="small/random", augmentation="intense")
    first, second = (finetune.train_encoder(job, p).predictions for _ in range(2))
    assert np.array_equal(first, second, equal_nan=True)


def test_morgan_fingerprints_agree_with_the_older_interface():
    found = baselines.morgan(SERIES.smiles[:20])
    for row, smiles in zip(found, SERIES.smiles[:20], strict=True):
        bits = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(smiles), 2, 2048)
        expected = np.zeros(2048, np.float32)
        DataStructs.ConvertToNumpyArray(bits, expected)
        assert np.array_equal(row, expected)


def test_forest_beats_the_mean_on_the_series(finetune_params):
    job = finetune.problem(finetune_params())
    forest = finetune.train_baseline("random_forest", job, finetune_params())
    mean = finetune.train_baseline("mean", job, finetune_params())
    rows = job.split.test
    error = {r.name: stats.score("MAE", job.labels[rows], r.predictions[rows]) for r in (forest, mean)}
    assert error["random_forest"] < 0.8 * error["mean"]


def test_a_set_without_labels_is_refused(finetune_params):
    with pytest.raises(ValueError, match="no labels to learn"):
        finetune.problem(finetune_params(dataset="nci_5k"))
