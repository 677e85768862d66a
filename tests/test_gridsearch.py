"""One job: what is chosen on validation, what is kept, and a test set that chooses nothing."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from moleclip import datasets, encoder, gridsearch, splits
from moleclip.finetune import FinetunedEncoder
from moleclip.gridsearch import Training
from moleclip.tables import by_split, choose

SERIES = datasets.load("chembl2321810")
TABLES = ("scores", "predictions", "curves")


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
        own = {"dataset": str(tmp_path / f"{name}.csv"), "smiles_column": "structure", "label_columns": ["a", "b"]}
        return {**own, "holdout": 0.2}

    return write


def tables(folder) -> tuple[pd.DataFrame, ...]:
    return tuple(pd.read_parquet(folder / f"{name}.parquet") for name in TABLES)


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_same_molecule_in_two_parts_is_reported(tmp_path, finetune_params, caplog, part):
    smiles, split = list(SERIES.smiles[:30]), splits.random(30, 1, 0.2)
    other, test = int(getattr(split, part)[0]), int(split.test[0])
    smiles[other], smiles[test] = "c1ccccc1O", "Oc1ccccc1"
    pd.DataFrame({"smiles": smiles, "y": np.arange(30.0)}).to_csv(tmp_path / "own.csv", index=False)
    found = gridsearch.leaks(gridsearch.problem(finetune_params(dataset=str(tmp_path / "own.csv"), holdout=0.2)))
    assert found.to_numpy().tolist() == [["own", test, "test", other, part]]
    assert f"own: row {test} (test) is the same molecule as row {other} ({part})" in caplog.text


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
    assert choose(GRID) == (1e-3, "default")  # the first of two that are equal
    assert choose(GRID, by="test") == (1e-3, "none")
    assert choose(GRID.assign(metric="ROC-AUC")) == (1e-4, "default")
    final = GRID.assign(stage="final", val=0.0)
    assert choose(pd.concat([GRID, final])) == (1e-3, "default")


def test_a_cell_that_diverged_is_not_chosen():
    one_failed = GRID.assign(val=GRID["val"].where(GRID.index != 4, np.nan))
    assert choose(one_failed) == (1e-4, "none")
    with pytest.raises(FloatingPointError, match="no training of the grid"):
        choose(GRID.assign(val=np.nan))


def test_a_job_survives_a_learning_rate_that_diverges(own_set, finetune_params):
    p = finetune_params(**own_set(), encoder="", baselines=["fingerprint_mlp"], head_lr=[1e30, 1e-3], final_epochs=1)
    scores, predictions, _ = tables(gridsearch.run(p))
    wild = scores["head_lr"] == 1e30
    assert scores.loc[wild, ["val", "test"]].isna().all(axis=None)
    assert scores.loc[wild, "epoch"].tolist() == [0]
    assert scores.loc[scores["chosen"], "head_lr"].tolist() == [1e-3]
    assert predictions.loc[predictions["head_lr"] == 1e30, "prediction"].isna().all()


def test_scores_say_how_far_an_encoder_is_from_its_start(own_set, finetune_params):
    p = finetune_params(**own_set(), baselines=["mean", "frozen"])
    scores = tables(gridsearch.run(p))[0].set_index("encoder")
    drift = scores.filter(like="start_")
    assert list(drift) == ["start_norm", "start_correlation", "start_identical"]
    assert 0.5 < drift.loc["random", "start_correlation"] < 1
    assert drift.drop("random").isna().all(axis=None)
    for file in Path(p.output).glob("trainings/*.npz"):  # as they were before this was asked
        with np.load(file) as found:
            known = {name: found[name] for name in found if name != "drift"}
        np.savez(file, **known)
    again = tables(gridsearch.run(p))[0].set_index("encoder")
    assert again.filter(like="start_").isna().all(axis=None)
    pd.testing.assert_frame_equal(again.drop(columns=list(drift)), scores.drop(columns=list(drift)))


def test_other_layers_change_frozen_models_and_train_nothing_else_again(own_set, finetune_params, monkeypatch):
    p = finetune_params(**own_set(), baselines=["frozen"], frozen_layers="last")
    last = tables(gridsearch.run(p))[0].set_index("encoder")
    monkeypatch.setattr(gridsearch.FinetunedEncoder, "fit", None)
    all_ = tables(gridsearch.run(p.model_copy(update={"frozen_layers": "all"})))[0].set_index("encoder")
    assert all_.loc["random", "test"] == last.loc["random", "test"]
    assert all_.loc["random_frozen", "test"] != last.loc["random_frozen", "test"]


@pytest.mark.parametrize(("metric", "optimism"), [("MAE", 3.0), ("ROC-AUC", 0.0)])
def test_optimism_is_what_choosing_on_test_would_win(metric, optimism):
    scores = GRID.assign(metric=metric, dataset="made", drawing="plain", split="random", holdout=0.1)
    scores = scores.assign(encoder="a", seed=1, unit="")
    cell = choose(scores)
    scores["chosen"] = (scores["head_lr"] == cell[0]) & (scores["augmentation"] == cell[1])
    row = by_split(scores).iloc[0]
    assert (row["test"], row["runs"], row["optimism"]) == ({"MAE": 4.0, "ROC-AUC": 5.0}[metric], 3, optimism)


def test_a_run_that_diverged_leaves_no_score():
    """A mean of the others would look better than the model is."""
    scores = GRID.assign(dataset="made", drawing="plain", split="random", holdout=0.1, encoder="a", seed=1, unit="")
    scores["chosen"] = (scores["head_lr"] == 1e-3) & (scores["augmentation"] == "default")
    assert by_split(scores).loc[0, ["val", "test"]].tolist() == [2, 4]
    scores.loc[scores["chosen"].idxmax(), ["val", "test"]] = np.nan
    assert by_split(scores).loc[0, ["val", "test"]].isna().all()


def test_test_labels_change_nothing_but_the_test_scores(own_set, finetune_params):
    """Neither the cells that are chosen, nor the epochs, nor a single prediction."""
    options = {"baselines": ["fingerprint_mlp", "frozen", "ecfp4_extra_trees"], "head_lr": [1e-3, 1e-4], "epochs": 2}

    def scramble(labels):
        labels[splits.random(60, 1, 0.2).test] = 1000.0

    first = tables(gridsearch.run(finetune_params(**own_set(), **options)))
    second = tables(gridsearch.run(finetune_params(**own_set(scramble), **options)))
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
    scores, predictions, curves = tables(gridsearch.run(p))
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


def test_there_is_one_scaffold_split(finetune_params):
    with pytest.raises(ValueError, match="split_seed 2: there is one scaffold split only"):
        gridsearch.problem(finetune_params(split="scaffold", split_seed=2))


def test_classes_of_ones_own(own_set, finetune_params):
    def to_classes(labels):
        labels[:, 0] = labels[:, 0] > np.median(labels[:, 0])
        labels[:, 1] = np.where(np.isnan(labels[:, 1]), np.nan, labels[:, 0])

    p = finetune_params(**own_set(to_classes), baselines=["fingerprint_mlp", "frozen", "ecfp4_forest", "mean"])
    scores, predictions, _ = tables(gridsearch.run(p))
    assert set(scores["metric"]) == {"ROC-AUC"}
    assert predictions["prediction"].between(0, 1).all()
    forest = predictions[(predictions["encoder"] == "ecfp4_forest") & (predictions["part"] == "test")].dropna(
        subset="label"
    )
    areas = [metrics.roc_auc_score(rows["label"], rows["prediction"]) for _, rows in forest.groupby("target")]
    assert scores.set_index("encoder").loc["ecfp4_forest", "test"] == pytest.approx(np.mean(areas))
    assert scores.set_index("encoder").loc["mean", "test"] == 0.5


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
        gridsearch.run(finetune_params(sample=60, baselines=[], **options))


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_one_class_in_a_part_is_refused_before_anything_is_trained(own_set, finetune_params, part):
    def to_one_class(labels):
        labels[:] = np.arange(60)[:, None] % 2
        labels[getattr(splits.random(60, 1, 0.2), part)] = 1.0

    name = {"train": "training"}.get(part, part)
    with pytest.raises(ValueError, match=f"the {name} molecules have one class of 'a'"):
        gridsearch.problem(finetune_params(**own_set(to_one_class)))


def test_one_class_everywhere_is_no_matter_of_the_split(own_set, finetune_params):
    def to_one_class(labels):
        labels[:] = np.arange(60)[:, None] % 2
        labels[:, 1] = 1.0

    with pytest.raises(ValueError, match=r"all molecules have one class of 'b': leave this label out"):
        gridsearch.problem(finetune_params(**own_set(to_one_class)))


def test_molecules_without_any_label_are_named(own_set, finetune_params, caplog):
    def to_missing(labels):
        labels[3], labels[8, 0] = np.nan, np.nan  # one without any, one that has the other label

    gridsearch.problem(finetune_params(**own_set(to_missing)))
    assert [line for line in caplog.messages if "has no label" in line] == [
        f"{own_set()['dataset']}, row 3: has no label: nothing is learnt from it or tested on it"
    ]


def test_a_constant_label_is_learnt_and_said(own_set, finetune_params, caplog):
    def to_constant(labels):
        labels[:, 0] = 7.5

    p = finetune_params(
        **{**own_set(to_constant), "encoder": "", "baselines": ["mean", "ecfp4_forest"], "label_columns": ["a"]}
    )
    scores = tables(gridsearch.run(p))[0]
    assert scores["test"].tolist() == pytest.approx([0.0] * len(scores))
    assert "all training molecules have the same 'a': there is nothing to learn" in caplog.text


@pytest.mark.parametrize(("count", "part"), [(2, "validation"), (9, "validation")])
def test_fewer_molecules_than_a_split_needs(tmp_path, finetune_params, count, part):
    file = tmp_path / "own.csv"
    file.write_text("smiles,y\n" + "".join(f"{'C' * (n + 1)},{n}.5\n" for n in range(count)))
    with pytest.raises(ValueError, match=rf"own\.csv: of {count} molecules, none are left for the {part} set"):
        gridsearch.problem(finetune_params(dataset=str(file)))


def test_an_interrupted_job_goes_on_after_its_last_training(own_set, finetune_params, monkeypatch):
    options = {**own_set(), "repeats": 3, "baselines": []}
    expected = tables(gridsearch.run(finetune_params(**options, output=str(finetune_params().output) + "_straight")))
    original, done = FinetunedEncoder.fit, []

    def counted(model, *arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(model.seed)
        return original(model, *arguments)

    monkeypatch.setattr(FinetunedEncoder, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        gridsearch.run(finetune_params(**options))
    first, done[:] = list(done), ["afresh"]
    found = tables(gridsearch.run(finetune_params(**options)))
    assert len({*first, *done[1:]}) == 3
    assert len(done) == 2
    assert all(a.equals(b) for a, b in zip(expected, found, strict=True))
    with pytest.raises(KeyboardInterrupt):  # another learning rate is another training
        gridsearch.run(finetune_params(**options, lr=1e-3))
    split = splits.split
    with monkeypatch.context() as patch:  # and so is another split, whatever made it another
        patch.setattr(splits, "split", lambda kind, smiles, seed, _: split(kind, smiles, seed, 0.1))
        with pytest.raises(KeyboardInterrupt):
            gridsearch.run(finetune_params(**options))


def test_other_weights_of_the_same_name_are_another_start(own_set, finetune_params, tmp_path):
    starts, job = [], gridsearch.problem(finetune_params(**own_set()))
    for seed in (0, 1, 0):
        encoder.load("small/random", seed).save(tmp_path / "encoder", {"seed": seed})
        starts.append(gridsearch._identity(job, finetune_params(encoder=str(tmp_path / "encoder"))))
    assert starts[0] == starts[2]
    assert starts[0] != starts[1]


def test_another_chemprop_trains_anew(own_set, finetune_params, tmp_path, monkeypatch):
    command = tmp_path / "chemprop"
    command.touch(0o755)
    monkeypatch.setenv("MOLECLIP_CHEMPROP", str(command))
    p = finetune_params(**own_set(), encoder="", baselines=["chemprop", "mean"])
    job, files = gridsearch.Job(gridsearch.problem(p), p), []
    for installed in (1, 2):
        os.utime(command, (installed, installed))
        trainings = [Training(name, np.nan, "", 0, 1) for name in ("chemprop", "mean")]
        files.append([job._places(training)[0] for training in trainings])
    assert files[0][0] != files[1][0]
    assert files[0][1] == files[1][1]


def test_a_kept_model_predicts_as_the_job_did(own_set, finetune_params):
    p = finetune_params(**own_set(), keep_models=True, final_epochs=2, final_repeats=2, head_lr=[1e-3, 1e-4])
    folder = gridsearch.run(p)
    scores, predictions, _ = tables(folder)
    kept = sorted(path for path in (folder / "model").iterdir() if path.is_dir())
    assert len(kept) == scores.loc[scores["encoder"] == "random", "chosen"].sum() == 2
    tested = predictions[(predictions["encoder"] == "random") & (predictions["stage"] == "final")]
    tested = tested[tested["part"] == "test"].pivot_table(
        index="smiles", columns=["repeat", "target"], values="prediction", sort=False
    )
    found = np.stack([FinetunedEncoder.load(path).predict_values(list(tested.index)) for path in kept])
    expected = tested.to_numpy().reshape(len(tested), 2, 2).transpose(1, 0, 2)
    assert sorted(found.sum(axis=(1, 2))) == pytest.approx(sorted(expected.sum(axis=(1, 2))), abs=1e-5)


def test_labels_with_units(tmp_path, finetune_params, caplog):
    file = tmp_path / "own.csv"
    file.write_text("smiles,yield\nCCO,12 %\nCC,3 %\n")
    with pytest.raises(ValueError, match=r"own\.csv: has no labels to learn: no column of plain numbers"):
        gridsearch.problem(finetune_params(dataset=str(file)))
    assert "column 'yield' is not used as a label: its fields, such as '12 %', are not plain numbers" in caplog.text
