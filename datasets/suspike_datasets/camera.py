"""An event camera that looks at a still image along N-MNIST's three saccades.

Each pixel follows the log of the light that falls on it and sends an event when that has moved far enough from where
it stood after its last event::

    L(t)   = log(1 + (CONTRAST - 1) * image(place - d(t)))
    ON   at  L = ref + threshold * m_on         then deaf for REFRACTORY_US, and ref = L at the end of it
    OFF  at  L = ref - threshold * OFF_RATIO * m_off
    d(t)   = minimum-jerk motion from vertex to vertex of a triangle, 90 ms a side
    m      = 1 + mismatch * normal, drawn once: it belongs to the sensor, the same for every image and seed

Added are events of background noise, mostly ON (the leak of the reference), and a jitter of each saccade's start.

Fitted by hand to real recordings, all 1000 of the N-MNIST 850/150 subset: the triangle, start times, jitter, noise
rate and noise polarity were read off them; contrast, thresholds, refractory time and mismatch were chosen so that the
encoder, given the same 1000 MNIST images, sends about what the camera sent (so the second column is no test on unseen
data). The third holds OTHER images, scikit-learn's 1,797 8x8 digits as `digits` encodes them, with larger and softer
image pixels. Means over recordings, +- standard deviations over recordings:

    ======================================  ==============  ===============  ===============
    .                                       real camera     encoder, same    encoder, 8x8
                                                            1000 images      digits (1797)
    ======================================  ==============  ===============  ===============
    events a recording                      4133 +- 1154    4206 +- 867      4228 +- 396
    share of ON                             0.500 +- 0.007  0.502 +- 0.005   0.500 +- 0.004
    x: mean, std of a recording (px)        16.7, 4.9       16.7, 4.8        16.5, 4.2
    y: mean, std of a recording (px)        17.2, 6.3       17.1, 6.1        16.8, 6.3
    events of saccade 1, 2, 3               1476 1320 1252  1564 1237 1395   1364 1413 1440
    mean time of saccade 1, 2, 3 (ms)       48, 151, 259    49, 150, 259     50, 151, 260
    std of time in saccade 1, 2, 3 (ms)     17, 20, 18      18, 18, 18       18, 17, 17
    busiest 10 ms of saccade 1, 2, 3 (ms)   50, 150, 250    50, 140, 250     40, 140, 250
    share at 80-100, 190-220 ms (pauses)    0.042           0.020            0.018
    pixels with 4 events or more            0.280           0.263            0.273
    events of such a pixel: 10, 50, 90 %    6, 12, 20       7, 12, 21        6, 13, 20
    interval in a pixel: 1, 10, 50 % (ms)   1.8, 2.5, 5.2   2.3, 3.0, 4.9    2.9, 4.0, 7.0
    ======================================  ==============  ===============  ===============

Real and encoded recording of one image: the event counts correlate with r = 0.91 over images; the maps of events over
pixel, saccade and polarity with 0.90 on average (0.71 at worst). N-MNIST's polarities are those of dark strokes on a
light screen: encoding MNIST's white on black instead brings the maps down to 0.33, so invert such images first.

What remains different: real recordings vary more in length and send a trickle in the pauses, where the encoder sends
noise alone; real intervals are shorter at the short end; an 8x8 digit varies far less in length than an MNIST digit.

Source of the recording: Orchard, Jayawant, Cohen and Thakor, Frontiers in Neuroscience 9:437, 2015,
doi 10.3389/fnins.2015.00437. Of the pixel: Lichtsteiner, Posch and Delbruck, IEEE Journal of Solid-State Circuits
43(2), 2008, doi 10.1109/JSSC.2007.914337.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EVENT_DTYPE, EventArray, check_int, check_number

SIDE = 34
"""Rows and columns of the sensor."""

SPAN_PX = 28.0
THRESHOLD = 0.13
MISMATCH = 0.15
NOISE_HZ = 0.44

CONTRAST = 3.0
"""Light of a white place over that of a black one."""

OFF_RATIO = 0.95
REFRACTORY_US = 1400.0
NOISE_ON = 0.88
"""Share of ON among noise events."""

VERTICES_PX = np.array([[-2.7, -1.4], [-0.6, 3.3], [2.7, -1.3], [-2.7, -1.4]])
"""Where the image's centre stands from the sensor's, (x, y), before and after each saccade."""

STARTS_US = np.array([4_000.0, 104_500.0, 213_000.0])
SACCADE_US = 90_000.0
JITTER_US = 3_500.0
"""Each start moves by up to this much to either side."""

END_US = 308_000
PATH_STEPS = 32
"""Straight pieces of a saccade's path: 0.3 pixels at the fastest."""

SENSOR_SEED = 34


def saccade_events(
    image: NDArray[Any],
    *,
    seed: int | Sequence[int],
    span_px: float = SPAN_PX,
    threshold: float = THRESHOLD,
    mismatch: float = MISMATCH,
    noise_hz: float = NOISE_HZ,
) -> EventArray:
    """Record one grey image with a 34 x 34 event camera that makes N-MNIST's three saccades, 0.3 s in all.

    Parameters
    ----------
    image : float [H, W] from 0 (black) to 1 (white), or uint8 [H, W]
        Beyond its edges it goes on with the value of its border. Brighter makes ON; N-MNIST's strokes are dark.
    seed : int or sequence of int, from 0
        Of this recording: noise, jitter, and where each pixel's reference stands at the start.
    span_px : float, pixels
        How many pixels of the sensor the longer side of the image covers.
    threshold : float, log intensity
        Change of log intensity that makes an ON event, before mismatch. Fewer events the higher.
    mismatch : float
        Standard deviation of the thresholds over pixels, relative.
    noise_hz : float, Hz
        Background events of a pixel in a second.

    Returns
    -------
    structured array [E]
        int64 fields x, y (0 to 33), t (us, sorted), p (1 brighter, 0 darker). The same for the same arguments on every
        machine: beyond numpy's random numbers only tables rounded to 2^-20 and plain IEEE arithmetic are used.

    Raises
    ------
    TypeError, ValueError
        If `image` is of another kind, shape or range, or an option is out of range.
    """
    light = _light(image)
    span_px = check_number("span_px", span_px, 1.0, 1000.0)
    threshold = check_number("threshold", threshold, 0.01, 10.0)
    mismatch = check_number("mismatch", mismatch, 0.0, 1.0)
    noise_hz = check_number("noise_hz", noise_hz, 0.0, 1000.0)
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    rng = np.random.default_rng([check_int("seed", s, 0, 2**63 - 1) for s in seeds])

    scale = span_px / max(light.shape)
    if scale < 1:  # finer than the sensor: a pixel sees the mean over its area
        light = np.ascontiguousarray(_shrink(_shrink(light, scale).T, scale).T)
    t_us, shift_px = _path(STARTS_US + JITTER_US * rng.uniform(-1, 1, len(STARTS_US)))
    normal = np.random.default_rng(SENSOR_SEED).standard_normal((2, SIDE * SIDE))
    # No pixel fires for nothing, however wide the spread.
    thresholds = threshold * np.array([[1.0], [OFF_RATIO]]) * np.maximum(1 + mismatch * normal, 0.3)
    start = rng.uniform(-1, 1, SIDE * SIDE)
    table = np.round(np.log1p((CONTRAST - 1) * np.arange(1025) / 1024) * 2**20) / 2**20
    signal = _crossings(light, table, max(scale, 1.0), t_us, shift_px, thresholds, start)

    n_noise = rng.poisson(noise_hz * 1e-6 * END_US * SIDE * SIDE)
    noise = (rng.integers(0, END_US, n_noise) * SIDE * SIDE + rng.integers(0, SIDE * SIDE, n_noise)) * 2
    noise += rng.random(n_noise) < NOISE_ON
    return _unpack(np.sort(np.concatenate([signal, noise])))


def _light(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the image as float64 from 0 to 1."""
    if not isinstance(image, np.ndarray) or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"`image` must be an array of floats or uint8, got {kind}.")
    if image.ndim != 2 or not image.size:
        raise ValueError(f"`image` must be of shape [H, W] with at least one pixel, got shape {image.shape}.")
    light = image.astype(np.float64)
    if image.dtype == np.uint8:
        light /= 255
    if not (light.min() >= 0 and light.max() <= 1):  # false for NaN too
        raise ValueError(
            f"`image` must be floats from 0 to 1, got {light.min():g} to {light.max():g}: divide by its maximum."
        )
    return light


def _shrink(light: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Return the means over equal stretches of rows, about ``scale`` times as many: exact areas, cut rows in parts."""
    n_in = len(light)
    n_out = max(1, round(n_in * scale))
    edge = np.arange(n_out + 1) * n_in / n_out
    whole = np.minimum(edge.astype(np.int64), n_in - 1)
    before = np.concatenate([np.zeros_like(light[:1]), np.cumsum(light, axis=0)])
    area = before[whole] + (edge - whole)[:, None] * light[whole]
    return np.diff(area, axis=0) * (n_out / n_in)


def _path(starts_us: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times [K] and the image's shift [K, 2] along the saccades: ``10 s^3 - 15 s^4 + 6 s^5`` of each side."""
    s = np.arange(PATH_STEPS + 1) / PATH_STEPS
    way = s * s * s * (10 + s * (6 * s - 15))
    shift = VERTICES_PX[:-1, None] + way[:, None] * np.diff(VERTICES_PX, axis=0)[:, None]
    return (starts_us[:, None] + s * SACCADE_US).ravel(), shift.reshape(-1, 2)


def _unpack(keys: NDArray[np.int64]) -> EventArray:
    """Return the events of keys ``(t * SIDE^2 + y * SIDE + x) * 2 + p``."""
    events = np.empty(len(keys), EVENT_DTYPE)
    rest, events["p"] = np.divmod(keys, 2)
    events["t"], pixel = np.divmod(rest, SIDE * SIDE)
    events["y"], events["x"] = np.divmod(pixel, SIDE)
    return events


@numba.njit(nogil=True)
def _crossings(
    light: NDArray[np.float64],
    table: NDArray[np.float64],
    scale: float,
    t_us: NDArray[np.float64],
    shift_px: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the keys of all threshold crossings, pixel by pixel; log intensity is linear between path points."""
    height, width = light.shape
    keys = np.empty(8192, np.int64)
    n = 0
    for pixel in range(SIDE * SIDE):
        y, x = divmod(pixel, SIDE)
        on, off = thresholds[0, pixel], thresholds[1, pixel]
        before = 0.0
        ref = 0.0
        ready = -1.0  # end of the refractory time; negative while the pixel listens
        for k in range(len(t_us)):
            # The place of the image this pixel sees, clamped to its border, bilinear between image pixels.
            u = (x + 0.5 - 0.5 * SIDE - shift_px[k, 0]) / scale + 0.5 * width - 0.5
            v = (y + 0.5 - 0.5 * SIDE - shift_px[k, 1]) / scale + 0.5 * height - 0.5
            u = min(max(u, 0.0), width - 1.0)
            v = min(max(v, 0.0), height - 1.0)
            j, i = int(u), int(v)
            a, b = u - j, v - i
            j1, i1 = min(j + 1, width - 1), min(i + 1, height - 1)
            top = (1 - a) * light[i, j] + a * light[i, j1]
            bottom = (1 - a) * light[i1, j] + a * light[i1, j1]
            z = ((1 - b) * top + b * bottom) * (len(table) - 1)
            c = min(int(z), len(table) - 2)
            level = table[c] + (z - c) * (table[c + 1] - table[c])
            if k == 0:
                # Anywhere between the two thresholds, as after a long past.
                ref = level + start[pixel] * (off if start[pixel] > 0 else on)
                before = level
                continue
            t0, t1 = t_us[k - 1], t_us[k]
            slope = (level - before) / (t1 - t0)
            while True:
                if ready >= 0:
                    if ready >= t1:
                        break
                    ref = before + slope * (ready - t0)
                    ready = -1.0
                if slope > 0 and level >= ref + on:
                    t, p = t0 + (ref + on - before) / slope, 1
                elif slope < 0 and level <= ref - off:
                    t, p = t0 + (ref - off - before) / slope, 0
                else:
                    break
                if n == len(keys):
                    keys = np.concatenate((keys, np.empty_like(keys)))
                keys[n] = (int(t) * SIDE * SIDE + pixel) * 2 + p
                n += 1
                ready = t + REFRACTORY_US
            before = level
    return keys[:n]
