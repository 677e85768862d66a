"""Other people's files: synthetic ones with the true names and shapes, against OpenAI's own code."""

import importlib.util
from importlib import metadata

import numpy as np
import pytest
import requests
import torch
from safetensors.torch import save_file

from moleclip import depict, encoder, sources, weights

IMAGES = torch.from_numpy(np.stack([depict.draw(smiles) for smiles in ("c1ccccc1N", "CC(=O)Cl")]))


def clip_module():
    """Load the file clip/model.py of openai-clip alone: the package's __init__ needs a setuptools of old."""
    file = metadata.distribution("openai-clip").locate_file("clip/model.py")
    spec = importlib.util.spec_from_file_location("openai_clip_model", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clip():
    """CLIP with the image tower of ViT-B/16, and a text tower of one layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return clip_module().CLIP(512, 224, 12, 768, 16, 77, 100, 512, 8, 1).eval()


@pytest.fixture(scope="module")
def expected(clip):
    with torch.no_grad():
        return clip.encode_image(encoder.Preprocess()(IMAGES))


def agree(found: encoder.Encoder, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    with torch.no_grad():
        return bool((found(IMAGES) - expected).abs().max() < tolerance)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_openais_torchscript_archive(clip, expected, tmp_path):
    with torch.no_grad():
        archive = torch.jit.trace(clip, (torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)))
    archive.save(tmp_path / "ViT-B-16.pt")
    found = encoder.load(tmp_path / "ViT-B-16.pt")
    assert found.tower == encoder.Tower(512, {**found.tower.vision, "layers": 12, "width": 768, "patch_size": 16}, True)
    assert found.preprocess == encoder.Preprocess()
    assert len(found.visual.state_dict()) == 152
    assert agree(found, expected)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_open_clip_files_need_the_name_of_the_tower(clip, expected, tmp_path, ending):
    file = tmp_path / f"open_clip_model.{ending}"
    state = {name: tensor.contiguous().clone() for name, tensor in clip.state_dict().items()}
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    with pytest.raises(ValueError, match="activation"):
        encoder.load(file)
    assert agree(encoder.load(f"ViT-B-16-quickgelu@{file}"), expected)
    assert not agree(encoder.load(f"ViT-B-16@{file}"), expected)  # the trap: the tensors fit


@pytest.mark.parametrize("prefix", ["model_image.module.model.", "model_image.model."])
@pytest.mark.parametrize("half", [True, False])
def test_a_checkpoint_of_the_authors(clip, tmp_path, prefix, half):
    """fp16 or fp32, with or without DataParallel, class heads and optimiser states beside the tower."""
    tower = {name: tensor.half() if half else tensor for name, tensor in clip.visual.state_dict().items()}
    state = {f"{prefix}{name}": tensor for name, tensor in tower.items()}
    state |= {f"{prefix.removesuffix('model.')}classifier_300.weight": torch.zeros(300, 512)}
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
    torch.save(broken(clip.state_dict(), how), file)
    with pytest.raises(ValueError, match=rf"clip\.bin.*(?s:.)*transformer\.resblocks\.3\.{name}\.weight"):
        encoder.load(f"ViT-B-16-quickgelu@{file}")


def test_what_holds_no_tower_or_two_is_refused(clip, tmp_path):
    tower = {f"a.{name}": tensor for name, tensor in clip.visual.state_dict().items() if "resblocks" not in name}
    for content, problem in (
        ({"fc.weight": torch.zeros(2)}, "no tensor named 'class_embedding'"),
        ({**tower, **{name.replace("a.", "b."): tensor for name, tensor in tower.items()}}, "'a.class_embedding', 'b"),
        ({"model": Exception("an object")}, "no objects"),
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
    ],
)
def test_without_network_the_error_says_where_to_put_the_file(tmp_path, monkeypatch, source, file):
    def offline(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(sources.pooch.HTTPDownloader, "__call__", offline)
    monkeypatch.setattr(sources.pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.delenv("MOLECLIP_DATA_DIR", raising=False)
    with pytest.raises(sources.DataError, match=f"put the file .*(?s:.)*{tmp_path}/cache/{file}"):
        encoder.load(source)


def test_openais_weights_are_pinned_and_found_in_a_mirror(clip, expected, tmp_path, monkeypatch):
    file = tmp_path / "weights" / "openai" / "ViT-B-16.pt"
    file.parent.mkdir(parents=True)
    torch.save(clip.state_dict(), file)
    monkeypatch.setenv("MOLECLIP_DATA_DIR", str(tmp_path))
    with pytest.raises(
        sources.DataError, match="expected 5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df"
    ):
        encoder.load("ViT-B-16-quickgelu/openai")
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: str(file))  # as huggingface_hub left it
    found = encoder.load("ViT-B-16-quickgelu/openai")
    assert found.preprocess == encoder.Preprocess()
    assert agree(found, expected)


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
        assert torch.equal(model(IMAGES), file(IMAGES))
