"""Finetuning: losses by hand, a model that can overfit, and an epoch that validation chooses."""

import numpy as np
import pytest
import torch

from moleclip import datasets, encoder, finetune, gridsearch, splits
from moleclip.estimator import Molecules
from moleclip.finetune import FinetunedEncoder, NetworkEstimator
from moleclip.io import files
from moleclip.workflow import params

SERIES = datasets.load("chembl2321810")
# 40 molecules from all over the series, which is sorted by activity in parts.
SOME, ACTIVITY = Molecules(SERIES.smiles[::26]), SERIES.labels[::26]
SPLIT = splits.random(40, 1, 0.2)
TRAIN, VAL, TEST = SPLIT.train, SPLIT.val, SPLIT.test
ONE = {"encoder": "small/random", "epochs": 1}


def fitted(model, train=TRAIN, val=VAL, labels=ACTIVITY):
    return model.fit(SOME[train], labels[train], (SOME[val], labels[val]), train)


def test_head_is_the_papers():
    shapes = [tuple(layer.weight.shape) for layer in encoder.head(128, 2) if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(512, 128), (512, 512), (512, 512), (2, 512)]


def test_losses_leave_missing_labels_out():
    outputs = torch.tensor([[1.0, 0.0], [3.0, -2.0]], requires_grad=True)
    labels = torch.tensor([[2.0, float("nan")], [1.0, float("nan")]])
    value = finetune.loss(outputs, labels, "regression")
    value.backward()
    assert value.item() == 1.5
    assert finetune.loss(outputs, labels, "regression", "mse").item() == 2.5
    assert outputs.grad[:, 1].tolist() == [0, 0]
    bce = finetune.loss(torch.tensor([[0.3], [7.0]]), torch.tensor([[1.0], [float("nan")]]), "classification")
    assert bce.item() == pytest.approx(np.log(1 + np.exp(-0.3)), rel=1e-5)


def test_a_batch_without_labels_teaches_nothing():
    outputs = torch.ones(2, 1, requires_grad=True)
    value = finetune.loss(outputs, torch.full((2, 1), float("nan")), "regression")
    value.backward()
    assert (value.item(), outputs.grad.tolist()) == (0.0, [[0.0], [0.0]])


def test_epochs_count_known_labels():
    """Batches of one and of three known labels: the loss of the epoch is the mean over all four."""
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    labels = torch.tensor([[8.0], [float("nan")], [2.0], [2.0], [4.0]])
    parts = [(np.array([0, 1]), torch.zeros(2, 1)), (np.array([2, 3, 4]), torch.zeros(3, 1))]
    sgd = torch.optim.SGD(model.parameters(), 0.0)
    assert finetune.train_epoch(model, sgd, parts, labels, "regression", "no") == pytest.approx(16 / 4)


def test_a_training_sees_each_molecule_once_an_epoch():
    schedule = finetune.Schedule(lambda rows, epoch: torch.tensor([epoch]), TRAIN, range(1, 4), 10, seed=0)
    seen = {epoch: [row for rows, _ in part for row in rows] for epoch, part in schedule.load(workers=0)}
    assert [sorted(rows) for rows in seen.values()] == [sorted(TRAIN)] * 3
    assert seen[1] != seen[2]


def test_sgd_is_imagemols():
    layers = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    sgd = finetune.make_optimizer(*layers, 0.5, 0.5, 1e-5, "sgd")
    assert isinstance(sgd, torch.optim.SGD)
    assert [(group["lr"], group["momentum"], group["weight_decay"]) for group in sgd.param_groups] == [
        (0.5, 0.9, 1e-5)
    ] * 2


def test_the_adam_of_the_paper():
    layers = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    p = params.read("04_finetune", files.ROOT / "params/paper/finetune.yaml")
    adam = finetune.make_optimizer(*layers, p.lr, 1e-4, p.weight_decay, p.optimizer)
    found = [(group["lr"], group["betas"], group["eps"], group["weight_decay"]) for group in adam.param_groups]
    assert found == [(5e-6, (0.9, 0.98), 1e-6, 1e-5), (1e-4, (0.9, 0.999), 1e-8, 1e-5)]
    baseline = gridsearch.estimator(gridsearch.Training("fingerprint_mlp", 4e-4, "", 60, 1), p, "regression", 0)
    assert (baseline.lr, baseline.weight_decay, baseline.batch_size) == (4e-4, 1e-5, 64)


def test_the_heads_adam_may_be_that_of_the_encoder():
    adam = finetune.make_optimizer(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1), 5e-6, 1e-4, 1e-5, head_adam="encoder")
    found = [(group["lr"], group["betas"], group["eps"]) for group in adam.param_groups]
    assert found == [(5e-6, (0.9, 0.98), 1e-6), (1e-4, (0.9, 0.98), 1e-6)]


def test_imagemols_own_recipe():
    """A step by hand: SGD on the mean squared error of one batch, through a linear head."""
    folder = files.ROOT / "params" / "paper"
    jobs = params.jobs(params.read_profile(folder)[1], "")
    (job,) = (j for j in jobs if (j.dataset, j.model, j.seed) == ("Phosphines_yield", "imagemol_recipe", 1))
    p = params.read("04_finetune", folder / "finetune.yaml", **job.overrides)
    assert (p.batch_size, p.encoder, p.augmentation) == (
        128,
        "imagemol/pretrained",
        ["none"],
    )  # whatever the set's batch
    p = p.model_copy(update={"encoder": "small/random", "workers": 0})
    found = fitted(gridsearch.estimator(gridsearch.Training(p.name, 0.05, "none", 1, 1), p, "regression", 0))

    torch.manual_seed(0)
    network = torch.nn.Sequential(encoder.load("small/random"), torch.nn.Linear(128, 1))
    sgd = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-5)
    images, labels = torch.from_numpy(SOME.drawings(224).copy()), torch.from_numpy(ACTIVITY).float()
    (network(images[TRAIN]) - labels[TRAIN]).square().mean().backward()
    sgd.step()
    torch.testing.assert_close(
        torch.from_numpy(found.predict_values(SOME[TEST])).float(), network(images[TEST]).detach()
    )


def test_how_far_the_weights_have_moved():
    model = fitted(FinetunedEncoder(**ONE, lr=1e-3))
    both = [
        np.concatenate([weight.detach().numpy().ravel() for weight in tower.parameters() if weight.ndim > 1])
        for tower in (encoder.load("small/random"), model.image_encoder)
    ]
    left = np.linalg.norm(both[1]) / np.linalg.norm(both[0])
    expected = {"norm": left, "correlation": np.corrcoef(*both)[0, 1], "identical": np.mean(both[0] == both[1])}
    assert model.drift_ == pytest.approx(expected, rel=1e-5)
    assert 0.5 < model.drift_["correlation"] < 0.9999


def test_a_start_that_finetuning_loses_is_warned_of(tmp_path, caplog):
    encoder.load("small/random").save(tmp_path)
    fitted(FinetunedEncoder(tmp_path, epochs=1))
    assert not caplog.records
    fitted(FinetunedEncoder(tmp_path, epochs=1, lr=0.1))
    assert f"the weights of {tmp_path} are being lost" in caplog.text


class Linear(NetworkEstimator):
    """A layer on eight random numbers for each molecule, from zero."""

    def __init__(self, *, epochs=3, batch_size=4, seed=0) -> None:
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed

    def inputs(self, given):
        rows = torch.randn(len(given.whole), 8, generator=torch.Generator().manual_seed(0))[given.rows]
        return lambda positions, _: rows[positions]

    def _fit(self, given, labels, validation, _):
        network = torch.nn.Linear(8, 1)
        torch.nn.init.zeros_(network.weight)
        torch.nn.init.zeros_(network.bias)
        adam = torch.optim.Adam(network.parameters(), 0.1, weight_decay=0.1)
        self._train(network, adam, self.inputs(given), labels, (self.inputs(validation[0]), validation[1]))

    def _values(self, given):
        return self._predict(self.inputs(given), len(given))


def test_molecules_without_labels_move_nothing():
    """Adam's means and the decay of weights would move them at a step without a gradient."""
    labels = ACTIVITY.copy()
    labels[TRAIN[:16]] = np.nan
    found = [fitted(Linear(), train, labels=labels).predict(SOME[TEST]) for train in (TRAIN, TRAIN[16:])]
    assert np.array_equal(*found)


def test_it_overfits_a_few_molecules():
    """Validation on the training molecules: the loss must fall to a fraction of the labels' spread."""
    model = FinetunedEncoder("small/random", batch_size=8, lr=2e-4, head_lr=4e-4, epochs=40)
    fitted(model, val=TRAIN)
    spread = np.abs(ACTIVITY[TRAIN] - np.median(ACTIVITY[TRAIN])).mean()
    assert model.val_loss_.min() < 0.35 * spread
    assert len(model.val_loss_) == len(model.train_loss_) == 40


class Scripted(torch.nn.Module):
    """Predicts 3, 1, 2, 1 and 5 after its epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("value", torch.zeros(()))
        self.outputs = iter([3.0, 1.0, 2.0, 1.0, 5.0])

    def train(self, mode: bool = True) -> torch.nn.Module:
        if mode:
            self.value.fill_(next(self.outputs))
        return super().train(mode)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight * 0 + self.value.expand(len(inputs), 1)


def test_the_chosen_epoch_is_the_last_best_on_validation():
    class Model(Linear):
        def _fit(self, given, labels, validation, _):
            network = Scripted()
            adam = torch.optim.Adam(network.parameters())
            self._train(network, adam, self.inputs(given), labels, (self.inputs(validation[0]), validation[1]))

    model = fitted(Model(epochs=5, batch_size=64), labels=np.zeros((40, 1)))
    assert model.val_loss_.tolist() == [3.0, 1.0, 2.0, 1.0, 5.0]
    assert model.epoch_ == 4
    assert set(model.predict_values(SOME[TEST])[:, 0]) == {1.0}


@pytest.mark.parametrize("given", [{"epochs": 0}, {"batch_size": 0}])
def test_nothing_is_not_a_way_to_ask_for_a_fitting_number(given):
    with pytest.raises(ValueError, match="expected 1 or more, or None"):
        fitted(Linear(**{"epochs": 1, "batch_size": 4} | given))


def test_denormal_numbers_are_left_to_who_calls():
    fitted(Linear(epochs=1))
    assert np.float64(2.0**-1074) / 1 > 0
    assert torch.tensor(2.0**-149, dtype=torch.float32).mul(1).item() > 0


class AsFloat(torch.nn.Module):
    """As the end of an encoder."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings.float()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_is_for_the_encoder_alone(precision):
    """A number in bf16 has 3 digits: outputs may not be rounded so."""
    found, exact = (
        fitted(FinetunedEncoder(**ONE, precision=chosen)).predict(SOME[TEST]) for chosen in (precision, "no")
    )
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert (torch.from_numpy(found).to(low).double().numpy() != found).mean() > 0.9
    assert not np.array_equal(exact, found)
    np.testing.assert_allclose(found, exact, atol=0.05)


def test_results_do_not_depend_on_workers():
    options = {**ONE, "epochs": 2, "augmentation": "intense", "batch_size": 8}
    runs = [fitted(FinetunedEncoder(**options, workers=workers)).predict(SOME[TEST]) for workers in (0, 2)]
    assert np.array_equal(*runs)


def test_a_molecule_is_augmented_by_its_number():
    options = {**ONE, "augmentation": "intense"}
    by_number = fitted(FinetunedEncoder(**options)).predict(SOME[TEST])
    validation = (SOME[VAL], ACTIVITY[VAL])
    by_position = FinetunedEncoder(**options).fit(SOME[TRAIN], ACTIVITY[TRAIN], validation).predict(SOME[TEST])
    assert not np.array_equal(by_number, by_position)


def test_molecules_are_tested_as_they_are_drawn():
    model = fitted(FinetunedEncoder(**ONE, augmentation="intense", scale_labels=False))
    plain = torch.from_numpy(SOME[TEST].drawings(model.image_encoder.preprocess.size))
    with torch.no_grad():
        expected = model.network_.eval()(plain.to(encoder.device())).cpu().double().numpy()
    np.testing.assert_allclose(model.predict_values(SOME[TEST]), expected, atol=1e-5)


def test_r_groups_are_drawn_where_asked_for():
    plain, replaced = (SOME.drawings(224, drawing) for drawing in ("plain", "r_groups"))
    assert plain.shape == replaced.shape == (40, 224, 224, 3)
    # Some have no ends that are hidden.
    assert sum((a != b).any() for a, b in zip(plain, replaced, strict=True)) > 30


def test_moments_of_pretraining_change_the_training(finetune_params, tmp_path):
    model = encoder.load("small/random")
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    model(torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)).square().mean().backward()
    adam.step()
    encoder.save_moments(model.save(tmp_path), model, adam)
    with_and_without = [
        fitted(FinetunedEncoder(tmp_path, epochs=1, moments=moments)).predict(SOME[TEST]) for moments in (True, False)
    ]
    assert not np.array_equal(*with_and_without)
    with pytest.raises(params.ParameterError, match="moments are Adam's"):
        finetune_params(moments=True, optimizer="sgd")


def test_scaled_labels_come_back_in_their_unit():
    shifted = 1000 + 50 * ACTIVITY
    model = fitted(FinetunedEncoder(**ONE, scale_labels=True), labels=shifted)
    known = shifted[np.concatenate([TRAIN, VAL])]
    assert (model.shift_, model.scale_) == (pytest.approx(known.mean()), pytest.approx(known.std()))
    assert np.abs(model.predict(SOME[TEST])[:, 0] - known.mean()).max() < 5 * known.std()


def test_small_gradients_survive_in_fp16():
    """Without loss scaling, gradients below 6e-8 would be zero in fp16."""
    layer = torch.nn.Linear(1, 1)
    network = torch.nn.Sequential(torch.nn.Sequential(layer, AsFloat()), torch.nn.Linear(1, 1))
    torch.nn.init.constant_(network[1].weight, 1e-8)
    sgd, scaler = torch.optim.SGD(network.parameters(), 1e4), finetune.loss_scaler("fp16")
    before = layer.weight.item()
    parts = [(np.array([0]), torch.ones(1, 1))]
    finetune.train_epoch(network, sgd, parts, torch.ones(1, 1), "regression", "fp16", scaler)
    assert abs(layer.weight.item() - before) == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("arithmetic", ["fp32_l2", "fp16_l2"])
def test_a_saved_model_is_the_same_and_a_damaged_one_refused(tmp_path, arithmetic):
    model = fitted(FinetunedEncoder(**ONE, scale_labels=True, arithmetic=arithmetic))
    again = FinetunedEncoder.load(model.save(tmp_path))
    assert again.get_params() == model.get_params()
    assert np.array_equal(again.predict(SOME[TEST]), model.predict(SOME[TEST]))
    assert again.val_loss_.tolist() == model.val_loss_.tolist()
    weights = tmp_path / encoder.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="damaged"):
        FinetunedEncoder.load(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="holds no finetuned encoder"):
        FinetunedEncoder.load(tmp_path)
