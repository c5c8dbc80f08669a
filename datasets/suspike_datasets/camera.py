"""An event camera that looks at a still image along N-MNIST's three saccades, fitted to real recordings.

A pixel follows the log of the light that falls on it, more slowly in the dark, and sends an event when what it sees has
moved far enough from a reference, which itself goes over to what it sees::

    I(x)   = 1 + (contrast - 1) * (image * Gaussian of blur_px)(place of pixel - d(t))
    L'     = (log I - L) / (lag_us / I)                          r' = (L - r) / memory_us
    ON   at  L = r + threshold * m_on * w       then deaf for refractory_us, and r = L at the end of it
    OFF  at  L = r - threshold * m_off * w
    d(t)   = a spline through places read off recordings, every 10 ms; each saccade comes earlier or later at random
    m      = 1 + mismatch * pattern: each pixel's thresholds, of the real sensor, the same for every image and seed
    w      = 1 + wobble * noise, drawn anew at each event of a pixel

Added are events of background noise, nearly all ON, and two hot pixels. Fitted were 850 recordings of N-MNIST, those in
Train of the 850/150 subset, to the MNIST images they are of; here are the other 150 beside encodings of their
images. The last column holds OTHER images, scikit-learn's 1,797 8x8 digits as `digits` encodes them, with larger and
softer image pixels. Means over recordings, +- standard deviations over recordings:

    ======================================  ===============  ===============  ===============
    .                                       real camera      encoder, same    encoder, 8x8
                                                             150 images       digits (1797)
    ======================================  ===============  ===============  ===============
    events                                  4259 +- 1131     4236 +- 1070     4210 +- 479
    events of saccade 1, 2, 3               1573 1355 1331   1560 1371 1305   1318 1507 1385
    share of ON                             0.500 +- 0.006   0.501 +- 0.005   0.503 +- 0.004
    x, y: std of a recording (px)           5.0, 6.2         5.0, 6.3         4.2, 6.6
    median time of saccade 1, 2, 3 (ms)     49, 153, 257     48, 151, 257     47, 149, 257
    share at 80-100, 190-220 ms (pauses)    0.045            0.032            0.028
    pixels with 4 events or more            0.286            0.292            0.292
    interval in a pixel: 1, 10, 50 % (ms)   1.8, 2.6, 5.4    1.9, 2.7, 4.9    2.1, 3.0, 6.0
    ======================================  ===============  ===============  ===============

Real and encoded recording of one image: the numbers of events correlate with r = 0.997 over images; the maps of events
over saccade, polarity and pixel with 0.952 on average (0.897 at worst), where two encodings of one image reach 0.972.
N-MNIST's polarities are those of dark strokes on a light screen: invert white on black first. docs/camera.md says more,
examples/camera_fit.py fits and compares.

What remains different: fewer events between saccades than in real recordings, saccades begin 1 to 2 ms early, intervals
of middle length are too short; an 8x8 digit varies far less in length than an MNIST digit.

Source of the recordings: Orchard, Jayawant, Cohen and Thakor, Frontiers in Neuroscience 9:437, 2015,
doi 10.3389/fnins.2015.00437. Of the pixel: Lichtsteiner, Posch and Delbruck, IEEE Journal of Solid-State Circuits
43(2), 2008, doi 10.1109/JSSC.2007.914337.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EVENT_DTYPE, EventArray, check_int, check_number

SIDE = 34
"""Rows and columns of the sensor."""

END_US = 308_000
STEP_US = 2_000.0
KNOT_US = 10_000.0

PATH_PX = (
    (-2.47, -2.04), (-2.5, -1.93), (-2.64, -1.24), (-2.7, -0.3), (-2.65, 0.99), (-2.5, 2.35), (-1.77, 3.16),
    (-1.23, 3.84), (-0.98, 3.83), (-1.32, 3.69), (-1.38, 3.72), (-1, 3.58), (-0.63, 3.75), (0.15, 3.18),
    (0.76, 2.32), (1.38, 0.97), (1.63, -0.3), (2.01, -1.36), (2.39, -1.82), (2.58, -1.71), (2.72, -1.57),
    (3.09, -1.56), (2.98, -1.59), (2.74, -1.65), (1.7, -1.59), (0.61, -1.64), (-0.46, -1.69), (-1.58, -1.77),
    (-2.22, -1.8), (-2.77, -1.82), (-2.86, -1.65), (-2.73, -1.6),
)  # fmt: skip
"""Where the image's centre stands from the sensor's, (x, y), every `KNOT_US`: three saccades, read off recordings."""

TURNS_US = (86_000.0, 94_000.0, 214_000.0, 222_000.0)
"""From first to second, and from third to fourth, one saccade's delay gives way to the next's."""

HOT_PIXELS = ((18, 30, 130.0), (7, 15, 45.0))
"""Column, row and rate, in times of the background's, of two pixels that fire on their own, either way."""

SENSOR = (
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabaaaaaaaaRaaaaaaaaaaaZaaaaaaDaaaaaaaaaaaaaaaaaaaabaaaWaaaaaaaaaaaaa"
    "aaaaaaaaaaaabbdfZYRhheaagZZaaaaaaaaaaaaaaabdffhfffdhYhhRgdTcaZbaaaaaaaaaaabcbgXnjgkggdacWVLXPUbbXaaaaa"
    "aaaaaZeeiighZagggVaVPWUUSXTXZWWaaaaaaacffhafccYaZdUcWfcbZkVYLlRTbZaaabacdeXfYehTVcfYWZadTUUbPSWaLbSYYb"
    "aaacijZecZbZbbWgVVTYeXVRXNXUFPbXaZaaaaXhbfbfUVbTWXUYXTVXXPYgZaVZVVZaaaaYWXXUWZZYYVeueWVYRUYMbUhWOVXZaa"
    "aaadbaZdWTXZYbZZfebZfdgeTgXhWlYaaaaAaWZbWZZfbWeZfcWWZbcRccaaaSRgeaaaaaaadYZUWbddifbWqZacegVWfaUeWRbbaa"
    "aaaYacaaZRZhgZbfTZWeceaSYZWOaXfaaaaaYagZdabaXbZbdXekVfbZdSaWdYlfkaaaaaaZaagmZYagedVeTaeaUWalgaTdZkZZaa"
    "aaaadYacRbfZaaYWUgaYaVecSVQaYjccaaaaaYbheeWWcgegWaebhgWYdfgXbcaiVbaaaaaaTNYSlcebVUdekTdUZWcWZabOXVeaaa"
    "aaaTSKeaebecYRVZhfdSUjbSZdbZbccaaaaaZVObbXXceZUYfbYbfabaaSVeXfcWbaaaaaZUPYKKXTeabceacYZSaUZiUYWVjbaaaa"
    "aaaVIZbYWSehZcaYZhSbbVXUbXYZZYZaaaaabZLeXRRYdWdTgbZYaScaYVUTZfjdaaaaaaaZLPTMVYTVWbdZXSgXhXUaeSYabaaaaa"
    "aaaaUQMWXZQXcYTTVUZbaTWdfYWVbaaaaaaaaZSNNTTMRddZaXTXWZfWZcVZcbaaaaaaaaaaWUThPSaeRZVVfWdfWYddZccaaaaaaa"
    "aaaabcQGClnaXhUfZbaccdadbaZZaaaaaaaaaaaXUiUUWRfZebcYUafWccYZZaaaaaaaaaaaaaZUbeQQbYWeUaVigdYaaZaaaaaaaa"
    "aaaaaaaaYZfdaaXbXcYbZbaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaNaaaaaaaaaaaTaaaaaaDaaaa"
    "aaaaaaaaaaaaaaaaaaaaNaaaaaaaaaaaaaaaaaaaaaaaaaaaaabaabcbccbbaaaaaaaaaaaaaaaaaZZaWbacXbcefeacbccbaaaaaa"
    "aaaaaaaabbbZYZWYaedabYKUeVeecbaaaaaaaaaaabaXbYXfabdbdaZYTVZZgcfdbaaaaaaaaababeacfYacdUSSYXZYZafYXccbaa"
    "aaaaabZcbddfecbZcZUkVdYXWPVXZfebaaaaaaacdcfVejcabUgZVZZYRMVWeZWhecaaaaaababYahgdaVdVUiTTUdKgXbhXhabbaa"
    "aaabbbdYXbXWRXVpadaXbeWaVZXUWZdbaaaaabbXdWgUahegcfXebYcYSUabVebccaaaaAaXccieafXWXdUZgWYXeLbTdaZcafbaaa"
    "aaabcchadgZfhaaZjidVhSWXZabZaObaaaaaababWaoJVhZfdcbWVXYcWSYXZfdcbaaaaaaacehdcgcjVhaXYWdYXZZUZRdUWbbaaa"
    "aaaadfciYjfakcdddbbcSZcaVXXbcYbbaaaaaadjmlfdfbdTdeeRXcUaTfUeYTXbcaaaaaabefgiafgUaVfcXfkgcXYcbVcVdccaaa"
    "aaabhhnfiaibTdgdZWeWYTSTbbPWcccaaaaaacfkidmlbdaWgcjdhabZVUUYTYabaaaaaaabihfiiafYZXhnXgaYaeZaZdYWccbaaa"
    "aaabffifanfggcaXVedSLTZUTaZacbaaaaaaachggdekrfgafYXWYaWbXYVPWbbbaaaaaaacfhkkcmifgembdVVVWbSXZZXaYaaaaa"
    "aaabfjjhgiZXagdcWedSYZXWaXbbaaaaaaaaabeijmdahcYfXZTeWaYZfTdaabaaaaaaaaaadgekgmmcjhVYbUTZZVdfbcbaaaaaaa"
    "aaaabcfjfngecelefblceccddbaaaaaaaaaaaaabggjonvhifcgbaYbcdabaaaaaaaaaaaaaabcfhjojlmjfghfceecbaaaaaaaaaa"
    "aaaaaabceghhijgddbcaccbaaaaaaaaaaaaaaaaaaabccdddcccccbbaaaaaaaaaaaaa"
)
"""Thresholds, ON's 34 rows and then OFF's: a letter is `LETTER` standard deviations more than the letter before."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LETTER = 0.2


class Camera(NamedTuple):
    """What the fit decides; times in us, lengths in pixels of the sensor."""

    span_px: float = 28.1
    """Of the longer side of the image."""
    rotation: float = 0.013
    """Of the image, radians, small."""
    contrast: float = 4.46
    """Light of a white place over that of a black one."""
    blur_px: float = 0.54
    """Standard deviation of the optics' point spread."""
    lag_us: float = 2800.0
    """Time constant of a pixel in black; it falls as 1 / light."""
    threshold: float = 0.194
    """Of log light."""
    mismatch: float = 0.083
    """Standard deviation of thresholds over pixels, relative."""
    wobble: float = 0.07
    """Standard deviation of a threshold from event to event, relative."""
    refractory_us: float = 210.0
    memory_us: float = 39000.0
    """The reference goes over to the present level with this time constant."""
    noise_hz: float = 0.38
    """Background events of a pixel in a second."""
    noise_on: float = 0.97
    """Share of ON among them."""
    delay_us: tuple[float, float, float] = (1800.0, 300.0, 200.0)
    """Of the three saccades, against `PATH_PX`."""
    jitter_us: tuple[float, float, float] = (1400.0, 6100.0, 4300.0)
    """Each delay differs by up to this much to either side."""
    path_px: tuple[tuple[float, float], ...] = PATH_PX


FITTED = Camera()


def saccade_events(
    image: NDArray[Any],
    *,
    seed: int | Sequence[int],
    span_px: float = FITTED.span_px,
    threshold: float = FITTED.threshold,
    mismatch: float = FITTED.mismatch,
    noise_hz: float = FITTED.noise_hz,
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
        Change of log intensity that makes an event, before mismatch. Fewer events the higher.
    mismatch : float
        Standard deviation of the thresholds over pixels, relative; which pixel has which is the real sensor's.
    noise_hz : float, Hz
        Background events of a pixel in a second; two hot pixels send many times as many.

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
    camera = FITTED._replace(
        span_px=check_number("span_px", span_px, 1.0, 1000.0),
        threshold=check_number("threshold", threshold, 0.01, 10.0),
        mismatch=check_number("mismatch", mismatch, 0.0, 1.0),
        noise_hz=check_number("noise_hz", noise_hz, 0.0, 1000.0),
    )
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    rng = np.random.default_rng([check_int("seed", s, 0, 2**63 - 1) for s in seeds])
    return record(light, camera, rng, PATTERN)


def record(
    light: NDArray[np.float64], camera: Camera, rng: np.random.Generator, pattern: NDArray[np.float64]
) -> EventArray:
    """Record light [H, W] from 0 to 1 with any camera: what `saccade_events` does with the fitted one, unchecked."""
    scale = camera.span_px / max(light.shape)
    if scale < 1:  # finer than the sensor: a pixel sees the mean over its area
        light = np.ascontiguousarray(_shrink(_shrink(light, scale).T, scale).T)
        scale = 1.0
    delay_us = np.array(camera.delay_us) + np.array(camera.jitter_us) * rng.uniform(-1, 1, 3)
    start = rng.uniform(-1, 1, SIDE * SIDE)
    wobble = np.maximum(1 + camera.wobble * np.sqrt(3) * rng.uniform(-1, 1, 4096), 0.3)
    seen = _blur(_blur(light, camera.blur_px / scale).T, camera.blur_px / scale).T
    level, swift = _pixel(np.ascontiguousarray(seen), camera)
    # No pixel fires for nothing, however wide the spread.
    thresholds = camera.threshold * np.maximum(1 + camera.mismatch * pattern, 0.3)
    shift_px = _path(np.array(camera.path_px), delay_us) / scale
    reach = int(np.abs(shift_px).max() * (1 + abs(camera.rotation))) + 2
    signal = _crossings(level, swift, 1 / scale, camera.rotation, reach, shift_px, thresholds, start, wobble,
                        camera.refractory_us, STEP_US / camera.memory_us)  # fmt: skip

    n_noise = rng.poisson(camera.noise_hz * 1e-6 * END_US * SIDE * SIDE)
    noise = (rng.integers(0, END_US, n_noise) * SIDE * SIDE + rng.integers(0, SIDE * SIDE, n_noise)) * 2
    noise += rng.random(n_noise) < camera.noise_on
    keys = [signal, noise]
    for x, y, times in HOT_PIXELS:
        n_hot = rng.poisson(times * camera.noise_hz * 1e-6 * END_US)
        keys.append((rng.integers(0, END_US, n_hot) * SIDE * SIDE + y * SIDE + x) * 2 + rng.integers(0, 2, n_hot))
    return _unpack(np.sort(np.concatenate(keys)))


def _pattern() -> NDArray[np.float64]:
    """Return each pixel's thresholds, ON and OFF, in standard deviations from the mean [2, SIDE^2]."""
    letters = np.array([LETTERS.index(letter) for letter in SENSOR], float)
    return LETTER * (letters - len(LETTERS) // 2).reshape(2, SIDE * SIDE)


PATTERN = _pattern()


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
    area: NDArray[np.float64] = before[whole] + (edge - whole)[:, None] * light[whole]
    return np.diff(area, axis=0) * (n_out / n_in)


def _blur(light: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return the rows of `light` mixed with three rows to either side, as a Gaussian of `sigma` rows has it."""
    weights = np.round(np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2) * 2**20)
    padded = np.pad(light, ((3, 3), (0, 0)), mode="edge")
    total = np.zeros_like(light)
    for i, weight in enumerate(weights):
        total += weight * padded[i : i + len(light)]
    return np.minimum(total / float(weights.sum()), 1.0)


def _pixel(light: NDArray[np.float64], camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log light, and by which share of its distance to it a pixel moves in a step."""
    table = np.round(np.log1p((camera.contrast - 1) * np.arange(1025) / 1024) * 2**20) / 2**20
    place = light * 1024
    cell = np.minimum(place.astype(np.int64), 1023)
    level = table[cell] + (place - cell) * (table[cell + 1] - table[cell])
    return level, 1 / (1 + camera.lag_us / STEP_US / (1 + (camera.contrast - 1) * light))


def _path(knots: NDArray[np.float64], delay_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the image's shift [K, 2] at every step: a Catmull-Rom spline, cubic between four knots."""
    t_us = np.arange(0, END_US + 1, STEP_US)
    late_us = delay_us[0]
    for begin, end, change in zip(TURNS_US[::2], TURNS_US[1::2], np.diff(delay_us), strict=True):
        late_us = late_us + change * np.clip((t_us - begin) / (end - begin), 0, 1)  # np.interp may round otherwise
    t_us = t_us - late_us
    place = np.clip(t_us / KNOT_US, 0, len(knots) - 1)
    i = np.minimum(place.astype(np.int64), len(knots) - 2)
    s = (place - i)[:, None]
    a, b, c, d = (knots[np.clip(i + n, 0, len(knots) - 1)] for n in (-1, 0, 1, 2))
    shift: NDArray[np.float64] = b + 0.5 * s * (c - a + s * (2 * a - 5 * b + 4 * c - d + s * (3 * (b - c) + d - a)))
    return shift


def _unpack(keys: NDArray[np.int64]) -> EventArray:
    """Return the events of keys ``(t * SIDE^2 + y * SIDE + x) * 2 + p``."""
    events = np.empty(len(keys), EVENT_DTYPE)
    rest, events["p"] = np.divmod(keys, 2)
    events["t"], pixel = np.divmod(rest, SIDE * SIDE)
    events["y"], events["x"] = np.divmod(pixel, SIDE)
    return events


@numba.njit(nogil=True)
def _crossings(
    level: NDArray[np.float64],
    swift: NDArray[np.float64],
    scale: float,
    rotation: float,
    reach: int,
    shift: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    start: NDArray[np.float64],
    wobble: NDArray[np.float64],
    refractory_us: float,
    forget: float,
) -> NDArray[np.int64]:
    """Return the keys of all threshold crossings, pixel by pixel; what a pixel follows is linear within a step.

    `scale` is in pixels of the image to one of the sensor; `shift`, and the `reach` of all shifts, in the image's.
    """
    height, width = level.shape
    keys = np.empty(8192, np.int64)
    n = n_wobble = 0
    for pixel in range(SIDE * SIDE):
        y, x = divmod(pixel, SIDE)
        across, down = (x + 0.5 - 0.5 * SIDE) * scale, (y + 0.5 - 0.5 * SIDE) * scale
        u0 = across + rotation * down + 0.5 * width - 0.5
        v0 = down - rotation * across + 0.5 * height - 0.5
        if _is_even(level, u0, v0, reach):
            continue
        on, off = thresholds[0, pixel], thresholds[1, pixel]
        before = ref = 0.0
        factor = 1.0
        ready = -1.0  # end of the refractory time; negative while the pixel listens
        for k in range(len(shift)):
            # The place of the image this pixel sees, clamped to its border, bilinear between image pixels.
            u = min(max(u0 - shift[k, 0] - rotation * shift[k, 1], 0.0), width - 1.0)
            v = min(max(v0 - shift[k, 1] + rotation * shift[k, 0], 0.0), height - 1.0)
            j, i = int(u), int(v)
            a, b = u - j, v - i
            j1, i1 = min(j + 1, width - 1), min(i + 1, height - 1)
            top = (1 - a) * level[i, j] + a * level[i, j1]
            bottom = (1 - a) * level[i1, j] + a * level[i1, j1]
            aim = (1 - b) * top + b * bottom
            if k == 0:
                # Anywhere between the two thresholds, as after a long past.
                ref = aim + start[pixel] * (off if start[pixel] > 0 else on)
                before = aim
                continue
            top = (1 - a) * swift[i, j] + a * swift[i, j1]
            bottom = (1 - a) * swift[i1, j] + a * swift[i1, j1]
            now = before + ((1 - b) * top + b * bottom) * (aim - before)
            t0, t1 = (k - 1) * STEP_US, k * STEP_US
            slope = (now - before) / STEP_US
            ref += forget * (before - ref)
            while True:
                if ready >= 0:
                    if ready >= t1:
                        break
                    ref = before + slope * (ready - t0)
                    ready = -1.0
                if slope > 0 and now >= ref + on * factor:
                    t, p = t0 + max(ref + on * factor - before, 0.0) / slope, 1
                elif slope < 0 and now <= ref - off * factor:
                    t, p = t0 + min(ref - off * factor - before, 0.0) / slope, 0
                else:
                    break
                if n == len(keys):
                    keys = np.concatenate((keys, np.empty_like(keys)))
                keys[n] = (int(t) * SIDE * SIDE + pixel) * 2 + p
                n += 1
                ready = t + refractory_us
                factor = wobble[n_wobble]
                n_wobble = (n_wobble + 1) % len(wobble)
            before = now
    return keys[:n]


@numba.njit(nogil=True)
def _is_even(level: NDArray[np.float64], u: float, v: float, reach: int) -> bool:
    """Tell whether all of the image within `reach` pixels of a place, clamped to its border, is the same."""
    height, width = level.shape
    j0, j1 = min(max(int(u) - reach, 0), width - 1), min(max(int(u) + reach, 0), width - 1)
    i0, i1 = min(max(int(v) - reach, 0), height - 1), min(max(int(v) + reach, 0), height - 1)
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            if level[i, j] != level[i0, j0]:
                return False
    return True
