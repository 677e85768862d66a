"""RDKit's SVG -> pixels.

The authors draw SVG with RDKit and rasterise it with cairosvg, at 25 ms a drawing. RDKit's own rasteriser returns its
pixels only as PNG, and compressing them takes 70 % of its time. The SVG that RDKit writes for a molecule needs little:
paths of lines and quadratic curves, stroked or filled. matplotlib's Agg draws those, in half the time and nearer to
cairosvg, as both start from the same rounded coordinates.
"""

import re
from functools import cache, lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

_PATH = re.compile(r"<path (?:class='[^']*' )?d='([^']*)' (?:style|fill)='([^']*)'")
_REST = 6  # other tags of a drawing: declaration, svg, comment, background, and two closing ones

# Path data to its numbers, and to matplotlib's codes, one a point. A closing point has coordinates that do not count.
_NUMBERS = str.maketrans({**dict.fromkeys("MLQC,", " "), "Z": " 0 0 "})
_CODES = str.maketrans(
    {"M": "\x01", "L": "\x02", "Q": "\x03\x03", "C": "\x04\x04\x04", "Z": "\x4f", **dict.fromkeys("0123456789.,- \n")}
)


class _Paint(NamedTuple):
    fill: tuple[float, float, float] | None
    stroke: tuple[float, float, float] | None
    width: float
    dashes: list[float] | None


def rasterise(svg: str, size: int) -> NDArray[np.uint8]:
    """Draw RDKit's SVG.

    Parameters
    ----------
    svg : str
        Of a square drawing with `size` pixels a side, on a white background.

    Returns
    -------
    ndarray of uint8, shape [size, size, 3]
        RGB.

    Raises
    ------
    ValueError
        The drawing has something else than paths.
    """
    elements = _PATH.findall(svg)
    if svg.count("<") != len(elements) + _REST:
        tags = sorted(set(re.findall(r"<(\w+)", svg)) - {"svg", "rect", "path"})
        raise ValueError(f"RDKit's drawing has elements that cannot be rasterised: {', '.join(tags) or 'paths'}")
    renderer, upright = _canvas(size)
    pixels = np.asarray(renderer.buffer_rgba())
    pixels[:] = 255
    context = renderer.new_gc()
    context.set_capstyle("butt")
    context.set_joinstyle("miter")
    context.set_snap(False)
    for text, group in groupby(elements, itemgetter(1)):  # in their order: it shows where they overlap
        paint = _paint(text)
        context.set_linewidth(paint.width)
        context.set_dashes(0, paint.dashes)
        if paint.stroke:
            context.set_foreground(paint.stroke)
        renderer.draw_path(context, _path("".join(data for data, _ in group)), upright, paint.fill)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)


@cache
def _canvas(size: int) -> tuple[RendererAgg, Affine2D]:
    """Make a renderer at one pixel a point, wiped for each drawing; and turn SVG's y, downwards, to matplotlib's."""
    return RendererAgg(size, size, 72), Affine2D().scale(1, -1).translate(0, size)


@lru_cache(maxsize=4096)
def _paint(text: str) -> _Paint:
    if text.startswith("#"):
        return _Paint(_colour(text), None, 0, None)
    style = dict(entry.split(":") for entry in text.split(";") if entry)
    dashes = style.get("stroke-dasharray")
    return _Paint(
        None if style["fill"] == "none" else _colour(style["fill"]),
        _colour(style["stroke"]),
        float(style["stroke-width"].removesuffix("px")),
        [float(length) for length in dashes.split(",")] if dashes else None,
    )


def _colour(text: str) -> tuple[float, float, float]:
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _path(data: str) -> Path:
    points = np.array(data.translate(_NUMBERS).split(), np.float64).reshape(-1, 2)
    path = Path(points, np.frombuffer(data.translate(_CODES).encode(), np.uint8))
    path.should_simplify = False
    return path
