"""A pair of drawings, plain and randomised: this project against the authors' route, on the same molecules.

The authors draw SVG with RDKit and rasterise it with cairosvg; each drawing starts from the SMILES. Both routes end
in arrays of pixels, run in the same process on one core, and take turns molecule by molecule.

With augmentation, three routes take turns, in processor time: this project's views, those of an earlier commit, and
the authors' (SVG, a PNG file, reading it, augmentation of the same kind).
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cairosvg
import cv2
import numpy as np
import pyarrow as pa
from common import ROOT, report
from pyarrow import parquet
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from moleclip import augmentation, datasets, drawing

SETS = ("nci_5k", "moses", "chembl_25_subset")


BASELINE = "f922637"  # before drawing and augmentation were made faster
TRIES = 3  # of which the shortest counts: what else the machine does can only add to it
# Draws the molecule whose number it reads; answers with the processor time, and a checksum of its two drawings.
_VIEWS = """
import hashlib, sys, time
import cv2, numpy as np
from pyarrow import parquet
try:
    from moleclip import drawing, views
except ImportError:  # what they were called before
    from moleclip import batches as views, depict as drawing
cv2.setNumThreads(0)
molecules = parquet.read_table(sys.argv[1])["molecule"]
pairs, bare = (views.Views(molecules, np.arange(len(molecules)), level, seed=0) for level in ("default", "none"))
for line in sys.stdin:
    key = tuple(map(int, line.split()))
    seconds = float("inf")
    for _ in range({tries}):
        started = time.process_time()
        pairs[key]
        seconds = min(seconds, time.process_time() - started)
    digest = hashlib.sha256(b"".join(image.numpy().tobytes() for image in bare[key][:2])).hexdigest()
    print(seconds, digest, flush=True)
"""


def authors(smiles: str, style: drawing.Style, file: Path | None = None) -> np.ndarray:
    """SMILES -> SVG -> PNG (in a file, if one is given) -> pixels."""
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
    if file is None:
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    file.write_bytes(png)
    return cv2.imread(str(file), cv2.IMREAD_COLOR)


def whole_route(smiles: str, seed: int, file: Path) -> float:
    """Draw an augmented pair by the authors' route; processor time in seconds."""
    rng = np.random.default_rng(seed)
    started = time.process_time()
    for style in (drawing.PLAIN, drawing.random_style(rng)):
        augmentation.augment(authors(smiles, style, file), "default", rng)
    return time.process_time() - started


def svg_alone(stored: bytes, seed: int) -> float:
    """Draw a pair as RDKit's SVG, and no more: what no rasteriser can be faster than. Processor time in seconds."""
    prepared, rng = drawing.from_store(stored), np.random.default_rng(seed)
    started = time.process_time()
    for style in (drawing.PLAIN, drawing.random_style(rng)):
        drawing.svg(prepared, style)
    return time.process_time() - started


class Drawer:
    """A process that draws and augments by the package in a folder."""

    def __init__(self, package: Path, molecules: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _VIEWS.replace("{tries}", str(TRIES)), molecules],
            env={**os.environ, "PYTHONPATH": str(package)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, epoch: int, number: int) -> tuple[float, str]:
        """Processor time of a molecule's views, in seconds, and a checksum of its drawings."""
        print(epoch, number, file=self.process.stdin, flush=True)
        taken, digest = self.process.stdout.readline().split()
        return float(taken), digest

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def unpack(commit: str, folder: Path) -> Path | None:
    """Unpack the package as it was at a commit; None where the history is missing, as in a shallow checkout."""
    packed = subprocess.run(["git", "-C", ROOT, "archive", commit, "moleclip"], capture_output=True)
    if packed.returncode:
        print(f"the history has no commit {commit}: not compared with it", file=sys.stderr)
        return None
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def augmented(name: str, count: int, epochs: int = 2) -> dict[str, object]:
    """Mean milliseconds (processor time) of an augmented pair by each route, over `count` molecules of a set."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        at = Path(folder)
        chosen = np.random.default_rng(0).permutation(np.array(datasets.load(name).smiles, object))
        prepared = drawing.prepare_all(list(chosen[: 2 * count])).add_column(0, "smiles", pa.array(chosen[: 2 * count]))
        prepared = prepared.filter(pa.compute.is_valid(prepared["molecule"]))[:count]
        parquet.write_table(prepared, at / "molecules.parquet")
        packages = {"pair": ROOT, "baseline": unpack(BASELINE, at / "baseline")}
        drawers = {route: Drawer(package, at / "molecules.parquet") for route, package in packages.items() if package}
        for drawer in drawers.values():
            stack.callback(drawer.close)
            drawer(0, 0)  # starts it
        times: dict[str, list[float]] = {route: [] for route in (*drawers, "authors", "rdkit_svg")}
        same, columns = [], ("smiles", "molecule")
        for epoch in range(1, epochs + 1):
            for number, (smiles, stored) in enumerate(
                zip(*(prepared[name].to_pylist() for name in columns), strict=True)
            ):
                found = {route: drawer(epoch, number) for route, drawer in drawers.items()}
                for route, (taken, _) in found.items():
                    times[route].append(taken)
                same.append(len({digest for _, digest in found.values()}) == 1)
                if epoch == 1:
                    times["authors"].append(min(whole_route(smiles, number, at / "drawing.png") for _ in range(TRIES)))
                    times["rdkit_svg"].append(min(svg_alone(stored, number) for _ in range(TRIES)))
    ms = {route: 1000 * float(np.mean(taken)) for route, taken in times.items()}
    row: dict[str, object] = {"set": name, "molecules": len(prepared), "pairs": len(times["pair"])}
    row |= {f"{route}_ms": value for route, value in ms.items()}
    if "baseline" in ms:
        row |= {"share_of_baseline": ms["pair"] / ms["baseline"], "drawings_as_at_baseline": float(np.mean(same))}
    return row | {"times_faster_than_authors": ms["authors"] / ms["pair"]}


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
    parser.add_argument("--augmented", action="store_true", help="measure augmented pairs only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    facts = {"images": "224 x 224, a pair", "baseline": BASELINE}
    with rdBase.BlockLogs():
        report("views", [augmented(name, arguments.molecules) for name in arguments.sets], **facts)
        if not arguments.augmented:
            report("drawing", [measure(name, arguments.molecules) for name in arguments.sets], **facts)


if __name__ == "__main__":
    main()
