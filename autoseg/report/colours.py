"""One colour a label: the paper's for lungs and infection, a palette that stays apart for everyone else's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoseg.geometry import triple

Colour = tuple[float, float, float]

LUNG_BLUE: Colour = (0.0, 0.0, 1.0)  # paper.md item 20, Fig. 6
INFECTION_RED: Colour = (1.0, 0.0, 0.0)
BOX_COLOURS = {LUNG_BLUE: (0.55, 0.80, 0.50), INFECTION_RED: (0.98, 0.68, 0.38)}  # Fig. 5: lungs green, infection orange

# distinct in hue and lightness, also to most colour-blind readers (after Okabe and Ito), bright enough on gray
PALETTE: tuple[Colour, ...] = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.00, 0.62, 0.45),
    (0.94, 0.89, 0.26),
    (0.80, 0.47, 0.65),
    (0.84, 0.37, 0.00),
    (0.00, 0.45, 0.70),
    (0.60, 0.85, 0.30),
    (0.55, 0.40, 0.85),
    (0.95, 0.60, 0.60),
    (0.40, 0.90, 0.80),
    (0.65, 0.50, 0.30),
)

_LUNG = re.compile(r"lung|pulmo", re.IGNORECASE)
_INFECTION = re.compile(r"infect|lesion|covid|opacit|consolidat|ground.?glass", re.IGNORECASE)


def colours_of(names: Sequence[str]) -> dict[str, Colour]:
    """Name -> RGB between 0 and 1. Several lesion labels keep their own colours, since one red would join them."""
    lesions = [name for name in names if _INFECTION.search(name)]
    found: dict[str, Colour] = {}
    free = 0
    for name in names:
        if [name] == lesions:
            found[name] = INFECTION_RED
        elif name not in lesions and _LUNG.search(name):
            found[name] = LUNG_BLUE
        else:
            found[name] = PALETTE[free % len(PALETTE)]
            free += 1
    return found


def box_colour(colour: Colour) -> Colour:
    """The colour of a label in box plots: the paper's green and orange, else its own, lightened."""
    return BOX_COLOURS.get(colour) or triple(0.6 * c + 0.4 for c in colour)
