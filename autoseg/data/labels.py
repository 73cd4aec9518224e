"""Label values in files, class indices inside, network outputs: the only place that knows regions and the ignore label.

Inside, a label map holds class indices: 0 is background, k stands for the k-th declared file value in ascending order, and
`LabelSet.ignore_index` for voxels that nobody annotated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.errors import LabelError

LabelValue = int | tuple[int, ...]


def smallest_unsigned(maximum: int) -> np.dtype:
    """The smallest unsigned integer type that holds `maximum`."""
    return np.min_scalar_type(max(int(maximum), 0))


@dataclass(frozen=True)
class LabelSet:
    """What the integers of a label map mean.

    names: the foreground classes or regions, in the order of the network's outputs.
    values: the file values that each name stands for; one each, or several for a region.
    background: the file value of the background.
    ignore: the file value of unannotated voxels, if declared.
    region_order: the file value that each region writes, later ones over earlier ones; None: exclusive classes.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    background: int = 0
    ignore: int | None = None
    region_order: tuple[int, ...] | None = None

    @classmethod
    def declared(cls, labels: Mapping[str, int | Sequence[int]], region_order: Sequence[int] | None = None) -> LabelSet:
        """From the `labels` (and `regions_class_order`) of a dataset.json.

        Raises:
            LabelError: no background, no foreground, a value twice, or a region order that contradicts.
        """
        remedy = "Correct `labels` in dataset.json"
        plain = {name: (value,) if isinstance(value, int) else tuple(int(v) for v in value) for name, value in labels.items()}
        ignore = plain.pop("ignore", None)
        background = plain.pop("background", (0,))
        if len(background) != 1 or (ignore is not None and len(ignore) != 1):
            raise LabelError("background and ignore are one value each", remedy=remedy)
        if not plain or any(not values for values in plain.values()):
            raise LabelError("no foreground label, or one without value", remedy=remedy)
        if any(v < 0 for values in plain.values() for v in values):
            raise LabelError("label values are negative", remedy=remedy)
        if any(set(values) & {*background, *(ignore or ())} for values in plain.values()):
            raise LabelError("a foreground label shares its value with background or ignore", remedy=remedy)
        regions = any(len(values) > 1 for values in plain.values())
        if regions:
            order = tuple(int(v) for v in region_order or ())
            if len(order) != len(plain):
                raise LabelError(
                    f"{len(plain)} regions need `regions_class_order` with {len(plain)} values, found {len(order)}", remedy=remedy
                )
            if missing := [v for v, values in zip(order, plain.values(), strict=True) if v not in values]:
                raise LabelError(f"regions_class_order writes {missing}, which its region does not contain", remedy=remedy)
        elif len({v for values in plain.values() for v in values}) < len(plain):
            raise LabelError("two labels have the same value", remedy=remedy)
        else:
            plain = dict(sorted(plain.items(), key=lambda item: item[1]))
        return cls(tuple(plain), tuple(plain.values()), background[0], ignore[0] if ignore else None, order if regions else None)

    @property
    def regions(self) -> bool:
        """Whether outputs may overlap."""
        return self.region_order is not None

    @property
    def outputs(self) -> int:
        """Channels of the network's last layer: background and classes, or one a region."""
        return len(self.names) + (0 if self.regions else 1)

    @property
    def file_values(self) -> tuple[int, ...]:
        """File value of each class index; index 0 is background."""
        foreground = sorted({v for values in self.values for v in values})
        return (self.background, *foreground)

    @property
    def ignore_index(self) -> int | None:
        """The index of unannotated voxels, or None."""
        return len(self.file_values) if self.ignore is not None else None

    @property
    def region_indices(self) -> tuple[tuple[int, ...], ...]:
        """The class indices that each name stands for."""
        index = {value: i for i, value in enumerate(self.file_values)}
        return tuple(tuple(index[v] for v in values) for values in self.values)

    @property
    def write_order(self) -> tuple[int, ...] | None:
        """The class index that each region writes, or None for exclusive classes."""
        if self.region_order is None:
            return None
        index = {value: i for i, value in enumerate(self.file_values)}
        return tuple(index[v] for v in self.region_order)

    def annotates(self, names: Sequence[str] | None) -> tuple[bool, ...]:
        """For each of the network's outputs, whether a case that annotates these classes or regions annotates it; None: all.

        The background counts as annotated, though on such a case it also stands for what is not.
        """
        known = [names is None or name in names for name in self.names]
        return tuple(known) if self.regions else (True, *known)

    def unknown(self, values: np.ndarray) -> list[int]:
        """Those of `values` that are not declared."""
        known = {*self.file_values, *(() if self.ignore is None else (self.ignore,))}
        return sorted(int(v) for v in values if int(v) not in known)

    def encode(self, label_map: np.ndarray) -> np.ndarray:
        """Class indices (z, y, x) of a label map in file values; every value must be declared."""
        known = {value: i for i, value in enumerate(self.file_values)}
        if self.ignore is not None:
            known[self.ignore] = self.ignore_index
        table = np.zeros(max(known) + 1, dtype=smallest_unsigned(max(known.values())))
        for value, index in known.items():
            table[value] = index
        return _looked_up(table, label_map)

    def decode(self, indices: np.ndarray) -> np.ndarray:
        """File values of class indices, in the smallest unsigned type."""
        values = [*self.file_values, *(() if self.ignore is None else (self.ignore,))]
        return _looked_up(np.array(values, dtype=smallest_unsigned(max(values))), indices)


def _looked_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`table[places]`, plane by plane: numpy copies places to 64 bits, eight times the memory of most label maps."""
    if np.ndim(places) < 2:
        return table[places]
    found = np.empty(places.shape, table.dtype)
    for plane, wanted in zip(found, places, strict=True):
        plane[...] = table[wanted]
    return found
