"""Contours fill the pixels whose centres they enclose an odd number of times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.annotations.polygons import fill


def even_odd(contours, shape):
    """The rule itself, pixel by pixel."""
    mask = np.zeros(shape, bool)
    for y, x in np.ndindex(shape):
        for contour in contours:
            for (y0, x0), (y1, x1) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    mask[y, x] ^= True
    return mask


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_any_contours_fill_by_the_even_odd_rule(seed, count, points):
    rng = np.random.default_rng(seed)
    contours = [rng.uniform(-4, 16, (points, 2)).round(3) for _ in range(count)]
    assert np.array_equal(fill(contours, (11, 13)), even_odd(contours, (11, 13)))


def test_a_contour_fills_as_skimage_fills_it():
    from skimage.draw import polygon2mask

    angles = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    radius = 30 + 9 * np.sin(5 * angles)
    outer = np.column_stack([50.3 + radius * np.sin(angles), 60.7 + radius * np.cos(angles)])
    inner = np.column_stack([48.9 + radius / 3 * np.sin(angles), 61.1 + radius / 3 * np.cos(angles)])
    assert np.array_equal(fill([outer], (100, 120)), polygon2mask((100, 120), outer))
    assert np.array_equal(fill([outer, inner], (100, 120)), polygon2mask((100, 120), outer) ^ polygon2mask((100, 120), inner))


def test_a_hole_joined_to_its_outline_by_a_channel_stays_a_hole():
    outer = np.array([[2, 2], [2, 18], [18, 18], [18, 2]]) + 0.5
    inner = np.array([[6, 6], [6, 12], [12, 12], [12, 6]]) + 0.5
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    assert np.array_equal(fill([keyhole], (22, 22)), fill([outer, inner], (22, 22)))


@pytest.mark.parametrize("edge", [5.0, 5.5, 5.25])
def test_outlines_that_share_an_edge_share_no_pixel_and_leave_none_between(edge):
    left = fill([np.array([[1, 1], [1, edge], [9, edge], [9, 1]])], (12, 12))
    right = fill([np.array([[1, edge], [1, 10], [9, 10], [9, edge]])], (12, 12))
    assert not (left & right).any() and np.array_equal(left | right, fill([np.array([[1, 1], [1, 10], [9, 10], [9, 1]])], (12, 12)))


def test_what_lies_outside_is_cut_off():
    assert fill([np.array([[-5, -5], [-5, 30], [30, 30], [30, -5]])], (4, 6)).all()
    assert not fill([np.array([[-5, -5], [-5, -2], [-2, -2], [-2, -5]])], (4, 6)).any()
    assert not fill([np.array([[40, 50], [40, 60], [50, 60]])], (4, 6)).any()
