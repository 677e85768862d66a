"""Whatever comes in is used, or reported with row and reason: no crash, no hang, nothing lost.

`make test` draws a few hundred cases; `make nightly` more than 10,000.
"""

import logging
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis_rdkit import mols, smiles
from rdkit import Chem

from moleclip import clustering, datasets, drawing

CASES = 2600 if os.environ.get("MOLECLIP_NIGHTLY") else 100
SECONDS = 20  # nothing may take longer; a drawing takes milliseconds
logging.getLogger("hypothesis_rdkit").setLevel(logging.WARNING)

bounded = settings(
    max_examples=CASES,
    deadline=SECONDS * 1000,
    derandomize=not os.environ.get("MOLECLIP_NIGHTLY"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

molecules = smiles(max_conformers=0).map(lambda text: text.split()[0])  # without the name behind it
ALPHABET = "CNOPSFIBrclnosp[]()=#$:/\\.+-@%*~>|{}0123456789HKaeu \t\n\0\u00e9\u2192"
junk = st.one_of(
    st.text(),
    st.text(ALPHABET, max_size=60),
    st.binary().map(lambda data: data.decode("latin-1")),
    # Half a SMILES string, one with a character changed, two glued together, and a reaction.
    st.tuples(molecules, st.floats(0, 1)).map(lambda case: case[0][: int(len(case[0]) * case[1])]),
    st.tuples(molecules, st.sampled_from(ALPHABET)).map(lambda case: case[0].replace("C", case[1], 1)),
    st.tuples(molecules, molecules).map("".join),
    st.tuples(molecules, molecules).map(">>".join),
)


def check(texts: list[str]) -> None:
    """Every text is in one of the two tables, and what is readable is drawn, or refused with a reason."""
    started = time.monotonic()
    dataset = datasets.Dataset("junk", tuple(texts), np.empty((len(texts), 0)))
    molecules, unreadable = datasets.clean(dataset)
    assert sorted([*molecules["row"], *unreadable["row"]]) == list(range(len(texts)))
    assert (unreadable["reason"] != "").all()
    written = [text.encode(errors="backslashreplace").decode() for text in texts]
    assert [written[row] for row in unreadable["row"]] == list(unreadable["smiles"])
    readable = list(molecules["smiles"])
    prepared = drawing.prepare_all(readable).to_pylist()
    for text, row in zip(readable, prepared, strict=True):
        assert (row["molecule"] is None) == (row["reason"] != "")
        if row["molecule"] is not None:
            mol = drawing.from_store(row["molecule"])
            for style in (drawing.PLAIN, drawing.random_style(np.random.default_rng(0)), drawing.Style(r_groups=True)):
                image = drawing.draw(mol, style)
                assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)
                assert image.min() < 250, text
    assert clustering.maccs(readable).shape == (len(readable), 21)
    assert time.monotonic() - started < SECONDS


@bounded
@given(st.lists(junk, max_size=3))
@example(["C" * 100_000, "(" * 100_000, "C1CC1" * 20_000, "[" * 5000])
@example(["C\0C", "\0", "CCO ethanol", " CCO ", "CC>>CO", "CC |^1:0|", "\ud800"])
@example(["", " ", "*", "[*]", "[H]", "[H][H]", "[Xx]", "[999C]", "[C+99]", "C%99CC%99", "[U]", "."])
def test_junk_is_used_or_reported(texts):
    check(texts)


@bounded
@given(molecules)
def test_molecules_are_used(text):
    check([text])
    assert len(datasets.clean(datasets.Dataset("one", (text,), np.empty((1, 0))))[0]) == 1


@bounded
@given(mols(max_conformers=0))
def test_rdkit_molecules_are_drawn_alike_each_time(mol):
    assert np.array_equal(drawing.draw(mol), drawing.draw(Chem.Mol(mol)))


fields = st.one_of(
    st.text(max_size=20),
    st.floats().map(str),
    st.sampled_from(
        ["", " ", "nan", "NA", "inf", "-inf", "1e999", "1,5", '"', "'", "\r", "0", "1", "12 kcal/mol", "CCO"]
    ),
)
tables = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode(errors="surrogatepass")),
    # Ragged rows, wrong columns, text among labels, in several encodings.
    st.tuples(
        st.sampled_from(["smiles,y", "smiles", "SMILES,y", "y,smiles,z", "smiles,smiles", "", "\ufeffsmiles,y"]),
        st.lists(st.lists(fields, max_size=4).map(",".join), max_size=5),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    ).map(lambda case: case[2].join([case[0], *case[1]]).encode(case[3], errors="replace")),
)


@bounded
@given(tables)
@example(b"smiles,y\nCCO,inf\n")
@example(b"smiles,y\nCCO\n")
@example(b"")
def test_tables_are_read_whole_or_refused_by_name(tmp_path, content):
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    try:
        dataset = datasets.read_table(file)
    except ValueError as error:
        assert "mine.csv" in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert dataset.labels.shape == (len(dataset), len(dataset.label_names))
    assert not np.isinf(dataset.labels).any()
    check(list(dataset.smiles))


def test_labels_of_text_only_are_named_when_asked_for(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("smiles,y\nCCO,high\nCC,low\n")
    assert datasets.read_table(file).label_names == ()
    with pytest.raises(ValueError, match="line 2, column 'y': 'high' is not a finite number"):
        datasets.read_table(file, labels=["y"])
