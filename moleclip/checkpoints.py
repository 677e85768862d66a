"""Other people's checkpoints: find the image tower in a file of open_clip, OpenAI, the paper's authors or ImageMol.

Only tensors are unpickled. `encoder.load` reports tensors that are missing, left over or of another shape.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import open_clip
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors.torch import load_file
from torch import Tensor

from moleclip.io import downloads
from moleclip.io.downloads import File
from moleclip.io.errors import DataError, nearest

TIMM = "timm-"  # begins the name of a tower of timm
_AUTHORS = "model_image."  # the prefix of the authors' tensors
# ImageMol's backbone is the sequence of a ResNet-18's children; these have tensors. The file also holds the heads of
# its pretraining tasks: a normalisation that is never called, the jigsaw, and three sizes of structural clusters.
_IMAGEMOL = "embedding_layer.0.weight"
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_HEADS = ("bn.", "jigsaw_classifier.", "class_classifier1.", "class_classifier2.", "class_classifier3.")
# Names of tensors of towers that can be recognised.
ANCHORS = ("class_embedding", _IMAGEMOL)
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Weights(NamedTuple):
    """Tensors of an image tower, by their names in the tower, and who trained them."""

    tensors: dict[str, Tensor]
    owner: Literal["openai", "moleclip", "imagemol", "timm", "unknown"]


def read(path: Path, anchors: Sequence[str] = ANCHORS) -> Weights:
    """Find the one image tower in a file.

    Parameters
    ----------
    path : Path
        safetensors, a TorchScript archive (OpenAI's), or a file of `torch.save`, with or without optimiser states,
        text tower and DataParallel's prefix.
    anchors : sequence of str
        Names of tensors, of which every such tower has one.

    Raises
    ------
    ValueError
        The file cannot be read, or holds no such tower, or several, or an unknown part next to ImageMol's.
    """
    content, archive = _open(path)
    towers = [
        (name.removesuffix(anchor), anchor, state)
        for state in _states(content)
        for name in state
        for anchor in anchors
        if f".{name}".endswith(f".{anchor}")
    ]
    # A name such as "conv1.weight" recurs inside a tower: the outermost counts.
    towers = [
        (prefix, anchor, state)
        for prefix, anchor, state in towers
        if not any(other is state and prefix != outer and prefix.startswith(outer) for outer, _, other in towers)
    ]
    if len(towers) != 1:
        missing = f"no tensor named {' or '.join(map(repr, anchors))}"
        found = ", ".join(repr(f"{prefix}{anchor}") for prefix, anchor, _ in towers) or missing
        raise ValueError(f"{path}: expected the tensors of one image tower, found {found}")
    prefix, anchor, state = towers[0]
    if anchor == _IMAGEMOL:
        return Weights(dict(_imagemol(path, state, prefix)), "imagemol")
    tensors = {name.removeprefix(prefix): tensor.float() for name, tensor in state.items() if name.startswith(prefix)}
    return Weights(tensors, "moleclip" if prefix.startswith(_AUTHORS) else "openai" if archive else "unknown")


def moments(path: Path) -> dict[str, Tensor]:
    """Read what the authors' checkpoints keep of Adam: the moments of the image tower, as `encoder.save_moments` does.

    Their optimiser numbers the parameters of the whole CLIP model, in the order in which the same file has its tensors.

    Raises
    ------
    ValueError
        The file cannot be read, or has no such moments.
    """
    content = _open(path)[0]
    for state in _states(content):
        names = [name for name in state if name.startswith(_AUTHORS)]
        prefix = next((name.removesuffix(ANCHORS[0]) for name in names if name.endswith(f".{ANCHORS[0]}")), None)
        for optimizer in _optimizers(content) if prefix else ():
            numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
            tower = {name: n for name, n in zip(names, numbers, strict=False) if name.startswith(str(prefix))}
            if len(names) == len(numbers) and all(
                n in optimizer["state"] and optimizer["state"][n]["exp_avg"].shape == state[name].shape
                for name, n in tower.items()
            ):
                return {
                    f"{kind}.visual.{name.removeprefix(str(prefix))}": torch.as_tensor(optimizer["state"][n][kind])
                    for name, n in tower.items()
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                }
    raise ValueError(f"{path}: has no moments of Adam for its image tower; finetune without moments")


def _optimizers(content: Any) -> Iterator[Mapping[str, Any]]:
    """All states of optimisers in a checkpoint."""
    for value in content.values() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys():
            yield value


def _imagemol(path: Path, state: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors of ImageMol's backbone, by their names in timm's ResNet-18."""
    for name, tensor in state.items():
        part, _, inside = name.removeprefix(prefix).partition(".")
        child, _, rest = inside.partition(".")
        if part == "embedding_layer" and child in _CHILDREN:
            yield f"trunk.{_CHILDREN[child]}.{rest}", tensor.float()
        elif not name.removeprefix(prefix).startswith(_HEADS):
            raise ValueError(f"{path}: {name!r} is neither of ImageMol's backbone nor of its pretraining heads")


def in_order(path: Path, expected: Mapping[str, Tensor], left_over: tuple[str, ...]) -> dict[str, Tensor]:
    """Read a file that has the tensors of a known tower in the same order, but under other names.

    Parameters
    ----------
    path : Path
        A file of `torch.save`; other formats do not keep the order.
    expected : mapping of str to Tensor
        The tower's tensors.
    left_over : tuple of str
        Beginnings of the names of tensors to ignore.

    Raises
    ------
    ValueError
        The file cannot be read, or its tensors do not match; the message names the first that does not.
    """
    found = next(_states(_open(path)[0]), {})
    found = {name: tensor for name, tensor in found.items() if not name.startswith(left_over)}
    for given, wanted in zip_longest(found.items(), expected.items()):
        if not given or not wanted or _kind(*given) != _kind(*wanted):
            one, other = (f"{item[0]} {tuple(item[1].shape)}" if item else "nothing" for item in (given, wanted))
            raise ValueError(f"{path}: the weights do not fit the architecture: {one} is in the place of {other}")
    return {name: tensor.float() for name, tensor in zip(expected, found.values(), strict=True)}


def _kind(name: str, tensor: Tensor) -> tuple[str, torch.Size]:
    # A normalisation's weight, bias, mean and variance have one shape: the end of the name tells them apart.
    return name.rpartition(".")[2], tensor.shape


def _open(path: Path) -> tuple[Any, bool]:
    """Content of a file, and whether it is a TorchScript archive."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path), False
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                    return torch.jit.load(str(path), map_location="cpu").state_dict(), True  # type: ignore[no-untyped-call]
        return torch.load(path, map_location="cpu", weights_only=True), False
    except Exception as error:  # each library raises another
        # One sentence: after it, PyTorch advises to unpickle anything.
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as weights ({reason}); only tensors are loaded, no objects") from None


def _states(content: Any) -> Iterator[Mapping[str, Tensor]]:
    """All dictionaries of named tensors in a checkpoint."""
    if isinstance(content, Mapping):
        state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if state:
            yield state
        for value in content.values():
            yield from _states(value)


def architecture(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe a vision transformer of OpenAI's kind by its tensors, in terms of `encoder.Tower`; heads are 64 wide."""
    try:
        width, _, patch, _ = tensors["conv1.weight"].shape
        side = math.isqrt(len(tensors["positional_embedding"]) - 1)
        layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
        hidden = len(tensors["transformer.resblocks.0.mlp.c_fc.weight"])
        embed_dim = tensors["proj"].shape[1]
    except KeyError as error:
        raise ValueError(f"{path}: the tensor {error.args[0]!r} is missing") from None
    sizes = {"image_size": side * patch, "patch_size": patch, "width": width, "layers": len(layers)}
    vision = {**sizes, "head_width": 64, "mlp_ratio": hidden / width}
    return {"embed_dim": embed_dim, "vision": vision, "quick_gelu": True}


def known(name: str, tag: str) -> dict[str, Any]:
    """Look up what open_clip or timm states about weights (mean, std, address and more), without fetching them.

    Raises
    ------
    ValueError
        There is no such tag, or the weights were trained with another activation than the tower's.
    """
    if name.startswith(TIMM):
        return _known_to_timm(name.removeprefix(TIMM), tag)
    config = get_pretrained_cfg(name, tag)
    if not config:
        tags = ", ".join(list_pretrained_tags_by_model(name))
        raise ValueError(f"{name!r} has no weights {tag!r}; open_clip knows {tags or 'none'}")
    model = open_clip.get_model_config(name)
    if config.get("quick_gelu", False) and not model.get("quick_gelu", False) and "timm_model_name" not in model:
        raise ValueError(
            f"{name}/{tag}: these weights were trained with QuickGELU, and the tower {name!r} has GELU. The tensors "
            f"fit, but the features would be others. Use {name}-quickgelu/{tag}"
        )
    return dict(config)


def _known_to_timm(model: str, tag: str) -> dict[str, Any]:
    tags = {full.partition(".")[2]: full for full in timm.list_pretrained(f"{model}.*")}
    if tag not in tags:
        raise ValueError(f"{TIMM}{model} has no weights {tag!r}{nearest(tag, list(tags))}")
    notes: Any = timm.get_pretrained_cfg(tags[tag])
    hub = f"{notes.hf_hub_id}/{notes.hf_hub_filename or 'model.safetensors'}" if notes.hf_hub_id else ""
    return {"mean": notes.mean, "std": notes.std, "hf_hub": hub, "classifier": notes.classifier}


def without_classifier(tensors: Mapping[str, Tensor], classifier: str | Sequence[str] | None) -> dict[str, Tensor]:
    """Leave out the layers of that name or names."""
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in layers}


def fetch(config: Mapping[str, Any]) -> Path:
    """Fetch weights that `known` describes: from huggingface_hub's cache, or as `downloads.fetch` finds them.

    Raises
    ------
    DataError
        The file is out of reach; the message says where to put it.
    """
    repository, _, named = str(config.get("hf_hub", "")).rpartition("/")
    names = () if not repository else (named,) if named else _HUB_FILES
    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    if url := config.get("url"):  # OpenAI's addresses hold the checksum
        *_, digest, name = url.split("/")
        return downloads.fetch(File(f"weights/openai/{name}", url, digest if len(digest) == 64 else None))
    problem = DataError("there is no address for these weights")
    for name in names:
        try:
            url = f"https://huggingface.co/{repository}/resolve/main/{name}"
            return downloads.fetch(File(f"weights/{repository}/{name}", url))
        except DataError as error:
            problem = error
    raise problem
