"""A molecule, its drawing and augmentation under sliders, for notebooks; without a widget front end, a picture."""

import base64
import html
from typing import Any

import cv2
import ipywidgets
import numpy as np
from rdkit import Chem

from moleclip import augmentation, drawing

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"

# What `drawing.random_style` draws from: smallest, largest, and the step of the slider.
RANGES = {
    "bond_width": (2, 5, 1),
    "font_size": (14, 24, 1),
    "bond_length": (20, 100, 5),
    "bond_offset": (0.1, 0.4, 0.01),
    "rotation": (0, 360, 5),
}
OWN = "RDKit's"  # a Style has None for it, but a selection of ipywidgets means by None that nothing is selected

_LOOK = {"style": {"description_width": "9em"}, "layout": {"width": "30em"}}


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """What `explore` shows.

    Attributes
    ----------
    smiles : ipywidgets.Text
    message : ipywidgets.HTML
        Why the SMILES cannot be drawn; empty if it can.
    picture : ipywidgets.Image
        PNG, [size, size] pixels; pale while it is of an earlier SMILES.
    controls : dict of str to ipywidgets.Widget
        One per field of `drawing.Style`, by its name.
    level, seed : ipywidgets.Widget
        Of the augmentation.
    """

    def __init__(self, smiles: str, size: int, seed: int) -> None:
        self.smiles = ipywidgets.Text(
            smiles, description="SMILES", style={"description_width": "4em"}, layout={"width": "auto"}
        )
        self.message = ipywidgets.HTML(layout={"width": f"{size}px"})
        frame = {"width": f"{size}px", "height": f"{size}px", "border": "1px solid #bbb"}
        self.picture = ipywidgets.Image(format="png", layout=frame)
        self.controls = _controls()
        self.level = ipywidgets.Dropdown(options=list(augmentation.LEVELS), description="augmentation", **_LOOK)
        self.seed = ipywidgets.BoundedIntText(seed, 0, 2**31 - 1, description="seed", **_LOOK)
        self._prepared: Chem.Mol | None = None
        self._image: drawing.Image = np.full((size, size, 3), 255, np.uint8)
        settings = [*self.controls.values(), self.level, self.seed]
        self.smiles.observe(self._read, "value")
        for control in settings:
            control.observe(self._draw, "value")
        self._read()
        left = ipywidgets.VBox([self.picture, self.message], layout={"margin": "2px 16px 0 4em"})
        below = ipywidgets.HBox([left, ipywidgets.VBox(settings)], layout={"flex_flow": "row wrap"})
        super().__init__([self.smiles, below], layout={"max_width": f"{size + 520}px"})

    def style_shown(self) -> drawing.Style:
        """Style that the controls stand for."""
        values = {name: control.value for name, control in self.controls.items()}
        chosen: dict[str, Any] = {name: None if value == OWN else value for name, value in values.items()}
        return drawing.Style(**chosen)

    def _read(self, _: object = None) -> None:
        """Lay the molecule out, once for all its drawings."""
        try:
            self._prepared = drawing.prepare(self.smiles.value)
        except ValueError as reason:
            self._prepared = None
            self._explain(reason)
        else:
            self._draw()

    def _draw(self, _: object = None) -> None:
        if self._prepared is None:
            return
        try:
            drawn = drawing.draw(self._prepared, self.style_shown(), len(self._image))
        except ValueError as reason:
            self._explain(reason)
            return
        self._image = augmentation.augment(drawn, self.level.value, np.random.default_rng(self.seed.value))
        self.picture.value = _png(self._image)
        self.message.value = ""

    def _explain(self, reason: ValueError) -> None:
        text = html.escape(f"Cannot be drawn: {reason}")
        self.message.value = f'<div style="color: var(--jp-error-color1, #b00020); line-height: 1.4">{text}</div>'
        self.picture.value = _png(255 - (255 - self._image) // 4)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Offer the widget and its present picture: each front end takes the best that it knows."""
        how = f"{self.smiles.value}: {self.style_shown()}, augmentation {self.level.value!r}, seed {self.seed.value}"
        picture = base64.b64encode(self.picture.value).decode()
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": how, "image/png": picture}


def explore(smiles: str = ASPIRIN, size: int = 224, seed: int = 0) -> Explorer:
    """Show a molecule with controls for how it is drawn and augmented; the picture follows each change.

    Parameters
    ----------
    smiles : str
        What to begin with. One that cannot be read shows RDKit's reason, now and later.
    size : int
        Height and width of the drawing, pixels.
    seed : int
        Of the augmentation: the same seed and settings give the same picture.

    Returns
    -------
    Explorer
        As the last value of a cell, a widget; where there are none (a report, a web page), a static picture.

    Examples
    --------
    >>> shown = explore("CCO")
    >>> shown.controls["bond_width"].value = 4
    >>> shown.style_shown().bond_width
    4
    """
    return Explorer(smiles, size, seed)


def _controls() -> dict[str, ipywidgets.Widget]:
    """Make one control per field of `drawing.Style`, set to the plain style."""
    return {
        "bond_width": _slider("bond_width", "bond width (px)", ipywidgets.IntSlider),
        "font_size": _slider_or_own("font_size", "font size (px)"),
        "bond_length": _slider_or_own("bond_length", "bond length (px)"),
        "bond_offset": _slider("bond_offset", "bond offset", ipywidgets.FloatSlider),
        "rotation": _slider("rotation", "rotation (deg)", ipywidgets.FloatSlider, readout_format=".0f"),
        "font": ipywidgets.Dropdown(options=[OWN, *drawing.FONTS], description="font", **_LOOK),
        "r_groups": ipywidgets.Checkbox(description="R-groups (R1 to R8)", **_LOOK),
    }


def _slider(field: str, label: str, kind: Any, **options: Any) -> ipywidgets.Widget:
    low, high, step = RANGES[field]
    value = getattr(drawing.PLAIN, field)
    return kind(value, min=low, max=high, step=step, description=label, **options, **_LOOK)


def _slider_or_own(field: str, label: str) -> ipywidgets.Widget:
    """Make a slider whose first place leaves the choice to RDKit."""
    low, high, step = RANGES[field]
    places = np.arange(low, high + 1, step).tolist()
    return ipywidgets.SelectionSlider(options=[OWN, *places], description=label, **_LOOK)


def _png(image: drawing.Image) -> bytes:
    encoded: bytes = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return encoded
