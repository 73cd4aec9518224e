"""Recipes: named ways to make a plan, as data. A recipe holds values that the plan takes as they are, and rules that decide the rest.

A rule names a planning function and gives its constants; the functions are in `spacing`, `topology`, `configurations`,
`intensity` and `training`. `machines` says what is different for a kind of device, and `inherits` names another recipe that
this one differs from; both are merged key by key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from autoseg.errors import PlanError
from autoseg.files import SCHEMA_VERSION
from autoseg.planning.plan_file import read_plan
from autoseg.planning.problems import validated
from autoseg.planning.schema import (
    ConfigurationPlan,
    Count,
    EvaluationPlan,
    FoldsPlan,
    IntensityPlan,
    Kind,
    LargestComponent,
    MadeFor,
    NormPlan,
    PaddingPlan,
    Part,
    Positive,
    PredictionPlan,
    ResamplingPlan,
    TrainingPlan,
)

Device = Literal["cpu", "cuda", "mps"]
ConfigurationName = Literal["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
SCHEMA = f"autoseg.recipe/{SCHEMA_VERSION}"


class ByDimension(Part):
    """A constant for 2D and for 3D configurations."""

    two: Positive | None = Field(alias="2d")
    three: Positive | None = Field(alias="3d")

    def of(self, dimension: int) -> float | None:
        return self.two if dimension == 2 else self.three


class MedianSpacing(Part):
    """The median spacing, finer on a coarse axis (peer 2.2)."""

    rule: Literal["median"]
    anisotropy: Positive = Field(description="The coarsest axis must exceed the others by more than this, in spacing and in size.")
    percentile: float = Field(ge=0, le=100, description="Percentile of the spacings that such an axis gets.")


class FixedSpacing(Part):
    """A given spacing, finer where the data are small."""

    rule: Literal["fixed"]
    spacing: tuple[Positive, Positive, Positive]


class LowresRule(Part):
    """When and how coarse a first stage is (peer 2.8)."""

    below: float = Field(ge=0, description="A patch that shows a smaller share of the median case calls for it.")
    step: float = Field(gt=1, description="Factor by which the spacing grows until the patch shows enough.")
    anisotropy: Positive = Field(description="Axes finer than the coarsest by more than this grow first.")
    least_gain: Positive = Field(description="It is dropped unless the case shrinks by this factor.")


class MemoryPatch(Part):
    """The largest patch whose feature maps stay within a count of elements, and the batch that fits (peer 2.1, 2.5)."""

    rule: Literal["memory"]
    elements: ByDimension = Field(description="Feature-map elements at `reference_gb`.")
    reference_batch: ByDimension
    reference_gb: Positive
    grows_with_memory: bool = Field(description="Whether more memory than `reference_gb` allows more.")
    share_of_memory: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="Share of the device's memory that the forecast of a training step may reach; null: the elements alone decide."
    )
    shrink: Literal["per_two", "per_sample"] = Field(description="Whether the count is compared per two samples of the reference batch.")
    covered: Positive = Field(description="Largest share of all voxels that one batch may show.")
    smallest_batch: Count
    largest_batch: ByDimension
    initial_edge: ByDimension = Field(description="Edge of the isotropic patch that shrinking starts from.")


class FixedPatch(Part):
    """A given patch and batch, smaller where the data are."""

    rule: Literal["fixed"]
    patch_size: tuple[Count, Count, Count]
    batch_size: Count


class PoolingTopology(Part):
    """Levels by halving axes of like spacing while they are long enough (peer 2.6)."""

    rule: Literal["pooling"]
    base_features: Count
    most_features: ByDimension
    smallest_edge: Count


class FixedTopology(Part):
    """Given widths; every level halves every axis."""

    rule: Literal["fixed"]
    features: list[Count]
    stride: Count
    kernel: Count


class StageBlocks(Part):
    """Units of each level; the last encoder number stands for all deeper levels."""

    encoder: list[Count]
    decoder: Count


class BlocksRule(Part):
    """Units by kind of network."""

    unet: StageBlocks
    residual_unet: StageBlocks


class ConfigurationsRule(Part):
    """Which configurations are made, and which one is trained unasked."""

    made: list[ConfigurationName]
    default: ConfigurationName
    pool_loss: Literal["peer", "always", "never"] = Field(description="`peer`: in 2D, and in full resolution where there is a first stage.")


class IntensityRule(Part):
    """How intensities are normalised.

    peer: by the channel's name (peer 2.9). kinds: by each case's kind. paper: paper.md items 4 to 7.
    """

    rule: Literal["peer", "kinds", "paper"]
    window: tuple[float, float] = Field(description="HU window that makes HU and windowed volumes alike.")
    mask_below: Positive = Field(description="Z-scores use the non-zero mask where cropping leaves less than this share.")


class SidesRule(Part):
    """What mirroring does to left and right."""

    rule: Literal["by_labels", "as_written"]
    most_tilt: Positive = Field(description="Degrees beyond which no array axis counts as left-right.")
    mirrored: Literal["as_written", "left_right"] = Field(
        description="Axes that training mirrors: the recipe's `mirror_axes`, or of volumes in LPS axes the patient's left-right axis alone."
    )


class RotationRule(Part):
    """How far patches turn (peer 4.5)."""

    rule: Literal["by_patch", "as_written"]
    degrees: Positive
    in_plane_degrees: Positive = Field(description="For 2D patches and thick slices.")
    oblong_degrees: Positive = Field(description="For 2D patches of unequal sides.")
    oblong: Positive = Field(description="Ratio of the sides from which a 2D patch counts as unequal.")
    thick: Positive = Field(description="Ratio of the longest side to the sides across, from which 3D patches turn in plane only.")


class SectionsRule(Part):
    """When 2D images count as sections of one block, whose neighbours are held out together."""

    blocks: bool = Field(description="Whether they are; else folds are drawn at random.")
    least_gain: Positive = Field(description="By how much neighbours by number must correlate more than images far apart.")


class LabelGroupsRule(Part):
    """Left and right scored together."""

    pairs: bool
    single_pair_name: str | None = Field(description="Name of the group if there is one pair; null: from the labels' names.")


class Rules(Part):
    """Which planning function decides what, with its constants."""

    spacing: Annotated[MedianSpacing | FixedSpacing, Field(discriminator="rule")]
    transpose: bool = Field(description="Whether the coarsest axis comes first inside (peer 2.3).")
    lowres: LowresRule
    patch: Annotated[MemoryPatch | FixedPatch, Field(discriminator="rule")]
    topology: Annotated[PoolingTopology | FixedTopology, Field(discriminator="rule")]
    blocks: BlocksRule
    configurations: ConfigurationsRule
    intensity: IntensityRule
    sides: SidesRule
    rotation: RotationRule
    label_groups: LabelGroupsRule
    mean_over_classes: bool = Field(description="Whether the Tversky term's weight is divided by its number of classes.")
    mirrors_at_test_time: Literal["as_written", "as_trained"]
    stratify_where_classes_are_missing: bool
    sections: SectionsRule
    tolerance_mm: Positive = Field(description="Surface tolerance of every label.")


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


def list_recipes() -> list[str]:
    """Names of the installed recipes."""
    return sorted(entry.name.removesuffix(".json") for entry in resources.files("autoseg.plans").iterdir() if entry.name.endswith(".json"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name or from a file; of another WORK, its plan.json or nnU-Net's plans.json a recipe that plans like it.

    Args:
        name_or_path: a name of `list_recipes`, or a path: anything with a separator, the ending .json, or a folder that is there.

    Raises:
        PlanError: no such recipe, or one that is not valid.
    """
    name = str(name_or_path)
    if not _is_path(name):
        return _named(name)
    file = _file_in(Path(name))
    content = _json(file)
    if content.get("schema") == f"autoseg.plan/{SCHEMA_VERSION}":
        from autoseg.planning.taking import recipe_from_plan

        return recipe_from_plan(read_plan(file))
    if "plans_name" in content and "configurations" in content:
        from autoseg.planning.nnunet_recipe import recipe_from_nnunet

        return recipe_from_nnunet(content, file, {name: _named(name) for name in list_recipes() if name.startswith("nnunet")})
    return _named(name)


def _named(name: str) -> Recipe:
    return validated(Recipe, _content(name, ()), what=f"recipe {Path(name).name}", remedy="Correct the recipe; plans/*.json are examples")


def _is_path(name: str) -> bool:
    return name.endswith(".json") or "/" in name or "\\" in name or (name not in list_recipes() and Path(name).is_dir())


def _file_in(path: Path) -> Path:
    """The plan that a folder holds, or the file itself."""
    if not path.is_dir():
        return path
    found = next((path / name for name in ("plan.json", "plans.json", "nnUNetPlans.json") if (path / name).is_file()), None)
    if found is None:
        others = sorted(path.glob("*Plans*.json"))
        if len(others) != 1:
            raise PlanError(
                f"{path.name} holds no plan.json of autoseg and no plans.json of nnU-Net", remedy="Give a WORK folder or a plan's file"
            )
        found = others[0]
    return found


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; {} if it is no file, which `_content` refuses in words."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"it is no JSON ({error})", file=file, remedy="Correct the file") from error
    return content if isinstance(content, dict) else {}


def _content(name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's JSON with what it inherits filled in."""
    if name in heirs:
        raise PlanError(f"recipe {name} inherits from itself", remedy="Correct `inherits`")
    source = Path(name) if _is_path(name) else resources.files("autoseg.plans") / f"{name}.json"
    if not source.is_file():
        raise PlanError(f"there is no recipe {name!r}", remedy=f"Use one of {', '.join(list_recipes())}, or a recipe file")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PlanError(f"the recipe is no JSON ({error})", file=name, remedy="Correct the file") from error
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        remedy = "Give a recipe; plans/*.json are examples"
        raise PlanError(f"it is not a recipe (its `schema` must be {SCHEMA!r})", file=name, remedy=remedy)
    parent = content.pop("inherits", None)
    return content if parent is None else merged(_content(parent, (*heirs, name)), content)
