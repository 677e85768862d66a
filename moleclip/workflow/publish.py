"""Copy a finished page from `runs/` to `figures/`, which is committed.

    python -m moleclip.workflow.publish demo [STUDY]

A page is what the records in its folder, and in folders below it, say that notebooks wrote.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moleclip.io import files
from moleclip.workflow import params, provenance


def publish(profile: str, study: str | None = None, dirty: bool = False) -> Path:
    """Publish the page of a profile or of one of its studies.

    Files of the published page that the new one lacks go; those of other pages in the same folder stay. The published
    folder is changed only when the new one is there whole.

    Parameters
    ----------
    dirty : bool
        Publish even what uncommitted code has drawn.

    Returns
    -------
    Path
        The published folder.

    Raises
    ------
    ValueError
        The page is not finished, or the code that draws is not committed.
    """
    _, fan_out = params.read_profile(files.ROOT / "params" / profile, study)
    page = files.ROOT / params.runs_folder(profile, study) / "figures"
    place = files.ROOT / params.published(profile, study, fan_out)
    how = f"make page PROFILE={profile}{f' STUDY={study}' if study else ''}"
    records = dict(_records(page))
    if not records:
        raise ValueError(f"{files.relative(page)}: no finished page; draw it first: {how}")
    _check_whole(page, records, how)
    if not dirty:
        _check_committed([record["notebook"] for record in records.values()], records, how)
    part, old = (place.with_name(f".{place.name}.{kind}") for kind in ("part", "old"))
    for left in (part, old):  # by a process that was killed
        if left.exists():
            if left == old and not place.exists():
                left.rename(place)
            else:
                shutil.rmtree(left)
    if place.exists():
        shutil.copytree(place, part)
    for earlier, record in dict(_records(part)).items():
        if any(earlier.parent == new.parent and earlier.name[3:] == new.name[3:] for new in records):
            for name in (earlier, *_outputs(part, earlier, record)):
                (part / name).unlink(missing_ok=True)
    for new, record in records.items():
        for name in (new, *_outputs(page, new, record)):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(page / name, part / name)
    if place.exists():
        place.rename(old)
    part.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place


def _records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Find the records of the runs that wrote into a folder or below it, by their place in it."""
    for path in sorted(folder.rglob("[0-9][0-9]_*.json")):
        yield path.relative_to(folder), json.loads(path.read_text())


def _outputs(folder: Path, place: Path, record: dict[str, Any]) -> list[Path]:
    """Files that a record tells of, by their place in the folder, which may have been moved since."""
    common = Path(record["parameters"]["output"])
    return [place.parent / Path(name).relative_to(common) for name in record["outputs"]]


def _check_whole(page: Path, records: dict[Path, dict[str, Any]], how: str) -> None:
    for place, record in records.items():
        for name, digest in zip(_outputs(page, place, record), record["outputs"].values(), strict=True):
            if not (page / name).is_file() or files.sha256(page / name) != digest:
                raise ValueError(f"{files.relative(page / name)}: missing, or not what {place} says; draw again: {how}")


def _check_committed(notebooks: list[str], records: dict[Path, dict[str, Any]], how: str) -> None:
    try:
        changed = provenance.uncommitted(*notebooks)
    except (OSError, subprocess.CalledProcessError):
        return  # no git checkout, and so nothing to compare with
    if changed:
        raise ValueError(
            f"uncommitted changes of the code that draws: {', '.join(changed)}. Commit them first, or add DIRTY=1"
        )
    drawn = [str(place) for place, record in records.items() if record["dirty"]]
    if drawn:
        raise ValueError(
            f"drawn by code that was not committed, as {', '.join(drawn)} says. Draw again: {how}; or add DIRTY=1"
        )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="a folder of params/")
    parser.add_argument("study", nargs="?", help="one of its studies")
    parser.add_argument("--dirty", action="store_true", help="publish figures that uncommitted code has drawn, too")
    chosen = parser.parse_args()
    try:
        place = publish(chosen.profile, chosen.study or None, chosen.dirty)
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"published: {files.relative(place)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
