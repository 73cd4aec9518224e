"""Labels with a side: pairs by name, confirmed by shape (DESIGN 6.5).

Names propose, in several styles and languages; shapes decide. A pair has like volume, and the one mirrored at the plane
between the two covers the other within a tenth of their distance: far-apart organs may differ by centimetres, neighbours
such as the ventricles of a heart may not. (On real CT true pairs cover each other to .80 and more, left and right
ventricle in the median to .47; without the tolerance thin structures such as ribs would be lost.)
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from autoseg.data.labels import LabelSet
from autoseg.fingerprint.types import CaseMeasures, SidePair, SidesSummary
from autoseg.geometry import Spacing

LARGEST_VOLUME_RATIO = 2.5  # median over the cases; lungs with one collapsed reach 2
LEAST_OVERLAP = 0.8  # median over the cases
TOLERANCE = 0.1  # of the left-right distance between the two centres
UNNAMED_VOLUME_RATIO = 1.5  # unnamed labels are asked about only where they are more alike than named ones have to be
UNNAMED_OVERLAP = 0.85
UNNAMED_LEAST_SHIFT = 3.0  # and lie beside each other: so many times further left-right than otherwise
MOST_UNNAMED = 12  # labels; more make too many pairs to look at

# Short forms, which mean a side only if the name with the other one exists too.
SHORT_PAIRS = (
    ("l", "r"),
    ("lt", "rt"),
    ("lft", "rgt"),
    ("lh", "rh"),
    ("li", "re"),
    ("g", "d"),
    ("e", "d"),
    ("i", "d"),
    ("izq", "der"),
    ("izda", "dcha"),
    ("esq", "dir"),
    ("sin", "dx"),
    ("sin", "dex"),
    ("sin", "dext"),
    ("sin", "des"),
    ("sx", "dx"),
    ("sn", "dx"),
    ("vasen", "oikea"),
    ("bal", "jobb"),
    ("sol", "sag"),
)
LETTERS_OF_A_LIST = frozenset("abcdefghi")  # `region_d` and `region_e` are sides only if there is no `region_c`
# "leftlung", "lungleft"; here too the partner must exist
RUN_TOGETHER = (
    ("left", "right"),
    ("links", "rechts"),
    ("linker", "rechter"),
    ("gauche", "droit"),
    ("vanster", "hoger"),
    ("venstre", "højre"),
)
SIDES = ("left", "right")


def _words(name: str) -> list[str]:
    """Lower-case words of a name without accents; `LeftLung`, `lung-L`, `lung_left2` are cut as a reader would, `L5`, `RV` are not."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    plain = re.sub(r"([左右]|왼쪽|오른쪽)", r" \1 ", unicodedata.normalize("NFC", plain))
    plain = re.sub(r"(?<=[a-zø])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z]{2})(?=\d)", " ", plain)
    return re.findall(r"[^\W_]+", plain.lower())


# Words that say a side wherever they stand in a name: English, German, French, Spanish, Latin, Italian, Portuguese, Dutch,
# Scandinavian, Polish, Czech, Russian, Greek, Chinese, Japanese and Korean.
LEFT_WORDS = frozenset(
    _words(
        "left links linke linker linkes linken gauche izquierdo izquierda sinister sinistra sinistro sinistrum sinistre esquerdo esquerda "
        "vänster venstre lewy lewa lewe levý levá levé левый левая левое левой αριστερός αριστερή αριστερό "
        "sinistral 左 왼쪽"
    )
)
RIGHT_WORDS = frozenset(
    _words(
        "right rechts rechte rechter rechtes rechten droit droite derecho derecha dexter dextra dextrum destra destro direito direita "
        "höger højre høyre prawy prawa prawe pravý pravá pravé правый правая правое правой δεξιός δεξιά δεξί δεξιό "
        "dextral 右 오른쪽"
    )
)


@dataclass(frozen=True)
class NamedSides:
    """What the names of labels say about sides.

    pairs: (left, right).
    unpaired: names that say a side and lack their partner.
    plain: names without a side.
    """

    pairs: tuple[tuple[str, str], ...]
    unpaired: tuple[str, ...]
    plain: tuple[str, ...]


def sides_by_name(names: Sequence[str]) -> NamedSides:
    """Pairs among label or region names: the same name but for its side word; an ambiguous name stays without a side."""
    pairs: dict[str, tuple[str, str]] = {}
    for certain in (True, False):
        free = [name for name in names if name not in pairs]
        left, right = (_by_rest(free, side, certain) for side in SIDES)
        for rest in left:
            if not certain and _is_list(rest, free):
                continue
            if len(left[rest]) == 1 and len(right.get(rest, ())) == 1 and left[rest] != right[rest]:
                pair = (left[rest][0], right[rest][0])
                pairs |= {name: pair for name in pair if pair[0] not in pairs and pair[1] not in pairs}
    unpaired = tuple(name for name in names if name not in pairs and any(True for _ in _readings(name, certain=True)))
    plain = tuple(name for name in names if name not in pairs and name not in unpaired)
    return NamedSides(tuple(dict.fromkeys(pairs[name] for name in names if name in pairs)), unpaired, plain)


def _is_list(rest: tuple, names: Sequence[str]) -> bool:
    """Whether the letters that could be sides stand in a list of more letters, as in a, b, c, d, e."""
    pair, others = rest
    if not set(pair) <= LETTERS_OF_A_LIST:
        return False
    parts = [(i, _words(name)) for name in names for i in range(len(_words(name)))]
    letters = {words[i] for i, words in parts if (*words[:i], *words[i + 1 :]) == others}
    return bool(letters & LETTERS_OF_A_LIST - set(pair))


def _by_rest(names: Sequence[str], side: str, certain: bool) -> dict[tuple, list[str]]:
    table: dict[tuple, list[str]] = {}
    for name in names:
        for found, rest in _readings(name, certain=certain):
            if found == side:
                table.setdefault(rest, []).append(name)
    return table


def _readings(name: str, *, certain: bool) -> Iterator[tuple[str, tuple]]:
    """(side, what remains of the name) for each way of reading a side into it; certain: by whole words only."""
    words = _words(name)
    if certain:
        sides = {side for side, known in zip(SIDES, (LEFT_WORDS, RIGHT_WORDS), strict=True) if known & set(words)}
        if len(sides) == 1:
            yield sides.pop(), tuple(w for w in words if w not in LEFT_WORDS | RIGHT_WORDS)
        return
    for i, word in enumerate(words):
        others = (*words[:i], *words[i + 1 :])
        for pair in SHORT_PAIRS:
            for side, short in zip(SIDES, pair, strict=True):
                if word == short:
                    yield side, (pair, others)
        for pair in RUN_TOGETHER:
            for side, long in zip(SIDES, pair, strict=True):
                if word != long and (word.startswith(long) or word.endswith(long)):
                    yield side, (pair, (*words[:i], word.replace(long, "", 1), *words[i + 1 :]))


def measure_sides(voxels: np.ndarray, spacing: Spacing, labels: LabelSet) -> tuple[dict[str, float], dict[str, float]]:
    """How far the labels of one case that may be sides cover each other, and how they lie.

    Args:
        voxels: file values, (z, y, x) in LPS axes.
        spacing: mm, (z, y, x).

    Returns: two dicts over "left|right": the overlap (0..1), and mm that the first lies further to the patient's left.
    """
    named = sides_by_name(labels.names)
    plain = named.plain if len(named.plain) <= MOST_UNNAMED else ()
    if not named.pairs and len(plain) < 2:
        return {}, {}
    shapes = _shapes(voxels, labels, {name for pair in named.pairs for name in pair} | set(plain))
    scale = np.array(spacing)
    overlaps, offsets = {}, {}
    for a, b in (*named.pairs, *_apart(plain, labels)):
        if a not in shapes or b not in shapes:
            continue
        one, other = shapes[a], shapes[b]
        shift = (one.centre - other.centre) * scale
        if a in plain and not _may_be_sides(one, other, shift):
            continue
        offsets[f"{a}|{b}"] = float(shift[2])
        overlaps[f"{a}|{b}"] = _mirrored_overlap(one, other, scale)
    return overlaps, offsets


def _apart(names: Sequence[str], labels: LabelSet) -> list[tuple[str, str]]:
    """All pairs of names that share no file value (regions may), each in alphabetical order, since labels come in several."""
    values = {name: set(v) for name, v in zip(labels.names, labels.values, strict=True)}
    return [(a, b) for a, b in itertools.combinations(sorted(names), 2) if not values[a] & values[b]]


@dataclass(frozen=True)
class _Shape:
    """One label: its mask inside its box, the box's first voxel, its centre in voxels, and its number of voxels."""

    mask: np.ndarray
    start: np.ndarray
    centre: np.ndarray
    count: int


def _shapes(voxels: np.ndarray, labels: LabelSet, wanted: set[str]) -> dict[str, _Shape]:
    indices = labels.encode(voxels)
    boxes = find_objects(indices, max_label=len(labels.file_values))
    shapes = {}
    for name, members in zip(labels.names, labels.region_indices, strict=True):
        found = [boxes[i - 1] for i in members if boxes[i - 1] is not None]
        if name not in wanted or not found:
            continue
        box = tuple(slice(min(b[d].start for b in found), max(b[d].stop for b in found)) for d in range(3))
        inside = np.zeros(int(max(indices.max(), *members)) + 1, dtype=bool)
        inside[list(members)] = True
        mask = inside[indices[box]]
        start = np.array([s.start for s in box])
        sums = [mask.sum(axis=tuple(d for d in range(3) if d != axis)) for axis in range(3)]
        centre = start + [float(np.average(np.arange(len(s)), weights=s)) for s in sums]
        shapes[name] = _Shape(mask, start, centre, int(mask.sum()))
    return shapes


def _may_be_sides(one: _Shape, other: _Shape, shift: np.ndarray) -> bool:
    """Whether two labels without a side in their names are like enough in volume and place to be looked at."""
    ratio = max(one.count, other.count) / min(one.count, other.count)
    return ratio <= UNNAMED_VOLUME_RATIO and abs(shift[2]) >= UNNAMED_LEAST_SHIFT * float(np.hypot(shift[0], shift[1]))


def _mirrored_overlap(one: _Shape, other: _Shape, scale: np.ndarray) -> float:
    """Mean of the shares of `one`, mirrored in x between the centres, and of `other` that lie within the tolerance of each other."""
    tolerance = TOLERANCE * abs(one.centre[2] - other.centre[2]) * scale[2]
    if not tolerance:
        return 0.0
    here, there = (_cells(shape, scale, tolerance / 2) for shape in (one, other))
    here[:, 2] = (one.centre[2] + other.centre[2]) * scale[2] - here[:, 2]
    shares = []
    for points, targets in ((here, there), (there, here)):
        distance, _ = cKDTree(targets).query(points, distance_upper_bound=tolerance)
        shares.append(float(np.isfinite(distance).mean()))
    return sum(shares) / 2


def _cells(shape: _Shape, scale: np.ndarray, size: float) -> np.ndarray:
    """Centres in mm, (n, 3), of the cells of about `size` mm that hold any voxel of the shape: enough to judge it, and few."""
    mask = shape.mask
    strides = np.maximum(1, (size / scale).astype(int))
    for axis, stride in enumerate(strides):
        mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], stride), axis=axis)
    cells = np.argwhere(mask) * strides + (strides - 1) / 2
    return (cells + shape.start) * scale


def summarise_sides(cases: Mapping[str, CaseMeasures], labels: LabelSet) -> SidesSummary:
    """The pairs by name, sorted by what the shapes of all cases say of them."""
    named = sides_by_name(labels.names)
    pairs, rejected, unseen = [], [], []
    for left, right in named.pairs:
        pair = side_pair(cases, labels, left, right)
        if pair is None:
            unseen.append((left, right))
        elif pair.overlap >= LEAST_OVERLAP and pair.volume_ratio <= LARGEST_VOLUME_RATIO:
            pairs.append(pair)
        else:
            rejected.append(pair)
    return SidesSummary(pairs=pairs, unpaired=list(named.unpaired), rejected=rejected, unseen=unseen)


def unnamed_sides(cases: Mapping[str, CaseMeasures], labels: LabelSet) -> list[SidePair]:
    """Labels without a side in their names that look like sides in every case that shows both, (left, right) by where they lie."""
    found = []
    for a, b in _apart(sides_by_name(labels.names).plain, labels):
        both = [case for case in cases.values() if all(label_voxels(case, labels, name) for name in (a, b))]
        offsets = [case.side_offset.get(f"{a}|{b}") for case in both]
        if not both or any(offset is None for offset in offsets) or len({offset > 0 for offset in offsets}) > 1:
            continue
        pair = side_pair(cases, labels, a, b)
        if pair.overlap >= UNNAMED_OVERLAP:
            found.append(pair if offsets[0] > 0 else pair.model_copy(update={"left": b, "right": a}))
    return found


def side_pair(cases: Mapping[str, CaseMeasures], labels: LabelSet, left: str, right: str) -> SidePair | None:
    """Medians of overlap and volume ratio over the cases that show both; None if there are none."""
    key = f"{left}|{right}"
    both = [case for case in cases.values() if key in case.side_overlap]
    if not both:
        return None
    volumes = [sorted(label_voxels(case, labels, name) for name in (left, right)) for case in both]
    return SidePair(
        left=left,
        right=right,
        overlap=median(case.side_overlap[key] for case in both),
        volume_ratio=median(large / small for small, large in volumes),
    )


def label_voxels(case: CaseMeasures, labels: LabelSet, name: str) -> int:
    """Voxels of a label or region in a case."""
    return sum(case.label_voxels.get(value, 0) for value in labels.values[labels.names.index(name)])
