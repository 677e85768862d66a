"""Our own results, as the drawn pages have left them: tables under figures/ that the paper's are set beside."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moleclip.io.files import relative

# What is taken whole from one study; and the columns of tables that are not there.
_KEY = ["set", "encoder", "split", "drawing"]
_EMPTY = {"scores": [*_KEY, "seed", "val", "test", "metric", "file"], "contrasts": [], "knees": ["corpus", "knee"]}


@dataclass(frozen=True)
class Own:
    """Tables of our runs; empty where there are none.

    Attributes
    ----------
    scores : DataFrame
        `gridsearch.by_split` of the paper's profile and of all studies, with the columns set and file. A model that
        several have on the same set is taken whole from the first, the profile or else the first study by name: the
        splits of one mean have one protocol.
    contrasts : DataFrame
        `gridsearch.contrasts` of all studies.
    knees : DataFrame
        corpus, k, inertia, knee of every sweep over the number of clusters.
    files : list of Path
        What they were read from.
    """

    scores: pd.DataFrame
    contrasts: pd.DataFrame
    knees: pd.DataFrame
    files: list[Path]

    def on(self, name: str, split: str) -> pd.DataFrame:
        """Take the scores on a set, by its name in `datasets`, on plain drawings and one kind of split."""
        table = self.scores
        return table[(table["set"] == name) & (table["split"] == split) & (table["drawing"] == "plain")]


def read(folder: str | Path = "figures") -> Own:
    """Read what is there: scores of the paper's profile and of all studies, contrasts, and sweeps."""
    folder = Path(folder)
    scores = [folder / "paper" / "scores.csv", *sorted((folder / "studies").glob("*/scores.csv"))]
    contrasts = sorted((folder / "studies").glob("*/contrasts.csv"))
    knees = [path for path in sorted(folder.glob("*/knee.csv")) if not path.parent.name.startswith("rehearsal_")]
    found: dict[str, list[pd.DataFrame]] = {}
    files = []
    for kind, paths in {"scores": scores, "contrasts": contrasts, "knees": knees}.items():
        present = [path for path in paths if path.is_file()]
        found[kind] = [pd.read_csv(path).assign(file=relative(path)) for path in present]
        files += present
    tables = {kind: pd.concat(parts) if parts else pd.DataFrame(columns=_EMPTY[kind]) for kind, parts in found.items()}
    first = tables["scores"].drop_duplicates(_KEY)[[*_KEY, "file"]]
    tables["scores"] = tables["scores"].merge(first, on=[*_KEY, "file"])
    return Own(**tables, files=files)
