"""What measuring and storing one large case takes beyond the imports: at most four times the case in float32."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "bench_memory.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ct-nifti", "ct-mha"])
def test_measuring_and_storing_take_at_most_four_times_the_case(kind, tmp_path):
    """On its own spacing and resampled; the case has 130 MB in float32, and each process did a small case before."""
    arguments = [sys.executable, BENCHMARK, "--case", kind, "--scale", "0.62", "--json", "--keep", tmp_path]
    found = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    assert set(found) == {f"{kind} {action}" for action in ("measure", "store", "store-resampled")}
    for what, (times, gb) in found.items():
        assert gb > 0.1, what
        assert times <= 4, what
