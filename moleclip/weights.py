"""Image towers out of other people's files: open_clip's, OpenAI's, and the paper's authors', read strictly.

Nothing is unpickled but tensors. Which tensors are missing, left over or misshapen is for `encoder.load` to say.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import open_clip
import torch
from huggingface_hub import try_to_load_from_cache
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors.torch import load_file
from torch import Tensor

from moleclip import sources
from moleclip.sources import DataError, File

# Tensors of the authors' checkpoints are below this; their images came from OpenCV, with blue first.
_AUTHORS = "model_image."
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Weights(NamedTuple):
    """Tensors of an image tower, by their names in it, and whose they are."""

    tensors: dict[str, Tensor]
    owner: Literal["openai", "moleclip", "unknown"]


def read(path: Path, anchor: str = "class_embedding") -> Weights:
    """Find the one image tower in a file, wherever in it.

    Parameters
    ----------
    path : Path
        safetensors, a TorchScript archive (OpenAI's), or a file of `torch.save`, with or without optimiser states,
        text tower and DataParallel's prefix.
    anchor : str
        Name of a tensor that every such tower has.

    Raises
    ------
    ValueError
        The file cannot be read, or holds no such tower, or several.
    """
    content, archive = _open(path)
    towers = [
        (name.removesuffix(anchor), state)
        for state in _states(content)
        for name in state
        if name == anchor or name.endswith(f".{anchor}")
    ]
    # A name like "conv1.weight" occurs again inside a tower: the outermost counts.
    towers = [
        (prefix, state)
        for prefix, state in towers
        if not any(other is state and prefix != outer and prefix.startswith(outer) for outer, other in towers)
    ]
    if len(towers) != 1:
        found = ", ".join(repr(f"{prefix}{anchor}") for prefix, _ in towers) or f"no tensor named {anchor!r}"
        raise ValueError(f"{path}: expected the tensors of one image tower, found {found}")
    prefix, state = towers[0]
    tensors = {name.removeprefix(prefix): tensor.float() for name, tensor in state.items() if name.startswith(prefix)}
    return Weights(tensors, "moleclip" if prefix.startswith(_AUTHORS) else "openai" if archive else "unknown")


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
    except Exception as error:  # each library has its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: cannot be read as weights ({reason}); only tensors are loaded, no objects") from None


def _states(content: Any) -> Iterator[Mapping[str, Tensor]]:
    """All dictionaries of named tensors in a checkpoint."""
    if isinstance(content, Mapping):
        state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if state:
            yield state
        for value in content.values():
            yield from _states(value)


def architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read open_clip's description of a plain vision transformer off its tensors; heads are 64 wide, as CLIP's."""
    try:
        width, _, patch, _ = tensors["conv1.weight"].shape
        side = math.isqrt(len(tensors["positional_embedding"]) - 1)
        layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
        hidden = len(tensors["transformer.resblocks.0.mlp.c_fc.weight"])
        embed_dim = tensors["proj"].shape[1]
    except KeyError as error:
        raise ValueError(f"the tensor {error.args[0]!r} is missing") from None
    vision = {"image_size": side * patch, "patch_size": patch, "width": width, "layers": len(layers)}
    return {"embed_dim": embed_dim, "vision": {**vision, "head_width": 64, "mlp_ratio": hidden / width}}


def pretrained(name: str, tag: str) -> tuple[Path, dict[str, Any]]:
    """Fetch weights that open_clip knows by name and tag.

    Returns
    -------
    Path
        From the cache of huggingface_hub, or as `sources.fetch` finds it.
    dict
        open_clip's notes on them, as `known` gives them.

    Raises
    ------
    ValueError
        As for `known`.
    DataError
        The file is out of reach; the message says where to put it.
    """
    config = known(name, tag)
    return _fetch(config), config


def known(name: str, tag: str) -> dict[str, Any]:
    """Look up open_clip's notes on weights (mean, std, address and more) without fetching them.

    Raises
    ------
    ValueError
        There is no such tag, or the weights were trained with another activation than the tower's.
    """
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


def _fetch(config: Mapping[str, Any]) -> Path:
    repository, _, named = str(config.get("hf_hub", "")).rpartition("/")
    files = (named,) if named else _HUB_FILES
    for file in files if repository else ():
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if url := config.get("url"):  # OpenAI's addresses hold the checksum
        *_, digest, file = url.split("/")
        sha256 = digest if len(digest) == 64 else None
        return sources.get(File(f"weights/openai/{file}", url, sha256, None, "MIT", "TorchScript"))
    problem = DataError("open_clip has no address for these weights")
    for file in files if repository else ():
        url = f"https://huggingface.co/{repository}/resolve/main/{file}"
        try:
            return sources.get(File(f"weights/{repository}/{file}", url, None, None, "see the address", "tensors"))
        except DataError as error:
            problem = error
    raise problem
