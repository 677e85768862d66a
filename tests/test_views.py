"""Batches: the grouping of the method, and results that depend on nothing but the seed."""

from collections import Counter

import numpy as np
import pytest
import torch

from moleclip import datasets, drawing, views
from moleclip.io import seeds
from moleclip.views import GroupedBatches, Views, loader

CLASSES = np.random.default_rng(0).integers(0, 20, 1000)
MOLECULES = drawing.prepare_all(datasets.load("chembl2321810").smiles[:24])["molecule"]


def test_a_mirror_image_comes_right_after_its_molecule():
    of = np.concatenate([np.arange(len(CLASSES)), np.arange(0, len(CLASSES), 10)])
    order = views.grouped_order(CLASSES[of], 64, 64, seed=0, epoch=0, of=of)
    mirrored = np.flatnonzero((order >= len(CLASSES)).ravel())
    assert len(mirrored) > 0.5 * len(of) / 11
    after = [at for at in mirrored if at % 64]  # the cut between two runs may part them
    assert all(order.ravel()[at - 1] == of[order.ravel()[at]] for at in after)


def test_groups_are_runs_of_neighbours():
    order = views.grouped_order(CLASSES, 64, 8, seed=0, epoch=0)
    assert order.shape == (15, 64)
    assert len(set(order.ravel())) == order.size
    mixed = [len(set(CLASSES[group])) for group in order.reshape(-1, 8)]
    # Sorted by class, at most one run a class border spans two classes (and one the wrap-around).
    assert Counter(mixed)[1] >= len(mixed) - 21
    assert np.mean([len(set(CLASSES[batch])) for batch in order]) > 4


def test_each_epoch_has_its_own_order_and_leaves_out_others():
    orders = [views.grouped_order(CLASSES, 64, 8, seed=0, epoch=epoch) for epoch in range(30)]
    assert np.array_equal(orders[3], views.grouped_order(CLASSES, 64, 8, seed=0, epoch=3))
    assert not np.array_equal(orders[0], orders[1])
    left_out = Counter(i for order in orders for i in set(range(1000)) - set(order.ravel()))
    assert max(left_out.values()) < 15


def test_too_few_molecules_for_a_batch():
    with pytest.raises(ValueError, match="do not fill one batch"):
        views.grouped_order(CLASSES[:10], 64, 8, seed=0, epoch=0)


def collect(workers: int, epoch: int, start: int = 0) -> list[torch.Tensor]:
    views = Views(MOLECULES, np.arange(24), "intense", seed=5)
    sampler = GroupedBatches(CLASSES[:24], 8, 4, seed=5)
    sampler.set_epoch(epoch, start)
    assert (len(sampler), sampler.per_epoch) == (3 - start, 3)
    return [torch.stack(batch[:2]) for batch in loader(views, sampler, workers)]


def test_views_depend_on_neither_workers_nor_history():
    alone, shared = collect(0, epoch=2), collect(2, epoch=2)
    assert len(alone) == 3
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert not torch.equal(alone[0], collect(0, epoch=3)[0])


def test_going_on_in_the_middle_of_an_epoch():
    whole, rest = collect(0, epoch=1), collect(1, epoch=1, start=2)
    assert len(rest) == 1
    assert torch.equal(rest[0], whole[2])


def test_rows_choose_the_molecules():
    views = Views(MOLECULES, np.array([7, 3]), "none", seed=0)
    assert len(views) == 2
    assert np.array_equal(views[0, 1][0].numpy(), drawing.draw(datasets.load("chembl2321810").smiles[3]))


def test_plain_and_randomised_views_without_augmentation():
    views = Views(MOLECULES, np.arange(1), "none", seed=0)
    plain, randomised, position = views[0, 0]
    assert torch.equal(plain, views[1, 0][0])
    assert not torch.equal(randomised, views[1, 0][1])
    assert position == 0


def test_streams_seeds_epochs_and_molecules_do_not_share_generators():
    keys = [*((stream, 1, 2, 3) for stream in seeds.Stream), (1, 4, 2, 3), (1, 1, 4, 3), (1, 1, 2, 4), (1, 1, 2)]
    assert len({seeds.generator(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize("redraw", [True, False])
def test_the_second_view_may_be_drawn_once(redraw):
    views = Views(MOLECULES, np.arange(24), "none", seed=5, redraw=redraw)
    first, second = ([views[epoch, position][1] for position in range(4)] for epoch in (0, 1))
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [not redraw] * 4
    assert not torch.equal(first[0], views[0, 0][0])
    augmented = Views(MOLECULES, np.arange(24), "intense", seed=5, redraw=redraw)
    assert not torch.equal(augmented[0, 1][1], augmented[1, 1][1])
