"""Errors that say what to do."""

import difflib


class DataError(RuntimeError):
    """A data file that is missing, damaged, or cannot be downloaded."""


class ParameterError(ValueError):
    """A parameter that is unknown, missing, or of the wrong type or size."""


def nearest(name: str, known: list[str]) -> str:
    """End of an error message about an unknown name: the one known that holds it, the closest one, or all."""
    holding = [other for other in known if name and name.lower() in other.lower()]
    close = holding if len(holding) == 1 else difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
