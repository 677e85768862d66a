"""The three arithmetics: Adam by hand in fp16, the weights that it can move, and what is left of a start."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from moleclip import arithmetic, encoder, losses


def test_the_weights_that_clip_halves():
    model = encoder.load("small/random")
    arithmetic.prepare(model, "fp16_l2")
    half = {name for name, weight in model.visual.named_parameters() if weight.dtype == torch.float16}
    names = {name for name, _ in model.visual.named_parameters() if "ln_" not in name}
    expected = names - {"class_embedding", "positional_embedding"}
    assert half == expected
    images = torch.randint(0, 256, (2, 224, 224, 3)).byte()
    embeddings = model(images)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, encoder.load("small/random")(images), atol=2e-2, rtol=2e-2)


def test_other_towers_are_refused():
    with pytest.raises(ValueError, match="'fp16_l2' is for CLIP's vision transformers"):
        arithmetic.prepare(encoder.load("timm-resnet18/random"), "fp16_l2")


def test_micro_batches_have_the_gradient_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 224, 224, 3), generator=generator).byte()
    classes, gradients = torch.arange(8)[:, None] % 3, []
    for size in (None, 1):
        torch.manual_seed(0)
        model, goal = encoder.load("small/random"), losses.Objective(128, {3: 3}, 15.0, True)
        arithmetic.prepare(model, "fp16_l2")
        losses.backward(model, goal, images, classes, Accelerator(cpu=True), size)
        gradients.append([weight.grad.float() for weight in model.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        assert (whole - parts).norm() < 0.01 * whole.norm()


def steps(kind: str, weights: np.ndarray, gradients: Iterable[np.ndarray], lr: float = 5e-6) -> np.ndarray:
    """Weights after Adam's steps."""
    weight = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    adam = arithmetic.adam([{"params": [weight]}], kind, lr=lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient)
        adam.step()
    return weight.detach().numpy()


def by_hand(kind: str, weights: np.ndarray, gradients: np.ndarray, lr: float = 5e-6) -> np.ndarray:
    """The same in NumPy, exact in each operation, and rounded after it to the format of the weights."""
    w, r = weights.astype(float), lambda values: np.asarray(values).astype(weights.dtype).astype(float)
    m = v = np.zeros_like(w)
    for step, gradient in enumerate(gradients.astype(float), 1):
        decoupled = kind == "fp32_adamw"
        w = w * (1 - lr * 0.1) if decoupled else w
        g = gradient if decoupled else r(gradient + r(0.1) * w)  # PyTorch rounds the decay to the format too
        m, v = r(m + 0.1 * (g - m)), r(r(0.98 * v) + 0.02 * g * g)
        root = r(r(r(np.sqrt(v)) / np.sqrt(1 - 0.98**step)) + 1e-6)
        w = r(w - lr / (1 - 0.9**step) * m / root)
    return w


def start(kind: str, count: int) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.02, count).astype(np.float16 if kind == "fp16_l2" else np.float32), rng


def test_adam_by_hand_in_fp16():
    weights, rng = start("fp16_l2", 5000)
    gradients = rng.normal(0, 3e-3, (20, 5000)).astype(np.float16)
    found = steps("fp16_l2", weights, gradients)
    assert np.mean(found == by_hand("fp16_l2", weights, gradients)) > 0.99
    assert 0.5 < np.mean(found != weights) < 0.8


@pytest.mark.parametrize("kind", ["fp32_l2", "fp32_adamw"])
def test_adam_by_hand_in_fp32(kind):
    weights, rng = start(kind, 5000)
    gradients = rng.normal(0, 3e-3, (20, 5000)).astype(np.float32)
    found, expected = steps(kind, weights, gradients, 1e-3), by_hand(kind, weights, gradients, 1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)
    other = {"fp32_l2": "fp32_adamw", "fp32_adamw": "fp32_l2"}[kind]
    assert np.abs(by_hand(other, weights, gradients, 1e-3) - expected).max() > 1e-3


def test_large_fp16_weights_do_not_move():
    """A step of 5e-6 is less than half of the distance between numbers from 2**-6 on, and more below that."""
    weights = np.linspace(0.001, 0.1, 1000, dtype=np.float16)
    moved = steps("fp16_l2", weights, np.full((1, 1000), 0.01, np.float16)) != weights
    assert (moved == (weights <= 2**-6)).all()


# Norm left, correlation, and share of unchanged weights after 2,000 of the paper's 29,200 steps of pure noise, as
# `by_hand` simulates them; after all of them, .6 % of the norm is left in fp32 with L2, and 94 % in fp16.
@pytest.mark.parametrize(
    ("kind", "norm", "correlation", "same"),
    [("fp16_l2", 0.943, 0.954, 0.41), ("fp32_l2", 0.662, 0.974, 0.0), ("fp32_adamw", 0.999, 1.0, 0.0)],
)
def test_what_is_left_of_the_start(kind, norm, correlation, same):
    weights, rng = start(kind, 2000)
    gradients = (rng.normal(0, 5e-4, 2000).astype(weights.dtype) for _ in range(2000))
    found = steps(kind, weights, gradients)
    left = arithmetic.drift({"a.weight": torch.from_numpy(weights)[None]}, {"a.weight": torch.from_numpy(found)[None]})
    assert left == pytest.approx({"norm": norm, "correlation": correlation, "identical": same}, abs=0.02)


def test_drift_by_hand():
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=shape) for name, shape in (("a", (3, 4)), ("b", (5, 2)))}
    now = {"a": start["a"] * 0.5, "b": start["b"].copy()}
    table = arithmetic.by_matrix(*({n: torch.from_numpy(v) for n, v in w.items()} for w in (start, now)))
    both = [np.concatenate([w["a"].ravel(), w["b"].ravel()]) for w in (start, now)]
    norms = [np.linalg.norm(values) for values in both]
    assert table.loc["all"].tolist() == pytest.approx([norms[1] / norms[0], np.corrcoef(*both)[0, 1], 10 / 22])
    assert table.loc["a"].tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert table.loc["b"].tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_a_start_that_is_lost_is_warned_of_by_name(caplog):
    start = {"a": torch.randn(20, 20), "b": torch.randn(20, 20)}
    now = {"a": 0.1 * start["a"], "b": start["b"]}
    arithmetic.check_start("ViT-B-16-quickgelu/random", start, now)
    arithmetic.check_start("ViT-B-16-quickgelu/openai", start, start)
    assert not caplog.records
    arithmetic.check_start("ViT-B-16-quickgelu/openai", start, now)
    assert "the weights of ViT-B-16-quickgelu/openai are being lost" in caplog.text
    assert "(norm of a: 10 %)" in caplog.text
