"""Checks of the dataset as a whole: what single cases cannot show. Nothing here excludes a case."""

from __future__ import annotations

from autoseg.data.case import Dataset
from autoseg.errors import Problem
from autoseg.fingerprint.checks import classes, copies, grids, intensities, placement
from autoseg.fingerprint.types import Fingerprint


def check(dataset: Dataset, fingerprint: Fingerprint) -> list[Problem]:
    """Warnings and questions about the dataset as a whole.

    Args:
        dataset: with its labels resolved.
        fingerprint: of its cases.
    """
    cases, groups = fingerprint.cases, dataset.groups
    return [
        *classes.empty_cases(cases, dataset),
        *classes.classes(dataset, fingerprint),
        *intensities.unsure_kinds(cases, dataset),
        *intensities.mixed_kinds(cases, dataset),
        *grids.outliers(cases),
        *grids.planar_among_volumes(cases),
        *grids.tilted(cases),
        *grids.drifted(cases),
        *copies.same_images(cases, groups),
        *copies.near_copies(cases, groups),
        *copies.scans_of_one_patient(cases, groups),
        *copies.serial(cases, groups),
        *placement.side_order(cases, fingerprint),
        *placement.look_like_sides(cases, dataset),
        *placement.mirrored_or_swapped(cases, dataset),
    ]
