"""Write the table of docs/formats.md: what autoseg makes of each awkward file of a collection with an expected.json.

    python docs/list_formats.py COLLECTION [--check]

The values are compared with expected.json, point by point in the patient, by tests/data/test_formats.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autoseg.data.case import CaseFiles, SeriesChoice
from autoseg.data.formats.readers import channels_in
from autoseg.data.reading import read_case
from autoseg.errors import AutosegError
from autoseg.fingerprint.case_measures import letters

PAGE = Path(__file__).parent / "formats.md"
BEGIN, END = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"


def table(collection: Path) -> str:
    """A line a file; of a folder with several series, a line a series too."""
    expected = json.loads((collection / "expected.json").read_text(encoding="utf-8"))
    lines = ["| file | read as (z, y, x) | spacing, mm | axes x, y, z lead to | values | said |", "|---|---|---|---|---|---|"]
    for name, entry in expected["good"].items():
        channels = channels_in(collection / name) if entry["kind"] == "image2d" else 1
        lines.append(_line(collection, name, channels, name, ""))
        for number, (uid, series) in enumerate(entry.get("series", {}).items(), start=1):
            kind = "localiser" if series["localizer"] else f"{series['files']} files"
            lines.append(_line(collection, name, 1, f"{name}, series {number} ({kind})", uid))
    lines += [_line(collection, name, 1, name, "") for name in expected["bad"]]
    return "\n".join(lines) + "\n"


def _line(collection: Path, name: str, channels: int, title: str, pattern: str) -> str:
    files = CaseFiles("x", (collection / name,), series=(SeriesChoice(pattern),))
    try:
        case = read_case(files, channels, orientation="as_stored")
    except AutosegError as error:
        return f"| `{title}` | refused | | | | {type(error).__name__}: {error.message} |"
    stored, voxels = case.stored, case.image.voxels
    shape = " x ".join(map(str, stored.shape)) + (f", {channels} channels" if channels > 1 else "")
    spacing = "none" if stored.planar else " x ".join(f"{value:.4g}" for value in stored.spacing)
    axes = "none" if stored.planar else letters(stored)
    said = "; ".join(notice.message for notice in case.notices)
    return f"| `{title}` | {shape} | {spacing} | {axes} | {voxels.min():g} to {voxels.max():g} | {said} |"


def page(collection: Path) -> str:
    """docs/formats.md with the table anew."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return head + BEGIN + table(collection) + END + rest.split(END)[1]


def main() -> int:
    """Write or check the page; the exit status."""
    text = page(Path(sys.argv[1]))
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
