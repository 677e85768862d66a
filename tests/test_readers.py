"""Molecules in any form: read in order, nothing lost, pictures never distorted."""

import gzip
import io

import cv2
import numpy as np
import openpyxl
import pandas as pd
import PIL.Image
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from moleclip import datasets, drawing
from moleclip.apply import readers
from moleclip.drawing import PLAIN, draw
from moleclip.io import molecule_files

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O"]


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda texts: np.array(texts, object)[:, None],
        pd.Series,
        lambda texts: pd.DataFrame({"structure": texts}),
    ],
    ids=["list", "tuple", "iterator", "array", "column of an array", "series", "table"],
)
def test_any_container_keeps_the_order(form):
    assert [str(record.item) for record in readers.records(form(SMILES))] == SMILES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("CCO", r"'CCO': give a list of SMILES, \['CCO'\]"),
        (Chem.MolFromSmiles("CCO"), "one molecule"),
        (np.zeros((3, 4)), "expected one column"),
        (np.zeros(3), "numbers"),
        ([1.0, 2.0], "numbers"),
        (pd.DataFrame({"a": SMILES, "b": SMILES}), "expected one column"),
        (pd.Series([1.0, 2.0]), "numbers"),
        (pd.DataFrame({"a": [1, 2]}), "numbers"),
        (drawing.draw("CCO"), "one picture"),
    ],
)
def test_what_holds_no_molecules_is_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        readers.records(given)


def write_sdf(path, broken=False):
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        writer = Chem.SDWriter(file)
        for number, text in enumerate(SMILES):
            molecule = Chem.AddHs(Chem.MolFromSmiles(text))
            AllChem.EmbedMolecule(molecule, randomSeed=1)
            molecule.SetProp("_Name", f"number {number}")
            writer.write(molecule)
        writer.close()
        if broken:
            file.write("nonsense\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\nX\nM  END\n$$$$\n")
    return path


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".smi", ".smi.gz", ".sdf", ".sdf.gz"])
def test_every_kind_of_file_gives_the_same_molecules(tmp_path, ending):
    path = tmp_path / f"molecules{ending}"
    if ".sdf" in ending:
        write_sdf(path)
    else:
        lines = ["name,SMILES", *(f"x,{text}" for text in SMILES)] if ".csv" in ending else SMILES
        text = "\n".join(lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    records = list(readers.read(path))
    assert [Chem.MolToSmiles(readers.molecule(record.item)) for record in records] == [
        Chem.CanonSmiles(text) for text in SMILES
    ]
    assert {tuple(record.fields) for record in records} in (
        {("name", "SMILES")},
        {("smiles", "name")},
    )


def test_a_molecule_in_3d_with_hydrogens_is_drawn_as_its_smiles_is(tmp_path):
    for record, text in zip(readers.read(write_sdf(tmp_path / "m.sdf")), SMILES, strict=True):
        np.testing.assert_array_equal(
            readers.draw(record.item, [drawing.PLAIN], 224)[0], drawing.draw(Chem.RemoveHs(Chem.MolFromSmiles(text)))
        )


def test_a_bad_record_of_an_sdf_file_keeps_its_place(tmp_path):
    records = list(readers.read(write_sdf(tmp_path / "m.sdf", broken=True)))
    assert [isinstance(record.item, molecule_files.Unreadable) for record in records] == [False, False, False, True]
    assert readers.name(records[3].item) == "nonsense"
    with pytest.raises(ValueError, match="not a molecule of an SDF file"):
        readers.draw(records[3].item, [drawing.PLAIN], 224)


def test_why_rdkit_refuses_a_record_of_an_sdf_file(tmp_path):
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CN(C)(C)C", sanitize=False), kekulize=False)
    (tmp_path / "m.sdf").write_text(f"five bonds{block}$$$$\n")
    (record,) = readers.read(tmp_path / "m.sdf")
    with pytest.raises(ValueError, match="Explicit valence for atom # 1 N, 4, is greater than permitted"):
        readers.draw(record.item, [drawing.PLAIN], 224)


def test_data_fields_of_an_sdf_file_are_columns(tmp_path):
    writer = Chem.SDWriter(str(tmp_path / "m.sdf"))
    given = {"ID": "A 2", "note": "two\nlines", "smiles": "c1ccccc1"}  # the structure counts
    for text, fields in (("CCO", {"ID": "A 1"}), ("CO", given), ("C", {})):
        molecule = Chem.MolFromSmiles(text)
        for name, value in fields.items():
            molecule.SetProp(name, value)
        writer.write(molecule)
    writer.close()
    found = pd.DataFrame([record.fields for record in readers.read(tmp_path / "m.sdf")])
    assert found.to_dict("list") == {
        "smiles": ["CCO", "CO", "C"],
        "name": ["", "", ""],
        "ID": ["A 1", "A 2", ""],
        "note": ["", "two\nlines", ""],
        "smiles_given": ["", "c1ccccc1", ""],
    }
    assert datasets.load(str(tmp_path / "m.sdf"), labels=[]).smiles == ("CCO", "CO", "C")


def test_a_name_in_another_encoding_ends_nothing(tmp_path):
    path = write_sdf(tmp_path / "m.sdf")
    path.write_bytes(path.read_bytes().replace(b"number 1", "numéro 1".encode("latin-1")))
    assert [record.fields["name"][:3] for record in readers.read(path)] == ["num"] * 3


@pytest.mark.parametrize("ending", [".sdf.gz", ".smi.gz", ".csv.gz"])
def test_a_truncated_archive_is_named(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    text = "smiles,y\n" + "CCO,1\n" * 10_000
    path.write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(ValueError, match=r"m\..*: cannot be read to its end"):
        list(readers.read(path))


def test_names_of_a_smi_file(tmp_path):
    path = tmp_path / "m.smi"
    path.write_text("CCO ethyl alcohol\n\nCO\tmethanol\nC\nCC 1\tethane\n")
    assert [record.item for record in readers.read(path)] == ["CCO", "CO", "C", "CC"]
    assert [record.fields["name"] for record in readers.read(path)] == ["ethyl alcohol", "methanol", "", "1\tethane"]


HEADER, ROWS = ["Name", "SMILES ", "\u0394G (kcal/mol)"], [["\u00e9thanol", "CCO", "1,5"], ["m\u00fcll", "C", "-2"]]


def delimited(delimiter):
    return "\r\n".join(delimiter.join(row) for row in [HEADER, *ROWS]) + "\r\n"


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("ending", [".csv", ".txt", ".tsv.gz", "stdin"])
def test_delimiters_and_encodings(tmp_path, monkeypatch, caplog, delimiter, encoding, ending):
    caplog.set_level("INFO", "moleclip")
    text = delimited(delimiter)
    content = (text.replace("\u0394", "D") if encoding == "cp1252" else text).encode(encoding)
    path = str(tmp_path / f"m{ending}") if ending != "stdin" else "-"
    if ending == "stdin":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    else:
        (tmp_path / f"m{ending}").write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    file = molecule_files.read(path)
    records = list(file.records)
    assert [record.item for record in records] == ["CCO", "C"]
    assert [record.fields["Name"] for record in records] == ["\u00e9thanol", "m\u00fcll"]
    assert [list(record.fields.values())[2] for record in records] == ["1,5", "-2"]
    assert file.commas
    assert {";": "semicolons", "\t": "tabs"}[delimiter] in caplog.text
    assert encoding.upper().removesuffix("-SIG") in caplog.text.upper()
    assert "SMILES in 'SMILES '" in caplog.text


def spreadsheet(path, rows, sheets=("notes", "data")):
    book = openpyxl.Workbook()
    book.active.title = sheets[0]
    book.active.append(["remarks"])
    sheet = book.create_sheet(sheets[1])
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def test_a_spreadsheet(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "moleclip")
    rows = [
        ["Name", "Smiles", "ddG", "active"],
        ["a", "CCO", 1.5, True],
        [],
        ["b", "C", 2, False],
        ["c", "CC", None, None],
    ]
    path = spreadsheet(tmp_path / "m.xlsx", rows)
    records = list(readers.read(path))
    assert [record.item for record in records] == ["CCO", "C", "CC"]
    assert [record.line for record in records] == [2, 4, 5]
    assert [record.fields["ddG"] for record in records] == ["1.5", "2", ""]
    assert [record.fields["active"] for record in records] == ["1", "0", ""]
    assert "sheet 'data' of 2" in caplog.text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert list(readers.read("-")) == records
    np.testing.assert_array_equal(datasets.load(str(path), labels=["ddG"]).labels[:, 0], [1.5, 2, np.nan])


def test_what_is_above_the_header_of_a_sheet(tmp_path, caplog):
    caplog.set_level("INFO", "moleclip")
    rows = [["Screen, May"], [], [None, "No.", "SMILES", "y"], [None, 1, "CCO", 1.5], [], [None, 2, "C1CC", 2]]
    path = spreadsheet(tmp_path / "m.xlsx", rows)
    records = list(readers.read(path))
    assert [(record.item, record.line) for record in records] == [("CCO", 4), ("C1CC", 6)]
    assert "without what is above its header in row 3" in caplog.text
    with pytest.raises(ValueError, match=r"has no column 'smile'; it has .*; SMILES seem to be in"):
        list(readers.read(path, "smile"))
    dataset = datasets.load(str(path), labels=["y"])
    assert len(datasets.readable(dataset, None, 0)) == 1
    assert "m, line 6: left out, 'C1CC': not a SMILES string" in caplog.text
    (tmp_path / "m.csv").write_text("Screen in May\nNo.,SMILES,y\n1,CCO,1.5\n")
    with pytest.raises(ValueError, match=r"line 2: has 3 fields, the header has 1 \(Screen in May\): delete what is"):
        list(readers.read(tmp_path / "m.csv"))


def test_what_is_wrong_with_a_spreadsheet_is_named(tmp_path):
    path = spreadsheet(tmp_path / "m.xlsx", [["smiles", "y"], ["CCO", "=1+1"]])
    with pytest.raises(ValueError, match=r"row 2: the formula '=1\+1' has no stored result"):
        list(readers.read(path))
    with pytest.raises(ValueError, match="row 3: has 3 fields, the header has 2"):
        list(readers.read(spreadsheet(path, [["smiles", "y"], ["CCO", 1], ["C", 1, 2]])))
    with pytest.raises(
        ValueError, match="no column 'smiles'; it has 'structure', 'y'; SMILES seem to be in 'structure'"
    ):
        list(readers.read(spreadsheet(path, [["structure", "y"], ["CCO", 1]], ("data", "z")), "smiles"))
    path.write_bytes(b"PK\x03\x04 no spreadsheet")
    with pytest.raises(ValueError, match=r"not an .xlsx file"):
        list(readers.read(path))
    (tmp_path / "m.xls").touch()
    with pytest.raises(ValueError, match=r"save the spreadsheet as .xlsx or .csv"):
        list(readers.read(tmp_path / "m.xls"))


def test_sdf_and_gzip_on_standard_input(tmp_path, monkeypatch):
    for content in (path.read_bytes() for path in (write_sdf(tmp_path / "m.sdf"), write_sdf(tmp_path / "m.sdf.gz"))):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert [Chem.MolToSmiles(record.item) for record in readers.read("-")] == list(map(Chem.CanonSmiles, SMILES))


def test_parquet(tmp_path):
    table = pd.DataFrame({"id": [1, 2], "SMILES": ["CCO", None], "y": [0.1, np.nan], "active": [True, False]})
    table.to_parquet(tmp_path / "m.parquet")
    records = list(readers.read(tmp_path / "m.parquet"))
    assert [record.fields for record in records] == [
        {"id": "1", "SMILES": "CCO", "y": "0.1", "active": "1"},
        {"id": "2", "SMILES": "", "y": "", "active": "0"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "items"),
    [
        ("a.txt", "CCO\tethanol\nC\tmethane\n", ["CCO", "C"]),
        ("a.smi", "id\tsmiles\n1\tCCO\n", ["CCO"]),
        ("a.smi", "CCO;x\nC\n", ["CCO;x", "C"]),
        ("a.csv", "smiles\nCCO\n", ["CCO"]),
    ],
)
def test_a_table_or_lines_of_smiles(tmp_path, name, text, items):
    (tmp_path / name).write_text(text)
    assert [record.item for record in readers.read(tmp_path / name)] == items


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "structure,y\nC,1\n", "no column 'smiles'; it has 'structure', 'y'"),
        ("a.csv", "smiles,y\nC,1\nCC\n", "line 3: has 1 fields, the header has 2"),
        ("a.csv", "", "no header"),
        ("a.docx", "CCO", r"expected a file that ends with \.csv, .*\.xlsx"),
        ("a.csv.gz", "not gzipped", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        list(readers.read(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        readers.records(str(tmp_path / "none.csv"))


def test_standard_input_is_a_table_or_lines(monkeypatch):
    tables = ("id,smiles\n1,CCO\n2,CO\n", "\ufeffsmiles,y\nCCO,1\nCO,2\n", "my name,SMILES\na,CCO\nb,CO\n")
    for text in (*tables, "CCO\nCO\n", "smiles\nCCO\nCO\n", "CCO ethanol, pure\nCO\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert [record.item for record in readers.read(readers.STDIN)] == ["CCO", "CO"]
    monkeypatch.setattr("sys.stdin", io.StringIO("id,structure\n1,CCO\n"))
    with pytest.raises(ValueError, match="no column 'smiles'"):
        list(readers.read(readers.STDIN))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="closed"):
        list(readers.read(readers.STDIN))


def picture(height, width):
    pixels = np.full((height, width, 3), 255, np.uint8)
    cv2.circle(pixels, (width // 2, height // 2), min(height, width) // 4, (0, 0, 0), -1)
    return pixels


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (90, 90), (1000, 1000), (31, 77)])
def test_pictures_are_padded_and_not_distorted(height, width):
    square = readers.picture(picture(height, width), 224)
    dark = np.argwhere(square[..., 0] < 128)
    spans = np.ptp(dark, axis=0) + 1
    expected = 2 * (min(height, width) // 4) * 224 / max(height, width)
    assert square.shape == (224, 224, 3)
    assert abs(spans[0] - spans[1]) <= 3
    np.testing.assert_allclose(spans, expected, atol=max(4, 224 / max(height, width) * 2))
    np.testing.assert_allclose(dark.mean(axis=0), 111.5, atol=3)
    assert square[0, 0].tolist() == [255, 255, 255]


def test_a_drawing_of_the_right_size_is_not_touched():
    drawing = draw("CCO")
    np.testing.assert_array_equal(readers.picture(drawing, 224), drawing)


def test_a_molecule_that_was_prepared_for_drawing_is_laid_out_again():
    text = "Cc1ccc(cc1)S(=O)(=O)N"
    found = readers.draw(drawing.prepare(text), [PLAIN], 224)[0]
    np.testing.assert_array_equal(found, draw(text))


def test_forms_of_one_picture_are_the_same(tmp_path):
    drawing = draw(SMILES[2])
    path = tmp_path / "drawing.png"
    PIL.Image.fromarray(drawing).save(path)
    transparent = np.dstack([drawing, np.where((drawing == 255).all(axis=2), 0, 255).astype(np.uint8)])
    for item in (drawing, PIL.Image.fromarray(drawing), path, str(path), transparent):
        np.testing.assert_array_equal(readers.draw(item, [PLAIN], 224)[0], drawing)
    grey = cv2.cvtColor(drawing, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(readers.draw(grey, [PLAIN], 224)[0], readers.draw(grey[..., None], [PLAIN], 224)[0])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        ("  ", "missing"),
        ("C1CC", "not a SMILES string"),
        ("none.png", "not a picture: .*No such file"),
        (np.zeros((4, 4)), "mode F: expected 8 bits"),
        (np.zeros((4, 4, 7), np.uint8), r"not a picture: Cannot handle this data type"),
        (Chem.MolFromSmiles("CN(C)(C)C", sanitize=False), "valence"),
        (Chem.Mol(), "no atoms"),
        ({"smiles": "C"}, "dict: expected SMILES"),
        (PIL.Image.new("F", (4, 4)), "expected 8 bits"),
    ],
)
def test_why_an_item_cannot_be_drawn(item, message):
    images, reasons = readers.draw_all(["CCO", item, "CO"], [drawing.PLAIN], 64)
    assert reasons[0] == reasons[2] == ""
    assert pd.Series(reasons[1]).str.contains(message).all()
    assert (images[1] == 255).all()
    assert (images[0] < 255).any()


def test_keys_tell_contents_apart(tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture(50, 50)).save(path)
    first = readers.key(path)
    different = [
        "CCO",
        "OCC",
        Chem.MolFromSmiles("CCO"),
        Chem.MolFromSmiles("OCC"),
        picture(50, 50),
        picture(51, 50),
        path,
        None,
    ]
    palettes = [PIL.Image.new("P", (4, 4), 0), PIL.Image.new("P", (4, 4), 0)]
    palettes[1].putpalette([9, 9, 9] * 256)
    noted = Chem.MolFromSmiles("CCO")
    noted.GetAtomWithIdx(0).SetProp("atomNote", "note")
    different += [*palettes, noted]
    assert len({readers.key(item) for item in different}) == len(different)
    PIL.Image.fromarray(picture(60, 60)).save(path)
    assert readers.key(path) != first


def test_r_groups_and_several_styles():
    styles = [drawing.PLAIN, drawing.Style(r_groups=True), drawing.Style(rotation=40)]
    images = readers.draw("CC(N)C(=O)O", styles, 224)
    for image, style in zip(images, styles, strict=True):
        np.testing.assert_array_equal(image, drawing.draw("CC(N)C(=O)O", style))


def test_bundled_file_as_it_is():
    path = datasets._shipped(datasets.RDConfig.RDDataDir, "NCI/first_5K.smi")
    assert [record.item for record in readers.read(path)] == list(datasets.load("nci_5k").smiles)
