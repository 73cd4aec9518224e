"""The whole plan, its forecast and its reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field, model_validator

from autoseg.planning.schema.configuration import ConfigurationPlan
from autoseg.planning.schema.dataset import DatasetPlan, MadeFor
from autoseg.planning.schema.folds import FoldsPlan
from autoseg.planning.schema.intensity import IntensityPlan
from autoseg.planning.schema.parts import Kind, Part
from autoseg.planning.schema.prediction import EvaluationPlan, LargestComponent, PredictionPlan
from autoseg.planning.schema.training import TrainingPlan


class StageForecast(Part):
    """What one configuration will need, by formula, in GB of 2^30 bytes; how long it takes stands in forecast.json."""

    training_memory_gb: float = Field(
        description="Peak memory of the training device during a step. On a CPU it is RAM beyond what the imports take; for "
        "CUDA it is the same formula without what only a CPU does, and unverified."
    )
    training_ram_gb: float = Field(description="RAM of training beside that: the imports, waiting samples, one process that makes them.")
    prediction_memory_gb: float = Field(description="Peak memory of the device while the largest case is predicted by all folds together.")
    prediction_ram_gb: float = Field(description="RAM beside that, the imports included.")
    preprocessing_ram_gb: float = Field(description="RAM of one preprocessing worker at the largest case, the imports included.")
    disk_gb: float = Field(description="Preprocessed cases, compressed as on average.")
    checkpoints_gb: float = Field(description="Checkpoints and weights of one fold.")


class Reason(Part):
    """Why one decision came out as it did."""

    decision: str = Field(description="Dotted key of the plan.")
    value: Any
    because: str
    figures: dict[str, Any] = Field(description="Numbers computed from this dataset's fingerprint.")
    would_change_if: str


class Plan(Part):
    """Every decision, with reasons."""

    autoseg_version: str
    recipe: str
    recipe_options: dict[str, Any] = Field(description="What --set and --memory gave; planning inputs.")
    created_from: str = Field(description="Hash of the fingerprint.")
    made_for: MadeFor
    default_configurations: list[str]
    dataset: DatasetPlan
    intensity: dict[str, dict[Kind, IntensityPlan]] = Field(description="Channel name -> kind -> steps.")
    training: TrainingPlan
    prediction: PredictionPlan
    postprocessing: list[LargestComponent]
    evaluation: EvaluationPlan
    folds: FoldsPlan
    configurations: dict[str, ConfigurationPlan]
    forecast: dict[str, StageForecast]
    reasons: list[Reason]

    def stages(self, configuration: str) -> tuple[str, ...]:
        """The configurations that run one after the other for this one's result: a cascade's first stage, then itself."""
        previous = self.configurations[configuration].previous_stage
        return (configuration,) if previous is None else (previous, configuration)

    def every_stage(self, configurations: Iterable[str]) -> list[str]:
        """These configurations with the first stages that they build on, in the order in which they run."""
        return list(dict.fromkeys(stage for name in configurations for stage in self.stages(name)))

    def input_channels(self, configuration: str) -> int:
        """Channels that its network takes: the images', then one for each class or region that the first stage of a cascade finds."""
        previous = self.configurations[configuration].previous_stage
        return len(self.dataset.channels) + (len(self.dataset.label_set().names) if previous else 0)

    @model_validator(mode="after")
    def _names_exist(self) -> Plan:
        for name in self.default_configurations:
            if name not in self.configurations:
                raise ValueError(f"default_configurations names {name!r}; there are {sorted(self.configurations)}")
        if set(self.intensity) != set(self.dataset.channels) or len(self.intensity) != len(self.dataset.channels):
            raise ValueError(f"intensity names {sorted(self.intensity)}, the channels are {self.dataset.channels}")
        for name, configuration in self.configurations.items():
            for stage in (configuration.previous_stage, configuration.next_stage):
                if stage is not None and stage not in self.configurations:
                    raise ValueError(f"configurations.{name} goes with {stage!r}, which is not there")
            if len(configuration.normalise_in_mask) != len(self.dataset.channels):
                raise ValueError(f"configurations.{name}.normalise_in_mask needs one value a channel")
            for channel, mask in zip(self.dataset.channels, configuration.normalise_in_mask, strict=True):
                if not mask and any(steps.masked for steps in self.intensity[channel].values()):
                    raise ValueError(f"intensity.{channel} z-scores in the non-zero mask, {name}.normalise_in_mask says false")
            if configuration.previous_stage and self.configurations[configuration.previous_stage].previous_stage:
                raise ValueError(f"configurations.{name} builds on {configuration.previous_stage!r}, which is no first stage itself")
        return self
