"""Data sets: counts known from the files, nothing lost."""

import csv
import gzip
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, RDConfig

from moleclip import datasets, molecules
from moleclip.io import downloads, errors, seeds

needs_data = pytest.mark.skipif("MOLECLIP_DATA_DIR" not in os.environ, reason="needs MOLECLIP_DATA_DIR")

ETHANOL_TWICE = datasets.Dataset(
    "made", ("CCO", "not a molecule", "OCC", "F[Si](F)(F)(F)(F)F", ""), np.arange(5.0)[:, None], ("y",), "regression"
)


def test_nci_has_4999_molecules_of_which_8_are_unreadable():
    dataset = datasets.load("nci_5k")
    molecules, unreadable = datasets.clean(dataset)
    assert (len(dataset), len(unreadable)) == (4999, 8)
    # Seen with the naked eye in the file: hypervalent silicon and phosphorus.
    assert {"CCCCNCCCC.F[Si](F)(F)(F)(F)F"} <= set(unreadable["smiles"])
    assert sorted([*molecules["row"], *unreadable["row"]]) == list(range(4999))


def test_series_labels_agree_with_a_plain_reading_of_the_csv():
    dataset = datasets.load("chembl2321810")
    folder = Path(RDConfig.RDContribDir) / "FreeWilson" / "data"
    with open(folder / "CHEMBL2321810_act.csv") as file:
        activity = {line["Name"]: float(line["Act"]) for line in csv.DictReader(file)}
    lines = [line.split() for line in (folder / "CHEMBL2321810.smi").read_text().splitlines()]
    assert len(dataset) == len(lines) == 1017
    assert list(dataset.smiles) == [smiles for smiles, _ in lines]
    assert dataset.labels[:, 0].tolist() == [activity[key] for _, key in lines]


# name: molecules, label columns, a label known from looking into the file (row, column, value).
PAPER = {
    "bace": (1513, 1, (0, 0, 1.0)),
    "bbbp": (2039, 1, (0, 0, 1.0)),
    "esol": (1128, 1, (0, 0, -0.77)),
    "freesolv": (642, 1, (0, 0, -11.01)),
    "DHBDs": (6994, 1, (0, 0, 9.597732894)),
    "NHCs": (95, 4, (0, 3, 0.08328)),
    "Phosphines_yield": (90, 5, (0, 3, 0.18)),
    "Phosphines_selectivity": (37, 1, (0, 0, 3.75)),
    "Kraken_buried": (1540, 2, (0, 1, 56.45688734)),
}


@needs_data
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_sets(name):
    molecules, columns, (row, column, value) = PAPER[name]
    dataset = datasets.load(name)
    assert dataset.labels.shape == (molecules, columns)
    assert dataset.labels[row, column] == value
    assert not np.isnan(dataset.labels).any()
    assert len(datasets.clean(dataset)[1]) == 0


@needs_data
def test_the_subset_of_chembl_is_peptide_heavy():
    molecules, unreadable = datasets.clean(datasets.load("chembl_25_subset"))
    assert len(molecules) + len(unreadable) == 3000
    assert molecules["heavy_atoms"].max() == 804
    assert molecules["heavy_atoms"].mean() == pytest.approx(63, abs=0.5)


CHEMREPS = "chembl_id\tcanonical_smiles\tstandard_inchi\tstandard_inchi_key\nCHEMBL1\tCCO\tI=1\tK\nCHEMBL2\tC\tI\tK\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(CHEMREPS.encode(), mtime=0), None),
        (gzip.compress(CHEMREPS.encode(), mtime=0)[:-12], "damaged or incomplete"),
        (b"<html>moved</html>", "damaged or incomplete"),
        (gzip.compress((CHEMREPS + "CHEMBL3\tCC\n").encode(), mtime=0), "line 4: has 2 fields, expected 4"),
    ],
)
def test_chembl_is_read_from_its_column_of_smiles_or_refused(tmp_path, monkeypatch, content, problem):
    file = tmp_path / downloads.known()["chembl_25"].path
    file.parent.mkdir()
    file.write_bytes(content)
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    if problem:
        with pytest.raises(errors.DataError, match=problem):
            datasets.load("chembl_25")
    else:
        assert datasets.load("chembl_25").smiles == ("CCO", "C")


@needs_data
def test_moses_from_the_mirror():
    dataset = datasets.load("moses")
    assert len(dataset) == 1_936_962
    assert dataset.smiles[0] == "CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1"


def test_the_registry_knows_every_set():
    registry = datasets.registry().set_index("set")
    assert list(registry.index) == datasets.names()
    assert not (registry[["task", "reference", "columns", "licence", "url"]] == "").any(axis=None)
    finetuning = registry[registry["task"] != "pretraining"]
    assert not (finetuning[["metric", "labels", "split"]] == "").any(axis=None)
    assert registry.loc["Phosphines_selectivity", "holdout"] == 0.2


@needs_data
def test_the_registrys_columns_are_those_of_the_files():
    for name in PAPER:
        header = downloads.fetch(name).read_text().splitlines()[0]
        assert [field.strip() for field in header.split(",")] == downloads.known()[name].columns.split(", ")


@needs_data
def test_the_registry_counts_the_molecules():
    known = datasets.registry().set_index("set")["molecules"]
    names = ["nci_5k", "chembl2321810", *PAPER, "chembl_25_subset"]
    assert {name: len(datasets.load(name)) for name in names} == known[names].to_dict()


# Known from the paper's files: pairs of one molecule with different labels.
@needs_data
@pytest.mark.parametrize(("name", "conflicts"), [("bbbp", 10), ("esol", 6), ("Phosphines_selectivity", 1), ("bace", 0)])
def test_conflicting_duplicates(name, conflicts):
    dataset = datasets.load(name)
    assert datasets.summary(dataset, *datasets.clean(dataset))["in conflict"] == conflicts


def test_a_missing_label_is_in_conflict_with_nothing():
    dataset = datasets.Dataset("made", ("CCO", "OCC", "C", "C"), np.array([[np.nan], [1], [2], [3.0]]), ("y",))
    assert datasets.summary(dataset, *datasets.clean(dataset))["in conflict"] == 1


@needs_data
def test_some_labels_of_a_set():
    whole, some = (
        datasets.load("NHCs"),
        datasets.load("NHCs", labels=list(reversed(datasets.load("NHCs").label_names[:2]))),
    )
    assert some.label_names == whole.label_names[1::-1]
    np.testing.assert_array_equal(some.labels, whole.labels[:, 1::-1])
    with pytest.raises(ValueError, match="NHCs: has no label 'nonsense'; known are"):
        datasets.load("NHCs", labels=["nonsense"])


def test_cleaning_does_not_depend_on_processes_or_interruptions(tmp_path):
    dataset = datasets.load("nci_5k")
    expected = datasets.clean(dataset)
    for found in (datasets.clean(dataset, tmp_path, 2), datasets.clean(dataset, tmp_path)):
        assert all(a.equals(b) for a, b in zip(expected, found, strict=True))


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.csv"
    file.write_bytes(text.encode())
    return file


def test_your_own_table(tmp_path):
    file = write(tmp_path, "\ufeffname,smiles,pKa,logP\r\na,CCO,15.9,-0.3\r\nb,CC(=O)O,4.76,\r\n")
    with pytest.raises(ValueError, match=r"several columns hold numbers: 'pKa', 'logP'. Name those to predict"):
        datasets.read_table(file)
    dataset = datasets.read_table(file, labels="all")
    assert dataset.smiles == ("CCO", "CC(=O)O")
    assert dataset.label_names == ("pKa", "logP")
    assert np.array_equal(dataset.labels, [[15.9, -0.3], [4.76, np.nan]], equal_nan=True)
    assert (dataset.task, dataset.metric) == ("regression", "MAE")
    assert datasets.read_table(file, labels=["logP"]).label_names == ("logP",)


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("ddG (kcal/mol)", "kcal/mol"),
        ("E [eV] ", "eV"),
        ("(R)-yield", ""),
        ("logS (mol/L)", "log mol/L"),
        ("Log S (log mol/L)", "log mol/L"),
    ],
)
def test_the_unit_stands_in_the_columns_name(tmp_path, header, unit):
    (tmp_path / "own.csv").write_text(f"smiles,{header}\nCC,1.5\nCCC,2.5\n")
    assert datasets.load(str(tmp_path / "own.csv")).unit == unit


def test_zeros_and_ones_are_classes(tmp_path):
    dataset = datasets.read_table(write(tmp_path, "smiles,active\nCCO,1\nCC,0\nC,\n"))
    assert (dataset.task, dataset.metric) == ("classification", "ROC-AUC")


def test_every_label_that_is_no_number_is_named(tmp_path):
    file = write(tmp_path, "smiles,y\nCCO,n.d.\nCC,1\nC,<5\n")
    with pytest.raises(
        ValueError, match=r"line 2, column 'y': 'n.d.' is not a finite number \(nor is '<5' in line 4\)"
    ):
        datasets.read_table(file, labels=["y"])


def test_a_number_of_a_sheet_written_as_text_with_a_comma(tmp_path, caplog):
    caplog.set_level("INFO", "moleclip")
    table = pd.DataFrame({"smiles": ["C", "CC", "CCC"], "y": pd.Series([2.5, "3,53", -1], dtype=object)})
    table.to_excel(tmp_path / "my.xlsx", index=False)
    np.testing.assert_array_equal(datasets.load(str(tmp_path / "my.xlsx")).labels[:, 0], [2.5, 3.53, -1])
    assert "column 'y', line 3: '3,53' is read as 3.53" in caplog.text
    table["y"] = pd.Series([2.5, "3,530", -1], dtype=object)
    table.to_excel(tmp_path / "my.xlsx", index=False)
    with pytest.raises(ValueError, match="line 3, column 'y': '3,530' is not a finite number: its comma may"):
        datasets.load(str(tmp_path / "my.xlsx"), labels=["y"])


def test_a_missing_file_has_its_nearest_named(tmp_path, monkeypatch):
    write(tmp_path, "smiles\nC\n").rename(tmp_path / "ligands3.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'ligands3.csv'\?"):
        datasets.load("ligand3.csv")


@pytest.mark.parametrize("text", ["inf", "-inf", "high", "12 kcal/mol", "1e999"])
def test_a_label_that_is_no_number_is_named(tmp_path, text):
    file = write(tmp_path, f"smiles,y\nCCO,1.5\nCC,{text}\n")
    with pytest.raises(ValueError, match=re.escape(f"line 3, column 'y': '{text}' is not a finite number")):
        datasets.read_table(file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "smiles,y\nCCO,1,2,3\n",
        "smiles,y\nCC,1\nCCO\n",
        "smiles,y\n\udcff",
        "smiles,y,y\nC,1,2\n",
        "smiles,y\nC,1\nCC,\0\n",
    ],
)
def test_what_is_not_a_table_is_refused(tmp_path, text):
    file = tmp_path / "mine.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"mine\.csv"):
        datasets.read_table(file)


@pytest.mark.parametrize(
    "texts",
    [
        "12.5 (2),3 (1)",
        "12.5*,3*",
        "10^-5,1.2x10-5",
        "1 200,1 300",
        "12 %,3 %",
        "<5,<5",
        "\u22655,ca. 4",
        "3.1mM,0.2mM",
        "4.2 \u00b1 0.1 kcal/mol,3 kcal/mol",
        "\u20ac5,\u20ac6",
        "12 nM,3 uM,1 mM,n.d.",
        "1abc,2xyz,4hhb",  # names, perhaps: only the user knows
    ],
)
def test_no_other_column_is_learnt_in_place_of_quantities(tmp_path, texts):
    lines = "".join(f"C,{n}.5,{text}\n" for n, text in enumerate(texts.split(",")))
    file = write(tmp_path, f"smiles,mw,yield\n{lines}")
    problem = (
        f"column 'yield' is not used as a label: its fields, such as '{texts.split(',')[0]}', are not plain numbers"
    )
    with pytest.raises(ValueError, match=rf"{re.escape(problem)}.* name the columns .* \('mw'\?\)"):
        datasets.read_table(file)
    assert datasets.read_table(file, labels=["mw"]).label_names == ("mw",)


def test_quantities_alone_are_no_labels(tmp_path, caplog):
    assert datasets.read_table(write(tmp_path, "smiles,yield\nCCO,12 %\nCC,3 %\n")).label_names == ()
    assert "column 'yield' is not used as a label: its fields, such as '12 %', are not plain numbers" in caplog.text


@pytest.mark.parametrize("texts", ["2-chlorophenol,4-chlorophenol", "2024-01-01,2024-01-02", "50-00-0,64-17-5"])
def test_names_that_begin_with_a_digit_are_no_quantities(tmp_path, texts, caplog):
    lines = "".join(f"{'C' * n},{n},{text}\n" for n, text in enumerate(texts.split(","), 1))
    assert datasets.read_table(write(tmp_path, f"smiles,y,name\n{lines}")).label_names == ("y",)
    assert not caplog.text


def test_the_log_says_which_columns_are_labels(tmp_path, caplog):
    caplog.set_level("INFO", "moleclip")
    file = write(tmp_path, ",smiles,y,note\n0,CCO,1.5,a\n1,CC,2.5,b\n")
    assert datasets.read_table(file).label_names == ("y",)
    assert "mine.csv: column '' has no name and is not used as a label" in caplog.text
    assert "mine.csv: labels are 'y'; not used: '', 'note'" in caplog.text
    with pytest.raises(ValueError, match=r"mine\.csv: label 'y' is named twice"):
        datasets.read_table(file, labels=["y", "y"])


@pytest.mark.parametrize("name", ["row", "part", "heavy_atoms", "similarity"])
def test_labels_with_the_name_of_a_tables_column(tmp_path, name, caplog):
    file = write(tmp_path, f"smiles,{name},y\nCCO,1,0.5\nCC,2,1.5\n")
    assert datasets.read_table(file).label_names == ("y",)
    assert f"column {name!r} is not used as a label" in caplog.text
    with pytest.raises(ValueError, match=f"{name!r} cannot be the name of a label"):
        datasets.read_table(file, labels=[name])


@pytest.mark.parametrize("labels", [[], "all"])
def test_a_corpus_may_call_its_column_of_smiles_otherwise(tmp_path, caplog, labels):
    """Every row is read, also those that were looked at to find the column; two such columns are refused."""
    rows = [("C" * n, 2 * n) for n in range(1, 31)] + [("not one", 0)]
    file = write(tmp_path, "id,Structure,y\n" + "".join(f"a-{y},{text},{y}\n" for text, y in rows))
    found = datasets.load(str(file), labels=labels)
    assert found.smiles == tuple(text for text, _ in rows)
    assert found.label_names == (("y",) if labels else ())
    assert "has no column 'smiles'; SMILES are read from 'Structure', which alone holds any" in caplog.text
    assert len(datasets.read_molecules(str(file))) == 30
    with pytest.raises(ValueError, match="SMILES seem to be in 'Structure'"):
        datasets.load(str(file), labels=["y"])
    write(tmp_path, "Structure,product\nC,CC\n")
    with pytest.raises(ValueError, match="SMILES seem to be in 'Structure' or 'product'"):
        datasets.load(str(file), labels=labels)


def test_a_quoted_line_break_moves_the_numbers_of_lines(tmp_path):
    file = write(tmp_path, 'smiles,"log\nP"\nCCO,1\n\n"C\nC",2\nC,high\n')
    with pytest.raises(ValueError, match=r"line 7, column 'log\\nP': 'high'"):
        datasets.read_table(file)


def test_a_missing_column_is_named(tmp_path):
    file = write(tmp_path, "id,structure,y\na,CCO,1\nb,CC,2\n")
    with pytest.raises(
        ValueError, match="no column 'smiles'; it has 'id', 'structure', 'y'; SMILES seem to be in 'stru"
    ):
        datasets.read_table(file)
    with pytest.raises(ValueError, match=r"no column 'structur'.*: name that column"):
        datasets.read_table(file, smiles="structur")
    with pytest.raises(ValueError, match=r"has no column 'z' of labels; known are id, y"):
        datasets.read_table(file, smiles="structure", labels=["z"])


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (name, ["7", "3", "5"])
        for name in ("index", "indices", "ID", "Compound ID", "cas", "CAS No.", "Year", "#", "CID")
    ]
    + [("ligand", [str(number) for number in range(first, first + 12)]) for first in (0, 1)],
)
def test_counters_and_identifiers_are_no_labels(tmp_path, header, values, caplog):
    lines = "".join(f"{value},{'C' * (n + 1)},{n * n}\n" for n, value in enumerate(values))
    file = write(tmp_path, f"{header},smiles,y\n{lines}")
    assert datasets.read_table(file).label_names == ("y",)
    assert datasets.read_table(file, labels=[header]).label_names == (header,)
    assert f"column {header!r} looks like a row number or an identifier: should it be a label?" in caplog.text


@pytest.mark.parametrize("header", ["yield", "acid", "pKa_acid", "log P", "Identity", "yearly", "nitride"])
def test_labels_are_no_identifiers(tmp_path, header):
    file = write(tmp_path, f"smiles,{header}\nCC,1\nC,2\n")
    assert datasets.read_table(file).label_names == (header,)


@needs_data
def test_the_papers_file_of_yields_is_not_learnt_by_its_row_number():
    assert datasets.load(str(downloads.fetch("Phosphines_yield"))).label_names == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smiles;y\nC;1,5\nCC;-2\nCCC;\n", [1.5, -2, np.nan]),
        ("smiles\ty\nC\t1,5\nCC\t0,125\nCCC\t2e-3\n", [1.5, 0.125, 0.002]),
        ("smiles;y\nC;1.5\nCC;2.5\n", [1.5, 2.5]),
        ('smiles;"y, kcal/mol"\nC;1,5\n', [1.5]),
    ],
)
def test_decimal_commas(tmp_path, text, expected):
    np.testing.assert_array_equal(datasets.read_table(write(tmp_path, text)).labels[:, 0], expected)


@pytest.mark.parametrize("text", ["smiles;y\nC;1,234\nCC;12,500\n", "smiles;y\nC;1,5\nCC;2.5\n", 'smiles,y\nC,"1,5"\n'])
def test_a_comma_that_may_mean_two_things_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"line 2, column 'y': '1,.*' is not a finite number"):
        datasets.read_table(write(tmp_path, text), labels=["y"])


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="nci_5k"):
        datasets.load("nci")


def test_clean_reports_every_row_with_its_reason():
    molecules, unreadable = datasets.clean(ETHANOL_TWICE)
    assert molecules["row"].tolist() == [0, 2]
    assert molecules["duplicate_of"].tolist() == [-1, 0]
    assert molecules["y"].tolist() == [0.0, 2.0]
    assert unreadable["row"].tolist() == [1, 3, 4]
    assert ["SMILES" in unreadable["reason"][0], "valence" in unreadable["reason"][1]] == [True, True]
    assert unreadable["reason"][2] == "no atoms"


def test_each_molecule_that_is_left_out_is_named(caplog):
    assert len(datasets.readable(ETHANOL_TWICE, None, 0)) == 2
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "made, row 1",
        "made, row 3",
        "made, row 4",
    ]


def test_summary_counts():
    summary = datasets.summary(ETHANOL_TWICE, *datasets.clean(ETHANOL_TWICE))
    assert (summary["molecules"], summary["unreadable"], summary["duplicates"]) == (5, 3, 1)


def test_labels_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        datasets.Dataset("made", ("C", "CC"), np.zeros((3, 1)), ("y",))


@pytest.mark.parametrize("ending", [".smi", ".smi.gz", ".csv", ".parquet"])
def test_a_file_of_molecules_takes_the_place_of_a_set(tmp_path, monkeypatch, ending):
    file = tmp_path / f"mine{ending}"
    text = "CCO ethanol\nnonsense x\nC methane\n"
    if ending == ".smi":
        file.write_text(text)
    elif ending == ".smi.gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        table = pd.DataFrame({"smiles": [line.split()[0] for line in text.splitlines()], "row": 7, "k_obs": 0.5})
        table.to_csv(file, index=False) if ending == ".csv" else table.to_parquet(file)
    dataset = datasets.load(str(file))
    assert (dataset.name, dataset.smiles) == ("mine", ("CCO", "nonsense", "C"))
    assert datasets.read_molecules(str(file))["canonical_smiles"].tolist() == ["CCO", "C"]
    assert datasets.files(str(file)) == [file]
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path.parent))
    assert datasets.load(f"{tmp_path.name}/{file.name}").smiles == dataset.smiles
    assert datasets.files(f"{tmp_path.name}/{file.name}") == [file]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.load(f"nowhere{ending}")


def test_several_sources_are_joined(tmp_path):
    for name, text in (("a", "CCO\nC\nnonsense\n"), ("b", "OCC\nCC\nCC\n")):
        (tmp_path / f"{name}.smi").write_text(text)
    sources = [str(tmp_path / f"{name}.smi") for name in "ab"]
    joined = datasets.read_molecules(sources)
    assert joined["set"].tolist() == ["a", "a", "b", "b", "b"]
    assert joined["smiles"].tolist() == ["CCO", "C", "OCC", "CC", "CC"]
    assert joined["row"].tolist() == list(range(5))
    assert joined["duplicate_of"].tolist() == [-1, -1, 0, -1, 3]
    assert datasets.files(sources) == [tmp_path / "a.smi", tmp_path / "b.smi"]


def test_missing_table_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="run the notebook"):
        datasets.read_molecules("nowhere/molecules.parquet")


def test_parse_agrees_with_rdkit():
    assert Chem.MolToSmiles(molecules.parse("OCC")) == "CCO"


def test_a_sample_is_seeded_and_without_repetition():
    drawn = seeds.sample(1000, 50, seed=3)
    assert len(set(drawn)) == 50
    assert drawn.tolist() == sorted(seeds.sample(1000, 50, seed=3))
    assert drawn.tolist() != seeds.sample(1000, 50, seed=4).tolist()
    assert seeds.sample(40, 50, seed=3).tolist() == list(range(40))


def test_a_sample_keeps_the_rows_of_its_source():
    dataset = datasets.load("chembl2321810")
    rows = seeds.sample(len(dataset), 30, seed=0)
    molecules, unreadable = datasets.clean(dataset, rows=rows)
    assert sorted([*molecules["row"], *unreadable["row"]]) == rows.tolist()
    assert list(molecules["smiles"]) == [dataset.smiles[row] for row in molecules["row"]]
    assert list(molecules["activity"]) == [dataset.labels[row, 0] for row in molecules["row"]]
