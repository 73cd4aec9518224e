"""How the cases are split: what the recipe says, what the dataset brings, and what the data call for."""

from __future__ import annotations

from autoseg.planning.figures import Figures
from autoseg.planning.overrides import Request
from autoseg.planning.reasons import reason
from autoseg.planning.recipe import Recipe
from autoseg.planning.schema import FoldsPlan, Reason


def plan_folds(figures: Figures, recipe: Recipe, wanted: Request) -> tuple[FoldsPlan, list[Reason]]:
    """The recipe's folds: given ones win, never more than there are patients, runs of serial sections, stratified where classes are
    missing."""
    folds = recipe.values.folds
    if figures.given_folds and "folds.source" not in wanted.settings:
        plan = folds.model_copy(update={"source": "dataset", "count": figures.given_folds, "stratify": False})
        why = "The dataset brings its own folds (splits_final.json), which are taken as they are"
        change = "that file were not there, or --set folds.source named another"
        return plan, [reason("folds.source", "dataset", why, change, **_facts(figures))]
    folds, why_count = _count(figures, folds)
    folds, why_source = _source(figures, recipe, folds, wanted)
    folds, why_stratify = _stratify(figures, recipe, folds, wanted)
    return folds, [*why_count, *why_source, *why_stratify]


def _facts(figures: Figures) -> dict[str, int]:
    return {"cases": len(figures.cases), "patients_or_groups": figures.groups, "grouped_cases": figures.grouped_cases}


def _count(figures: Figures, folds: FoldsPlan) -> tuple[FoldsPlan, list[Reason]]:
    cases, units = len(figures.cases), figures.groups if folds.groups else len(figures.cases)
    count = min(folds.count, units)
    if count == 1:
        why = "All cases are of one patient, so that none can be held out: fold 0 trains on all, and no score tells how good it is"
    else:
        what = f"{cases} cases" if units == cases else f"{cases} cases of {units} patients"
        why = f"{what} are split into {count} parts; each part is predicted by a model that never saw it, which is what the scores tell of"
        if count < folds.count:
            why += f". More than {count} parts cannot be had"
    return folds.model_copy(update={"count": count}), [
        reason("folds.count", count, why, "there were fewer cases than folds, or the dataset brought its own", **_facts(figures))
    ]


def _source(figures: Figures, recipe: Recipe, folds: FoldsPlan, wanted: Request) -> tuple[FoldsPlan, list[Reason]]:
    """Runs of neighbours for the sections of one block, unless the user has grouped them."""
    rule, found = recipe.rules.sections, figures.sections
    asked = "folds.source" in wanted.settings
    if found is None or figures.grouped_cases or asked or not rule.blocks or found.gain < rule.least_gain or folds.count == 1:
        return folds, []
    whole = len(found.stacks) >= folds.count
    why = (
        f"The {len(figures.cases)} images are numbered one after the other, and neighbours look alike (correlation "
        f"{found.neighbours:.2f}; images that lie far apart {found.apart:.2f}): they are slices of "
        + ("one block" if len(found.stacks) == 1 else f"{len(found.stacks)} blocks")
        + ". Drawn at random, nearly every tested image would have a neighbour among those learnt from, and scores would flatter; so "
        + ("whole blocks are held out together" if whole else "runs of neighbours are held out together")
    )
    facts = {"neighbours": found.neighbours, "far_apart": found.apart, "stacks": len(found.stacks), "least_gain": rule.least_gain}
    change = "neighbours were no more alike than others, or you tied images in groups.csv or gave --set folds.source=kfold"
    return folds.model_copy(update={"source": "blocks"}), [reason("folds.source", "blocks", why, change, **facts)]


def _stratify(figures: Figures, recipe: Recipe, folds: FoldsPlan, wanted: Request) -> tuple[FoldsPlan, list[Reason]]:
    """Evenly by class where some case does not show one; runs of neighbours cannot be evened out."""
    without = {name: n + figures.unannotated.get(name, 0) for name, n in figures.missing.items()}
    absent = {name: n for name, n in without.items() if 0 < n < len(figures.cases)}
    rule = recipe.rules.stratify_where_classes_are_missing
    if not rule or not absent or folds.source == "blocks" or folds.count == 1 or "folds.stratify" in wanted.settings:
        return folds, []
    named = list(absent.items())
    listed = ", ".join(f"{name} in {n} of {len(figures.cases)}" for name, n in named[:5])
    listed += f" and {len(named) - 5} more labels" if len(named) > 5 else ""
    why = f"Some cases do not show a label: {listed}. Those that show it are spread evenly over the parts, rare labels first"
    facts: dict[str, object] = {"cases_without": absent}
    if any(figures.unannotated.values()):
        facts["cases_that_do_not_annotate"] = {name: n for name, n in figures.unannotated.items() if n}
    return folds.model_copy(update={"stratify": True}), [reason("folds.stratify", True, why, "every case showed every label", **facts)]
