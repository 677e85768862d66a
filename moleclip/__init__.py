"""Molecule drawings, CLIP's image tower, and property prediction from a few labelled molecules."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["MoleCLIPFeaturizer", "MoleCLIPPredictor"]

# Raise the number of a notebook when a change of code changes what it writes: its jobs run again, and what follows
# them. A change of data, parameters or library versions is seen without it.
RESULTS_VERSION = {
    "00_quickstart": 1,
    "01_depict_molecules": 1,
    "02_cluster_structures": 1,
    "03_pretrain": 1,
    "04_finetune": 1,
    "05_pretrain_domain": 1,
    "06_replace_r_groups": 1,
    "07_explore_encoder": 1,
    "09_draw_figures": 1,
    "10_reproduce_paper": 1,
}


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: the towers take seconds.
    if name in __all__:
        from moleclip.apply import featurizer

        return getattr(featurizer, name)
    raise AttributeError(f"module 'moleclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
