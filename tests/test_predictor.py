"""Predictions of finetuned models, their spread, and how far a molecule is from those that were trained on."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem

from moleclip import MoleCLIPPredictor, datasets, drawing, finetune, gridsearch, tables
from moleclip.apply import inference
from moleclip.workflow import params

SMALL = "small/random"
SMILES = list(datasets.load("nci_5k").smiles[:40])


@pytest.fixture(scope="module", params=["regression", "classification"])
def job(request, tmp_path_factory):
    """A finetuning job of two repeats, by the file that it read."""
    folder = tmp_path_factory.mktemp(request.param)
    sizes = [Chem.MolFromSmiles(text).GetNumHeavyAtoms() for text in SMILES]
    labels = sizes if request.param == "regression" else (np.array(sizes) > np.median(sizes)).astype(int)
    table = pd.DataFrame({"smiles": SMILES, "size": labels, "other": np.roll(labels, 1)})
    table.to_csv(folder / "own.csv", index=False)
    given = {"dataset": str(folder / "own.csv"), "output": str(folder / "job"), "split": "random", "holdout": 0.2}
    given["label_columns"] = ["size", "other"]
    small = {"epochs": 2, "repeats": 2, "head_lr": [1e-3, 1e-6], "final_epochs": None, "baselines": ["mean"]}
    p = params.read("04_finetune", None, **given, **small, batch_size=8, encoder=SMALL, name="model")
    return p, gridsearch.run(p)


def test_predictions_are_those_of_the_job(job):
    p, folder = job
    predictor = MoleCLIPPredictor(folder)
    found = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("predictions", "scores")}
    means = tables.mean_predictions(found["predictions"], found["scores"])
    means = means[(means["encoder"] == "model") & (means["part"] == "test")]
    assert predictor.label_names == ("size", "other")
    assert len(predictor.models) == p.repeats
    for label in predictor.label_names:
        expected = means[means["target"] == label]
        found = predictor.predict(list(expected["smiles"]))
        np.testing.assert_allclose(found[label], expected["prediction"], rtol=1e-3, atol=1e-4)


def test_spreads_are_those_of_repeats_and_of_drawings(job):
    _, folder = job
    predictor = MoleCLIPPredictor(folder, views=3)
    found = predictor.predict(SMILES[:6])
    computation = predictor._computation()
    images = np.stack([[drawing.draw(text, style) for style in computation.styles] for text in SMILES[:6]])
    outputs = []
    with torch.no_grad():
        for model in predictor.models:
            flat = model.network_(torch.from_numpy(images.reshape(-1, 224, 224, 3)))
            flat = torch.sigmoid(flat) if predictor.task == "classification" else flat
            outputs.append(flat.reshape(6, 4, 2).numpy() * model.scale_ + model.shift_)
    for number, label in enumerate(predictor.label_names):
        values = np.array(outputs)[..., number]  # repeat, molecule, style
        tolerance = {"rtol": 1e-3, "atol": 1e-5}
        np.testing.assert_allclose(found[label], values[:, :, 0].mean(axis=0), **tolerance)
        np.testing.assert_allclose(found[f"{label}_sd_repeats"], values[:, :, 0].std(axis=0, ddof=1), **tolerance)
        np.testing.assert_allclose(
            found[f"{label}_sd_views"], values.mean(axis=0)[:, 1:].std(axis=1, ddof=1), **tolerance
        )
        if predictor.task == "classification":
            assert found[label].between(0, 1).all()


def test_the_nearest_training_molecule_is_named(job):
    _, folder = job
    predictor = MoleCLIPPredictor(folder, views=0)
    trained = predictor.molecules[predictor.molecules["part"] == "train"]["smiles"].tolist()
    assert len(trained) == 24
    found = predictor.predict([trained[3], "CCCCCCCCBr", drawing.draw("CCO")])
    assert found["nearest"][0] == trained[3]
    assert found["similarity"][0] == 1
    bits = [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(text), 2, 2048) for text in trained]
    own = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles("CCCCCCCCBr"), 2, 2048)
    similarities = [DataStructs.TanimotoSimilarity(own, other) for other in bits]
    assert found["similarity"][1] == max(similarities)
    assert found["nearest"][1] == trained[int(np.argmax(similarities))]
    assert found["nearest"][2] == ""
    assert np.isnan(found["similarity"][2])
    assert found[f"{predictor.label_names[0]}_sd_views"].isna().all()


def test_an_unreadable_molecule_keeps_its_row(job):
    _, folder = job
    with pytest.warns(inference.UnreadableWarning, match=r"row 1 \(C1CC\)"):
        found = MoleCLIPPredictor(folder, views=1).predict([SMILES[0], "C1CC", SMILES[1]])
    assert found["size"].isna().tolist() == [False, True, False]
    assert found["problem"].tolist() == ["", "not a SMILES string", ""]


def test_of_a_file_all_columns_are_kept_and_lines_are_named(job, tmp_path):
    _, folder = job
    predictor, file = MoleCLIPPredictor(folder, views=0), tmp_path / "new.csv"
    smiles = [SMILES[0], "C1CC", SMILES[1]]
    pd.DataFrame({"code": ["a", "b", "c"], "size": [9, 9, 9], "structure": smiles}).to_csv(file, index=False)
    with pytest.warns(inference.UnreadableWarning, match=r"1 of 3 .* line 3 \(C1CC\)"):
        found = predictor.predict(file, "structure")
    expected = predictor.predict([SMILES[0], SMILES[1]])
    assert found["code"].tolist() == ["a", "b", "c"]
    assert found["size_given"].tolist() == ["9", "9", "9"]
    pd.testing.assert_frame_equal(found.loc[[0, 2], list(expected)].reset_index(drop=True), expected)


def test_only_the_weights_that_make_the_score_are_kept_and_a_second_run_trains_nothing(job, monkeypatch):
    p, folder = job
    files = sorted(folder.glob("model/*/model.safetensors"))
    assert len(files) == p.repeats
    before = [file.stat().st_mtime_ns for file in files]
    monkeypatch.setattr(finetune.FinetunedEncoder, "fit", None)
    gridsearch.run(p)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_missing_models_are_trained_again(job):
    p, folder = job
    file = sorted(folder.glob("model/*/model.safetensors"))[0]
    expected = file.read_bytes()
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="the folder is damaged"):
        MoleCLIPPredictor(folder)
    shutil.rmtree(file.parent)
    with pytest.raises(FileNotFoundError, match="holds no finetuned encoder"):
        MoleCLIPPredictor(folder)
    gridsearch.run(p)
    assert file.read_bytes() == expected
    MoleCLIPPredictor(folder)


def test_damaged_molecules_are_refused(job):
    _, folder = job
    file = folder / "model/molecules.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"molecules.parquet: .* the folder is damaged"):
        MoleCLIPPredictor(folder)
    file.write_bytes(whole)


def test_a_folder_without_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="keep_models"):
        MoleCLIPPredictor(tmp_path)
