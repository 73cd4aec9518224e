"""The plan: every decision as typed, documented, validated data, and the only thing that the later stages obey.

There are no defaults here: a plan says everything, and what it says comes from a recipe, a rule over the fingerprint, or the
user. Triples stand in the order (z, y, x) of the volume as read; a 2D configuration has pairs (y, x).
"""

from __future__ import annotations

from autoseg.planning.schema.augmentation import AugmentationPlan, PlugInPlan, PreviousStageChange, TransformPlan
from autoseg.planning.schema.configuration import (
    BlocksPlan,
    ConfigurationPlan,
    Interpolation,
    LabelInterpolation,
    NetworkPlan,
    NormPlan,
    PaddingPlan,
    ResamplingPlan,
)
from autoseg.planning.schema.dataset import DatasetPlan, MadeFor, OriginalMedian
from autoseg.planning.schema.folds import FoldsPlan
from autoseg.planning.schema.intensity import Clip, IntensityPlan, IntensityStep, Nothing, Rescale, ZScore
from autoseg.planning.schema.parts import Count, Kind, Part, Positive, Probability, Range
from autoseg.planning.schema.plan import Plan, Reason, StageForecast
from autoseg.planning.schema.prediction import EvaluationPlan, LargestComponent, PredictionPlan
from autoseg.planning.schema.training import (
    CrossEntropyPlan,
    LossPlan,
    OptimiserPlan,
    OversamplingPlan,
    RescuePlan,
    SchedulePlan,
    StartPlan,
    TrainingPlan,
    TransferPlan,
    TverskyPlan,
    ValidationPlan,
)

__all__ = [
    "AugmentationPlan",
    "BlocksPlan",
    "Clip",
    "ConfigurationPlan",
    "Count",
    "CrossEntropyPlan",
    "DatasetPlan",
    "EvaluationPlan",
    "FoldsPlan",
    "IntensityPlan",
    "IntensityStep",
    "Interpolation",
    "Kind",
    "LabelInterpolation",
    "LargestComponent",
    "LossPlan",
    "MadeFor",
    "NetworkPlan",
    "NormPlan",
    "Nothing",
    "OptimiserPlan",
    "OriginalMedian",
    "OversamplingPlan",
    "PaddingPlan",
    "Part",
    "Plan",
    "PlugInPlan",
    "Positive",
    "PredictionPlan",
    "PreviousStageChange",
    "Probability",
    "Range",
    "Reason",
    "ResamplingPlan",
    "Rescale",
    "RescuePlan",
    "SchedulePlan",
    "StageForecast",
    "StartPlan",
    "TrainingPlan",
    "TransferPlan",
    "TransformPlan",
    "TverskyPlan",
    "ValidationPlan",
    "ZScore",
]
