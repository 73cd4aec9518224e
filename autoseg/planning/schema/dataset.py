"""What a plan says of the dataset and of the machine that it was made for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from autoseg.data.labels import LabelSet
from autoseg.planning.schema.parts import Part, Positive


class MadeFor(Part):
    """The machine that the plan was made for."""

    device: Literal["cpu", "cuda", "mps"] = Field(description="Kind of device that trains.")
    memory_gb: Positive = Field(description="Memory of that device in GB: a GPU's, or the RAM that a CPU may use.")


class OriginalMedian(Part):
    """Medians over the cases before anything was changed."""

    spacing: tuple[float, float, float] = Field(description="mm, (z, y, x).")
    shape: tuple[int, int, int] = Field(description="Voxels after cropping, (z, y, x).")


class DatasetPlan(Part):
    """What the dataset is, as far as later stages need it."""

    name: str
    channels: list[str] = Field(description="Channel names, in order.")
    labels: dict[str, int] = Field(description="Exclusive classes and background: name -> value in files.")
    regions: dict[str, list[int]] = Field(description="Overlapping outputs: name -> values in files; empty for exclusive classes.")
    region_order: list[tuple[str, int]] | None = Field(
        description="Region and the value that it writes, in order of writing and of the network's outputs; null for exclusive classes."
    )
    ignore_label: int | None = Field(description="Value of voxels that nobody annotated.")
    side_pairs: list[tuple[str, str]] = Field(description="Labels that are each other's mirror image, (left, right).")
    groups_of_labels: dict[str, list[str]] = Field(description='Labels that are scored together too, such as "lungs".')
    orientation: Literal["lps", "as_stored"] = Field(description="Axis order that volumes are brought to when read.")
    regrid: Literal["none", "to_first"] = Field(
        description="What becomes of channels and labels on another grid than the first image's: refused, or resampled onto it when read."
    )
    original_median: OriginalMedian

    def label_set(self) -> LabelSet:
        """What the integers of a label map mean: the form that later rooms use."""
        background = self.labels["background"]
        if self.region_order is None:
            names = sorted((name for name in self.labels if name != "background"), key=self.labels.__getitem__)
            return LabelSet(tuple(names), tuple((self.labels[n],) for n in names), background, self.ignore_label)
        values = tuple(tuple(self.regions[name]) for name, _ in self.region_order)
        order = tuple(value for _, value in self.region_order)
        return LabelSet(tuple(name for name, _ in self.region_order), values, background, self.ignore_label, order)

    def side_exchange(self) -> tuple[int, ...] | None:
        """The order of the label set's names in which left and right of each pair have changed places; None without pairs."""
        if not self.side_pairs:
            return None
        names = self.label_set().names
        partner = dict(self.side_pairs) | {right: left for left, right in self.side_pairs}
        return tuple(names.index(partner.get(name, name)) for name in names)

    @model_validator(mode="after")
    def _labels_agree(self) -> DatasetPlan:
        if "background" not in self.labels:
            raise ValueError("labels lacks `background`")
        if (self.region_order is None) != (not self.regions):
            raise ValueError("regions and region_order go together")
        if self.region_order is not None and sorted(name for name, _ in self.region_order) != sorted(self.regions):
            raise ValueError(f"region_order names {[name for name, _ in self.region_order]}, the regions are {sorted(self.regions)}")
        names = set(self.regions or self.labels)
        if unknown := {n for pair in self.side_pairs for n in pair} - names:
            raise ValueError(f"side_pairs names {sorted(unknown)}, the labels are {sorted(names)}")
        return self
