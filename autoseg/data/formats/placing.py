"""From what a header says about geometry to a Grid, or a named error: the same rules for every format.

How far things may be apart is judged in voxels at the volume's corners, where an error is largest.
"""

from __future__ import annotations

import numpy as np

from autoseg.errors import AutosegError, GridError
from autoseg.geometry import Grid, Orientation, Triple, to_lps

SAME_VOXELS = 0.01  # lattices closer than this are one, without a word
NEAR_VOXELS = 0.1  # closer than this: one lattice, with a warning; farther: different grids
MENDED_SHEAR_DEGREES, MENDED_VOXELS = 1.0, 0.5  # axes closer to perpendicular, where that moves no corner farther, are made so
REGRID = "use --regrid to-first (plan-and-preprocess, doctor), after which predict resamples as well"
FURTHEST_SHEAR_DEGREES = 45.0  # no gantry tilts so far: beyond it the header is wrong


def place(
    steps: np.ndarray, origin: np.ndarray, shape: Triple, *, planar: bool = False, file: object
) -> tuple[Grid, tuple[AutosegError, ...]]:
    """The grid with the given voxel steps, mended to the nearest rotation where it is nearly one, else sheared as it is.

    Args:
        steps: 3 x 3; the columns are the steps in LPS mm along the index axes x, y, z.
        origin: LPS mm (x, y, z) of the first voxel's centre.
        shape: voxels (z, y, x).
        file: named in errors.

    Returns:
        The grid, and a warning if it is sheared or if mending moved a corner by more than `NEAR_VOXELS`.

    Raises:
        GridError: a spacing that is zero or not finite, or axes more than `FURTHEST_SHEAR_DEGREES` from perpendicular (of a planar
            image: more than can be mended).
    """
    steps, origin = np.asarray(steps, dtype=float), np.asarray(origin, dtype=float)
    norms = np.sqrt((steps**2).sum(axis=0))
    if not (np.isfinite(steps).all() and np.isfinite(origin).all() and (norms > 0).all()):
        raise GridError(
            f"its spacing is {millimetres(norms[::-1])} (z, y, x) and its origin {origin.tolist()}", file=file, remedy="Correct the header"
        )
    unit = steps / norms
    cosines = np.abs(unit.T @ unit - np.eye(3)).max()
    shear = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    doubt = None
    if cosines > 1e-6:  # beyond the rounding of 32-bit headers
        left, _, right = np.linalg.svd(unit)
        moved = float(np.abs((unit - left @ right) @ (norms * (np.array(shape[::-1]) - 1)) / norms.min()).max())
        if shear <= MENDED_SHEAR_DEGREES and moved <= MENDED_VOXELS:
            unit = left @ right
            message = f"its axes are {shear:.2g} degrees from perpendicular; they were made so, which moves a corner by {moved:.1f} voxels"
            doubt = GridError(message, file=file, remedy="Nothing need be done") if moved > NEAR_VOXELS else None
        else:
            doubt = _sheared(shear, planar, file)
    grid = Grid(
        tuple(int(n) for n in shape),
        tuple(float(v) for v in norms[::-1]),
        tuple(float(v) + 0.0 for v in origin),
        tuple(float(v) + 0.0 for v in unit.reshape(-1)),
        planar,
    )
    return grid, () if doubt is None else (doubt,)


def _sheared(degrees: float, planar: bool, file: object) -> GridError:
    """The warning that a volume is sheared.

    Raises:
        GridError: it cannot be used so.
    """
    if planar or degrees > FURTHEST_SHEAR_DEGREES:
        limit = "a two-dimensional image cannot be sheared straight" if planar else f"more than {FURTHEST_SHEAR_DEGREES:g} are not believed"
        raise GridError(
            f"its axes are {degrees:.1f} degrees from perpendicular; {limit}",
            file=file,
            remedy="Correct the header, or resample the image, and its label map alike, onto perpendicular axes",
        )
    return GridError(
        f"its axes are {degrees:.1f} degrees from perpendicular, as of a tilted gantry: its slices are shifted straight for the network,"
        " and results go back to the slices as they lie",
        file=file,
        remedy="Check the header if the gantry was not tilted",
    )


def orientation_for(grid: Grid, orientation: str) -> Orientation:
    """What brings arrays on `grid` to the dataset's orientation, `lps` or `as_stored`.

    A planar image stays a plane of rows and columns: what would turn it out of its plane is left undone.
    """
    wanted = to_lps(grid) if orientation == "lps" else Orientation()
    return Orientation() if grid.planar and wanted.axes[0] != 0 else wanted


def onto(grid: Grid, other: Grid) -> Orientation:
    """The change of axis order and sense that brings arrays on `other` closest to the axes of `grid`."""
    cosines = _unit(grid).T @ _unit(other)
    axes = [int(np.abs(row).argmax()) for row in cosines]
    if sorted(axes) != [0, 1, 2]:  # axes near 45 degrees: no order is closer than the one stored
        return Orientation()
    return Orientation(tuple(axes), tuple(bool(cosines[i, a] < 0) for i, a in enumerate(axes)))


def _unit(grid: Grid) -> np.ndarray:
    return np.array(grid.direction, dtype=float).reshape(3, 3)[:, ::-1]


def match(grid: Grid, other: Grid, *, what: str, file: object) -> tuple[Orientation, tuple[AutosegError, ...]]:
    """How arrays on `other` come to lie on `grid`: one lattice may be stored in two axis orders.

    Args:
        what: what lies on `grid`, for messages, such as "the image".
        file: the file on `other`.

    Returns:
        The orientation to apply, and a warning if the lattices are between `SAME_VOXELS` and `NEAR_VOXELS` apart.

    Raises:
        GridError: different shapes, or lattices more than `NEAR_VOXELS` apart.
    """
    change = onto(grid, other)
    moved = other.oriented(change)
    if moved.shape != grid.shape:
        raise GridError(
            f"its shape is {other.shape} (z, y, x), that of {what} is {grid.shape}",
            file=file,
            remedy=f"Pair the right files, or {REGRID}",
        )
    apart = grid.distance(moved)
    if apart <= SAME_VOXELS:
        return change, ()
    mm = float(np.sqrt(((moved.corners() - grid.corners()) ** 2).sum(axis=1)).max())
    found = f"its grid lies {mm:.3g} mm ({apart:.2g} voxels) from that of {what}"
    if apart <= NEAR_VOXELS:
        return change, (GridError(f"{found}; taken as the same", file=file, remedy="Nothing need be done"),)
    detail = f"spacing {millimetres(moved.spacing)} against {millimetres(grid.spacing)}, origin {_point(moved)} against {_point(grid)}"
    raise GridError(f"{found} ({detail})", file=file, remedy=f"Copy the geometry if the voxels do match, else {REGRID}")


def millimetres(spacing) -> str:
    """A spacing for messages."""
    return " x ".join(f"{s:.4g}" for s in spacing) + " mm"


def _point(grid: Grid) -> str:
    return "(" + ", ".join(f"{v:.2f}" for v in grid.origin) + ")"
