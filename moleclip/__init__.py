"""Molecule drawings, CLIP's image tower, and property prediction from a few labelled molecules."""

from importlib import import_module
from typing import Any

# Imported when they are first asked for: PyTorch takes seconds.
_LAZY = {
    "MoleCLIPFeaturizer": "moleclip.apply.featurizer",
    "MoleCLIPPredictor": "moleclip.apply.predictor",
    "train": "moleclip.apply.training",
    "FinetunedEncoder": "moleclip.finetune",
    "FrozenEncoder": "moleclip.baselines",
    "FingerprintMLP": "moleclip.baselines",
    "Forest": "moleclip.baselines",
    "Mean": "moleclip.baselines",
    "Chemprop": "moleclip.baselines",
    "Molecules": "moleclip.estimator",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'moleclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
