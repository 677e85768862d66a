"""RDKit's SVG -> pixels.

The authors draw SVG with RDKit and rasterise it with cairosvg, at 25 ms a drawing. RDKit's own rasteriser returns its
pixels only as PNG, and compressing them takes 70 % of its time. The SVG that RDKit writes for a molecule needs little:
paths of lines and quadratic curves, stroked or filled. matplotlib's Agg draws those, in half the time and nearer to
cairosvg, as both start from the same rounded coordinates.
"""

import re
from functools import cache, lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from numpy.typing import NDArray

_PATH = re.compile(r"<path (?:class='[^']*' )?d='([^']*)' (?:style|fill)='([^']*)'")
_REST = 6  # other tags of a drawing: declaration, svg, comment, background, and two closing ones

# Path data are letters and numbers with one decimal. Of each letter: matplotlib's code, and how many points have it (a
# closing point's coordinates do not count). "|" begins what is painted alike.
_POINTS = {"M": (1, 1), "L": (2, 1), "Q": (3, 2), "C": (4, 3), "Z": (79, 1)}
_CODES, _COUNTS = np.array([_POINTS.get(chr(letter), (0, 0)) for letter in range(128)], np.uint8).T
_BLANKS = bytes.maketrans(b"MLQCZ|,", b"       ")
_NUMBERS = b"0123456789.,- \n"
_NOTHING = np.empty((0, 4))


class _Paint(NamedTuple):
    fill: tuple[float, ...] | None
    stroke: tuple[float, ...] | None
    width: float = 0.0
    dashes: tuple[float, list[float] | None] = (0.0, None)

    @property
    def kind(self) -> tuple[bool, bool]:
        return self.fill is not None, self.stroke is not None


class _Shape(NamedTuple):
    """What Agg reads of a matplotlib Path; making one of those takes ten times as long."""

    vertices: NDArray[np.float64]
    codes: NDArray[np.uint8]
    paint: _Paint
    should_simplify: bool = False
    simplify_threshold: float = 0.0


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
    renderer, context, upright = _canvas(size)
    pixels = np.asarray(renderer.buffer_rgba())
    pixels[:] = 255
    for (filled, stroked), group in groupby(_shapes(elements), attrgetter("paint.kind")):
        shapes = list(group)  # in their order: it shows where they overlap
        paints = [shape.paint for shape in shapes]
        renderer.draw_path_collection(
            *(context, upright, shapes, np.empty((0, 3, 3)), np.empty((0, 2)), np.eye(3)),
            np.array([paint.fill for paint in paints]) if filled else _NOTHING,
            np.array([paint.stroke for paint in paints]) if stroked else _NOTHING,
            np.array([paint.width for paint in paints]),
            [paint.dashes for paint in paints],
            *(np.ones(1, np.uint8), None, "screen"),
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)


def _shapes(elements: list[tuple[str, str]]) -> list[_Shape]:
    """Join neighbours that are painted alike, and read all path data at once."""
    paints, texts = [], []
    for style, group in groupby(elements, lambda element: element[1]):
        paints.append(_paint(style))
        texts += ["|", *(data for data, _ in group)]
    text = "".join(texts).encode()
    letters = np.frombuffer(text.translate(None, _NUMBERS), np.uint8)
    counts = _COUNTS[letters]
    codes = np.repeat(_CODES[letters], counts)
    # Tenths of pixels: integers are read four times faster.
    tenths = np.fromstring(text.translate(_BLANKS, b"."), np.int64, sep=" ")
    characters = np.frombuffer(text + b" ", np.uint8)
    after = characters[np.flatnonzero(characters == ord(".")) + 2]
    if len(after) != len(tenths) or np.any((after >= ord("0")) & (after <= ord("9"))):
        raise ValueError("RDKit's drawing has coordinates that are not given to one decimal")
    points = np.zeros((len(codes), 2))
    points[codes != _CODES[ord("Z")]] = tenths.reshape(-1, 2) / 10
    starts = np.cumsum(counts, dtype=np.int64)[letters == ord("|")].tolist()
    ends = [*starts[1:], len(points)]
    return [
        _Shape(points[start:end], codes[start:end], paint)
        for start, end, paint in zip(starts, ends, paints, strict=True)
    ]


@cache
def _canvas(size: int) -> tuple[Any, Any, NDArray[np.float64]]:
    """Make a renderer at one pixel a point, wiped for each drawing; and turn SVG's y, downwards, to matplotlib's."""
    renderer = RendererAgg(size, size, 72)
    context = renderer.new_gc()
    context.set_capstyle("butt")
    context.set_joinstyle("miter")
    context.set_snap(False)
    return renderer, context, np.array([[1.0, 0.0, 0.0], [0.0, -1.0, size], [0.0, 0.0, 1.0]])


@lru_cache(maxsize=4096)
def _paint(text: str) -> _Paint:
    if text.startswith("#"):
        return _Paint(_colour(text), None)
    style = dict(entry.split(":") for entry in text.split(";") if entry)
    dashes = style.get("stroke-dasharray")
    return _Paint(
        None if style["fill"] == "none" else _colour(style["fill"]),
        _colour(style["stroke"]),
        float(style["stroke-width"].removesuffix("px")),
        (0.0, [float(length) for length in dashes.split(",")] if dashes else None),
    )


def _colour(text: str) -> tuple[float, ...]:
    return *(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0
