"""Show a molecule with sliders for its drawing and augmentation, in a notebook."""

import base64
import html
from typing import Any

import cv2
import ipywidgets
import numpy as np

from moleclip import drawing
from moleclip.augmentation import LEVELS, augment
from moleclip.drawing import PLAIN, Style

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
DEFAULT = "RDKit's"  # a Style has None for it, by which a selection of ipywidgets means that nothing is selected


class Explorer(ipywidgets.HBox):  # type: ignore[misc]  # ipywidgets has no types
    """A molecule with controls for how it is drawn and augmented; the picture follows each change.

    As the last value of a notebook cell it is a widget; without a kernel (a report, a web page), a static picture.

    Parameters
    ----------
    smiles : str
        Molecule to begin with. An invalid SMILES shows RDKit's reason and dims the last picture.
    size : int
        Height and width of the drawing, pixels.
    seed : int
        For the augmentation: the same seed and settings give the same picture.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
        smiles, augmentation, seed, and one per field of `drawing.Style` but `r_elements`, by its name.
    caption : str
        What the picture shows.
    picture : ipywidgets.Image
        PNG, [size, size] pixels; dimmed while the SMILES is invalid.
    message : ipywidgets.HTML
        Why the SMILES cannot be drawn; empty if it can.

    Examples
    --------
    >>> shown = Explorer("CCO")
    >>> shown.controls["bond_width"].value = 4
    >>> shown.caption[:24]
    'CCO: Style(bond_width=4,'
    """

    def __init__(self, smiles: str = ASPIRIN, size: int = 224, seed: int = 0) -> None:
        # The ranges are those of `drawing.random_style`.
        self.controls = {
            "smiles": ipywidgets.Text(smiles, description="SMILES"),
            "bond_width": ipywidgets.IntSlider(PLAIN.bond_width, 2, 5),
            "font_size": ipywidgets.SelectionSlider(options=[DEFAULT, *range(14, 25)]),
            "bond_length": ipywidgets.SelectionSlider(options=[DEFAULT, *range(20, 101, 5)]),
            "bond_offset": ipywidgets.FloatSlider(PLAIN.bond_offset, min=0.1, max=0.4, step=0.01),
            "rotation": ipywidgets.IntSlider(0, 0, 360, 5),
            "font": ipywidgets.Dropdown(options=[DEFAULT, *drawing.FONTS]),
            "r_groups": ipywidgets.Checkbox(),
            "r_layout": ipywidgets.Dropdown(options=["kept", "new"]),
            "augmentation": ipywidgets.Dropdown(options=list(LEVELS)),
            "seed": ipywidgets.BoundedIntText(seed, 0, 2**31 - 1),
        }
        side = f"{size}px"
        self.picture = ipywidgets.Image(
            format="png", layout={"width": side, "height": side, "border": "1px solid #bbb"}
        )
        self.message = ipywidgets.HTML(layout={"width": side})
        self._pixels: drawing.Image = np.full((size, size, 3), 255, np.uint8)
        for name, control in self.controls.items():
            control.description = control.description or name.replace("_", " ")
            control.style.description_width, control.layout.width = "8em", "30em"
            control.observe(self._draw, "value")
        self._draw()
        left = ipywidgets.VBox([self.picture, self.message], layout={"margin": "2px 0 0 4em"})
        super().__init__([left, ipywidgets.VBox(list(self.controls.values()))], layout={"flex_flow": "row wrap"})

    def _draw(self, _: object = None) -> None:
        values = {name: control.value for name, control in self.controls.items()}
        smiles, level, seed = (values.pop(name) for name in ("smiles", "augmentation", "seed"))
        chosen: dict[str, Any] = {name: None if value == DEFAULT else value for name, value in values.items()}
        style = Style(**chosen)
        self.caption = f"{smiles}: {style}, augmentation {level!r}, seed {seed}"
        try:
            image = drawing.draw(smiles, style, len(self._pixels))
        except ValueError as reason:
            text = html.escape(f"Cannot be drawn: {reason}")
            self.message.value = f'<div style="color: var(--jp-error-color1, #b00020); line-height: 1.4">{text}</div>'
            self.picture.value = _png(255 - (255 - self._pixels) // 4)
        else:
            self._pixels = augment(image, level, np.random.default_rng(seed))
            self.picture.value, self.message.value = _png(self._pixels), ""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Offer the widget and its present picture: each front end takes the best that it can show."""
        picture = base64.b64encode(self.picture.value).decode()
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": self.caption, "image/png": picture}


def _png(image: drawing.Image) -> bytes:
    encoded: bytes = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return encoded
