"""What happens to one sample: all of it drawn before any voxel is read, from the sample's own generator.

Sources: paper.md items 9 and 10; the peer's sections 4.5 and 4.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoseg.planning.schema import AugmentationPlan, TransformPlan
from autoseg.training.augmentation.mirroring import Sides
from autoseg.training.sampling import PatchPlace

SPATIAL = ("elastic", "rotate", "scale")
AXES = "zyx"

# What each transform draws, by the keys of its `ranges`; `rotate` may leave out axes that it doesn't turn about.
RANGES: dict[str, tuple[str, ...]] = {
    "elastic": ("alpha", "sigma"),
    "rotate": ("z", "y", "x"),
    "scale": ("factor",),
    "contrast": ("factor",),
    "brightness": ("factor",),
    "gamma": ("exponent",),
    "noise": ("deviation",),
    "blur": ("sigma",),
    "low_resolution": ("factor",),
}
_LOOK_AROUND = frozenset({"contrast", "gamma", "blur", "low_resolution"})  # what a voxel becomes depends on others


@dataclass(frozen=True)
class Drawn:
    """Which transforms happen to one sample; the axes are those of the volume inside, (z, y, x)."""

    intensity: tuple[TransformPlan, ...] = ()
    spatial: tuple[TransformPlan, ...] = ()
    mirrored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a case for one sample.

    plan: None: the patch is cut out as it is.
    dimension: 2: the patch is one voxel of `place` along the first axis, a slice that stands for itself.
    padding: what stands outside of the volume where a patch is cut out, `zero` or `minimum`.
    previous: whether the first stage's labels are wanted too.
    """

    plan: AugmentationPlan | None
    drawn: Drawn
    place: PatchPlace
    dimension: int
    padding: str
    previous: bool

    @property
    def thick_axis(self) -> int | None:
        """The axis along which slices are not mixed, if there is one in the patch."""
        return self.plan.thick_axis if self.plan is not None and self.dimension == 3 else None

    @property
    def centre(self) -> tuple[float, ...]:
        """Where the patch's middle lies: between voxels, but for slices, which are not mixed with their neighbours."""
        place, apart = self.place, self.thick_axis if self.dimension == 3 else 0
        whole = [start + (size - 1) / 2 for start, size in zip(place.start, place.size, strict=True)]
        return tuple(whole[axis] if axis == apart else place.centre[axis] for axis in range(3))

    @property
    def needs_whole_volume(self) -> bool:
        """Whether an intensity transform must see all of the volume to change a patch of it as the plan says.

        The native backend knows the stored volume's mean and range, which is all that a contrast needs that comes first.
        """
        if self.plan is None or self.plan.statistics != "volume":
            return False
        changes = self.drawn.intensity
        known = self.plan.backend == "native" and changes and changes[0].do == "contrast"
        return any(t.do in _LOOK_AROUND for t in changes[1 if known else 0 :])


@dataclass(frozen=True)
class Elastic:
    """Uniform noise in (-1, 1) on the patch's voxels, smoothed by a Gaussian of `sigma` voxels, times `alpha` voxels.

    axes: along which voxels are displaced.
    seed: of the noise.
    """

    alpha: float
    sigma: float
    axes: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Warp:
    """Where a patch's voxels come from, relative to its middle: bent first, then turned and stretched.

    matrix: float64 (3, 3), from the patch's voxels to the volume's, (z, y, x).
    elastic: None: not bent.
    """

    matrix: np.ndarray
    elastic: Elastic | None


@dataclass(frozen=True)
class Change:
    """One intensity transform: what was drawn for each channel; a channel of None stays as it is.

    values: one number, or one an axis (`blur`, `low_resolution`: z, y, x).
    """

    do: str
    values: tuple[float | tuple[float, float, float] | None, ...]
    invert: bool = False
    seed: int = 0


def in_processes(plan: AugmentationPlan) -> bool:
    """Whether samples must be made by processes: batchgenerators draws from generators that all threads share."""
    return plan.backend == "batchgenerators" or bool(plan.plug_ins)


def inside(plan: AugmentationPlan, position: Callable[[int], int]) -> AugmentationPlan:
    """The plan with its array axes as read replaced by the volume's axes inside, which `position` gives."""

    def moved(transform: TransformPlan) -> TransformPlan:
        if transform.do != "rotate":
            return transform
        return transform.model_copy(update={"ranges": {AXES[position(AXES.index(axis))]: r for axis, r in transform.ranges.items()}})

    return plan.model_copy(
        update={
            "transforms": [moved(t) for t in plan.transforms],
            "mirror_axes": sorted(position(a) for a in plan.mirror_axes),
            "thick_axis": None if plan.thick_axis is None else position(plan.thick_axis),
        }
    )


def draw(plan: AugmentationPlan, sides: Sides, dimension: int, rng: np.random.Generator) -> Drawn:
    """Which transforms and mirrors happen; each is drawn for itself, in the plan's order.

    Args:
        dimension: 2 mirrors no slices' axis.
    """
    fires = [t for t in plan.transforms if rng.random() < t.probability]
    mirrored = [axis for axis in plan.mirror_axes if rng.random() < plan.mirror_probability]
    return Drawn(
        intensity=tuple(t for t in fires if t.do not in SPATIAL),
        spatial=tuple(t for t in fires if t.do in SPATIAL),
        mirrored=tuple(a for a in mirrored if a >= 3 - dimension and not (sides.rule == "keep" and a == sides.axis)),
    )


def draw_warp(wanted: Wanted, rng: np.random.Generator) -> Warp | None:
    """Angles, factors and field of the spatial transforms that happen; None where there are none.

    Turned about z, then y, then x, as batchgenerators does; the peer's angles have the other sign, which no symmetric range tells.
    """
    if not wanted.drawn.spatial:
        return None
    matrix, elastic = np.eye(3), None
    still = wanted.thick_axis if wanted.dimension == 3 else 0
    axes = tuple(axis for axis in range(3) if axis != still)
    for transform in sorted(wanted.drawn.spatial, key=lambda t: SPATIAL.index(t.do)):
        if transform.do == "elastic":
            alpha, sigma = (rng.uniform(*transform.ranges[key]) for key in ("alpha", "sigma"))
            elastic = Elastic(alpha, sigma, axes, int(rng.integers(2**63)))
        elif transform.do == "rotate":
            angles = [np.deg2rad(rng.uniform(*transform.ranges.get(axis, (0, 0)))) for axis in AXES]
            for axis, angle in enumerate(angles if wanted.dimension == 3 else angles[:1]):
                matrix = rotation(axis, angle) @ matrix
        else:
            low, high = transform.ranges["factor"]
            even = wanted.plan.conventions == "batchgenerators"
            factor = draw_factor(low, high, rng) if even else rng.uniform(low, high)
            matrix = np.diag([factor if axis in axes else 1 for axis in range(3)]) @ matrix
    return Warp(matrix, elastic)


def rotation(axis: int, angle: float) -> np.ndarray:
    """The turn by `angle` (radians) about `axis`, with batchgenerators' sign."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [(1, 2), (0, 2), (0, 1)][axis]
    s = -s if axis == 1 else s
    matrix[a, a], matrix[b, b], matrix[a, b], matrix[b, a] = c, c, s, -s
    return matrix


def draw_changes(wanted: Wanted, channels: int, rng: np.random.Generator) -> tuple[Change, ...]:
    """Numbers for the intensity transforms that happen, channel by channel."""
    return tuple(_draw_change(t, wanted, channels, rng) for t in wanted.drawn.intensity)


def _draw_change(t: TransformPlan, wanted: Wanted, channels: int, rng: np.random.Generator) -> Change:
    low, high = t.ranges[RANGES[t.do][0]]
    if t.do == "noise":  # one deviation for all channels
        deviation = rng.uniform(low, high)
        values = tuple(deviation if rng.random() < t.channel_probability else None for _ in range(channels))
        return Change(t.do, values, seed=int(rng.integers(2**63)))

    def value() -> float | tuple[float, float, float]:
        if t.do in ("contrast", "gamma"):
            return draw_factor(low, high, rng)
        if t.do == "blur":
            sigmas = [rng.uniform(low, high) for _ in range(wanted.dimension)]
            return tuple([0.0] * (3 - wanted.dimension) + sigmas)
        factor = rng.uniform(low, high)
        if t.do == "low_resolution":
            kept = wanted.thick_axis if wanted.dimension == 3 else 0
            return tuple(1.0 if axis == kept else factor for axis in range(3))
        return factor

    return Change(t.do, tuple(value() if rng.random() < t.channel_probability else None for _ in range(channels)), t.invert)


def draw_factor(low: float, high: float, rng: np.random.Generator) -> float:
    """A factor that shrinks or stretches with equal chance, uniform on either side of 1 (paper.md item 9)."""
    if rng.random() < 0.5 and low < 1:
        return float(rng.uniform(low, min(high, 1)))
    return float(rng.uniform(max(low, 1), high)) if high > 1 else float(rng.uniform(low, high))
