"""Image, truth and prediction side by side, as in the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.data.case import LabelMap, Volume
from autoseg.data.formats.placing import match, orientation_for
from autoseg.data.labels import LabelSet
from autoseg.files import appears_whole
from autoseg.report.colours import LUNG_BLUE, Colour, colours_of

HU_WINDOW = (-1250.0, 250.0)  # the paper's
ALPHA = 0.3  # the paper's, for blue and red; palette colours are lighter and need more
PALETTE_ALPHA = 0.45
COLUMN_INCHES = 2.6


@dataclass(frozen=True)
class Slice:
    """One axial slice as it is shown: front above, the patient's right on the left.

    gray: float32 (y, x) between 0 and 1. truth, prediction: class indices (y, x), or None.
    spacing: mm (y, x).
    """

    title: str
    gray: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray | None
    spacing: tuple[float, float]


def slices_of(
    title: str, image: Volume, truth: LabelMap | None, prediction: LabelMap | None, labels: LabelSet, *, kind: str, count: int = 1
) -> list[Slice]:
    """The slices of a case that show the most foreground, from foot to head; the middle one where nothing is labelled.

    Args:
        image: its first channel is shown; the label maps may be stored in another axis order of the same lattice.
        kind: of that channel: "hu" is shown in the paper's window, "windowed" as 0..255, "arbitrary" between percentiles.

    Raises:
        GridError: a label map lies on another grid than the image.
    """
    to_shown = orientation_for(image.grid, "lps")
    grid = image.grid.oriented(to_shown)
    voxels = to_shown.apply(image.voxels)[0]
    maps = [None if m is None else labels.encode(_as_shown(m, image, to_shown)) for m in (truth, prediction)]
    low, high = gray_window(voxels, kind)
    guide = next((m for m in maps if m is not None), None)
    shown = []
    for z in choose_slices(guide, voxels.shape[0], count):
        gray = np.clip((voxels[z].astype(np.float32) - low) / (high - low), 0, 1)
        name = title if voxels.shape[0] == 1 else f"{title}, slice {z + 1} of {voxels.shape[0]}"
        in_truth, in_prediction = (None if m is None else m[z] for m in maps)
        shown.append(Slice(name, gray, in_truth, in_prediction, grid.spacing[1:]))
    return shown


def _as_shown(label_map: LabelMap, image: Volume, to_shown) -> np.ndarray:
    onto_image, _ = match(image.grid, label_map.grid, what="the image", file="the label map")
    return to_shown.apply(onto_image.apply(label_map.voxels))


def gray_window(voxels: np.ndarray, kind: str) -> tuple[float, float]:
    """The values that become black and white."""
    if kind == "hu":
        return HU_WINDOW
    if kind == "windowed":
        return 0.0, 255.0
    step = max(1, round((voxels.size / 1e6) ** (1 / 3)))  # a million voxels tell the percentiles well enough
    low, high = np.percentile(voxels[::step, ::step, ::step] if min(voxels.shape) > 2 * step else voxels, (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


def choose_slices(guide: np.ndarray | None, slices: int, count: int) -> list[int]:
    """Up to `count` slices with much of the rarest foreground class, spread over its extent; ascending."""
    if guide is None or not guide.any():
        return [slices // 2]
    sizes = np.bincount(guide.ravel())
    rarest = min(np.flatnonzero(sizes[1:]) + 1, key=lambda index: sizes[index])
    area = (guide == rarest).sum((1, 2))
    shown = np.flatnonzero(area)
    parts = np.array_split(shown, min(count, len(shown)))
    return [int(part[np.argmax(area[part])]) for part in parts]


def draw_montage(path: Path, columns: Sequence[Slice], labels: LabelSet, *, title: str = "") -> None:
    """Write rows image, truth, prediction (those that any column has) by one column a slice; whole or not at all.

    Lungs blue and infection red at alpha 0.3 as in the paper, other labels from the palette; pixels have their physical shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = ["image"]
    rows += [name for name in ("truth", "prediction") if any(getattr(column, name) is not None for column in columns)]
    heights = [c.gray.shape[0] * c.spacing[0] / (c.gray.shape[1] * c.spacing[1]) for c in columns]
    high = COLUMN_INCHES * max(heights)
    figure = Figure(figsize=(COLUMN_INCHES * len(columns) + 0.5, high * len(rows) + 1.1), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    colours = colours_of(labels.names)
    for j, column in enumerate(columns):
        for i, row in enumerate(rows):
            _draw_cell(axes[i][j], column, row, index_colours(labels, colours))
        axes[0][j].set_title(column.title, fontsize=8)
    for i, row in enumerate(rows):
        axes[i][0].set_ylabel(row, fontsize=10)
    _legend(figure, colours)
    if title:
        figure.suptitle(title, fontsize=11)
    with appears_whole(path) as beside:
        figure.savefig(beside, dpi=110)


def _draw_cell(axes, column: Slice, row: str, colours: dict[int, Colour]) -> None:
    indices = None if row == "image" else getattr(column, row)
    rgb = np.repeat(column.gray[..., None], 3, axis=2)
    if indices is not None:
        rgb = overlay(rgb, indices, colours)
    if row == "image" or indices is not None:
        axes.imshow(rgb, aspect=column.spacing[0] / column.spacing[1], interpolation="nearest", vmin=0, vmax=1)
    else:
        axes.text(0.5, 0.5, f"no {row}", ha="center", va="center", transform=axes.transAxes, color="gray")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def overlay(rgb: np.ndarray, indices: np.ndarray, colours: dict[int, Colour]) -> np.ndarray:
    """Colours blended over the gray image (y, x, 3)."""
    shown = rgb.copy()
    for index, colour in colours.items():
        mask = indices == index
        alpha = ALPHA if max(colour) == sum(colour) else PALETTE_ALPHA  # pure primaries are the paper's
        shown[mask] = (1 - alpha) * shown[mask] + alpha * np.array(colour)
    return shown


def index_colours(labels: LabelSet, colours: dict[str, Colour]) -> dict[int, Colour]:
    """Class index -> colour; where regions share a value, the smallest one's."""
    members = dict(zip(labels.names, labels.region_indices, strict=True))
    by_size = sorted(labels.names, key=lambda name: -len(members[name]))
    return {index: colours[name] for name in by_size for index in members[name]}


def _legend(figure, colours: dict[str, Colour]) -> None:
    from matplotlib.patches import Patch

    lungs = [name for name, colour in colours.items() if colour == LUNG_BLUE]
    entries = {name: colour for name, colour in colours.items() if name not in lungs}
    if lungs:
        entries = {"lungs" if len(lungs) > 1 else lungs[0]: LUNG_BLUE, **entries}
    handles = [Patch(facecolor=(*colour, 0.6), label=name) for name, colour in list(entries.items())[:24]]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8, frameon=False)
