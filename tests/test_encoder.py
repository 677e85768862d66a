"""Encoder: against an independent forward pass, and saved folders that are whole or refused."""

import dataclasses
import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import RidgeCV
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2 import functional as transforms

from moleclip import config, datasets, drawing, encoder
from moleclip.io import files

IMAGES = torch.from_numpy(np.stack([drawing.draw(smiles) for smiles in ("CCO", "c1ccccc1N", "CC(=O)Cl")]))


def independent_forward(
    weights: dict[str, torch.Tensor], x: torch.Tensor, heads: int, patch: int, quick_gelu: bool
) -> torch.Tensor:
    """CLIP's image tower written out with plain tensor operations."""
    width = weights["conv1.weight"].shape[0]
    patches = F.unfold(x, patch, stride=patch).transpose(1, 2) @ weights["conv1.weight"].reshape(width, -1).T
    x = torch.cat([weights["class_embedding"].expand(len(x), 1, -1), patches], dim=1) + weights["positional_embedding"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = norm(x, "ln_pre")
    blocks = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("transformer"))
    for block in range(blocks):
        prefix = f"transformer.resblocks.{block}"
        y = norm(x, f"{prefix}.ln_1")
        qkv = y @ weights[f"{prefix}.attn.in_proj_weight"].T + weights[f"{prefix}.attn.in_proj_bias"]
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        attention = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v
        y = attention.transpose(1, 2).flatten(2)
        x = x + y @ weights[f"{prefix}.attn.out_proj.weight"].T + weights[f"{prefix}.attn.out_proj.bias"]
        y = norm(x, f"{prefix}.ln_2")
        y = y @ weights[f"{prefix}.mlp.c_fc.weight"].T + weights[f"{prefix}.mlp.c_fc.bias"]
        y = y * (torch.sigmoid(1.702 * y) if quick_gelu else (1 + torch.erf(y / 2**0.5)) / 2)
        x = x + y @ weights[f"{prefix}.mlp.c_proj.weight"].T + weights[f"{prefix}.mlp.c_proj.bias"]
    return norm(x[:, 0], "ln_post") @ weights["proj"]


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_embeddings_agree_with_an_independent_forward_pass(quick_gelu):
    model = encoder.load("small/random", seed=3)
    model = encoder.Encoder(dataclasses.replace(model.tower, quick_gelu=quick_gelu), model.preprocess)
    with torch.no_grad():
        planes = model.preprocess(IMAGES)
        expected = independent_forward(model.visual.state_dict(), planes, heads=2, patch=32, quick_gelu=quick_gelu)
        found = model(IMAGES)
    assert found.shape == (3, 128)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("other", [{}, {"ls_init_value": 0.1, "final_ln_after_pool": True}, {"pool_type": "avg"}])
def test_the_last_block_for_the_class_token_alone_changes_nothing(other):
    """Against the tower's own forward pass, which computes it for all tokens, also where all are read."""
    tower = dataclasses.replace(encoder.SMALL, vision={**encoder.SMALL.vision, **other})
    model = encoder.Encoder(tower).double()
    planes = model.preprocess(IMAGES[:2]).double()
    whole = model.visual(planes)
    found = model(IMAGES[:2])
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    weights = list(model.visual.parameters())
    directions = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = (torch.autograd.grad((out * directions).sum(), weights, allow_unused=True) for out in (found, whole))
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_drawings_are_embedded_in_batches_with_or_without_a_head(batch_size):
    model = encoder.load("small/random", seed=2)
    with torch.no_grad():
        expected = torch.cat([model(image[None]) for image in IMAGES])
    for images in (IMAGES, IMAGES.numpy()):
        found = encoder.embed_drawings(model, images, batch_size)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    head = encoder.head(128, 2)
    found = encoder.embed_drawings(torch.nn.Sequential(model, head), IMAGES, batch_size)
    torch.testing.assert_close(found, head(expected).detach(), atol=1e-5, rtol=1e-4)


def test_batch_normalisation_mixes_no_drawings_and_learns_nothing():
    """Neither as loaded nor in training mode, which is restored part by part."""
    model = encoder.load(encoder.LITE)
    assert not any(part.training for part in model.modules())
    assert not any(part.training for part in encoder.load(encoder.LITE, size=160).modules())
    model.train()
    frozen = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)).eval()
    modes, before = [part.training for part in model.modules()], encoder.digest(model)
    images = [drawing.draw(smiles, size=model.preprocess.size) for smiles in ("CCO", "c1ccccc1N", "CC(=O)Cl")]
    together, alone = model.embed(np.stack(images)), model.embed(images[0][None])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert encoder.digest(model) == before
    assert [part.training for part in model.modules()] == modes
    assert model.training
    assert not frozen.training
    with pytest.raises(ValueError, match="expected uint8"):
        model.embed(np.zeros((1, 2, 2, 3), np.uint8))
    assert model.training


def test_clip_preprocessing_agrees_with_torchvision():
    clip = encoder.Preprocess()
    scaled = transforms.to_dtype(IMAGES.permute(0, 3, 1, 2), torch.float32, scale=True)
    assert torch.allclose(clip(IMAGES), transforms.normalize(scaled, list(clip.mean), list(clip.std)), atol=1e-5)


def test_channel_order_swaps_red_and_blue():
    rgb = encoder.Preprocess(mean=(0, 0, 0), std=(1, 1, 1))
    bgr = encoder.Preprocess(mean=(0, 0, 0), std=(1, 1, 1), channel_order="BGR")
    assert torch.equal(bgr(IMAGES), rgb(IMAGES)[:, [2, 1, 0]])


@pytest.mark.parametrize("images", [IMAGES.float(), IMAGES[:, :100], IMAGES.permute(0, 3, 1, 2)])
def test_images_of_another_shape_or_type_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8"):
        encoder.Preprocess()(images)


def test_the_encoder_that_ships_finds_molecules_again():
    """Among 64 molecules of another source than its training molecules, by a drawing in another style."""
    model = encoder.load(encoder.LITE)
    assert model.normalize
    smiles = datasets.readable(datasets.load("nci_5k"), 64, 3)["smiles"]
    styles = [drawing.random_style(np.random.default_rng(row)) for row in range(len(smiles))]
    plain, other = (
        model.embed(
            np.stack([drawing.draw(*pair, size=model.preprocess.size) for pair in zip(smiles, chosen, strict=True)])
        )
        for chosen in ([drawing.PLAIN] * len(smiles), styles)
    )
    assert (plain @ other.T).argmax(dim=1).eq(torch.arange(len(smiles))).float().mean() > 0.9


@pytest.mark.parametrize("name", config.BUILT_IN)
def test_an_encoder_that_ships_is_small_and_says_what_it_is(name):
    folder = Path(encoder.__file__).parent / "weights" / name.replace("/", "_")
    assert {file.name for file in folder.iterdir()} == {encoder.WEIGHTS, encoder.CARD, "README.md", "NOTICE"}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6
    assert encoder.load(name).normalize
    trained_on = encoder.provenance(name)["parameters"]
    assert trained_on.get("dataset", "") == ("Kraken_buried" if name == "lite/domain" else "")


@pytest.mark.skipif("MOLECLIP_DATA_DIR" not in os.environ, reason="needs MOLECLIP_DATA_DIR")
def test_pretraining_on_buried_volumes_is_kept_in_the_embeddings():
    """A linear model reads the volumes of phosphines that it has not seen from the one encoder better than before."""
    kraken = datasets.load("Kraken_buried")
    some = np.random.default_rng(0).permutation(len(kraken))[:120]
    smiles, volumes = [kraken.smiles[row] for row in some], kraken.labels[some, 0]
    errors = {}
    for name in config.BUILT_IN:
        model = encoder.load(name)
        inputs = model.embed(drawing.draw_all(smiles, model.preprocess.size, "plain", 0), layers="all").numpy()
        found = RidgeCV(10.0 ** np.arange(-3, 4)).fit(inputs[:80], volumes[:80]).predict(inputs[80:])
        errors[name] = np.abs(found - volumes[80:]).mean()
    assert errors["lite/domain"] < 0.8 * errors["lite"]


def test_embeddings_trained_by_cosine_lie_on_the_unit_sphere(tmp_path):
    plain = encoder.load("small/random", seed=3).eval()
    torch.testing.assert_close(plain.embed(IMAGES), plain(torch.as_tensor(IMAGES)).detach())
    plain.normalize = True
    again = encoder.load(plain.save(tmp_path / "encoder")).eval()
    found, raw = again.embed(IMAGES), plain(torch.as_tensor(IMAGES))
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True))


def blocks(model: encoder.Encoder) -> list[torch.nn.Module]:
    """What ends a layer: a block of the transformer, or the last of those before the drawing is halved."""
    visual = model.visual
    if hasattr(visual, "transformer"):
        return list(visual.transformer.resblocks)
    trunk = visual.trunk
    if hasattr(trunk, "layer1"):
        return [trunk.act1, trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    return [trunk.blocks[stage] for stage in (0, 1, 2, 4, 6)]


@pytest.mark.parametrize("source", ["small/random", "timm-resnet18/random", encoder.LITE])
def test_all_layers_are_averages_over_the_drawing(source):
    """Against what each layer passes on; the embedding is the last part."""
    model = encoder.load(source)
    images = torch.from_numpy(np.stack([drawing.draw(one, size=model.preprocess.size) for one in ("CCO", "CCN")]))
    passed: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, found: passed.append(found)) for block in blocks(model)]
    with torch.no_grad():
        embedding = model.visual(model.preprocess(images))
    for hook in hooks:
        hook.remove()
    means = [found[:, 1:].mean(dim=1) if found.ndim == 3 else found.flatten(2).mean(dim=2) for found in passed]
    found = model.embed(images, layers="all")
    assert found.shape[1] == model.width("all") == sum(part.shape[1] for part in (*means, embedding))
    parts = found.split([part.shape[1] for part in (*means, embedding)], dim=1)
    for mine, expected in zip(parts, (*means, embedding), strict=True):
        torch.testing.assert_close(mine, expected / expected.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_network_without_known_layers_has_its_last():
    model = encoder.load("small/random")
    model.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 224), torch.nn.Flatten())
    with pytest.raises(ValueError, match="ask for layers='last'"):
        model.embed(IMAGES, layers="all")
    assert model.embed(IMAGES).shape == (3, 4)


def test_saved_folder_gives_the_same_embeddings(tmp_path):
    model = encoder.load("small/random", seed=1)
    again = encoder.load(model.save(tmp_path / "encoder"))
    assert again.preprocess == model.preprocess
    with torch.no_grad():
        assert torch.equal(model(IMAGES), again(IMAGES))


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (encoder.load("small/random", seed).visual.proj for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_damaged_weights_are_refused(tmp_path):
    folder = encoder.load("small/random").save(tmp_path)
    weights = folder / encoder.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        encoder.load(folder)


def test_weights_of_another_architecture_are_refused(tmp_path):
    folder = encoder.load("small/random").save(tmp_path)
    card = json.loads((folder / encoder.CARD).read_text())
    card["tower"]["vision"]["layers"] = 5
    (folder / encoder.CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"transformer\.resblocks\.4"):
        encoder.load(folder)


def test_unknown_sources_say_what_is_possible(tmp_path):
    for possible in (
        "ViT-B-16-quickgelu/openai",
        "imagemol/pretrained",
        "efficientnet-lite0/imagenet",
        "timm-resnet18",
    ):
        with pytest.raises(FileNotFoundError, match=possible):
            encoder.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="did you mean 'ViT-B-16'"):
        encoder.load("ViT-B16/random")
    with pytest.raises(ValueError, match="did you mean 'timm-resnet18'"):
        encoder.load("resnet18/random")
    with pytest.raises(ValueError, match=r"'banana' is no tower of open_clip\.list_models\(\).*timm\.list_models\(\)$"):
        encoder.load("banana/random")
    for name in ("timm-resnet18", "ViT-B-16"):
        with pytest.raises(FileNotFoundError, match=r"there is no file towers/mine\.pth$"):
            encoder.load(f"{name}@towers/mine.pth")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        encoder.load(tmp_path)


def test_networks_are_told_what_to_do():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"not of 'Linear'; docs/encoders\.md, 'Your own network'"):
        encoder.Encoder(network)
    for made in (network, encoder.Encoder(encoder.SMALL)):
        with pytest.raises(TypeError, match=r"save it with Encoder\.save and give the folder"):
            encoder.load(made)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", (files.ROOT / "docs" / "encoders.md").read_text(), re.DOTALL)
    assert len(found) == 3
    names: dict[str, object] = {}
    for block in found:
        exec(block, names)  # noqa: S102 (the documentation's own lines)
    assert names["embeddings"].shape == (2, 1376)
    assert names["small"].tower.embed_dim == 64


def test_the_papers_tower():
    tower = encoder.tower("ViT-B-16-quickgelu")
    assert (tower.embed_dim, tower.quick_gelu) == (512, True)
    assert (tower.vision["width"], tower.vision["layers"], tower.vision["patch_size"]) == (768, 12, 16)
    assert not encoder.tower("ViT-B-16").quick_gelu


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("an attempt to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# In the last, layers follow the pooling: the embedding is wider than timm's `num_features` (288).
@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("resnet18", 512),
        ("tf_efficientnet_lite0", 1280),
        ("vit_tiny_patch16_224", 192),
        ("mobilenetv3_small_050", 1024),
    ],
)
def test_a_backbone_of_timm_without_classifier(tmp_path, offline, model, width):
    found = encoder.load(f"timm-{model}/random", seed=1).eval()
    assert found.tower.embed_dim == width
    assert found.preprocess == encoder.DRAWINGS
    backbone = timm.create_model(model, num_classes=0, global_pool="avg").eval()
    backbone.load_state_dict(
        {name.removeprefix("trunk."): tensor for name, tensor in found.visual.state_dict().items()}
    )
    again = encoder.load(found.save(tmp_path / "ours")).eval()
    hub = encoder.Encoder.from_pretrained(tmp_path / "ours").eval()
    assert (again.tower, again.preprocess) == (hub.tower, hub.preprocess) == (found.tower, found.preprocess)
    with torch.no_grad():
        embeddings = found(IMAGES)
        assert embeddings.shape == (3, width)
        assert torch.allclose(embeddings, backbone(encoder.DRAWINGS(IMAGES)), atol=1e-5)
        assert torch.equal(again(IMAGES), embeddings)
        assert torch.equal(hub(IMAGES), embeddings)


def test_the_embedding_is_the_mean_of_the_last_feature_map(offline):
    found = encoder.load("timm-resnet18/random").eval()
    with torch.no_grad():
        features = found.visual.trunk.forward_features(encoder.DRAWINGS(IMAGES))
        assert features.shape == (3, 512, 7, 7)
        assert torch.allclose(found(IMAGES), features.mean((2, 3)), atol=1e-5)


def test_random_backbones_follow_the_seed(offline):
    first, again, other = (encoder.load("timm-resnet18/random", seed).visual.trunk.conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_other_files_with_a_backbone_of_timm(tmp_path, offline):
    found = encoder.load("timm-resnet18/random")
    torch.save({f"visual.{name}": tensor for name, tensor in found.visual.state_dict().items()}, tmp_path / "clip.bin")
    again = encoder.load(f"timm-resnet18@{tmp_path}/clip.bin")
    assert again.preprocess == encoder.Preprocess()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("timm-resnt18", r"'resnt18' is no model of timm\.list_models\(\); did you mean 'timm-resnet18'"),
        ("timm-resnet18.a1_in1k", "did you mean 'timm-resnet18'"),
        ("timm-hf-hub:timm/resnet18.a1_in1k", "did you mean 'timm-resnet1"),
        ("timm-???", "did you mean 'timm-"),
        ("timm-vit_base_patch16_384", r"cannot embed 224 x 224 pixels .*doesn't match model \(384\)"),
        ("timm-pit_b_224", r"mean pooling \(Only token pooling"),
    ],
)
def test_unknown_and_unfit_models_of_timm(offline, name, problem):
    with pytest.raises(ValueError, match=problem):
        encoder.load(f"{name}/random")


def test_a_network_that_convolves_takes_drawings_of_another_size(tmp_path):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    whole = encoder.load("timm-tf_efficientnet_lite0/random")
    half = encoder.load("timm-tf_efficientnet_lite0/random", size=112)
    images = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    assert all(map(torch.equal, whole.state_dict().values(), half.state_dict().values()))
    model.load_state_dict(
        {name.removeprefix("trunk."): value for name, value in half.visual.state_dict().items()}, strict=False
    )
    with torch.no_grad():
        expected = model.forward_features(half.preprocess(images)).mean((2, 3))
        torch.testing.assert_close(half.eval()(images), expected, atol=1e-5, rtol=1e-4)
    assert encoder.load(half.save(tmp_path)).preprocess.size == 112
    assert encoder.load(tmp_path, size=128).preprocess.size == 128


def test_clips_towers_take_one_size_only():
    with pytest.raises(ValueError, match="small/random: takes drawings of 224 pixels, not of 112"):
        encoder.load("small/random", size=112)


@pytest.mark.parametrize("source", ["small/random", "timm-mobilenetv3_small_050/random"])
def test_adam_goes_on_from_its_moments(tmp_path, source):
    """With its weights and moments an encoder is trained on as if nothing had happened."""
    images = torch.randint(0, 256, (4, 224, 224, 3), dtype=torch.uint8)

    def steps(model, adam, count):
        for _ in range(count):
            model(images).square().mean().backward()
            adam.step()
            adam.zero_grad()
        return model.state_dict()

    whole = encoder.load(source)
    adam = torch.optim.Adam(whole.parameters(), 1e-3, fused=True)
    steps(whole, adam, 2)
    encoder.save_moments(whole.save(tmp_path), whole, adam)
    expected = steps(whole, adam, 1)
    again = encoder.load(tmp_path)
    adam = torch.optim.Adam(again.parameters(), 1e-3, fused=True)
    encoder.load_moments(tmp_path, again, adam)
    found = steps(again, adam, 1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(FileNotFoundError, match="pretrain with keep_moments"):
        encoder.load_moments(tmp_path / "other", again, adam)


@pytest.mark.parametrize(
    ("precision", "gpu", "native", "warned"),
    [
        ("bf16", False, False, "take"),
        ("bf16", True, False, "take fp16"),
        ("bf16", True, True, ""),
        ("bf16", False, True, ""),
        ("no", False, False, ""),
    ],
)
def test_a_processor_without_bf16_is_warned_of(precision, gpu, native, warned, monkeypatch, caplog):
    """A T4 emulates it, and PyTorch then says that it is supported unless asked about emulation."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    encoder.check_precision(precision)
    assert [warned in record.message for record in caplog.records] == [True] * bool(warned)
