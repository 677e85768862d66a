"""What must be right on a GPU before its speed counts: each check raises AssertionError.

They run on any device; `benchmarks/gpu.py` runs them on a GPU, the tests on a CPU.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from moleclip import arithmetic, augmentation_batch, config, datasets, drawing, encoder, losses, pretrain
from moleclip.workflow import params

SMALL = "small/random"
CLASSES = torch.tensor([[0, 4], [1, 3], [2, 0], [0, 1], [1, 1], [2, 2], [0, 0], [1, 4]])
CPU = torch.device("cpu")


def _drawings(count: int = 8, size: int = 224) -> torch.Tensor:
    """Plain drawings, and then randomised ones."""
    smiles = list(datasets.load("nci_5k").smiles[: 10 * count : 10])
    styles = [drawing.random_style(np.random.default_rng(number)) for number in range(count)]
    images = [drawing.draw(text, size=size) for text in smiles]
    images += [drawing.draw(text, style, size) for text, style in zip(smiles, styles, strict=True)]
    return torch.from_numpy(np.stack(images))


def _pass(device: torch.device, source: str = SMALL, compiled: bool = False, chunk: int | None = None, **p: Any) -> Any:
    """Losses and gradient of a batch, and the weights after a step of the optimizer, on the CPU."""
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=p.get("precision", "no"))
    values = params.read("03_pretrain", None, **{"lr": 1e-3, "head_lr": 1e-3, **p})
    model = encoder.load(source)  # in evaluation mode, else lite's normalisation would make small differences grow
    arithmetic.prepare(model, values.arithmetic)
    torch.manual_seed(1)
    goal = losses.Objective(model.tower.embed_dim, {3: 3, 5: 5}, 15.0, True)
    adam = losses.optimizer(model.to(device), goal.to(device), values)
    called = torch.compile(model, backend="inductor" if device.type == "cuda" else "aot_eager") if compiled else model
    images = _drawings(size=model.preprocess.size).to(device)
    found = losses.backward(called, goal, images, CLASSES.to(device), accelerator, chunk)
    gradient = torch.cat([weight.grad.float().flatten().cpu() for weight in model.parameters()])
    adam.step()
    weights = torch.cat([weight.detach().float().flatten().cpu() for weight in model.parameters()])
    return {name: loss.item() for name, loss in found.items()}, gradient, weights


def _agree(a: Any, b: Any, tolerance: float) -> None:
    """Losses within the tolerance, and gradients that point the same way, with the same length."""
    assert a[0].keys() == b[0].keys()
    assert all(abs(a[0][name] - b[0][name]) <= tolerance * abs(b[0][name]) for name in b[0]), (a[0], b[0])
    cosine = float(torch.nn.functional.cosine_similarity(a[1].double(), b[1].double(), dim=0))
    assert cosine > 1 - tolerance, f"cosine of the gradients: {cosine}"
    assert abs(float(a[1].norm() / b[1].norm()) - 1) < 5 * tolerance
    assert torch.isfinite(a[2]).all()


def forward_and_gradient_are_the_cpus(device: torch.device) -> None:
    """Of a transformer and of a convolutional network, in fp32."""
    for source in (SMALL, encoder.LITE):
        _agree(_pass(device, source), _pass(CPU, source), 1e-2)


def each_arithmetic_is_the_cpus(device: torch.device) -> None:
    """Also autocast to bf16: nearer to fp32 than its 8 bits allow it to be, it need not be."""
    for kind in ("fp16_l2", "fp32_l2", "fp32_adamw"):
        _agree(_pass(device, arithmetic=kind), _pass(CPU, arithmetic=kind), 2e-2)
    _agree(_pass(device, precision="bf16"), _pass(CPU), 5e-2)


def micro_batches_have_the_gradient_of_the_whole(device: torch.device) -> None:
    """In fp32."""
    _agree(_pass(device, chunk=5), _pass(device), 1e-3)


def compiled_is_eager(device: torch.device) -> None:
    """In fp32, and the fallback of a run is not needed."""
    _agree(_pass(device, compiled=True), _pass(device), 1e-2)


def augmentation_is_the_cpus(device: torch.device) -> None:
    """Random numbers are the same; sums are of other orders, so that a level may round otherwise."""
    images, keys = _drawings(), augmentation_batch.keys(0, 0, torch.arange(16), 0)
    for level in ("default", "intense", "intense_2024"):
        here = augmentation_batch.augment(images.to(device), level, keys).cpu().int()
        assert ((here - augmentation_batch.augment(images, level, keys).int()).abs() <= 1).float().mean() > 0.999


def a_run_that_was_cut_off_goes_on(device: torch.device) -> None:
    """To the weights of one that was not, within float noise."""
    with tempfile.TemporaryDirectory() as folder:
        straight = pretrain.run(tiny(Path(folder), "straight", device))
        cut = tiny(Path(folder), "cut", device)
        with patch.object(pretrain, "WATCH", 0.0), contextlib.suppress(_StopError):
            pretrain.run(cut, watch=_stop)
        assert (Path(cut.output) / pretrain.CHECKPOINT).is_file()
        ends = [encoder.load(path).state_dict() for path in (straight, pretrain.run(cut))]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=5e-3) for name in ends[0])


def a_step_does_not_wait_for_the_device(device: torch.device) -> None:
    """Of a whole run, from its second step on; a CPU has nothing to wait for."""
    plain_step = pretrain._Training._step

    def watched(training: pretrain._Training, step: int, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if device.type == "cuda" and step > 1:
            torch.cuda.set_sync_debug_mode("error")
        try:
            return plain_step(training, step, *batch)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    with tempfile.TemporaryDirectory() as folder, patch.object(pretrain._Training, "_step", watched):
        output = pretrain.run(tiny(Path(folder), "watched", device))
        assert pretrain.read_metrics(output)["step"].max() > 1


class _StopError(Exception):
    pass


def _stop(metrics: pd.DataFrame) -> None:
    if metrics["step"].max() >= 3:
        raise _StopError


def tiny(folder: Path, name: str, device: torch.device, **overrides: Any) -> config.Pretrain:
    """Parameters of a run of a few steps."""
    smiles = list(datasets.load("nci_5k").smiles[:400:4])[:96]
    labels = folder / "labels.parquet"
    numbers = np.arange(len(smiles))
    pd.DataFrame({"row": numbers, "smiles": smiles, "k_4": numbers % 4, "k_12": numbers % 12}).to_parquet(labels)
    small = {"epochs": 1, "batch_size": 16, "group_size": 4, "k": [4, 12], "workers": 0, "validation_fraction": 0.2}
    small |= {"log_every": 1, "checkpoint_every": 1, "encoder": SMALL}
    values = {"labels": str(labels), "output": str(folder / name), **small, **overrides}
    return params.read("03_pretrain", None, **values)


CHECKS: tuple[Callable[[torch.device], None], ...] = (
    forward_and_gradient_are_the_cpus,
    each_arithmetic_is_the_cpus,
    micro_batches_have_the_gradient_of_the_whole,
    augmentation_is_the_cpus,
    a_run_that_was_cut_off_goes_on,
    a_step_does_not_wait_for_the_device,
    compiled_is_eager,
)
