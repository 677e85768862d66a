"""Compute numbers for any number of molecules: in batches, with a cache, and written to a file as they come."""

import dataclasses
import hashlib
import itertools
import json
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor
from tqdm.auto import tqdm

from moleclip.apply import readers
from moleclip.drawing import Style
from moleclip.io import files
from moleclip.io.molecule_files import Record

BLOCK = 2048  # molecules whose numbers are in memory at a time
NAMED = 20  # unreadable molecules for which a warning gives the reason
VERSION = 1  # of the cache: raise it when a change of the code changes drawings or numbers

# Some molecules, their numbers float32 [B, width] (NaN where one could not be read), and why not ("" where it could).
Block = tuple[list[Record], NDArray[np.float32], list[str]]


class UnreadableWarning(UserWarning):
    """Some molecules could not be read or drawn; their rows are NaN."""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Draw molecules and compute numbers from the drawings, in batches.

    Attributes
    ----------
    function : callable
        From drawings uint8 [B, styles, size, size, 3] to a tensor of numbers [B, width].
    width : int
        Numbers per molecule.
    styles : sequence of Style
        Each molecule is drawn in all of them.
    size : int
        Height and width of a drawing, pixels.
    batch_size : int
        Molecules that are drawn and computed together.
    n_jobs : int or None
        Processes that draw, as joblib counts them; None: this one only.
    cache : str, Path or None
        Folder that keeps the numbers of each molecule; several processes may use it at once.
    identity : mapping
        What the numbers depend on, besides the drawings: the cache separates them by it.
    verbose : bool
        Show progress.
    """

    function: Callable[[NDArray[np.uint8]], Tensor]
    width: int
    styles: Sequence[Style]
    size: int
    batch_size: int = 64
    n_jobs: int | None = None
    cache: str | Path | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verbose: bool = False

    def blocks(self, records: Iterable[Record], total: int | None = None) -> Iterator[Block]:
        """Compute block by block, in order, so that any number of molecules fits into memory."""
        cache = Cache(self._cache_file(Path(self.cache))) if self.cache else None
        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator", pre_dispatch="2*n_jobs")
        with tqdm(total=total, unit=" molecules", disable=not self.verbose) as bar:
            # All drawings of a block may wait for the encoder: the more per molecule, the fewer molecules.
            for block in batched(records, max(self.batch_size, BLOCK // len(self.styles))):
                items = [record.item for record in block]
                keys = [readers.key(item) for item in items]
                found = cache.get(keys) if cache else {}
                reasons = dict.fromkeys(keys, "")
                # A molecule that occurs twice is drawn once.
                missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
                bar.update(len(block) - len(missing))
                batches = [dict(pairs) for pairs in batched(missing.items(), self.batch_size)]
                # Other processes draw ahead of this one, which computes.
                drawn = parallel(
                    delayed(readers.draw_all)(list(batch.values()), self.styles, self.size) for batch in batches
                )
                for batch, (images, problems) in zip(batches, drawn, strict=True):
                    reasons |= dict(zip(batch, problems, strict=True))
                    good = [key for key in batch if not reasons[key]]
                    if good:
                        readable = np.array([not problem for problem in problems])
                        new = dict(zip(good, self.function(images[readable]).numpy(force=True), strict=True))
                        found |= new
                        if cache:
                            cache.put(new)
                    bar.update(len(batch))
                nothing = np.full(self.width, np.nan, np.float32)
                yield block, np.stack([found.get(key, nothing) for key in keys]), [reasons[key] for key in keys]

    def _cache_file(self, folder: Path) -> Path:
        drawn = {"styles": [dataclasses.asdict(style) for style in self.styles], "size": self.size}
        libraries = [rdBase.rdkitVersion, matplotlib.__version__, cv2.__version__, PIL.__version__]
        text = json.dumps([dict(self.identity), drawn, libraries, VERSION], sort_keys=True)
        return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.sqlite"


def batched(many: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut into lists of `size`; the last may be shorter."""
    rest = iter(many)
    return iter(lambda: list(itertools.islice(rest, size)), [])


class Cache:
    """Numbers by molecule, in a file on a local disk that several processes may use at once.

    Kept by molecule and not by chunk, so that the folds of a cross-validation and repeated calls with other molecules
    find what they have in common.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, timeout=600)
        with self.database:
            self.database.execute("create table if not exists numbers (key blob primary key, value blob) without rowid")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Numbers of the molecules that are there."""
        one = "select key, value from numbers where key = ?"
        rows = (self.database.execute(one, [key]).fetchone() for key in keys)
        return {row[0]: np.frombuffer(row[1], np.float32) for row in rows if row}

    def put(self, numbers: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Keep the numbers of some molecules, all or none of them."""
        rows = [(key, value.tobytes()) for key, value in numbers.items()]
        with self.database:
            self.database.executemany("insert or ignore into numbers values (?, ?)", rows)


def report(records: Sequence[Record], reasons: Sequence[str], invalid: str) -> None:
    """Say which molecules cannot be read, and why, in a warning or an error.

    Parameters
    ----------
    invalid : {"warn", "raise", "ignore"}
    """
    bad = [(record, why) for record, why in zip(records, reasons, strict=True) if why]
    if not bad or invalid == "ignore":
        return
    what = "line" if records[0].fields else "row"
    named = [f"{what} {record.line} ({readers.name(record.item)[:80]}): {why}" for record, why in bad[:NAMED]]
    if len(bad) > NAMED:
        named.append(f"and {what}s {', '.join(str(record.line) for record, _ in bad[NAMED:])}")
    some = f"{len(bad)} of {len(records)} molecules cannot be read"
    if invalid == "raise":
        raise ValueError(f"{some}: {'; '.join(named)}")
    warnings.warn(f"{some}, their rows are NaN: {'; '.join(named)}", UnreadableWarning, stacklevel=3)


def beside_fields(records: Sequence[Record], table: pd.DataFrame) -> pd.DataFrame:
    """Put the fields of molecules of a file in front of a table about them.

    A field that is called like a column of the table gets the ending _given.
    """
    fields = pd.DataFrame([record.fields for record in records], index=table.index)
    fields.columns = [_free(str(name), [*fields, *table]) if name in table else str(name) for name in fields]
    return pd.concat([fields, table], axis=1)


def _free(name: str, taken: list[str]) -> str:
    """Add the ending _given until no other column has this name."""
    while name in taken:
        name += "_given"
    return name


def write_tables(path: str | Path, tables: Iterable[pd.DataFrame]) -> Path:
    """Write tables with the same columns one after another, as Parquet or CSV ("-": to standard output).

    The file is complete, or not there.

    Raises
    ------
    ValueError
        The ending is neither .parquet nor .csv, or there is no table.
    """
    ending = Path(path).suffix.lower()
    if path == readers.STDIN:
        _write(sys.stdout, tables, False)
        return Path(path)
    if ending not in (".parquet", ".csv"):
        raise ValueError(f"{path}: expected a file that ends with .parquet or .csv")
    return files.write(path, lambda part: _write(part, tables, ending == ".parquet"))


def _write(file: Any, tables: Iterable[pd.DataFrame], parquet: bool) -> None:
    writer, number = None, -1
    try:
        for number, table in enumerate(tables):
            if parquet:
                rows = pa.Table.from_pandas(table, preserve_index=False)
                writer = writer or pq.ParquetWriter(file, rows.schema)
                writer.write_table(rows.cast(writer.schema))
            else:
                table.to_csv(file, index=False, header=number == 0, mode="a")
    finally:
        if writer:
            writer.close()
    if number < 0:
        raise ValueError("no molecules")
