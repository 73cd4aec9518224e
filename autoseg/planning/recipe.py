"""A recipe: a named way to make a plan, as data. It holds values that the plan takes as they are, and `rules` that decide the rest.

`machines` says what is different for a kind of device, and is merged key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from autoseg.planning.problems import validated
from autoseg.planning.rules import Rules
from autoseg.planning.schema import (
    ConfigurationPlan,
    EvaluationPlan,
    FoldsPlan,
    IntensityPlan,
    Kind,
    LargestComponent,
    MadeFor,
    NormPlan,
    PaddingPlan,
    Part,
    PredictionPlan,
    ResamplingPlan,
    TrainingPlan,
)

Device = Literal["cpu", "cuda", "mps"]


class NetworkValues(Part):
    """What a network's plan takes as it is."""

    factory: str | None
    kind: Literal["unet", "residual_unet"]
    downsampling: Literal["max_pool", "stride"]
    norm: NormPlan
    activation: Literal["relu", "leaky_relu"]
    order_of_layers: Literal["conv-activation-norm", "conv-norm-activation"]
    initialisation: Literal["glorot_uniform", "kaiming_normal"]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class ConfigurationValues(Part):
    """What every configuration takes as it is."""

    crop: Literal["none", "nonzero"]
    padding: PaddingPlan
    resampling: ResamplingPlan
    network: NetworkValues


class Values(Part):
    """What the plan takes as it is, except where a rule changes it."""

    orientation: Literal["lps", "as_stored"]
    training: TrainingPlan
    prediction: PredictionPlan
    postprocessing: list[LargestComponent]
    evaluation: EvaluationPlan
    folds: FoldsPlan
    configuration: ConfigurationValues


class Note(Part):
    """Why a value of the recipe is what it is."""

    decision: str = Field(description="Dotted key of the plan; `NAME.key` for a configuration, `default.key` for the default one.")
    because: str
    would_change_if: str


class Taken(Part):
    """What is taken from a plan that was made for other data, so that networks trained there can start here."""

    origin: str = Field(description="Whose plan it was, in words.")
    channels: list[str] | None = Field(description="Its channels; null if the file does not say.")
    labels: list[str] | None = Field(description="Its labels or regions; null if the file does not say.")
    default_configurations: list[str]
    configurations: dict[str, ConfigurationPlan]
    intensity: list[dict[Kind, IntensityPlan]] = Field(description="For each channel by its place: kind -> steps.")


class Recipe(Part):
    """A named way to make a plan."""

    name: str
    about: str
    reference_machine: MadeFor
    obeys_machine: bool = Field(description="Whether the plan follows the machine at hand, or the reference machine always.")
    rules: Rules
    values: Values
    notes: list[Note]
    machines: dict[Device, dict[str, Any]] = Field(description="Differences for a kind of device.")
    taken: Taken | None = Field(default=None, description="Configurations and intensities of another plan, which rules then leave alone.")

    def changed(self, difference: Mapping[str, Any], *, what: str) -> Recipe:
        """This recipe with some keys changed.

        Raises:
            PlanError: a key that recipes don't have, or an impossible value.
        """
        content = merged(self.model_dump(by_alias=True, mode="json"), difference)
        return validated(Recipe, content, what=what, remedy="See `autoseg info` and the plan reference for keys and values")

    def for_device(self, device: Device) -> Recipe:
        """This recipe on a kind of device."""
        difference = self.machines.get(device)
        return self if difference is None else self.changed(difference, what=f"recipe {self.name} on {device}")


_OTHER_CONSTANTS = ("spacing", "patch", "topology")  # another rule of these has other constants, and takes none of the old ones


def merged(base: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `difference` written over it: objects key by key, everything else whole; notes are added."""
    result = dict(base)
    for key, value in difference.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        replaces = both and key in _OTHER_CONSTANTS and value.get("rule", old.get("rule")) != old.get("rule")
        if key == "notes" and old:
            result[key] = [*old, *value]  # of two notes on one decision, planning takes the last
        else:
            result[key] = merged(old, value) if both and not replaces else value
    return result
