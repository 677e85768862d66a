"""The robustness card: against encoders whose answer is known, and the other enantiomer."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from torch import nn

from moleclip import datasets, drawing, encoder, molecules
from moleclip.explain import robustness, saliency
from moleclip.io import files
from moleclip.workflow import params

SMILES = [*datasets.load("chembl2321810").smiles[:60:10], "C[C@H](N)C(=O)O", "C[C@@H](O)C(N)=O"]


class Pooled(nn.Module):
    """A tower that sees coarse cells only."""

    def __init__(self, cells):
        super().__init__()
        self.cells, self.weight = cells, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, self.cells).flatten(1) + self.weight


def looking_at(cells):
    made = encoder.load("small/random").eval()
    made.visual = Pooled(cells)
    return made


def measured(*arguments):
    return robustness.card(robustness.moves(*arguments)).set_index("change")


@pytest.fixture(scope="module")
def card():
    return measured(looking_at(16), SMILES)


@pytest.mark.parametrize("smiles", ["C[C@H](N)C(=O)O", "CC(C)(C)OC(=O)N1C[C@H]2C[C@@H]1CN2", "C/C=C/[C@@H](O)C"])
def test_the_other_enantiomer(smiles):
    """RDKit's own names of the centres are all exchanged, and twice mirrored is as before."""
    molecule = Chem.MolFromSmiles(smiles)
    other = Chem.MolFromSmiles(molecules.mirror(smiles))
    names, others = (dict(Chem.FindMolChiralCenters(mol, useLegacyImplementation=False)) for mol in (molecule, other))
    assert others == {atom: {"R": "S", "S": "R"}[name] for atom, name in names.items()}
    assert Chem.CanonSmiles(molecules.mirror(Chem.MolToSmiles(other))) == Chem.MolToSmiles(molecule)


def test_enantiomers_are_drawn_at_the_same_place():
    prepared = [drawing.prepare(molecule) for molecule in (SMILES[-1], molecules.mirror(SMILES[-1]))]
    assert np.allclose(*map(drawing.atom_positions, prepared))
    assert (drawing.draw(prepared[0]) != drawing.draw(prepared[1])).any()


@pytest.mark.parametrize("smiles", ["CCO", "CC(N)C(=O)O", "O[C@H](C(=O)O)[C@@H](O)C(=O)O"])
def test_no_other_enantiomer(smiles):
    """Achiral, of unknown configuration, and meso-tartaric acid."""
    assert not molecules.chiral(smiles)
    with pytest.raises(ValueError, match="own mirror image"):
        molecules.mirror(smiles)


def test_unknown_centres_get_a_configuration():
    given = ["no molecule", "CCO", "CC(N)C(=O)O", "C[C@H](N)C(=O)O", "CC(O)C(C)Cl"]
    found = robustness.configured(given, 9, np.random.default_rng(0))
    assert [Chem.CanonSmiles(text.replace("@", "").replace("[CH]", "C")) for text in found] == [
        Chem.CanonSmiles(text.replace("@", "").replace("[CH]", "C")) for text in given[2:]
    ]
    assert found[1] == given[3]  # what is known stays
    assert all(map(molecules.chiral, found))
    assert robustness.configured(given, 9, np.random.default_rng(0)) == found
    assert len(robustness.configured(given, 1, np.random.default_rng(0))) == 1


def test_every_change_changes_the_drawing(card):
    assert list(card.index) == list(robustness.CHANGES)
    counted = card["molecules"].drop(robustness.ENANTIOMER)
    assert (counted >= len(SMILES) - 2).all()
    assert card.loc[robustness.ENANTIOMER, "molecules"] == sum(map(molecules.chiral, SMILES)) == 2


def test_numbers_by_a_second_way(card):
    """One change, computed molecule by molecule."""
    tower = looking_at(16)

    def embedded(style):
        images = np.stack([drawing.draw(text, style) for text in SMILES])
        rows = tower(torch.from_numpy(images)).detach().numpy().astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    plain, turned = embedded(drawing.PLAIN), embedded(drawing.Style(rotation=90.0))
    moved = [1 - a @ b for a, b in zip(plain, turned, strict=True)]
    pairs = [1 - plain[i] @ plain[j] for i in range(len(SMILES)) for j in range(len(SMILES)) if i != j]
    line = card.loc["rotated by 90 degrees"]
    assert line["distance"] == pytest.approx(np.mean(moved) / np.mean(pairs), rel=1e-4)
    assert (line["low"], line["high"]) == pytest.approx(np.quantile(moved, [0.05, 0.95]) / np.mean(pairs), rel=1e-4)
    assert line["retrieved"] == np.mean([np.argmax(plain @ row) == number for number, row in enumerate(turned)])


def test_an_encoder_that_sees_no_place_is_not_moved_by_rotation():
    """The mean colour of a drawing: a quarter turn, which moves pixels only, hardly changes it, and R-groups do."""
    card = measured(looking_at(1), SMILES, None, lambda embeddings: embeddings[:, 0])
    assert card.loc["rotated by 180 degrees", "shift"] < 0.2 * card.loc["lines: 4 pixels", "shift"]
    assert np.isfinite(card["distance"]).all()


def test_predictions_move_in_their_own_unit():
    tower, head = looking_at(4), nn.Linear(48, 2)
    predict = saliency.readout(head, 1)
    one = measured(tower, SMILES[:3], [], predict)
    thrice = measured(tower, SMILES[:3], [], lambda rows: 3 * predict(rows))
    assert thrice.loc["lines: 4 pixels", "shift"] == pytest.approx(3 * one.loc["lines: 4 pixels", "shift"])
    assert one.loc[robustness.ENANTIOMER, "molecules"] == 0
    assert np.isnan(one.loc[robustness.ENANTIOMER, "distance"])
    probability = saliency.readout(head, 1, "classification")(torch.ones(1, 48))
    assert probability.item() == pytest.approx(torch.sigmoid(head(torch.ones(1, 48)))[0, 1].item())


def test_one_molecule_is_too_few():
    with pytest.raises(ValueError, match="need at least 2"):
        robustness.moves(looking_at(4), ["CCO", "CCO"])


def test_profiles_explore_what_they_make():
    """The model of each profile is one of its jobs, and keeps its weights."""
    for profile in params.profiles():
        parameters, fan_out = params.read_profile(files.ROOT / "params" / profile)
        chosen = parameters["07_explore_encoder"]
        jobs = {job.overrides["output"]: job for job in params.jobs(fan_out, f"runs/{profile}/finetune")}
        job = jobs[chosen.model]
        assert job.dataset == chosen.dataset
        file = files.ROOT / "params" / profile / params.parameter_file(params.FINETUNE)
        assert params.read(params.FINETUNE, file, **job.overrides).keep_models
