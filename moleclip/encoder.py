"""CLIP's image tower with its preprocessing: build, load, save."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moleclip import provenance

WEIGHTS = "model.safetensors"
CARD = "encoder.json"


@dataclass(frozen=True)
class Tower:
    """Architecture of a vision transformer."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    output_dim: int
    mlp_ratio: float = 4.0
    quick_gelu: bool = True


# Small enough to train from scratch on a laptop; every other name is one of open_clip's.
SMALL = Tower(image_size=224, patch_size=32, width=128, layers=4, heads=2, output_dim=128)


@dataclass(frozen=True)
class Preprocess:
    """From drawings to the tower's input. It travels with the weights.

    The defaults are CLIP's.
    """

    size: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    channel_order: Literal["RGB", "BGR"] = "RGB"

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise.

        Parameters
        ----------
        images : Tensor of uint8, shape [B, size, size, 3]
            RGB.

        Returns
        -------
        Tensor of float32, shape [B, 3, size, size]
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}, expected uint8 [B, {self.size}, {self.size}, 3]"
            )
        if self.channel_order == "BGR":
            images = images.flip(-1)
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        # In place: at this size a temporary costs more than the arithmetic.
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return planes.sub_(255 * mean).div_(255 * std)


# DEVIATION: a tower from scratch is fed drawings normalised by their own mean and standard deviation. With CLIP's,
# the white background is far from zero, all embeddings start within 0.1 % of each other, and the contrastive loss
# stays at chance.
DRAWINGS = Preprocess(mean=(0.975, 0.975, 0.975), std=(0.14, 0.14, 0.14))


class Encoder(nn.Module):
    """An image tower: drawings in, embeddings out."""

    def __init__(self, tower: Tower, preprocess: Preprocess | None = None) -> None:
        super().__init__()
        self.tower = tower
        self.preprocess = preprocess or Preprocess(size=tower.image_size)
        self.visual = VisionTransformer(
            tower.image_size,
            tower.patch_size,
            tower.width,
            tower.layers,
            tower.heads,
            tower.mlp_ratio,
            output_dim=tower.output_dim,
            act_layer=QuickGELU if tower.quick_gelu else nn.GELU,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed drawings.

        Parameters
        ----------
        images : Tensor of uint8, shape [B, size, size, 3]
            RGB, as `depict.draw` makes them.

        Returns
        -------
        Tensor of float32, shape [B, output_dim]
        """
        embeddings: Tensor = self.visual(self.preprocess(images))
        return embeddings.float()

    def save(self, folder: str | Path, record: dict[str, Any] | None = None) -> Path:
        """Write weights (safetensors) and card (JSON: architecture, preprocessing, provenance) into a folder.

        The card is written last and holds the checksum of the weights, so that a half-written folder is refused.
        """
        folder = Path(folder)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.visual.state_dict().items()}
        weights = provenance.write(folder / WEIGHTS, lambda part: save_file(tensors, part))
        card = {
            "tower": dataclasses.asdict(self.tower),
            "preprocess": dataclasses.asdict(self.preprocess),
            "sha256": provenance.sha256(weights),
            "provenance": record or {},
        }
        provenance.write_json(folder / CARD, card)
        return folder


def tower(name: str) -> Tower:
    """Architecture by name: "small", or one of open_clip's vision transformers.

    Raises
    ------
    ValueError
        The name is unknown, or not a plain vision transformer.
    """
    if name == "small":
        return SMALL
    config = open_clip.get_model_config(name)
    if config is None or "layers" not in config["vision_cfg"] or not isinstance(config["vision_cfg"]["layers"], int):
        raise ValueError(f"{name!r} is neither 'small' nor a vision transformer of open_clip.list_models()")
    vision = config["vision_cfg"]
    return Tower(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        output_dim=config["embed_dim"],
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        quick_gelu=config.get("quick_gelu", False),
    )


def load(source: str | Path, seed: int = 0) -> Encoder:
    """Load an encoder.

    Parameters
    ----------
    source : str or Path
        A folder that `Encoder.save` wrote, or "<tower>/random" for random initial weights
        ("random" alone is the paper's tower, "ViT-B-16-quickgelu/random").
    seed : int
        Of random weights.

    Raises
    ------
    FileNotFoundError
        `source` is neither of these.
    ValueError
        The folder is damaged, or its tensors do not fit its architecture.
    """
    name, _, weights = str(source).rpartition("/")
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Encoder(SMALL, DRAWINGS) if name == "small" else Encoder(tower(name or "ViT-B-16-quickgelu"))
    folder = Path(source)
    if not (folder / CARD).is_file():
        raise FileNotFoundError(
            f"{source}: not an encoder. Give a folder with {CARD} and {WEIGHTS} (notebook 03 writes one), "
            "or '<tower>/random', for example 'small/random'"
        )
    return _load_folder(folder)


def _load_folder(folder: Path) -> Encoder:
    card = json.loads((folder / CARD).read_text())
    found = provenance.sha256(folder / WEIGHTS)
    if found != card["sha256"]:
        raise ValueError(f"{folder / WEIGHTS}: sha256 is {found}, {CARD} says {card['sha256']}; the folder is damaged")
    saved = card["preprocess"]
    preprocess = Preprocess(saved["size"], tuple(saved["mean"]), tuple(saved["std"]), saved["channel_order"])
    encoder = Encoder(Tower(**card["tower"]), preprocess)
    try:
        encoder.visual.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit the architecture of {CARD}: {error}") from None
    return encoder
