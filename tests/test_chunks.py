"""Chunks: results that depend on neither processes nor interruptions."""

import pyarrow as pa
import pytest

from moleclip.io import chunks

SMILES = ["C" * (i % 17 + 1) for i in range(103)]


def lengths(smiles):
    """Stands for the work: fails at the text that a test asks for."""
    if "fail" in smiles:
        raise ValueError("this chunk fails")
    return pa.table({"length": [len(text) for text in smiles]})


def test_order_and_number_of_rows_do_not_depend_on_chunks_processes_or_folder(tmp_path):
    expected = [len(text) for text in SMILES]
    for options in ({}, {"size": 10}, {"size": 10, "workers": 2}, {"size": 7, "folder": tmp_path, "workers": 2}):
        assert chunks.run(lengths, SMILES, **options)["length"].to_pylist() == expected
    assert len(chunks.run(lengths, [])) == 0


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    smiles, seen = [*SMILES[:50], "fail", *SMILES[51:]], []

    def work(part):
        seen.append(len(part))
        return lengths(part)

    with pytest.raises(ValueError, match="this chunk fails"):
        chunks.run(work, smiles, tmp_path, size=10)
    assert sum(seen) == 60
    files = sorted(tmp_path.rglob("*.arrow"))
    assert [file.stem for file in files] == ["00000", "00001", "00002", "00003", "00004"]
    monkeypatch.setattr("test_chunks.lengths", lambda part: pa.table({"length": [len(text) for text in part]}))
    seen.clear()
    assert chunks.run(work, smiles, tmp_path, size=10)["length"].to_pylist() == [len(text) for text in smiles]
    assert sum(seen) == 53
    seen.clear()
    chunks.run(work, smiles, tmp_path, size=10)
    assert not seen


def test_other_molecules_or_another_rdkit_have_a_store_of_their_own(tmp_path, monkeypatch):
    stores = {chunks.store(lengths, SMILES, tmp_path, 10), chunks.store(lengths, SMILES[1:], tmp_path, 10)}
    monkeypatch.setattr(chunks.rdBase, "rdkitVersion", "another")
    assert len({*stores, chunks.store(lengths, SMILES, tmp_path, 10)}) == 3
