"""Public data files: where each comes from, and how it gets here unharmed."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

_COMMIT = "532598682d2537590bb2dae31a1277620f03b6d3"
_REPOSITORY = f"https://raw.githubusercontent.com/Milo-group/MoleCLIP/{_COMMIT}"


class DataError(RuntimeError):
    """A data file that is missing, damaged, or cannot be downloaded."""


@dataclass(frozen=True)
class File:
    """A public file, pinned by its checksum.

    Attributes
    ----------
    path : str
        Below the folder that MOLECLIP_DATA_DIR names.
    url : str
    sha256 : str
    size : int
        Bytes.
    """

    path: str
    url: str
    sha256: str
    size: int


def _of_the_paper(path: str, size: int, sha256: str) -> File:
    return File(f"moleclip/{path}", f"{_REPOSITORY}/{path}", sha256, size)


def _finetuning(name: str, size: int, sha256: str, file: str = "") -> File:
    return _of_the_paper(f"Datasets/Finetuning/{name}/{file or name}.csv", size, sha256)


# The authors' repository (MIT) at one commit; the original publications are named in `datasets`.
FILES = {
    "bace": _finetuning("bace", 111209, "0364a22e78592d58892f4d7039e5e980e3fd2c7f027c7eaa41f0d1f3a4dcb119"),
    "bbbp": _finetuning("bbbp", 122400, "573bbe90442904b4bd467b8a098d1ccfc7ab6b0c3dbc7659217590bd3e17c57c"),
    "esol": _finetuning("esol", 38766, "ce914221737669be145ba78ccd6a9e10669e151c765d8fde64158d82f6dae0b9"),
    "freesolv": _finetuning("freesolv", 17290, "ecb69f63862e118418f46c3d187b9dd1c81a69787fd839dd599cce68e1bc0daf"),
    "DHBDs": _finetuning("DHBDs", 557921, "aabd8e591449a1908c4c9783739302408d5ff3a4e9dd002add1ad109dd96e879"),
    "NHCs": _finetuning("NHCs", 9182, "dbb721886c51824cfa259dce63802aa2ab6a415266e78a38b697f2650d37eeeb"),
    "Phosphines_yield": _finetuning(
        "Phosphines_yield", 6730, "6dd1367f42ed868a79a840bdab003c77de74deee14e15e3d401f47e010e493ae"
    ),
    "Phosphines_selectivity": _finetuning(
        "Phosphines_selectivity", 1482, "3d7ced9f0f8de04b6a28da1f205365d710603622e6dd14f2da504eabde7675c2"
    ),
    "Kraken_buried": _finetuning(
        "Kraken_buried", 104453, "977cc755ebc01c3f62c327717430e110449a16d443b4496cf1ee5cb83a614fb7", "kraken_buried"
    ),
    "chembl_25_subset": _of_the_paper(
        "Datasets/Pretraining/chembl_25_subset/chembl_25_subset.txt",
        437639,
        "08f4ca5a358d1ba1c1ff0d2fbdaf71d6288ebf55a03d409a642a5cea9a16911d",
    ),
    "paper_results": _of_the_paper(
        "Paper_results/MoleCLIP_full_results.xlsx",
        257012,
        "32e4c12440b8cff1d07066b0d29e1b4666458b67ea2bec84368aebf0ab3abb7b",
    ),
}


def fetch(name: str) -> Path:
    """Path of a data file: from the folder MOLECLIP_DATA_DIR, from the cache, or downloaded.

    Raises
    ------
    KeyError
        The name is unknown.
    DataError
        The file is damaged, or missing and out of reach. Nothing is left behind.
    """
    if name not in FILES:
        raise KeyError(f"unknown data file {name!r}: known are {', '.join(FILES)}")
    file = FILES[name]
    mirror = os.environ.get("MOLECLIP_DATA_DIR")
    if mirror and (Path(mirror) / file.path).is_file():
        return _checked(Path(mirror) / file.path, file)
    cached: Path = pooch.os_cache("moleclip") / file.path
    return _checked(cached, file) if cached.is_file() else _download(cached, file)


def _checked(path: Path, file: File) -> Path:
    found = pooch.file_hash(str(path), alg="sha256")
    if found != file.sha256:
        raise DataError(
            f"{path}: damaged or another version ({path.stat().st_size} bytes, expected {file.size}).\n"
            f"sha256 is {found}, expected {file.sha256}.\n"
            f"Delete it, and it is downloaded again from {file.url}"
        )
    return path


def _download(path: Path, file: File) -> Path:
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=10)
    try:
        pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=path.name, path=path.parent, downloader=downloader)
    except ValueError as error:  # what came does not have the checksum; pooch has thrown it away
        raise DataError(f"{file.url}: refused. {error}") from None
    except (requests.RequestException, OSError) as error:
        raise DataError(
            f"{file.url}: cannot be downloaded ({type(error).__name__}).\n"
            f"Without network, put the file (sha256 {file.sha256}, {file.size} bytes) at {path},\n"
            f"or at {file.path} in a folder of your own and set MOLECLIP_DATA_DIR to that folder"
        ) from None
    return path
