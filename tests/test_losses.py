"""The objective: losses by hand, and one gradient for any number of chunks and processes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from moleclip import encoder, losses
from moleclip.losses import Objective, backward
from moleclip.workflow import params

CLASSES = torch.tensor([[0, 4], [1, 3], [2, 0], [0, 1], [1, 1], [2, 2], [0, 0], [1, 4]])


def batch(count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2 * count, 224, 224, 3), generator=generator).byte()


def make(contrastive: bool = True, rank: int = 0, world: int = 1) -> tuple[encoder.Encoder, losses.Objective]:
    """An encoder and its objective, in float64."""
    model = encoder.load("small/random")
    torch.manual_seed(1)
    goal = losses.Objective(128, {3: 3, 5: 5}, 15.0, contrastive, rank, world)
    return model.double(), goal.double()


def gradients(*modules: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for module in modules for parameter in module.parameters()]


def test_losses_by_hand():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(16, 128, generator=generator)
    goal = Objective(128, {3: 3, 5: 5}, logit_scale=15.0, contrastive=True)
    with torch.no_grad():
        losses = goal(embeddings, CLASSES)
    a, b = embeddings.double().numpy()[:8], embeddings.double().numpy()[8:]
    heads = [(head.weight.detach().double().numpy(), head.bias.detach().double().numpy()) for head in goal.heads]

    def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), targets]))

    similarity = 15 * (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    right = np.arange(8)
    expected = {
        "class_3": cross_entropy(a @ heads[0][0].T + heads[0][1], CLASSES[:, 0].numpy()),
        "class_5": cross_entropy(a @ heads[1][0].T + heads[1][1], CLASSES[:, 1].numpy()),
        "contrastive": (cross_entropy(similarity, right) + cross_entropy(similarity.T, right)) / 2,
    }
    expected["loss"] = sum(expected.values())
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, abs=1e-4)
    goal.class_weight = 0.25
    with torch.no_grad():
        weighted = goal(embeddings, CLASSES)["loss"].item()
    classes = expected["class_3"] + expected["class_5"]
    assert weighted == pytest.approx(0.25 * classes + expected["contrastive"], abs=1e-4)


def test_optimiser_is_the_papers():
    p = params.read("03_pretrain", None, weight_decay=0.1)
    adam = losses.optimizer(*make(), p)
    tower, heads = adam.param_groups
    assert (tower["betas"], tower["eps"], tower["weight_decay"], tower["lr"]) == ((0.9, 0.98), 1e-6, 0.1, p.lr)
    assert (heads["betas"], heads["weight_decay"], heads["lr"]) == ((0.9, 0.98), 0, p.head_lr)
    assert type(adam) is torch.optim.Adam


@pytest.mark.parametrize("contrastive", [True, False])
@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_chunks_give_the_same_losses_and_gradient(chunk, contrastive):
    images, accelerator = batch() if contrastive else batch()[:8], Accelerator(cpu=True)
    whole, parts = make(contrastive), make(contrastive)
    expected = losses.backward(*whole, images, CLASSES, accelerator)
    found = losses.backward(*parts, images, CLASSES, accelerator, chunk)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-12, atol=0) for name in found)
    for a, b in zip(gradients(*whole), gradients(*parts), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def one_of_two_processes(folder: str) -> None:
    """Embed half of the batch; what the processes then hold must be the gradient of the whole."""
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    assert world == 2
    for chunk in (None, 3):
        model, goal = make(rank=rank, world=world)
        prepared = accelerator.prepare(model)
        plain, randomised = batch().chunk(2)
        images = torch.cat([plain[rank::2], randomised[rank::2]])
        losses = backward(prepared, goal, images, CLASSES[rank::2], accelerator, chunk)
        means = {name: accelerator.reduce(loss, "mean") for name, loss in losses.items()}
        torch.save({"gradient": gradients(model, goal), "losses": means}, f"{folder}/{rank}_{chunk}.pt")
    accelerator.end_training()


def torchrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_have_the_gradient_of_one(tmp_path):
    torchrun(str(Path(__file__)), str(tmp_path))
    model, goal = make()
    expected = losses.backward(model, goal, batch(), CLASSES, Accelerator(cpu=True))
    for rank in (0, 1):
        for chunk in (None, 3):
            found = torch.load(tmp_path / f"{rank}_{chunk}.pt", weights_only=True)
            for name, loss in found["losses"].items():
                assert math.isclose(loss, expected[name], rel_tol=1e-12)
            largest = max(
                float((a - b).abs().max()) for a, b in zip(found["gradient"], gradients(model, goal), strict=True)
            )
            assert largest < 1e-12


if __name__ == "__main__":
    one_of_two_processes(sys.argv[1])
