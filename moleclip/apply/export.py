"""Write an encoder for other programs: a folder of half the size, or an ONNX file."""

from pathlib import Path

import torch
from torch import Tensor, nn

from moleclip import encoder
from moleclip.encoder import Encoder


class _Embed(nn.Module):
    """What `Encoder.embed` computes, as one graph."""

    def __init__(self, image_encoder: Encoder) -> None:
        super().__init__()
        self.encoder = image_encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.placed(self.encoder(images))


def export(source: str | Path, out: str | Path) -> Path:
    """Export an encoder.

    Parameters
    ----------
    source : str or Path
        As of `encoder.load`.
    out : str or Path
        A file that ends in .onnx: it takes drawings, uint8 [B, size, size, 3] in RGB, dark lines on white, and gives
        embeddings, float32 [B, D], as `Encoder.embed` does. Anything else is a folder, with weights in fp16.

    Returns
    -------
    Path
        Of what was written.

    Raises
    ------
    FileExistsError
        The folder or file is there already.
    ImportError
        For ONNX, the packages onnx and onnxscript are not installed.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: is there already; delete it, or choose another name")
    loaded = encoder.load(source)
    if out.suffix != ".onnx":
        return loaded.save(out, encoder.provenance(source), half=True)
    try:
        import onnxscript  # noqa: F401 (an extra, which PyTorch needs to export)
    except ImportError:
        raise ImportError("exporting to ONNX needs two packages: pip install onnx onnxscript") from None
    size = loaded.preprocess.size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        _Embed(loaded).eval(),
        (example,),
        out,
        input_names=["drawings"],
        output_names=["embeddings"],
        dynamic_shapes={"images": {0: batch}},
        external_data=False,
        verbose=False,
    )
    return out
