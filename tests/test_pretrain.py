"""Pretraining: losses by hand, a tower that can overfit, and runs that go on where they stopped."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from rdkit import Chem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from moleclip import arithmetic, datasets, drawing, encoder, losses, pretrain, views
from moleclip.io import files
from moleclip.losses import Objective, backward, optimizer
from moleclip.views import Views
from moleclip.workflow import launcher


def test_retrieval_by_hand():
    eye = torch.eye(4)
    assert pretrain.retrieval([eye], [eye]) == {"held_out_top1": 1.0, "chance": 0.25}
    # Swapping two molecules' drawings makes half of the answers wrong, in both directions.
    assert pretrain.retrieval([eye], [eye[[1, 0, 2, 3]]])["held_out_top1"] == 0.5
    pools = pretrain.retrieval([eye, eye], [eye, eye[[1, 0, 2, 3]]])
    assert pools == {"held_out_top1": 0.75, "chance": 0.25}


def test_held_out_molecules_are_not_trained_on(pretrain_params):
    corpus = pretrain.read_corpus(pretrain_params())
    assert sorted([*corpus.train, *corpus.held_out]) == list(range(96))
    assert len(corpus.held_out) == 19


def test_what_cannot_be_drawn_is_left_out_and_recorded(pretrain_params, tmp_path):
    smiles = [*datasets.load("nci_5k").smiles[:400:5][:60], "C" * 1001, "not a molecule"]
    table = pd.DataFrame({"row": range(62), "smiles": smiles, "k_4": np.arange(62) % 4, "k_12": np.arange(62) % 12})
    table.to_parquet(tmp_path / "labels.parquet")
    p = pretrain_params(labels=str(tmp_path / "labels.parquet"), epochs=1)
    corpus = pretrain.read_corpus(p)
    assert sorted([*corpus.train, *corpus.held_out]) == list(range(60))
    assert corpus.left_out.index.tolist() == [60, 61]
    left_out = pd.read_parquet(pretrain.run(p) / "left_out.parquet")
    assert left_out["row"].tolist() == [60, 61]
    assert "1001 atoms" in left_out["reason"][0]
    assert "SMILES" in left_out["reason"][1]


def test_a_cache_changes_nothing(pretrain_params, tmp_path):
    cached = pretrain.read_corpus(pretrain_params(cache=str(tmp_path / "cache")))
    again = pretrain.read_corpus(pretrain_params(cache=str(tmp_path / "cache")))
    fresh = pretrain.read_corpus(pretrain_params())
    assert cached.molecules.to_pylist() == again.molecules.to_pylist() == fresh.molecules.to_pylist()


def test_it_overfits_a_handful_of_molecules(pretrain_params):
    """The same 16 views again and again: all losses must fall far below chance."""
    corpus = pretrain.read_corpus(pretrain_params())
    views = Views(corpus.molecules, np.arange(16), "none", seed=0)
    plain, randomised, _ = (
        torch.stack(images) if i < 2 else None
        for i, images in enumerate(zip(*(views[0, j] for j in range(16)), strict=True))
    )
    classes = torch.from_numpy(corpus.classes[:16])
    model = encoder.load("small/random")
    goal = Objective(128, corpus.counts, 15.0, True)
    adam = optimizer(model, goal, pretrain_params(lr=1e-3, head_lr=1e-2))
    for _ in range(150):
        losses = backward(model, goal, torch.cat([plain, randomised]), classes, Accelerator(cpu=True))
        adam.step()
        adam.zero_grad()
    assert losses["contrastive"] < 0.2 * math.log(16)
    assert losses["class_12"] < 0.2 * math.log(12)


def weights(folder) -> dict[str, torch.Tensor]:
    return encoder.load(folder).visual.state_dict()


SCHEDULE = {"warmup_steps": 3, "decay": "cosine"}
OTHERS = [(2, {"arithmetic": "fp16_l2"}), (6, {"arithmetic": "fp32_adamw", "weight_decay": 0.1})]


# In the middle of an epoch, at its end, and in the next one; while the rate rises, and while it falls.
@pytest.mark.parametrize(("step", "schedule"), [(2, {}), (4, {}), (6, {}), (2, SCHEDULE), (6, SCHEDULE), *OTHERS])
def test_an_interrupted_run_goes_on_bit_for_bit(pretrain_params, tmp_path, monkeypatch, caplog, step, schedule):
    caplog.set_level("INFO")
    often = {"log_every": 1, "checkpoint_every": 2, "workers": 1, **schedule}
    straight = pretrain.run(pretrain_params(output=str(tmp_path / "straight"), **often))
    assert "no checkpoint, starts from the beginning" in caplog.text
    original = pretrain._Training._checkpoint

    def interrupt(training, at):
        original(training, at)
        if at == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrain._Training, "_checkpoint", interrupt)
    p = pretrain_params(output=str(tmp_path / "interrupted"), **often)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(p)
    assert not (tmp_path / "interrupted" / encoder.CARD).exists()
    monkeypatch.setattr(pretrain._Training, "_checkpoint", original)
    resumed = pretrain.run(p)
    assert f"continues from step {step} of 8" in caplog.text
    expected = weights(straight)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    speed = ["molecules_per_s", "waiting_for_data"]
    without_speed = [pretrain.read_metrics(folder).drop(columns=speed) for folder in (straight, resumed)]
    assert without_speed[0].equals(without_speed[1])
    assert not (resumed / pretrain.CHECKPOINT).exists()
    last = without_speed[0].dropna(subset="start_norm").iloc[-1]
    moved = arithmetic.drift(
        arithmetic.weights(encoder.load("small/random")), arithmetic.weights(encoder.load(resumed))
    )
    card = json.loads((resumed / encoder.CARD).read_text())["provenance"]["drift"]
    for name, value in moved.items():
        tolerance = 1e-3 if schedule.get("arithmetic") == "fp16_l2" else 1e-12  # the start is rounded too
        assert last[f"start_{name}"] == card[name]
        assert name == "identical" or value == pytest.approx(card[name], abs=tolerance)


def test_switches_of_the_authors(pretrain_params, monkeypatch):
    rates, heads = [], []
    original = pretrain._Training._step

    def step(training, *arguments):
        heads.append([head.weight.clone() for head in training.objective.heads])
        losses = original(training, *arguments)
        rates.append([group["lr"] for group in training.adam.param_groups])
        return losses

    monkeypatch.setattr(pretrain._Training, "_step", step)
    switches = {"slow_steps": 2, "channel_order": "BGR", "redraw": False, "hold_out_groups": True, "class_weight": 0.0}
    p = pretrain_params(lr=3e-4, head_lr=1e-3, epochs=1, **switches)
    assert encoder.load(pretrain.run(p)).preprocess.channel_order == "BGR"
    assert np.allclose(rates, [[1e-4, 1e-3], [1e-4, 1e-3], *[[3e-4, 1e-3]] * (len(rates) - 2)])
    assert len(rates) > 2
    assert all(torch.equal(first, last) for first, last in zip(heads[0], heads[-1], strict=True))
    corpus = pretrain.read_corpus(p)
    assert sorted([*corpus.train, *corpus.held_out]) == list(range(96))
    finest, held_out = corpus.classes[:, 1], corpus.classes[corpus.held_out, 1]
    assert len(held_out) == 20
    # Five runs of four neighbours have molecules of at most ten of the twelve classes, most of them several.
    assert np.mean(np.bincount(held_out, minlength=12)[np.unique(held_out)]) > 20 / len(np.unique(finest))


def test_mirror_images_are_trained_on_beside_their_molecules(pretrain_params, tmp_path):
    """Each chiral one of the training molecules, by RDKit's own names of its centres; nothing is held out anew."""
    smiles = [*datasets.load("DHBDs").smiles[:40], *datasets.load("freesolv").smiles[:60]]
    table = pd.DataFrame({"row": range(100), "smiles": smiles, "k_4": np.arange(100) % 4, "k_12": np.arange(100) % 12})
    table.to_parquet(tmp_path / "labels.parquet")
    given = {"labels": str(tmp_path / "labels.parquet"), "batch_size": 32, "group_size": 32}
    plain = pretrain.read_corpus(pretrain_params(**given))
    p = pretrain_params(enantiomers=True, **given)
    corpus = pretrain.read_corpus(p)
    assert np.array_equal(corpus.held_out, plain.held_out)
    assert np.array_equal(corpus.train[: len(plain.train)], plain.train)
    mirrored = corpus.train[len(plain.train) :]
    assert len(mirrored) > 10
    for row in mirrored:
        assert corpus.of[row] in plain.train
        assert np.array_equal(corpus.classes[row], corpus.classes[corpus.of[row]])
        texts = corpus.smiles[row], corpus.smiles[corpus.of[row]]
        names, others = (dict(Chem.FindMolChiralCenters(Chem.MolFromSmiles(text))) for text in texts)
        assert names == {atom: {"R": "S", "S": "R"}[name] for atom, name in others.items()}
        drawings = [drawing.draw(drawing.from_store(corpus.molecules[i].as_py())) for i in (row, corpus.of[row])]
        assert 0 < np.any(drawings[0] != drawings[1], axis=-1).mean() < 0.05, "laid out alike: only wedges differ"
    batches = [corpus.train[positions] for positions in pretrain._Training(p, {}, None).sampler.order]
    together = [corpus.of[row] in rows for rows in batches for row in np.intersect1d(rows, mirrored)]
    assert np.mean(together) > 0.8, "all but those that a cut between two runs parts"


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_both_rates_follow_the_schedule(pretrain_params, monkeypatch, decay):
    """Eight steps, three of them warm-up; PyTorch's own schedulers say how the rates fall."""
    rates = []
    original = pretrain._Training._step

    def step(training, *arguments):
        losses = original(training, *arguments)
        rates.append([group["lr"] for group in training.adam.param_groups])
        return losses

    monkeypatch.setattr(pretrain._Training, "_step", step)
    pretrain.run(pretrain_params(lr=5e-4, head_lr=1e-3, warmup_steps=3, decay=decay))
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = {
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(sgd, factor=1.0),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(sgd, start_factor=1.0, end_factor=0.0, total_iters=5),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=5),
    }[decay]()
    falling = []
    for _ in range(6):
        falling += torchs.get_last_lr()
        sgd.step()
        torchs.step()
    assert np.allclose(rates, np.outer([1 / 3, 2 / 3, *falling], [5e-4, 1e-3]), rtol=1e-6, atol=1e-12)
    assert (rates[-1] == [0.0, 0.0]) == (decay != "constant")


def test_a_constant_rate_is_left_as_it_is():
    assert {losses.rate_factor(step, 8, 0, "constant") for step in range(1, 9)} == {1.0}


def test_a_warm_up_longer_than_the_run_is_refused(pretrain_params):
    with pytest.raises(ValueError, match="warmup_steps 8 leaves none of the run's 8 steps"):
        pretrain.run(pretrain_params(warmup_steps=8))


def test_a_finished_run_is_not_trained_again_if_what_came_after_failed(pretrain_params, monkeypatch):
    folder = pretrain.run(pretrain_params(), keep_checkpoint=True)
    expected = weights(folder)
    for name in (encoder.WEIGHTS, encoder.CARD):  # as the workflow does with the outputs of a notebook that failed
        (folder / name).unlink()
    monkeypatch.setattr(pretrain._Training, "_step", lambda *_: pytest.fail("trains again"))
    assert pretrain.run(pretrain_params()) == folder
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder).items())
    assert not (folder / pretrain.CHECKPOINT).exists()


def test_another_number_of_threads_goes_on_with_a_warning(pretrain_params, tmp_path, monkeypatch, caplog):
    original = pretrain._Training._checkpoint
    straight = pretrain.run(pretrain_params(output=str(tmp_path / "straight")))
    monkeypatch.setattr(
        pretrain._Training, "_checkpoint", lambda *a: (original(*a), (_ for _ in ()).throw(KeyboardInterrupt))[0]
    )
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(pretrain_params())
    monkeypatch.setattr(pretrain._Training, "_checkpoint", original)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        resumed = pretrain.run(pretrain_params())
    finally:
        torch.set_num_threads(threads)
    assert f"{threads} computing threads before, {threads + 1} now" in caplog.text
    expected = weights(straight)
    assert all(torch.allclose(tensor, expected[name], atol=5e-3) for name, tensor in weights(resumed).items())


def test_going_on_on_a_gpu_is_told(pretrain_params, monkeypatch, caplog):
    pretrain.run(pretrain_params(epochs=1), keep_checkpoint=True)
    monkeypatch.setattr(pretrain, "_is_gpu", lambda device: True)
    pretrain.run(pretrain_params(epochs=1), keep_checkpoint=True)
    assert "begun without a GPU: augmentation draws other random numbers" in caplog.text


def test_going_on_with_other_parameters_or_data_is_refused(pretrain_params, labels_file, tmp_path, monkeypatch):
    original = pretrain._Training._checkpoint
    labels = tmp_path / "labels.parquet"
    labels.write_bytes(labels_file.read_bytes())
    start = encoder.load("small/random").save(tmp_path / "start")
    given = {"labels": str(labels), "encoder": str(start)}
    monkeypatch.setattr(
        pretrain._Training, "_checkpoint", lambda *a: (original(*a), (_ for _ in ()).throw(KeyboardInterrupt))[0]
    )
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(pretrain_params(**given))
    with pytest.raises(ValueError, match=r"lr was 0.0005, is 0.001"):
        pretrain.run(pretrain_params(**given, lr=1e-3))
    before = [files.sha256(start / name) for name in (encoder.WEIGHTS, encoder.CARD)]
    encoder.load("small/random", seed=1).save(start)
    with pytest.raises(ValueError, match=rf"\(sha256 of the encoder at the start was {re.escape(repr(before))}, is"):
        pretrain.run(pretrain_params(**given))
    pd.read_parquet(labels).iloc[::-1].to_parquet(labels)
    with pytest.raises(ValueError, match="sha256 was"):
        pretrain.run(pretrain_params(**given))


def test_a_full_disk_leaves_the_checkpoint_before_intact(pretrain_params, monkeypatch):
    save = torch.save

    def full(state, file):
        if state["step"] == 8:
            file.write_bytes(b"half of it")
            raise RuntimeError("[enforce fail] . unexpected pos 64 vs 0")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    p = pretrain_params()
    with pytest.raises(OSError, match=r"unexpected pos(?s:.)*make room"):
        pretrain.run(p)
    folder = Path(p.output)
    assert torch.load(folder / pretrain.CHECKPOINT, weights_only=True)["step"] == 4
    assert not list(folder.glob("*.part")) + list(folder.glob(".*.part"))
    monkeypatch.setattr(torch, "save", save)
    assert (pretrain.run(p) / encoder.CARD).is_file()


def test_a_drawing_process_that_dies_ends_the_run(pretrain_params, monkeypatch):
    original = views.pair

    def die(*arguments):
        if (views.torch.utils.data.get_worker_info() is not None) and arguments[2].random() < 0.1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    monkeypatch.setattr(views, "pair", die)
    with pytest.raises(RuntimeError, match="a process that draws died"):
        pretrain.run(pretrain_params(workers=1))


def test_two_processes_train_like_one(pretrain_params, tmp_path):
    """The same losses at every step, within float noise; their log is kept."""
    one = pretrain.run(pretrain_params(output=str(tmp_path / "one"), log_every=1))
    two = launcher.run(pretrain_params(output=str(tmp_path / "two"), log_every=1, processes=2))
    columns = ["step", "class_4", "class_12", "contrastive", "loss"]
    a, b = (pretrain.read_metrics(folder)[columns].dropna() for folder in (one, two))
    assert len(a) == 8
    assert np.allclose(a, b, rtol=1e-3)
    assert "step 4/4" in (two / "train.log").read_text()
    for name, tensor in weights(two).items():
        assert torch.allclose(tensor, weights(one)[name], atol=5e-3), name


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_weights(pretrain_params, tmp_path):
    """kill -9, again and again, at moments that may fall into the writing of a checkpoint."""
    often = {"log_every": 1, "checkpoint_every": 1, "workers": 1, "epochs": 3}
    expected = weights(shell(pretrain_params(output=str(tmp_path / "straight"), **often), tmp_path, None))
    p = pretrain_params(output=str(tmp_path / "killed"), **often)
    rng, kills = np.random.default_rng(), 0
    while not (tmp_path / "killed" / encoder.CARD).exists():
        # Long enough for a few steps after the start, so that the run gets to its end.
        done = shell(p, tmp_path, after_lines=int(rng.integers(2, 8)), then=rng.random() * 0.3)
        kills += done is None
        assert kills < 20
    assert kills > 0
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "killed").items())


def shell(p, folder, after_lines, then=0.0, torchrun=()):
    """Run the documented command; kill it some seconds after a number of lines about its steps."""
    file = folder / "parameters.json"
    file.write_text(p.model_dump_json())
    command = [sys.executable, "-u", *torchrun, "-m", "moleclip.workflow.launcher", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        number = 0
        for line in child.stdout:
            number += " step " in line
            if number == after_lines:
                time.sleep(then)
                child.kill()
                return None
    assert child.returncode == 0
    return Path(p.output)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.parametrize(
    ("before", "after", "torchrun"), [(2, 1, ()), (1, 2, ()), pytest.param(2, 2, TORCHRUN, marks=pytest.mark.long)]
)
def test_killed_it_goes_on_with_any_number_of_processes(pretrain_params, tmp_path, before, after, torchrun):
    """Started by us or by torchrun: with the process that was started, those that train are gone too."""
    often = {"log_every": 1, "checkpoint_every": 1}
    straight = weights(pretrain.run(pretrain_params(output=str(tmp_path / "straight"), **often)))
    killed, again = (
        pretrain_params(output=str(tmp_path / "killed"), processes=processes, **often) for processes in (before, after)
    )
    assert shell(killed, tmp_path, after_lines=4, torchrun=torchrun) is None
    assert (tmp_path / "killed" / pretrain.CHECKPOINT).is_file()
    while locked(tmp_path / "killed"):
        time.sleep(0.1)
    found = weights(shell(again, tmp_path, None, torchrun=torchrun))
    steps = pretrain.read_metrics(tmp_path / "killed").dropna(subset="loss")["step"]
    assert steps.tolist() == list(range(1, 9))
    assert all(torch.allclose(tensor, straight[name], atol=5e-3) for name, tensor in found.items())


def locked(folder):
    try:
        with files.alone(folder):
            return False
    except RuntimeError:
        return True


def test_the_number_of_processes_is_not_taken_on_trust(pretrain_params, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="2 processes were asked for, 1 run"):
        pretrain.run(pretrain_params(processes=2))


HOLD = """
import sys, time
from pathlib import Path
from moleclip.io import files
with files.alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_do_not_share_a_folder(pretrain_params):
    """Until the other is killed, whatever it has started: then the folder is free at once."""
    p = pretrain_params(epochs=1)
    with subprocess.Popen([sys.executable, "-c", HOLD, p.output], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="another run is writing to this folder"):
            pretrain.run(p)
        other.kill()
        other.wait()
        assert (pretrain.run(p) / encoder.CARD).is_file()


def test_weights_that_are_not_finite_are_not_kept(pretrain_params, monkeypatch):
    def spoil(training, step, *batch):
        with torch.no_grad():
            training.encoder.visual.proj.fill_(float("nan"))
        return {"loss": torch.tensor(1.0)}

    monkeypatch.setattr(pretrain._Training, "_step", spoil)
    with pytest.raises(FloatingPointError, match=r"visual\.proj is not finite"):
        pretrain.run(pretrain_params())
    assert not (Path(pretrain_params().output) / pretrain.CHECKPOINT).exists()


def test_a_tower_with_batch_normalisation_is_not_trained_in_chunks(pretrain_params):
    with pytest.raises(ValueError, match="batch normalisation"):
        pretrain.run(pretrain_params(encoder="RN50-quickgelu/random", micro_batch_size=4))


def test_batch_normalisation_learns_the_mean_of_what_is_trained_on(pretrain_params):
    tower = "timm-mobilenetv3_small_050/random"
    trained = encoder.load(pretrain.run(pretrain_params(encoder=tower, epochs=1)))
    start = dict(encoder.load(tower).named_buffers())
    means = [name for name in start if name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(start[name], trained.get_buffer(name)) for name in means)


def test_half_precisions_and_chunks_train_too(pretrain_params):
    """In one process after another precision, which Accelerate's state would refuse."""
    losses = []
    for options in ({}, {"precision": "bf16"}, {"micro_batch_size": 5}, {"precision": "fp16"}):
        folder = pretrain.run(
            pretrain_params(epochs=1, log_every=1, output=f"{pretrain_params().output}{options}", **options)
        )
        losses.append(pretrain.read_metrics(folder)["loss"].dropna().to_numpy())
    assert np.allclose(losses[0], losses[1], rtol=0.05)
    assert np.allclose(losses[0], losses[2], rtol=1e-3)
    assert np.allclose(losses[0], losses[3], rtol=0.01)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_run_can_be_watched(pretrain_params, monkeypatch, processes):
    monkeypatch.setattr(pretrain, "WATCH", 0.0)
    seen: list[int] = []
    folder = launcher.run(
        pretrain_params(epochs=1, log_every=1, processes=processes), watch=lambda metrics: seen.append(len(metrics))
    )
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == len(pretrain.read_metrics(folder))


def test_tensorboard_gets_what_metrics_get(pretrain_params):
    folder = pretrain.run(pretrain_params(epochs=1, log_every=1, tensorboard=True))
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    losses = [event.value for event in board.Scalars("loss")]
    assert np.allclose(losses, pretrain.read_metrics(folder)["loss"].dropna())


def test_moments_are_kept_where_asked_for(pretrain_params):
    p = pretrain_params(keep_moments=True)
    folder = pretrain.run(p)
    again = encoder.load(folder)
    adam = torch.optim.Adam(again.parameters(), fused=True)
    encoder.load_moments(folder, again, adam)
    steps = {float(state["step"]) for state in adam.state.values()}
    metrics = pd.read_json(folder / "metrics.jsonl", lines=True)
    assert steps == {metrics["step"].max()}


def test_the_way_of_a_gpu_and_without_compiling_if_that_fails(pretrain_params, tmp_path, monkeypatch, caplog):
    """On a CPU: it augments whole batches, is compiled, and ends with the same weights if that fails."""
    monkeypatch.setattr(pretrain, "_is_gpu", lambda device: True)
    monkeypatch.setattr(pretrain, "COMPILED", 0)
    monkeypatch.setattr(torch, "compile", lambda model: torch._dynamo.optimize("eager")(model))
    compiled = weights(pretrain.run(pretrain_params(output=str(tmp_path / "compiled"))))
    assert "torch.compile failed" not in caplog.text

    def fails(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda model: torch._dynamo.optimize(fails)(model))
    without = weights(pretrain.run(pretrain_params(output=str(tmp_path / "without"))))
    assert "torch.compile failed" in caplog.text
    assert "no compiler here" in caplog.text
    assert all(torch.allclose(tensor, without[name], atol=1e-5) for name, tensor in compiled.items())


def test_metrics_have_every_loss_and_the_chance_level(pretrain_params):
    folder = pretrain.run(pretrain_params(epochs=1, log_every=2))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {"class_4", "class_12", "contrastive", "loss"}
    assert set(lines[1]) == {"epoch", "step", *losses, "molecules_per_s", "waiting_for_data"}
    assert lines[0]["chance"] == pytest.approx(1 / 19)
    assert set(lines[-1]) == set(lines[0])


def test_a_diverging_run_says_so(pretrain_params):
    with pytest.raises(FloatingPointError, match="smaller lr"):
        pretrain.run(pretrain_params(lr=1e30, head_lr=1e30))


def test_a_finished_encoder_is_not_overwritten_by_another(pretrain_params):
    def made(**options):
        folder = pretrain.run(pretrain_params(epochs=1, workers=0, **options))
        return folder, files.sha256(folder / encoder.WEIGHTS)

    folder, before = made(slow_steps=1)
    with pytest.raises(ValueError, match=r"of a finished run with other settings \(slow_steps was 1, is the default\)"):
        made()
    assert made(slow_steps=1) == (folder, before)  # the same run again
    (folder / encoder.CARD).unlink()  # as the workflow does before it runs a notebook again
    assert made()[1] != before


@pytest.mark.parametrize("ablation", [{"k": []}, {"contrastive": False}])
def test_one_task_alone(pretrain_params, ablation):
    assert (pretrain.run(pretrain_params(epochs=1, **ablation)) / encoder.CARD).is_file()
