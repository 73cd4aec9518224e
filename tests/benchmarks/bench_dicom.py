"""Reading the headers of many DICOM files, and shifting tilted slices: time per file and per volume, peak memory.

    python tests/benchmarks/bench_dicom.py [--files 3000] [--slices 200]

Not a test: it prints medians. Files are 512 x 512 slices as a CT writes them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--slices", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        headers(Path(folder), options.files)
    shearing(options.slices)


def headers(folder: Path, count: int) -> None:
    """Headers by pydicom and by SimpleITK, in this process and in several."""
    from autoseg.data.formats.dicom import headers as dicom_headers
    from tests.dicom_phantoms import write_series

    original = write_series(folder / "one", slices=20, size=(512, 512), modality="CT", rescale=lambda index: (1.0, -1024.0))
    many = folder / "many"
    many.mkdir()
    files = []
    for number in range(count):
        files.append(many / f"{number:06d}")
        os.link(original[number % len(original)], files[-1])
    own = dicom_headers.has_pydicom
    for name, there, workers in (("pydicom", True, 1), ("pydicom, processes", True, None), ("SimpleITK", False, 1)):
        dicom_headers.has_pydicom = lambda there=there: there
        seconds = statistics.median(clock(dicom_headers.read_headers, files, workers=workers) for _ in range(3))
        print(f"{name:<20} {1000 * seconds / count:6.2f} ms a file, {seconds:6.1f} s for {count}")
    dicom_headers.has_pydicom = own


def shearing(slices: int) -> None:
    """A tilted CT volume shifted straight, and its label map there and back."""
    from autoseg.data.shearing import sheared_labels, straight_image, straight_labels
    from autoseg.geometry import Grid

    tilt = np.radians(15)
    grid = Grid((slices, 512, 512), (1.0, 0.7, 0.7), direction=(1, 0, 0, 0, 1, np.sin(tilt), 0, 0, np.cos(tilt)))
    image = np.random.default_rng(0).integers(-1024, 2000, grid.shape).astype(np.float32)
    labels = (image > 1500).astype(np.uint8)
    print(f"image {grid.shape}: {statistics.median(clock(straight_image, image[None], grid) for _ in range(3)):.1f} s")
    there = straight_labels(labels, grid)
    print(
        f"labels there: {statistics.median(clock(straight_labels, labels, grid) for _ in range(3)):.2f} s,"
        f" back: {statistics.median(clock(sheared_labels, there, grid) for _ in range(3)):.2f} s"
    )


def clock(function, *arguments, **named) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    function(*arguments, **named)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
