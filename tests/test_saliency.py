"""Attributions add up, follow what they must, and the tests of them tell a true explanation from a false one."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from moleclip import drawing, encoder
from moleclip.explain import saliency
from moleclip.plots import explanations

SMILES = ["CC(=O)Nc1ccc(O)cc1", "C[C@H](N)C(=O)O", "Clc1ccccc1"]


@pytest.fixture(scope="module")
def tower():
    return encoder.load("small/random", 3).eval()


@pytest.fixture(scope="module")
def found(tower):
    return saliency.explain(tower, SMILES, steps=24)


class Shade(nn.Module):
    """A tower that sums weighted ink: its gradients are known."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(weights))

    def forward(self, images):
        ink = (images.amax(dim=(1, 2, 3), keepdim=True) - images).mean(dim=1)
        return torch.stack([(ink * self.weights).sum(dim=(1, 2)), ink.sum(dim=(1, 2))], dim=1)


def shaded(weights):
    made = encoder.load("small/random").eval()
    made.visual = Shade(weights)
    return made


def first(embeddings):
    return embeddings[:, 0]


def test_attributions_add_up_to_the_change_from_the_blank_drawing(tower, found):
    for one in found:
        assert one.value == pytest.approx(1, abs=1e-5)  # the cosine to itself
        assert abs(one.value - one.blank) > 1e-3
        assert one.pixels.sum() == pytest.approx(one.value - one.blank, rel=0.02)
        assert one.atoms.sum() == pytest.approx(one.pixels.sum(), rel=1e-9)


def test_a_head_is_explained_in_its_own_unit(tower):
    torch.manual_seed(0)
    head = encoder.head(tower.tower.embed_dim, 2)
    for column in (0, 1):
        (one,) = saliency.explain(tower, SMILES[:1], saliency.readout(head, column), 64)
        blank, drawn = (
            head(tower(torch.from_numpy(image[None])))[0, column].item()
            for image in (np.full((224, 224, 3), 255, np.uint8), drawing.draw(SMILES[0]))
        )
        assert (one.blank, one.value) == pytest.approx((blank, drawn), abs=1e-6)
        assert abs(one.atoms.sum() - (drawn - blank)) <= saliency.TOLERANCE * np.abs(one.pixels).sum()


def test_white_pixels_have_no_attribution(found):
    for one in found:
        white = (one.image == 255).all(axis=2)
        assert (one.pixels[white] == 0).all()
        assert (one.pixels[~white] != 0).any()


def test_the_plain_gradient_of_a_sum_is_its_weight_by_patch():
    weights = np.zeros((224, 224))
    weights[:16, 16:32], weights[100, 100] = -2.0, 256.0
    image = drawing.draw(SMILES[0])
    found = saliency.plain_gradient(shaded(weights), first, image)
    expected = np.zeros((14, 14))
    expected[0, 1], expected[6, 6] = 2 / 3, 1 / 3  # of the mean over three colours; one of 256 pixels
    np.testing.assert_allclose(
        found, expected, atol=2e-3
    )  # the white of the drawing, from which ink is counted, has some
    assert saliency.plain_gradient(shaded(weights), first, image, 100).shape == (3, 3)


def test_gradients_of_a_sum_are_its_weights():
    """Exact, whatever the steps: with weights on one half of the drawing, only its atoms have attributions."""
    weights = np.zeros((224, 224), np.float32)
    weights[:, :112] = np.random.default_rng(0).uniform(0.5, 1, (224, 112))
    (one,) = saliency.explain(shaded(weights), SMILES[2:], first, 2)
    ink = (255 - one.image.mean(axis=2)) / (255 * 0.14)
    assert np.allclose(one.pixels, ink * weights, rtol=1e-4, atol=1e-4)
    left = one.positions[:, 0] < 90
    assert np.abs(one.atoms[one.positions[:, 0] > 135]).max() < 1e-6 < one.atoms[left].min()


def test_pixels_belong_to_the_nearest_atom(found):
    """Against every distance, one by one."""
    one, owners = found[0], found[0].owners
    for row, column in np.random.default_rng(0).integers(0, 224, (200, 2)):
        distances = np.hypot(one.positions[:, 0] - column - 0.5, one.positions[:, 1] - row - 0.5)
        assert distances[owners[row, column]] == pytest.approx(distances.min())


def test_ink_is_shared_out(found):
    """Chlorobenzene: all of it, and the same to the atoms on either side."""
    one = found[2]
    assert one.ink.sum() == pytest.approx((255 - one.image.mean(axis=2)).sum() / 255)
    assert one.ink[[2, 3]] == pytest.approx(one.ink[[6, 5]], rel=0.05)


def test_patches_keep_the_sum(found):
    assert found[0].patches(32).shape == (7, 7)
    assert found[0].patches(50).shape == (5, 5)  # the last ones reach over the edge
    assert found[0].patches(32)[1, 2] == pytest.approx(found[0].pixels[32:64, 64:96].sum())
    for side in (32, 50):
        assert found[0].patches(side).sum() == pytest.approx(found[0].pixels.sum())


def test_deletion_begins_with_the_drawing_and_ends_blank(tower, found):
    curves = saliency.deletion(tower, found, np.random.default_rng(0), repeats=2, stages=5)
    assert len(curves) == len(found) * 3 * 5
    assert (curves.loc[curves["deleted"] == 0, "change"] == 0).all()
    for number, one in enumerate(found):
        ends = curves[(curves["molecule"] == number) & (curves["deleted"] == 1)]["change"]
        assert ends.to_numpy() == pytest.approx(abs(one.value - one.blank), abs=1e-5)


def test_deletion_knows_a_true_explanation_from_a_false_one():
    """Of a known sum, no order is faster than by its attributions, and none slower than the reverse of it."""
    rng = np.random.default_rng(1)
    tower = shaded(rng.uniform(0, 1, (224, 224)).astype(np.float32) ** 8)
    true = saliency.explain(tower, SMILES, first, 2)
    # Upside down: the largest attributions become the smallest.
    false = [one._replace(pixels=1 / np.maximum(one.atoms, 1e-9)[one.owners]) for one in true]
    areas = [
        saliency.areas(saliency.deletion(tower, found, np.random.default_rng(0), repeats=8)) for found in (true, false)
    ]
    assert (areas[0]["attribution"] > areas[0]["random"]).all()
    assert (areas[0]["attribution"] >= areas[0]["ink"]).all()
    assert (areas[1]["attribution"] < areas[1]["random"]).all()


def test_area_by_hand():
    rows = [(0, "attribution", 0.0, 0.0), (0, "attribution", 0.5, 1.0), (0, "attribution", 1.0, 1.0)]
    rows += [(0, name, share, share) for name in ("ink", "random") for share in (0.0, 0.5, 1.0)]
    areas = saliency.areas(pd.DataFrame(rows, columns=["molecule", "order", "deleted", "change"]))
    assert areas.loc[0].to_dict() == pytest.approx({"attribution": 0.75, "ink": 0.5, "random": 0.5})


def test_random_orders_have_a_seed(tower, found):
    one, again, other = (
        saliency.deletion(tower, found[:1], np.random.default_rng(seed), repeats=1, stages=4) for seed in (0, 0, 1)
    )
    assert np.allclose(one["change"], again["change"], atol=1e-6)
    assert not np.allclose(one["change"], other["change"], atol=1e-6)


def test_random_weights_are_others_and_leave_the_trained_ones_alone(tower):
    head = encoder.head(tower.tower.embed_dim, 1)
    before = [copy.deepcopy(module.state_dict()) for module in (tower, head)]
    fresh, top = saliency.randomised(tower, 0, head)
    again, _ = saliency.randomised(tower, 0)
    assert fresh.preprocess == tower.preprocess
    for module, state in zip((tower, head), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert not torch.equal(fresh.visual.proj, tower.visual.proj)
    assert torch.equal(fresh.visual.proj, again.visual.proj)
    assert not torch.equal(top[0].weight, head[0].weight)


def test_agreement_is_one_with_itself_and_blind_to_sign_and_scale(found):
    scaled = [one._replace(pixels=-2 * one.pixels) for one in found]
    assert saliency.agreement(found, [one.atoms for one in scaled]) == pytest.approx(1)
    flat = [one._replace(pixels=np.zeros_like(one.pixels)) for one in found]
    assert np.isnan(saliency.agreement(found, [one.atoms for one in flat])).all()
    assert np.isnan(saliency.agreement(flat, [one.atoms for one in found])).all()


def test_a_trial_has_a_verdict_per_measure(tower, style):
    trials = {"made": saliency.trial(tower, SMILES, 0, steps=4, repeats=1)}
    verdicts = saliency.verdicts(trials).set_index("measure")
    area = saliency.areas(trials["made"].curves)
    difference = verdicts.loc["deletion area, attribution - random"]
    assert difference["mean"] == pytest.approx((area["attribution"] - area["random"]).mean())
    assert difference["low"] < difference["mean"] < difference["high"]
    ranks = verdicts.loc["rank correlation, random weights", "mean"]
    assert ranks == pytest.approx(trials["made"].agreements["random weights"].mean())
    assert (verdicts["molecules"] == 3).all()
    curves, agreements = trials["made"].curves, trials["made"].agreements
    axes = explanations.saliency_tests({"made": (curves, agreements)}).axes
    assert len(axes) == 2
    line = curves[curves["order"] == "attribution"].groupby("deleted")["change"].mean()
    assert axes[0].lines[0].get_ydata() == pytest.approx(line.to_numpy())
    assert axes[1].lines[0].get_xdata()[0] == pytest.approx(ranks)


def test_every_atom_has_a_disk_and_every_patch_a_colour(found, style):
    for one in [*found, *saliency.explain(encoder.load("small/random"), ["C"], steps=2)]:
        _, axes = plt.subplots(2)
        explanations.attributions(axes, one.image, one.patches(50), 50, one.atoms, one.positions)
        assert [disk.center for disk in axes[1].patches] == [pytest.approx(place) for place in one.positions]
        assert axes[0].images[0].get_array().shape[:2] == (5, 5)
        for ax in axes:
            low, high = ax.get_ylim()  # y of pictures is downwards
            assert high < one.positions[:, 1].min() <= one.positions[:, 1].max() < low


def test_a_molecule_that_cannot_be_drawn_is_an_error(tower):
    with pytest.raises(ValueError, match="SMILES"):
        saliency.explain(tower, ["CCO", "no molecule"], steps=2)
