"""Finetuning: losses by hand, a model that can overfit, and a test set that chooses nothing."""

import dataclasses
import itertools
import os

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from moleclip import datasets, encoder, finetune, gridsearch, splits
from moleclip.finetune import Training
from moleclip.io import files
from moleclip.workflow import params

SERIES = datasets.load("chembl2321810")
ONE = Training("random", 1e-3, "none", 1, 1)
TABLES = ("scores", "predictions", "curves")


@pytest.fixture
def job() -> finetune.Problem:
    """40 molecules from all over the series, which is sorted by activity in parts."""
    small = dataclasses.replace(SERIES, smiles=SERIES.smiles[::26], labels=SERIES.labels[::26])
    molecules, _ = datasets.clean(small)
    return finetune.Problem(small, molecules, splits.random(40, 1, 0.2))


@pytest.fixture
def own_set(tmp_path):
    """Write a table of 60 molecules with two label columns of one's own, one of them with gaps."""

    def write(change=lambda labels: None, name="own"):
        labels = np.column_stack([SERIES.labels[::17, 0], SERIES.labels[::17, 0] ** 2])[:60]
        labels[::7, 1] = np.nan
        change(labels)
        table = pd.DataFrame(
            {"name": "x", "structure": SERIES.smiles[: 17 * 60 : 17], "a": labels[:, 0], "b": labels[:, 1]}
        )
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        return {"dataset": str(tmp_path / f"{name}.csv"), "smiles_column": "structure", "holdout": 0.2}

    return write


def tables(folder) -> tuple[pd.DataFrame, ...]:
    return tuple(pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)


def test_head_is_the_papers():
    shapes = [tuple(layer.weight.shape) for layer in encoder.head(128, 2) if isinstance(layer, torch.nn.Linear)]
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


def test_a_batch_without_labels_teaches_nothing():
    outputs = torch.ones(2, 1, requires_grad=True)
    value = finetune.loss(outputs, torch.full((2, 1), float("nan")), "regression")
    value.backward()
    assert (value.item(), outputs.grad.tolist()) == (0.0, [[0.0], [0.0]])


def test_molecules_without_labels_move_nothing(job, finetune_params):
    """Adam's means and the decay of weights would move them at a step without a gradient."""
    p = finetune_params(dataset="chembl2321810", batch_size=4)
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    missing, known = job.split.train[:16], job.split.train[16:]
    labels = job.molecules.assign(activity=job.molecules["activity"].where(~job.molecules.index.isin(missing)))
    found = []
    for one in (
        dataclasses.replace(job, molecules=labels),
        dataclasses.replace(job, split=dataclasses.replace(job.split, train=known)),
    ):
        model = torch.nn.Linear(8, 1)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        steps = torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)
        found.append(finetune.fit(model, steps, lambda i, _: rows[i], one, p, 3, 0).predictions[job.split.test])
    assert np.array_equal(*found)


def test_epochs_count_known_labels(job):
    """Batches of one and of three known labels: the loss of the epoch is the mean over all four."""
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    labels = torch.tensor([[8.0], [float("nan")], [2.0], [2.0], [4.0]])
    parts = [(np.array([0, 1]), torch.zeros(2, 1)), (np.array([2, 3, 4]), torch.zeros(3, 1))]
    sgd = torch.optim.SGD(model.parameters(), 0.0)
    assert finetune.train_epoch(model, sgd, parts, labels, "regression", "no") == pytest.approx(16 / 4)


def test_the_same_molecule_in_two_parts_is_reported(tmp_path, finetune_params):
    smiles = [*SERIES.smiles[:30], "CCO", "OCC"]  # the last two are one molecule
    split = splits.random(32, 1, 0.2)
    train, test = int(split.train[0]), int(split.test[0])
    smiles[train], smiles[test] = "c1ccccc1O", "Oc1ccccc1"
    pd.DataFrame({"smiles": smiles, "y": np.arange(32.0)}).to_csv(tmp_path / "own.csv", index=False)
    found = finetune.leaks(finetune.problem(finetune_params(dataset=str(tmp_path / "own.csv"), holdout=0.2)))
    leak = {"dataset": "own", "row": test, "part": "test", "other_row": train, "other_part": "train"}
    assert leak in found.to_dict("records")
    assert len(found) <= 2  # ethanol may be in two parts too


def test_a_test_molecule_among_those_that_choose_is_reported(tmp_path, finetune_params, caplog):
    smiles, split = list(SERIES.smiles[:30]), splits.random(30, 1, 0.2)
    val, test = int(split.val[0]), int(split.test[0])
    smiles[val], smiles[test] = "c1ccccc1O", "Oc1ccccc1"
    pd.DataFrame({"smiles": smiles, "y": np.arange(30.0)}).to_csv(tmp_path / "own.csv", index=False)
    found = finetune.leaks(finetune.problem(finetune_params(dataset=str(tmp_path / "own.csv"), holdout=0.2)))
    assert found.to_numpy().tolist() == [["own", test, "test", val, "val"]]
    assert f"own: row {test} (test) is the same molecule as row {val} (val)" in caplog.text


def test_it_overfits_a_few_molecules(job, finetune_params):
    """Validation on the training molecules: the loss must fall to a fraction of the labels' spread."""
    rows = job.split.train
    memorised = dataclasses.replace(job, split=splits.Split(rows, rows, job.split.test))
    p = finetune_params(batch_size=8, lr=2e-4)
    training = dataclasses.replace(ONE, head_lr=4e-4, epochs=40)
    result = finetune.train_encoder(memorised, p, training, 0, finetune.draw(memorised, p))
    spread = np.abs(job.labels[rows] - np.median(job.labels[rows])).mean()
    assert result.val_loss.min() < 0.35 * spread
    assert len(result.val_loss) == len(result.train_loss) == 40


def test_the_chosen_epoch_is_the_last_best_on_validation(job, finetune_params):
    outputs = iter([3.0, 1.0, 2.0, 1.0, 5.0])
    current = {}

    class Scripted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def train(self, mode: bool = True) -> torch.nn.Module:
            if mode:
                current["value"] = next(outputs, 0.0)
            return super().train(mode)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.weight * 0 + torch.full((len(inputs), 1), current["value"])

    zero = dataclasses.replace(job, molecules=job.molecules.assign(activity=0.0))
    model = Scripted()
    adam = torch.optim.Adam(model.parameters())
    result = finetune.fit(model, adam, lambda rows, _: torch.zeros(len(rows), 1), zero, finetune_params(), 5, seed=0)
    assert result.val_loss.tolist() == [3.0, 1.0, 2.0, 1.0, 5.0]
    assert result.epoch == 4
    assert set(result.predictions[zero.split.test, 0]) == {1.0}


def test_a_training_sees_each_molecule_once_an_epoch(job):
    schedule = finetune.Schedule(lambda rows, epoch: torch.tensor([epoch]), job.split.train, range(1, 4), 10, seed=0)
    seen = {epoch: [row for rows, _ in part for row in rows] for epoch, part in schedule.load(workers=0)}
    assert [sorted(rows) for rows in seen.values()] == [sorted(job.split.train)] * 3
    assert seen[1] != seen[2]


GRID = pd.DataFrame(
    [
        {"stage": "grid", "head_lr": lr, "augmentation": level, "metric": "MAE", "val": val, "test": test}
        for (lr, level), (val, test) in zip(
            itertools.product([1e-3, 1e-4], ["none", "default"]), [(3, 1), (2, 4), (2, 3), (5, 5)], strict=True
        )
        for _ in range(3)
    ]
)


def test_the_cell_is_chosen_on_validation():
    assert gridsearch.choose(GRID) == (1e-3, "default")  # the first of two that are equal
    assert gridsearch.choose(GRID, by="test") == (1e-3, "none")
    assert gridsearch.choose(GRID.assign(metric="ROC-AUC")) == (1e-4, "default")
    final = GRID.assign(stage="final", val=0.0)
    assert gridsearch.choose(pd.concat([GRID, final])) == (1e-3, "default")


def test_a_cell_that_diverged_is_not_chosen():
    one_failed = GRID.assign(val=GRID["val"].where(GRID.index != 4, np.nan))
    assert gridsearch.choose(one_failed) == (1e-4, "none")
    with pytest.raises(FloatingPointError, match="no training of the grid"):
        gridsearch.choose(GRID.assign(val=np.nan))


def test_a_job_survives_a_learning_rate_that_diverges(own_set, finetune_params):
    p = finetune_params(**own_set(), encoder="", baselines=["fingerprint_mlp"], head_lr=[1e30, 1e-3], final_epochs=1)
    scores, predictions, _ = tables(finetune.run(p))
    wild = scores["head_lr"] == 1e30
    assert scores.loc[wild, ["val", "test"]].isna().all(axis=None)
    assert scores.loc[wild, "epoch"].tolist() == [0]
    assert scores.loc[scores["chosen"], "head_lr"].tolist() == [1e-3]
    assert predictions.loc[predictions["head_lr"] == 1e30, "prediction"].isna().all()


@pytest.mark.parametrize(("metric", "optimism"), [("MAE", 3.0), ("ROC-AUC", 0.0)])
def test_optimism_is_what_choosing_on_test_would_win(metric, optimism):
    scores = GRID.assign(metric=metric, dataset="made", drawing="plain", split="random", encoder="a", seed=1, unit="")
    cell = gridsearch.choose(scores)
    scores["chosen"] = (scores["head_lr"] == cell[0]) & (scores["augmentation"] == cell[1])
    row = gridsearch.by_split(scores).iloc[0]
    assert (row["test"], row["runs"], row["optimism"]) == ({"MAE": 4.0, "ROC-AUC": 5.0}[metric], 3, optimism)


def test_test_labels_change_nothing_but_the_test_scores(own_set, finetune_params):
    """Neither the cells that are chosen, nor the epochs, nor a single prediction."""
    options = {"baselines": ["fingerprint_mlp", "frozen", "ecfp4_extra_trees"], "head_lr": [1e-3, 1e-4], "epochs": 3}

    def scramble(labels):
        labels[splits.random(60, 1, 0.2).test] = 1000.0

    first = tables(finetune.run(finetune_params(**own_set(), **options)))
    second = tables(finetune.run(finetune_params(**own_set(scramble), **options)))
    assert not first[0]["test"].equals(second[0]["test"])
    assert first[0].drop(columns="test").equals(second[0].drop(columns="test"))
    assert first[1].drop(columns="label").equals(second[1].drop(columns="label"))
    assert first[2].equals(second[2])


def test_a_job_stores_predictions_from_which_its_scores_follow(own_set, finetune_params):
    options = {
        "head_lr": [1e-3, 1e-4],
        "repeats": 2,
        "final_epochs": 2,
        "final_repeats": 3,
        "augmentation": ["default"],
    }
    baselines = ["mean", "fingerprint_mlp", "descriptor_forest"]
    p = finetune_params(**own_set(), **options, baselines=baselines)
    scores, predictions, curves = tables(finetune.run(p))
    run = ["encoder", "stage", "repeat", "head_lr", "augmentation"]
    scored = predictions.merge(scores, on=run).dropna(subset="label")
    for (*_, part), rows in scored.groupby([*run, "part"], dropna=False):
        errors = (rows["label"] - rows["prediction"]).abs().groupby(rows["target"]).mean()
        assert errors.mean() == pytest.approx(rows[part].iloc[0])
    runs = scores.groupby(["encoder", "stage"]).size().to_dict()
    trained = {
        (name, stage): number for name in ("random", "fingerprint_mlp") for stage, number in (("grid", 4), ("final", 3))
    }
    assert runs == {**trained, ("mean", "grid"): 1, ("descriptor_forest", "grid"): 2}
    chosen = scores[scores["chosen"]].groupby("encoder").size().to_dict()
    assert chosen == {"random": 3, "fingerprint_mlp": 3, "mean": 1, "descriptor_forest": 2}
    # A repeat has weights of its own; the test rows are the split's, by row of the file.
    assert scores.loc[scores["encoder"] == "random", "test"].nunique() == 7
    assert set(predictions.loc[predictions["part"] == "test", "row"]) == set(splits.random(60, 1, 0.2).test)
    assert curves.groupby("encoder").size().to_dict() == {"random": 4 + 6, "fingerprint_mlp": 4 + 6}


def test_an_interrupted_job_goes_on_after_its_last_training(own_set, finetune_params, monkeypatch):
    options = {**own_set(), "repeats": 3, "baselines": []}
    expected = tables(finetune.run(finetune_params(**options, output=str(finetune_params().output) + "_straight")))
    original, done = finetune.train_encoder, []

    def counted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[2].repeat)
        return original(*arguments)

    monkeypatch.setattr(finetune, "train_encoder", counted)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(finetune_params(**options))
    done[:] = ["afresh"]
    found = tables(finetune.run(finetune_params(**options)))
    assert done == ["afresh", 3]
    assert all(a.equals(b) for a, b in zip(expected, found, strict=True))
    with pytest.raises(KeyboardInterrupt):  # another learning rate is another training
        finetune.run(finetune_params(**options, lr=1e-3))
    split = splits.split
    other = monkeypatch.context()
    with other as patch:  # and so is another split, whatever made it another
        patch.setattr(splits, "split", lambda kind, smiles, seed, _: split(kind, smiles, seed, 0.1))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(finetune_params(**options))


def test_other_weights_of_the_same_name_are_another_start(job, finetune_params, tmp_path):
    starts = []
    for seed in (0, 1, 0):
        encoder.load("small/random", seed).save(tmp_path / "encoder", {"seed": seed})
        starts.append(finetune._identity(job, finetune_params(encoder=str(tmp_path / "encoder"))))
    assert starts[0] == starts[2]
    assert starts[0] != starts[1]


def test_denormal_numbers_are_left_to_who_calls(finetune_params):
    job, p = (
        finetune.problem(finetune_params(dataset="chembl2321810", sample=40)),
        finetune_params(dataset="chembl2321810"),
    )
    model = torch.nn.Linear(1, 1)
    finetune.fit(model, torch.optim.Adam(model.parameters()), lambda rows, _: torch.zeros(len(rows), 1), job, p, 1, 0)
    assert np.float64(2.0**-1074) / 1 > 0
    assert torch.tensor(2.0**-149, dtype=torch.float32).mul(1).item() > 0


def test_bf16_is_for_the_encoder_alone(job, finetune_params):
    """A number in bf16 has 3 digits: neither outputs nor the model of fingerprints may be rounded so."""
    p = finetune_params(encoder="small/random", precision="bf16", baselines=["fingerprint_mlp"])
    images = finetune.draw(job, p)
    found = finetune.train_encoder(job, p, ONE, 0, images).predictions[job.split.test]
    assert (torch.from_numpy(found).bfloat16().double().numpy() != found).mean() > 0.9
    exact = finetune.train_encoder(job, p.model_copy(update={"precision": "no"}), ONE, 0, images)
    assert not np.array_equal(exact.predictions[job.split.test], found)
    np.testing.assert_allclose(found, exact.predictions[job.split.test], atol=0.05)
    train = finetune._models(job, p)["fingerprint_mlp"]
    plain = finetune._models(job, p.model_copy(update={"precision": "no"}))["fingerprint_mlp"]
    assert np.array_equal(train(ONE, 0).predictions, plain(ONE, 0).predictions, equal_nan=True)


def test_there_is_one_scaffold_split(finetune_params):
    with pytest.raises(ValueError, match="split_seed 2: there is one scaffold split only"):
        finetune.problem(finetune_params(split="scaffold", split_seed=2))


def test_results_do_not_depend_on_workers(job, finetune_params):
    p = finetune_params(batch_size=8)
    training, images = dataclasses.replace(ONE, augmentation="intense", epochs=2), finetune.draw(job, p)
    runs = [
        finetune.train_encoder(job, finetune_params(batch_size=8, workers=workers), training, 0, images)
        for workers in (0, 2)
    ]
    assert np.array_equal(runs[0].predictions, runs[1].predictions, equal_nan=True)


def test_classes_of_ones_own(own_set, finetune_params):
    def to_classes(labels):
        labels[:, 0] = labels[:, 0] > np.median(labels[:, 0])
        labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, labels[:, 0])

    p = finetune_params(**own_set(to_classes), baselines=["fingerprint_mlp", "frozen", "ecfp4_forest", "mean"])
    scores, predictions, _ = tables(finetune.run(p))
    assert set(scores["metric"]) == {"ROC-AUC"}
    assert predictions["prediction"].between(0, 1).all()
    forest = predictions[(predictions["encoder"] == "ecfp4_forest") & (predictions["part"] == "test")].dropna(
        subset="label"
    )
    areas = [metrics.roc_auc_score(rows["label"], rows["prediction"]) for _, rows in forest.groupby("target")]
    assert scores.set_index("encoder").loc["ecfp4_forest", "test"] == pytest.approx(np.mean(areas))
    assert scores.set_index("encoder").loc["mean", "test"] == 0.5


def test_r_groups_are_drawn_where_asked_for(job, finetune_params):
    plain, replaced = (finetune.draw(job, finetune_params(drawing=drawing)) for drawing in ("plain", "r_groups"))
    assert plain.shape == replaced.shape == (40, 224, 224, 3)
    # Some have no ends that are hidden.
    assert sum((a != b).any() for a, b in zip(plain, replaced, strict=True)) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "nci_5k"}, "no labels to learn"),
        ({"metric": "ROC-AUC"}, "ROC-AUC does not score a regression"),
        ({"lr": 1e30, "head_lr": [1e30]}, "smaller learning rate"),
    ],
)
def test_what_cannot_be_trained_says_why(finetune_params, options, message):
    with pytest.raises((ValueError, FloatingPointError), match=message):
        finetune.run(finetune_params(sample=60, baselines=[], **options))


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_one_class_in_a_part_is_refused_before_anything_is_trained(own_set, finetune_params, part):
    def to_one_class(labels):
        labels[:] = np.arange(60)[:, None] % 2
        labels[getattr(splits.random(60, 1, 0.2), part)] = 1.0

    name = {"train": "training"}.get(part, part)
    with pytest.raises(ValueError, match=f"the {name} molecules have one class of 'a'"):
        finetune.problem(finetune_params(**own_set(to_one_class)))


def test_one_class_everywhere_is_no_matter_of_the_split(own_set, finetune_params):
    def to_one_class(labels):
        labels[:] = np.arange(60)[:, None] % 2
        labels[:, 1] = 1.0

    with pytest.raises(ValueError, match=r"all molecules have one class of 'b': leave this label out"):
        finetune.problem(finetune_params(**own_set(to_one_class)))


def test_molecules_without_any_label_are_named(own_set, finetune_params, caplog):
    def to_missing(labels):
        labels[3], labels[8, 0] = np.nan, np.nan  # one without any, one that has the other label

    finetune.problem(finetune_params(**own_set(to_missing)))
    assert [line for line in caplog.messages if "has no label" in line] == [
        f"{own_set()['dataset']}, row 3: has no label: nothing is learnt from it or tested on it"
    ]


def test_another_chemprop_trains_anew(job, finetune_params, tmp_path, monkeypatch):
    command = tmp_path / "chemprop"
    command.touch(0o755)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", str(command))
    p = finetune_params(encoder="", baselines=["chemprop", "mean"])
    files = []
    for installed in (1, 2):
        os.utime(command, (installed, installed))
        files.append([finetune._files(dataclasses.replace(ONE, model=name), p, {})[0] for name in ("chemprop", "mean")])
    assert files[0][0] != files[1][0]
    assert files[0][1] == files[1][1]


def test_a_constant_label_is_learnt_and_said(own_set, finetune_params, caplog):
    def to_constant(labels):
        labels[:, 0] = 7.5

    p = finetune_params(**own_set(to_constant), encoder="", baselines=["mean", "ecfp4_forest"], label_columns=["a"])
    scores = tables(finetune.run(p))[0]
    assert scores["test"].tolist() == pytest.approx([0.0] * len(scores))
    assert "all training molecules have the same 'a': there is nothing to learn" in caplog.text


def test_labels_with_units(tmp_path, finetune_params, caplog):
    file = tmp_path / "own.csv"
    file.write_text("smiles,yield\nCCO,12 %\nCC,3 %\n")
    with pytest.raises(ValueError, match=r"own\.csv: has no labels to learn: no column of plain numbers"):
        finetune.problem(finetune_params(dataset=str(file)))
    assert "column 'yield' is not used as a label: its fields, such as '12 %', are no plain numbers" in caplog.text


@pytest.mark.parametrize(("count", "part"), [(2, "validation"), (9, "validation")])
def test_fewer_molecules_than_a_split_needs(tmp_path, finetune_params, count, part):
    file = tmp_path / "own.csv"
    file.write_text("smiles,y\n" + "".join(f"{'C' * (n + 1)},{n}.5\n" for n in range(count)))
    with pytest.raises(ValueError, match=rf"own\.csv: of {count} molecules, none are left for the {part} set"):
        finetune.problem(finetune_params(dataset=str(file)))


def test_moments_of_pretraining_change_the_training(job, finetune_params, tmp_path):
    model = encoder.load("small/random")
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    model(torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)).square().mean().backward()
    adam.step()
    encoder.save_moments(model.save(tmp_path), model, adam)
    images = finetune.draw(job, finetune_params())
    with_and_without = [
        finetune.train_encoder(job, finetune_params(encoder=str(tmp_path), moments=moments), ONE, 0, images)
        for moments in (True, False)
    ]
    assert len({float(np.nansum(result.predictions)) for result in with_and_without}) == 2
    with pytest.raises(params.ParameterError, match="moments are Adam's"):
        finetune_params(moments=True, optimizer="sgd")


def test_sgd_is_imagemols():
    layers = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    sgd = finetune.optimizer(*layers, 0.5, 0.5, 1e-5, "sgd")
    assert isinstance(sgd, torch.optim.SGD)
    assert [(group["lr"], group["momentum"], group["weight_decay"]) for group in sgd.param_groups] == [
        (0.5, 0.9, 1e-5)
    ] * 2


def test_the_adam_of_the_paper():
    layers = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    p = params.read("04_finetune", files.ROOT / "params/paper/finetune.yaml")
    adam = finetune.optimizer(*layers, p.lr, 1e-4, p.weight_decay, p.optimizer)
    found = [(group["lr"], group["betas"], group["eps"], group["weight_decay"]) for group in adam.param_groups]
    assert found == [(5e-6, (0.9, 0.98), 1e-6, 1e-5), (1e-4, (0.9, 0.999), 1e-8, 1e-5)]
