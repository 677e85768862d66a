"""Molecule drawings, CLIP's image tower, and property prediction from a few labelled molecules."""

__version__ = "0.1.0"
