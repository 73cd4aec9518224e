"""Batch norm, or instance norm where there are too few cases to learn statistics from that hold for others."""

from __future__ import annotations

from autoseg.planning.figures import Figures
from autoseg.planning.recipe import Note, Recipe

CALIBRATED = frozenset({"hu", "windowed"})  # kinds whose values mean the same in every image


def with_norm(recipe: Recipe, figures: Figures) -> Recipe:
    """The recipe with the norm that these data ask for, and with a note that says why.

    Batch norm computes with means and variances of the training images when it predicts. An image of another contrast, as magnetic
    resonance has them, then reaches every layer off its scale; instance norm takes each image by itself. A step then takes 1.2 to
    1.5 times as long (docs/method.md).
    """
    fewest, values = recipe.rules.norm.batch_from_cases, recipe.values.configuration
    norm = values.network.norm
    if fewest is None or norm.name != "batch":
        return recipe
    cases = len(figures.cases)
    if all(kind in CALIBRATED for channel in figures.channels for kind in channel.cases):
        why = (
            "All images are CT, whose values mean the same in each, and with batch norm a step takes two thirds to four fifths of the time"
        )
        change = "a channel were of another kind and there were few cases"
    elif cases >= fewest:
        why = f"{cases} cases teach statistics that hold for others, and with batch norm a step takes two thirds to four fifths of the time"
        change = f"there were fewer than {fewest} cases"
    else:
        why = f"{cases} cases are too few for batch norm: what it learns of their contrasts does not hold for other images"
        change = f"there were {fewest} cases or more, or all were CT"
        norm = norm.model_copy(update={"name": "instance"})
    network = values.network.model_copy(update={"norm": norm})
    changed = recipe.values.model_copy(update={"configuration": values.model_copy(update={"network": network})})
    note = Note(decision="default.network.norm.name", because=why, would_change_if=f"{change}, or the plan were made for a GPU")
    return recipe.model_copy(update={"values": changed, "notes": [*recipe.notes, note]})
