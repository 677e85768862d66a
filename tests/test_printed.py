"""What the authors print, read from their workbook, against the numbers of the paper's own tables."""

import numpy as np
import pytest

from moleclip.paper import printed

# Tables of the paper, as text: set, variant, model, score; and what its runs give, to the printed digits.
PRINTED = {
    ("BACE", "original", "Uni-Mol"): "0.857\u00b10.002",
    ("BBBP", "original", "MoleCLIP"): "0.747\u00b10.009",
    ("FreeSolv", "original", "ImageMol"): "2.02\u00b10.07",
    ("ESOL", "original", "ChemBERTa-2"): "0.86",
    ("NHCs", "original", "ImageMol"): "0.0218\u00b10.0026",
    ("Phosphines-selectivity", "original", "MoleCLIPbv"): "0.82\u00b10.03",
    ("DHBDs", "R-replaced", "MoleCLIP"): "0.199\u00b10.02",
    ("Phosphines-yield", "R-replaced", "ImageMol"): "14.4\u00b10.7",
    ("FreeSolv", "original", "control: No augmentations during pretraining"): "2.17\u00b10.14",
    ("ESOL", "original", "control: Pubchem-10m  (2 epochs)"): "0.93\u00b10.03",
}
# Means of the released runs with 95 % t-intervals over splits, by an independent count.
RECOMPUTED = {
    ("DHBDs", "GEM"): (0.183, 9),
    ("NHCs", "MoleCLIP"): (0.0138, 50),
    ("Phosphines-yield", "ImageMol"): (11.3, 50),
    ("Phosphines-selectivity", "MoleCLIP"): (0.946, 50),
}
MEDIANS = {"BACE": 0.808, "BBBP": 0.711, "FreeSolv": 2.476, "ESOL": 1.041}


def test_every_printed_score_is_read(printed_scores):
    table = printed_scores.drop_duplicates(["dataset", "variant", "model"])
    found = table.set_index(["dataset", "variant", "model"])["text"]
    assert {key: found[key] for key in PRINTED} == PRINTED
    # 4 sets of 7 models less one blank, 9 controls on 4 sets, 4 x 4, 5 x 2, 8 x 2: as on the sheets.
    assert len(printed_scores) == 27 + 36 + 16 + 10 + 16
    assert printed_scores["value"].notna().all()


def test_settings_are_read_in_the_form_of_the_runs(printed_scores, released_runs):
    told = printed_scores[printed_scores["head_lr"] != ""]
    assert set(told["head_lr"]) <= set(released_runs["head_lr"])
    gem = told[(told["model"] == "GEM") & (told["dataset"] == "DHBDs")].iloc[0]
    assert (gem["head_lr"], gem["augmentation_or_dropout"]) == ("4e-3 4e-3", "0.1")


def test_means_follow_from_the_runs(printed_scores, released_runs):
    table = printed.recomputed(released_runs, printed_scores).drop_duplicates(["dataset", "model"])
    table = table.set_index(["dataset", "model"])
    for key, (mean, runs) in RECOMPUTED.items():
        assert table.loc[key, "mean"] == pytest.approx(mean, rel=0.005)
        assert table.loc[key, "runs"] == runs
    for name, median in MEDIANS.items():
        assert table.loc[(name, "MoleCLIP"), "median"] == pytest.approx(median, abs=6e-4)


def test_intervals_are_the_papers_and_those_over_splits(printed_scores, released_runs):
    """Each by a count of its own, from the runs of one model."""
    table = printed.recomputed(released_runs, printed_scores)
    line = table[(table["sheet"] == "Phosphines-selectivity") & (table["model"] == "GEM")].iloc[0]
    runs = released_runs[(released_runs["sheet"] == line["sheet"]) & (released_runs["model"] == "GEM")]
    final = runs[runs["stage"] == "final300"].groupby("split")["value"]
    pooled = np.sqrt(final.var().mean())  # the splits have equally many runs
    assert line["spread"] == pytest.approx(1.96 * pooled / np.sqrt(50))
    half = 2.776445 * final.mean().std() / np.sqrt(5)  # t of 4 degrees of freedom
    assert (line["high"] - line["low"]) / 2 == pytest.approx(half, rel=1e-6)


def test_a_score_that_is_none_is_named():
    cells = {(3, 2): "Model", (3, 3): "BACE", (5, 2): "MoleCLIP", (5, 3): "good", (6, 2): "* remark"}
    with pytest.raises(ValueError, match=r"MoleculeNet!C5: 'good' where a score"):
        list(printed._Summary("MoleculeNet", cells).scores())
