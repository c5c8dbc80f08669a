"""The state's increments as images hold the data they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest

from suspike import plot

pytest.importorskip("matplotlib")


def test_increments_lay_steps_out_as_pixels() -> None:
    rng = np.random.default_rng(5)
    moved = rng.normal(0.5, 1, size=(6, 2, 3))
    table, images = (rng.random((6, 3)) < 0.5).astype(np.uint8), rng.random((2, 2, 3))
    figure = plot.increments(moved, (2, 3), open_steps=table, images=images, title="$a")
    figure.savefig(io.BytesIO())
    grid, bars = figure.axes[:8], figure.axes[8:]
    assert len(bars) == 4
    assert [axes.get_title() for axes in grid] == [
        "image",
        "share of units open",
        "mean increment",
        "mean size",
    ] + 4 * [""]
    shown = [np.asarray(axes.images[0].get_array()) for axes in grid]
    for sample in range(2):
        image, share, signed, size = shown[4 * sample : 4 * sample + 4]
        assert np.array_equal(image, images[sample])
        for t in range(6):
            row, column = divmod(t, 3)
            assert np.isclose(share[row, column], table[t].mean())
            assert np.isclose(signed[row, column], moved[t, sample].mean())
            assert np.isclose(size[row, column], np.abs(moved[t, sample]).mean())
    low, high = grid[2].images[0].get_clim()
    assert -low == high == max(np.abs(s).max() for s in shown[2::4])  # 0 is white, in all rows alike
    assert [axes.images[0].get_clim() for axes in grid[:4]] == [axes.images[0].get_clim() for axes in grid[4:]]
    assert len(plot.increments(moved, (2, 3)).axes) == 2 * 2 + 2


def test_increments_refuse_what_does_not_fit() -> None:
    moved = np.zeros((6, 2, 3))
    for wrong in (moved[:5], moved[:, 0], moved[:, :0]):
        with pytest.raises(ValueError, match=r"^`moved` must be of shape \[6, B, H\], a step for each pixel, of one"):
            plot.increments(wrong, (2, 3))
    with pytest.raises(ValueError, match=r"^`moved` must be finite, got nan at \[0, 0, 0\] \(36 such values\)"):
        plot.increments(moved + np.nan, (2, 3))
    with pytest.raises(ValueError, match=r"^`open_steps` must be of shape \[6, 3\], got shape \[6, 2\]"):
        plot.increments(moved, (2, 3), open_steps=np.ones((6, 2)))
    with pytest.raises(ValueError, match=r"^`images` must be of shape \[2, 2, 3\], got shape \[2, 3, 2\]"):
        plot.increments(moved, (2, 3), images=np.ones((2, 3, 2)))
    plot.increments(moved, (2, 3)).savefig(io.BytesIO())  # nothing moved
