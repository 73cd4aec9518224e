"""What the recipe's rules change about training, prediction, evaluation and folds."""

from __future__ import annotations

import re

from autoseg.planning.figures import Figures
from autoseg.planning.overrides import Request
from autoseg.planning.reasons import reason
from autoseg.planning.recipe import Recipe
from autoseg.planning.rules import RotationRule
from autoseg.planning.schema import (
    AugmentationPlan,
    ConfigurationPlan,
    EvaluationPlan,
    LossPlan,
    PredictionPlan,
    Reason,
    TrainingPlan,
    TransformPlan,
)
from autoseg.planning.sides import plan_sides

_SHORT_SIDES = frozenset({"l", "r", "lt", "rt", "lft", "rgt", "lh", "rh", "li", "re", "sin", "dex", "dx", "sx"})


def plan_training(figures: Figures, recipe: Recipe, first: ConfigurationPlan, wanted: Request) -> tuple[TrainingPlan, list[Reason]]:
    """The recipe's training with loss weights, sides and rotations as the data ask for them.

    Args:
        first: the configuration that is trained unasked; rotations suit its patch.
    """
    training = recipe.values.training
    loss, reasons = _loss(figures, recipe, training.loss)
    augmentation, more = plan_sides(figures, recipe, training.augmentation, wanted)
    augmentation, yet = _rotations(recipe.rules.rotation, augmentation, first, wanted)
    reasons += more + yet
    return training.model_copy(update={"loss": loss, "augmentation": augmentation}), reasons


def _loss(figures: Figures, recipe: Recipe, loss: LossPlan) -> tuple[LossPlan, list[Reason]]:
    if not recipe.rules.mean_over_classes:
        return loss, []
    classes = len(figures.labels.names) + (1 if loss.tversky.background and not figures.labels.regions else 0)
    weight = loss.tversky.weight / classes
    why = f"The term sums over {classes} classes; divided by their number it is a mean, and weighs as much as the cross-entropy"
    tversky = loss.tversky.model_copy(update={"weight": weight})
    return loss.model_copy(update={"tversky": tversky}), [
        reason("training.loss.tversky.weight", weight, why, "there were more or fewer labels", classes=classes)
    ]


def _rotations(
    rule: RotationRule, plan: AugmentationPlan, first: ConfigurationPlan, wanted: Request
) -> tuple[AugmentationPlan, list[Reason]]:
    """Angles that suit the patch (peer 4.5): thick slices and 2D patches turn in their plane only."""
    if rule.rule == "as_written":
        return plan, []
    patch, thick = first.inside().patch_size, None
    stacked = 0 if first.transpose is None else first.transpose[0]
    if first.network.dimension == 2:
        oblong = max(patch) / min(patch) > rule.oblong
        angles = [0.0, 0.0, 0.0]
        angles[stacked] = rule.oblong_degrees if oblong else rule.in_plane_degrees
        why = "2D patches turn in their plane" + (", little since their sides are unequal" if oblong else "")
    elif max(patch) / patch[0] > rule.thick:
        angles = [0.0, 0.0, 0.0]
        angles[stacked], thick = rule.in_plane_degrees, stacked
        why = "The patch is a thin stack of slices: turning or stretching it out of their plane would mix voxels that are far apart"
    else:
        angles = [rule.degrees] * 3
        why = "The patch is about as long in every direction, so that it turns about every axis"
    if "training.augmentation.thick_axis" not in wanted.settings:
        plan = plan.model_copy(update={"thick_axis": thick})
    ranges = {axis: (-angle, angle) for axis, angle in zip("zyx", angles, strict=True) if angle}
    turned = [t.model_copy(update={"ranges": ranges}) if t.do == "rotate" else t for t in plan.transforms]
    if not any(isinstance(t, TransformPlan) and t.do == "rotate" for t in turned):
        return plan, []
    return plan.model_copy(update={"transforms": turned}), [
        reason("training.augmentation.transforms", ranges, why, "the patch had another shape", patch_size=first.patch_size)
    ]


def plan_prediction(recipe: Recipe, training: TrainingPlan, wanted: Request) -> PredictionPlan:
    """The recipe's prediction; mirrored test-time predictions along the axes that training mirrored, if the recipe says so.

    Where sides are kept, no axis is mirrored that training did not mirror.
    """
    prediction, trained = recipe.values.prediction, training.augmentation.mirror_axes
    if "prediction.test_time_mirrors" in wanted.settings:
        return prediction
    if recipe.rules.mirrors_at_test_time == "as_trained":
        axes = list(trained)
    elif training.augmentation.mirror_sides == "keep":
        axes = [a for a in prediction.test_time_mirrors if a in trained]
    else:
        return prediction
    return prediction.model_copy(update={"test_time_mirrors": axes})


def plan_evaluation(figures: Figures, recipe: Recipe) -> EvaluationPlan:
    """The recipe's scores, with a surface tolerance for each label."""
    evaluation = recipe.values.evaluation
    tolerance = dict.fromkeys(figures.labels.names, recipe.rules.tolerance_mm) | evaluation.tolerance_mm
    return evaluation.model_copy(update={"tolerance_mm": tolerance})


def label_groups(figures: Figures, recipe: Recipe) -> dict[str, list[str]]:
    """Labels scored together too: those that dataset.json names, and left with right."""
    groups = {name: list(labels) for name, labels in figures.label_groups.items()}
    rule = recipe.rules.label_groups
    pairs = [*((pair.left, pair.right) for pair in figures.pairs), *figures.unseen] if rule.pairs else []
    for left, right in pairs:
        alone = rule.single_pair_name if len(pairs) == 1 else None
        name = alone or both_sides(left)
        if name not in groups and name not in figures.labels.names:
            groups[name] = [left, right]
    return groups


def both_sides(name: str) -> str:
    """What a sided label and its partner are called together: `lung_left` -> `lungs`."""
    from autoseg.fingerprint.sides import LEFT_WORDS, RIGHT_WORDS

    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    words = [w for w in re.split(r"[\s_\-./]+", apart) if w and w.lower() not in LEFT_WORDS | RIGHT_WORDS | _SHORT_SIDES]
    base = "_".join(words)
    return f"{base}s" if base and not base.endswith("s") else base or "both sides"
