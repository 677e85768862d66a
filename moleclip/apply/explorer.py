"""Show a molecule with sliders for its drawing and augmentation, in a notebook."""

import base64
import html
from typing import Any

import cv2
import ipywidgets
import numpy as np

from moleclip import augmentation, drawing

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
DEFAULT = "RDKit's"  # a Style has None for it, by which a selection of ipywidgets means that nothing is selected


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """What `explore` shows.

    Attributes
    ----------
    smiles, augmentation, seed : ipywidgets.Widget
    style : dict of str to ipywidgets.Widget
        One per field of `drawing.Style`, by its name.
    picture : ipywidgets.Image
        PNG, [size, size] pixels; dimmed while the SMILES is invalid.
    message : ipywidgets.HTML
        Why the SMILES cannot be drawn; empty if it can.
    """

    def __init__(self, smiles: str, size: int, seed: int) -> None:
        look: Any = {"style": {"description_width": "9em"}, "layout": {"width": "30em"}}
        plain = drawing.PLAIN

        def choice(options: list[Any], label: str, kind: Any = ipywidgets.SelectionSlider) -> Any:
            return kind(options=[DEFAULT, *options], description=label, **look)

        # The ranges are those of `drawing.random_style`.
        self.style = {
            "bond_width": ipywidgets.IntSlider(plain.bond_width, 2, 5, description="bond width (px)", **look),
            "font_size": choice(list(range(14, 25)), "font size (px)"),
            "bond_length": choice(list(range(20, 101, 5)), "bond length (px)"),
            "bond_offset": ipywidgets.FloatSlider(
                plain.bond_offset, min=0.1, max=0.4, step=0.01, description="bond offset", **look
            ),
            "rotation": ipywidgets.IntSlider(0, 0, 360, 5, description="rotation (deg)", **look),
            "font": choice(list(drawing.FONTS), "font", ipywidgets.Dropdown),
            "r_groups": ipywidgets.Checkbox(description="R-groups (R1 to R8)", **look),
        }
        self.augmentation = ipywidgets.Dropdown(options=list(augmentation.LEVELS), description="augmentation", **look)
        self.seed = ipywidgets.BoundedIntText(seed, 0, 2**31 - 1, description="seed", **look)
        self.smiles = ipywidgets.Text(smiles, description="SMILES", layout={"width": "auto"})
        frame = {"width": f"{size}px", "height": f"{size}px", "border": "1px solid #bbb"}
        self.picture = ipywidgets.Image(format="png", layout=frame)
        self.message = ipywidgets.HTML(layout={"width": f"{size}px"})
        self._pixels: drawing.Image = np.full((size, size, 3), 255, np.uint8)
        settings = [*self.style.values(), self.augmentation, self.seed]
        for control in (self.smiles, *settings):
            control.observe(self._draw, "value")
        self._draw()
        left = ipywidgets.VBox([self.picture, self.message], layout={"margin": "2px 16px 0 4em"})
        below = ipywidgets.HBox([left, ipywidgets.VBox(settings)], layout={"flex_flow": "row wrap"})
        super().__init__([self.smiles, below], layout={"max_width": f"{size + 520}px"})

    def style_shown(self) -> drawing.Style:
        """Style that the controls are set to."""
        values = {name: control.value for name, control in self.style.items()}
        chosen: dict[str, Any] = {name: None if value == DEFAULT else value for name, value in values.items()}
        return drawing.Style(**chosen)

    def _draw(self, _: object = None) -> None:
        try:
            image = drawing.draw(self.smiles.value, self.style_shown(), len(self._pixels))
        except ValueError as reason:
            text = html.escape(f"Cannot be drawn: {reason}")
            self.message.value = f'<div style="color: var(--jp-error-color1, #b00020); line-height: 1.4">{text}</div>'
            self.picture.value = _png(255 - (255 - self._pixels) // 4)
            return
        rng = np.random.default_rng(self.seed.value)
        self._pixels = augmentation.augment(image, self.augmentation.value, rng)
        self.picture.value, self.message.value = _png(self._pixels), ""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Offer the widget and its present picture: each front end takes the best that it can show."""
        level = f"augmentation {self.augmentation.value!r}, seed {self.seed.value}"
        picture = base64.b64encode(self.picture.value).decode()
        text = f"{self.smiles.value}: {self.style_shown()}, {level}"
        return {**super()._repr_mimebundle_(**kwargs), "text/plain": text, "image/png": picture}


def explore(smiles: str = ASPIRIN, size: int = 224, seed: int = 0) -> Explorer:
    """Show a molecule with controls for how it is drawn and augmented; the picture follows each change.

    `ipywidgets.interact` would show no picture in a report, and none while a SMILES is typed.

    Parameters
    ----------
    smiles : str
        Molecule to begin with. An invalid SMILES shows RDKit's reason and dims the last picture.
    size : int
        Height and width of the drawing, pixels.
    seed : int
        For the augmentation: the same seed and settings give the same picture.

    Returns
    -------
    Explorer
        As the last value of a notebook cell, a widget; without a kernel (a report, a web page), a static picture.

    Examples
    --------
    >>> shown = explore("CCO")
    >>> shown.style["bond_width"].value = 4
    >>> shown.style_shown().bond_width
    4
    """
    return Explorer(smiles, size, seed)


def _png(image: drawing.Image) -> bytes:
    encoded: bytes = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return encoded
