"""Write files under a temporary name, then rename them, so that none is ever half-written."""

import fcntl
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_CHECKSUM = re.compile("'[0-9a-f]{40,}'")

ROOT = Path(__file__).resolve().parents[2]


def relative(path: str | Path) -> str:
    """Path relative to the project's folder, for records that hold on any machine; unchanged if outside of it."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def sha256(path: str | Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON as `write` does."""
    write(path, lambda part: part.write_text(json.dumps(content, indent=2) + "\n"))


def write_csv(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table as CSV with six digits, as `write` does."""
    return write(Path(path), functools.partial(table.to_csv, index=False, float_format="%.6g"))


def write_parquet(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table as Parquet, as `write` does."""
    return write(path, lambda part: table.to_parquet(part, index=False))


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> Path:
    """Write arrays in NumPy's format, as `write` does."""

    def save(part: Path) -> None:
        with open(part, "wb") as file:  # of a name that NumPy leaves as it is
            np.savez(file, **arrays)

    return write(path, save)


def write(path: str | Path, make: Callable[[Path], object]) -> Path:
    """Write a file so that it is either the old one or the whole new one.

    Parameters
    ----------
    path : str or Path
    make : callable
        Fills the file of the path that it is given, in the same folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed
    try:
        make(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def refuse_another(file: Path, before: Mapping[str, Any], now: Mapping[str, Any], finished: bool = False) -> None:
    """Refuse to resume from the file of a run with other settings, or to overwrite what such a run has finished.

    Raises
    ------
    ValueError
        Names what differs and says what to do.
    """
    differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    changes = ", ".join(_change(name, before, now) for name in differ)
    kind, advice = "an unfinished", "Delete it to start again, or restore these settings to continue it"
    if finished:
        kind, advice = "a finished", f"It is not overwritten: choose another folder, or delete {file.parent}"
    if differ:
        raise ValueError(f"{file}: of {kind} run with other settings ({changes if before else 'unknown'}). {advice}")


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how a setting differs; a checksum would tell nobody anything."""
    old, new = (repr(one[name]) if name in one else "the default" for one in (before, now))
    return f"other {name}" if _CHECKSUM.fullmatch(old) else f"{name} was {old}, is {new}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: one may have survived the notebook that started it.

    The lock belongs to this process and not to those that it starts, so that it is gone when this one is killed.

    Raises
    ------
    RuntimeError
        Another process has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            if os.environ.get("RANK", "0") == "0":  # the process that writes
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"{folder}: another run is writing to this folder; wait for it or stop it") from None
        yield
