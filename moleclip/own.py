"""Our own results, as the drawn pages have left them: tables under figures/ that the paper's are set beside."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moleclip import params

FORESTS = ("ecfp4_forest", "ecfp4_extra_trees", "descriptor_forest", "descriptor_extra_trees")


@dataclass(frozen=True)
class Own:
    """Tables of our runs; empty where there are none.

    Attributes
    ----------
    scores : DataFrame
        `stats.by_split` of every profile and study on the paper's sets, with the columns set and file.
    contrasts : DataFrame
        `stats.contrasts` of the study of initial weights.
    knees : DataFrame
        corpus, k, inertia, knee of every sweep over the number of clusters.
    files : list of Path
        What they were read from.
    """

    scores: pd.DataFrame
    contrasts: pd.DataFrame
    knees: pd.DataFrame
    files: list[Path]


def read(folder: str | Path = "figures") -> Own:
    """Read what is there: scores of the paper's profile and of all studies, contrasts, and sweeps."""
    folder = Path(folder)
    scores = [folder / "paper" / "scores.csv", *sorted((folder / "studies").glob("*/scores.csv"))]
    contrasts = [folder / "studies" / "initial_weights" / "contrasts.csv"]
    knees = sorted(folder.glob("*/knee.csv")) + sorted((folder / "studies").glob("*/knee.csv"))
    found: dict[str, list[pd.DataFrame]] = {}
    files = []
    for kind, paths in {"scores": scores, "contrasts": contrasts, "knees": knees}.items():
        present = [path for path in paths if path.is_file()]
        found[kind] = [pd.read_csv(path).assign(file=params.relative(path)) for path in present]
        files += present
    empty = {
        "scores": ["set", "encoder", "seed", "val", "test", "metric", "file"],
        "contrasts": [],
        "knees": ["corpus"],
    }
    tables = {kind: pd.concat(parts) if parts else pd.DataFrame(columns=empty[kind]) for kind, parts in found.items()}
    return Own(**tables, files=files)
