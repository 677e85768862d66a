"""Molecule drawings, CLIP's image tower, and property prediction from a few labelled molecules."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["MoleCLIPFeaturizer", "MoleCLIPPredictor"]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: the towers take seconds.
    if name in __all__:
        from moleclip.apply import featurizer

        return getattr(featurizer, name)
    raise AttributeError(f"module 'moleclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
