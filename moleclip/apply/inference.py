"""Molecules -> drawings -> numbers, in batches of any number of molecules; what is done is kept."""

import dataclasses
import hashlib
import itertools
import json
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor
from tqdm.auto import tqdm

from moleclip import drawing, rasterize
from moleclip.apply import readers
from moleclip.apply.readers import Item
from moleclip.drawing import Style
from moleclip.io import files

BLOCK = 2048  # molecules of which the numbers are in memory at a time
NAMED = 20  # unreadable molecules of which a warning says why

# Some molecules, their numbers float32 [B, width] (NaN where one could not be read), and why not ("" where it could).
Block = tuple[list[Item], NDArray[np.float32], list[str]]
# From drawings uint8 [B, styles, size, size, 3] to numbers [B, width].
Function = Callable[[Tensor], Tensor]


class UnreadableWarning(UserWarning):
    """There are molecules that could not be read or drawn; their rows are NaN."""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Molecules -> drawings -> numbers, in batches, and what is done is kept.

    Attributes
    ----------
    function : callable
        From drawings uint8 [B, styles, size, size, 3] to numbers [B, width].
    styles : sequence of Style
        Each molecule is drawn in all of them.
    size : int
        Pixels.
    batch_size : int
        Molecules that are drawn and computed together.
    n_jobs : int or None
        Processes that draw, as joblib counts them; None: this one only.
    cache : Path or None
        Folder with the numbers of each molecule, which several processes may share.
    identity : mapping
        What the numbers depend on, beside molecules, styles and size: they are kept for this identity only.
    verbose : bool
        Show progress.
    """

    function: Function
    styles: Sequence[Style]
    size: int
    batch_size: int = 64
    n_jobs: int | None = None
    cache: Path | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verbose: bool = False

    def blocks(self, items: Iterable[Item], total: int | None = None) -> Iterator[Block]:
        """Compute block by block, in order, so that any number of molecules fits into memory."""
        kept = Cache(self._cache_file()) if self.cache else None
        with tqdm(total=total, unit=" molecules", disable=not self.verbose) as bar:
            # All drawings of a block may wait for the tower: the more of a molecule, the fewer molecules.
            for block in readers.batched(items, max(self.batch_size, BLOCK // len(self.styles))):
                yield self._block(block, kept, bar)

    def _block(self, block: list[Item], kept: "Cache | None", bar: Any) -> Block:
        before, keys = bar.n, [readers.key(item) for item in block]
        found = kept.get(keys) if kept else {}
        # A molecule that is there twice is drawn once.
        missing = {key: item for key, item in zip(keys, block, strict=True) if key not in found}
        failed: dict[bytes, str] = {}
        for batch, (images, reasons) in self._drawn(list(readers.batched(missing.items(), self.batch_size))):
            good = [number for number, reason in enumerate(reasons) if not reason]
            failed |= {key: reason for (key, _), reason in zip(batch, reasons, strict=True) if reason}
            if good:
                values = self.function(torch.from_numpy(images[good])).numpy().astype(np.float32, copy=False)
                new = {batch[number][0]: row for number, row in zip(good, values, strict=True)}
                found |= new
                if kept:
                    kept.put(new)
            bar.update(len(batch))
        bar.update(before + len(block) - bar.n)
        nothing = np.full(next(iter(found.values())).shape if found else self.width, np.nan, np.float32)
        return block, np.stack([found.get(key, nothing) for key in keys]), [failed.get(key, "") for key in keys]

    def _drawn(self, batches: list[list[Any]]) -> Iterator[tuple[list[Any], tuple[NDArray[np.uint8], list[str]]]]:
        """Draw the batches, on several processes ahead of the one that computes."""
        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator", pre_dispatch="2*n_jobs")
        tasks = (delayed(readers.draw_all)([item for _, item in batch], self.styles, self.size) for batch in batches)
        return zip(batches, parallel(tasks), strict=True)

    @cached_property
    def width(self) -> int:
        """How many numbers a molecule has."""
        blank = torch.full((1, len(self.styles), self.size, self.size, 3), 255, dtype=torch.uint8)
        return self.function(blank).shape[1]

    def _cache_file(self) -> Path:
        drawn = {"styles": list(map(dataclasses.asdict, self.styles)), "size": self.size}
        versions = {"rdkit": rdBase.rdkitVersion, "matplotlib": matplotlib.__version__, "cv2": cv2.__version__}
        code = [files.sha256(str(module.__file__)) for module in (drawing, readers, rasterize)]
        text = json.dumps({**self.identity, **drawn, **versions, "code": code}, sort_keys=True)
        return Path(self.cache or "") / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.sqlite"


class Cache:
    """Numbers by molecule, in a file on a local disk that several processes may share."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, timeout=600, isolation_level=None)
        self.database.execute("create table if not exists numbers (key blob primary key, value blob) without rowid")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Numbers of those molecules that are there."""
        found: dict[bytes, NDArray[np.float32]] = {}
        for part in readers.batched(set(keys), 500):
            marks = ",".join("?" * len(part))
            rows = self.database.execute(f"select key, value from numbers where key in ({marks})", part)  # noqa: S608
            found |= {key: np.frombuffer(value, np.float32) for key, value in rows}
        return found

    def put(self, numbers: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep the numbers of some molecules, all or none of them."""
        rows = [(key, value.tobytes()) for key, value in numbers.items()]
        self.database.execute("begin immediate")
        self.database.executemany("insert or ignore into numbers values (?, ?)", rows)
        self.database.execute("commit")


def report(items: Sequence[Item], reasons: Sequence[str], invalid: str, start: int = 0) -> None:
    """Say which molecules cannot be read, and why, in a warning or an error.

    Parameters
    ----------
    start : int
        Row of the first.
    """
    bad = [(start + row, item, why) for row, (item, why) in enumerate(zip(items, reasons, strict=True)) if why]
    if not bad:
        return
    lines = [f"row {row} ({readers.name(item)[:80]}): {why}" for row, item, why in bad[:NAMED]]
    if len(bad) > NAMED:
        lines.append(f"and rows {', '.join(str(row) for row, _, _ in bad[NAMED:])}")
    some = f"{len(bad)} of {len(items)} molecules cannot be read" + (f" of rows {start} and on" if start else "")
    if invalid == "raise":
        raise ValueError(f"{some}: " + "; ".join(lines))
    warnings.warn(f"{some}, their rows are NaN: " + "; ".join(lines), UnreadableWarning, stacklevel=3)


def write_tables(path: str | Path, tables: Iterable[pd.DataFrame]) -> Path:
    """Write tables of the same columns one after another, as Parquet or CSV ("-": to standard output).

    The file is whole, or not there.

    Raises
    ------
    ValueError
        The ending is neither, or there is no table.
    """
    ending = Path(path).suffix.lower()
    if path != readers.STDIN and ending not in (".parquet", ".csv"):
        raise ValueError(f"{path}: expected a file that ends with .parquet or .csv")
    rest = iter(tables)
    first = next(rest, None)
    if first is None:
        raise ValueError("no molecules")
    tables = itertools.chain([first], rest)
    if path == readers.STDIN:
        _csv(sys.stdout, tables)
        return Path(path)
    return files.write(path, lambda part: (_parquet if ending == ".parquet" else _csv)(part, tables))


def _parquet(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    writer = None
    try:
        for table in tables:
            rows = pa.Table.from_pandas(table, preserve_index=False)
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_table(rows.cast(writer.schema))
    finally:
        if writer:
            writer.close()


def _csv(file: Any, tables: Iterable[pd.DataFrame]) -> None:
    for number, table in enumerate(tables):
        table.to_csv(file, index=False, header=number == 0, mode="a")
