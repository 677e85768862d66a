"""Work on many molecules in chunks: on several processes, with progress, and resumable."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from joblib import Parallel, delayed
from rdkit import rdBase

from moleclip.io.files import write

SIZE = 20_000  # molecules of a chunk
SECONDS = 10.0  # between two lines of the log

log = logging.getLogger(__name__)


def run(
    work: Callable[[Sequence[str]], pa.Table],
    smiles: Sequence[str],
    folder: str | Path | None = None,
    workers: int = 1,
    size: int = SIZE,
) -> pa.Table:
    """Apply a function to SMILES, chunk by chunk.

    Parameters
    ----------
    work : callable
        A function at module level: from a chunk of SMILES to a table with one row for each.
    smiles : sequence of str, length N
    folder : str or Path, optional
        Stores the table of each chunk as soon as it is made, in a subfolder for this function, these molecules and
        this RDKit release. The same call later reads what is there and makes what is missing.
    workers : int
        Processes; the result does not depend on it.
    size : int
        Molecules of a chunk.

    Returns
    -------
    pyarrow.Table, length N
        Mapped into memory, not read, if there is a folder.
    """
    chunks = [smiles[start : start + size] for start in range(0, len(smiles) or 1, size)]
    if folder is None:
        return pa.concat_tables(_made(work, chunks, workers, len(smiles), 0))
    place = store(work, smiles, folder, size)
    files = [place / f"{number:05d}.arrow" for number in range(len(chunks))]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    done = len(smiles) - sum(len(chunks[number]) for number in missing)
    tables = _made(work, [chunks[number] for number in missing], workers, len(smiles), done)
    for number, table in zip(missing, tables, strict=True):
        write(files[number], partial(_write, table))
    return pa.concat_tables(_mapped(file) for file in files)


def store(work: Callable[[Sequence[str]], pa.Table], smiles: Sequence[str], folder: str | Path, size: int) -> Path:
    """Folder of the chunks; it depends on the function, the molecules, the size of chunks and the RDKit release."""
    key = "\0".join([work.__module__, work.__qualname__, rdBase.rdkitVersion, str(size), *smiles])
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
    return Path(folder) / f"{work.__name__.strip('_')}-{digest}"


def _made(
    work: Callable[[Sequence[str]], pa.Table], chunks: Sequence[Sequence[str]], workers: int, total: int, done: int
) -> Iterator[pa.Table]:
    """Make the tables of the chunks, in order, and log the progress; `done` of `total` molecules are there already."""
    started = logged = time.monotonic()
    first = done
    parallel = Parallel(n_jobs=max(1, min(workers, len(chunks))), return_as="generator", pre_dispatch="2*n_jobs")
    for chunk, table in zip(chunks, parallel(delayed(work)(chunk) for chunk in chunks), strict=True):
        done += len(chunk)
        now = time.monotonic()
        if now - logged > SECONDS or (done == total and logged > started):
            logged, rate = now, (done - first) / (now - started)
            left = f"{(total - done) / rate / 60:.1f} min left" if done < total else "done"
            log.info("%s: %d of %d molecules, %.0f/s, %s", work.__name__.strip("_"), done, total, rate, left)
        yield table


def _write(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
