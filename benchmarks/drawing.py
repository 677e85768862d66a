"""A pair of drawings, plain and randomised: this project against the authors' route, on the same molecules.

The authors draw SVG with RDKit and rasterise it with cairosvg; each drawing starts from the SMILES. Both routes end
in arrays of pixels, run in the same process on one core, and take turns molecule by molecule.
"""

import argparse
import time
from collections.abc import Callable

import cairosvg
import cv2
import numpy as np
from common import report
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import datasets, drawing

SETS = ("nci_5k", "moses", "chembl_25_subset")


def authors(smiles: str, style: drawing.Style) -> np.ndarray:
    """SMILES -> SVG -> PNG -> pixels."""
    mol = rdMolDraw2D.PrepareMolForDrawing(Chem.MolFromSmiles(smiles))
    canvas = rdMolDraw2D.MolDraw2DSVG(224, 224)
    options = canvas.drawOptions()
    options.bondLineWidth, options.multipleBondOffset, options.rotate = (
        style.bond_width,
        style.bond_offset,
        style.rotation,
    )
    if style.font:
        options.fontFile = drawing.font_path(style.font)
        options.minFontSize = options.maxFontSize = style.font_size
        options.fixedBondLength = style.bond_length
    canvas.DrawMolecule(mol)
    canvas.FinishDrawing()
    png = cairosvg.svg2png(bytestring=canvas.GetDrawingText().encode(), output_width=224, output_height=224)
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(name: str, count: int) -> dict[str, object]:
    """Mean and median milliseconds of a pair by each route, over `count` molecules of a set."""
    smiles = np.random.default_rng(0).permutation(np.array(datasets.load(name).smiles, object))
    rng = np.random.default_rng(0)
    times = []
    for text in smiles:
        try:
            stored = drawing.prepare_all([text])["molecule"][0].as_py()
            drawing.draw(text)
        except ValueError:
            continue
        if stored is None:
            continue
        styles = (drawing.PLAIN, drawing.random_style(rng))

        def from_smiles(text: str = text, styles: tuple[drawing.Style, ...] = styles) -> None:
            prepared = drawing.prepare(text)
            for style in styles:
                drawing.draw(prepared, style)

        def from_store(stored: bytes = stored, styles: tuple[drawing.Style, ...] = styles) -> None:
            prepared = drawing.from_store(stored)
            for style in styles:
                drawing.draw(prepared, style)

        theirs = seconds(lambda text=text, styles=styles: [authors(text, style) for style in styles])
        prepared = drawing.prepare(text)
        parts = (
            lambda stored=stored: drawing.from_store(stored),
            lambda prepared=prepared, styles=styles: [drawing.svg(prepared, style) for style in styles],
        )
        times.append((theirs, seconds(from_smiles), seconds(from_store), *map(seconds, parts)))
        if len(times) == count:
            break
    ms = 1000 * np.array(times)
    row: dict[str, object] = {"set": name, "molecules": len(ms)}
    for column, route in enumerate(("authors", "from_smiles", "prepared")):
        row |= {f"{route}_ms_mean": ms[:, column].mean(), f"{route}_ms_median": float(np.median(ms[:, column]))}
    for column, route in enumerate(("from_smiles", "prepared"), 1):
        row |= {f"{route}_times_faster": ms[:, 0].sum() / ms[:, column].sum()}
    # What a pair of prepared molecules takes: reading, RDKit's SVG, and the rest, which is the rasteriser.
    read, svg = ms[:, 3].mean(), ms[:, 4].mean()
    return row | {"read_ms": read, "rdkit_svg_ms": svg, "rasterise_ms": ms[:, 2].mean() - read - svg}


def main() -> None:
    """Measure each set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=300)
    parser.add_argument("--sets", nargs="+", default=SETS)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with rdBase.BlockLogs():
        report("drawing", [measure(name, arguments.molecules) for name in arguments.sets], images="224 x 224, a pair")


if __name__ == "__main__":
    main()
