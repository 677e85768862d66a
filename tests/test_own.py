"""Our results: read from where the pages leave them, each once."""

import pandas as pd
import pytest

from moleclip.paper import own

LINE = {
    "set": "esol",
    "encoder": "mean",
    "seed": 1,
    "split": "scaffold",
    "drawing": "plain",
    "val": 1.0,
    "metric": "RMSE",
}


@pytest.fixture
def folder(tmp_path):
    def scores(place, *lines):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(tmp_path / place / "scores.csv", index=False)

    scores("studies/b_later", LINE | {"test": 3.0}, LINE | {"test": 4.0, "seed": 2})
    scores("studies/a_first", LINE | {"test": 2.0}, LINE | {"test": 5.0, "split": "random"})
    scores("demo", LINE | {"test": 9.0})  # on bundled molecules: not the paper's
    for place in ("demo", "rehearsal_demo"):  # a rehearsal's are no results
        (tmp_path / place).mkdir(exist_ok=True)
        sweep = pd.DataFrame({"corpus": [place], "k": [3], "inertia": [1.0], "knee": [True]})
        sweep.to_csv(tmp_path / place / "knee.csv", index=False)
    return tmp_path


def test_a_model_on_a_set_is_read_whole_from_one_study(folder):
    """Another study's further splits may have other parameters: no mean mixes the two."""
    found = own.read(folder)
    assert found.scores[["seed", "split", "test"]].to_numpy().tolist() == [[1, "scaffold", 2.0], [1, "random", 5.0]]
    assert found.knees["corpus"].tolist() == ["demo"]
    assert [file.parent.name for file in found.files] == ["a_first", "b_later", "demo"]


def test_splits_and_drawings_are_not_mixed(folder):
    found = own.read(folder)
    assert found.on("esol", "scaffold")["test"].tolist() == [2.0]
    assert found.on("esol", "random")["test"].tolist() == [5.0]
    assert found.on("bace", "scaffold").empty


def test_nothing_is_empty_tables(tmp_path):
    found = own.read(tmp_path)
    assert found.files == []
    assert found.on("esol", "scaffold").empty
