"""Errors that say what to do."""

import difflib

FEW = 50  # names that a message can list


class DataError(RuntimeError):
    """A data file that is missing, damaged, or cannot be downloaded."""


class ParameterError(ValueError):
    """A parameter that is unknown, missing, or of the wrong type or size."""


def nearest(name: str, known: list[str], cutoff: float = 0.6) -> str:
    """End of an error message about an unknown name: the one known that holds it, the closest one, or all if few.

    `cutoff` is how alike the closest must be, from 0 (anything) to 1.
    """
    holding = [other for other in known if name and name.lower() in other.lower()]
    close = holding if len(holding) == 1 else difflib.get_close_matches(name, known, 1, cutoff)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if 0 < len(known) <= FEW else ""
