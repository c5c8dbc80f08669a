"""A cochlea: sound becomes spikes of 700 bushy cells, as the words of the Heidelberg data sets did.

The chain, in steps of 1/24000 s from the membrane on::

    sound      to 48 kHz, root mean square 0.3, under one Hann window as long as the sound
    membrane   p'' = -g^2 p,   g(x, w) = w sqrt(2 rho / h / D),
               D(x, w) = C0 e^(-alpha x) - a - m w^2 + i w R0 e^(-alpha x / 2)
               p = P sqrt(G / g) H0(G),   G(x, w) = 2 g(0, w) / alpha + integral of g from 0 to x
               v = i w p / D,   with P such that the stapes moves as the sound does: p'(0) = -i w rho v_stapes
    hair cell  k = K (s + A) / (s + A + B) where s = GAIN v > -A, else 0
               q' = Y (1 - q) + X w - k q,   c' = k q - (L + R) c,   w' = R c - X w
    fibres     40 a cell; each fires with probability H c dt, then not for 1 ms
    bushy      u' = -u / 1 ms + I,   I' = -I / 0.5 ms + 325/s a fibre's spike;   spike and u = 0 at u >= 1, 1 ms at rest

H0 is the second Hankel function of order 0, with time as e^(i w t): a wave that runs away from the stapes, exact where
mass, damping and a are small. The fibres of a cell are alike: how many of those that listen fire is one binomial draw.

Compared with 1500 words of the Free Spoken Digit Dataset (5 speakers, 150 words of a digit) that were encoded elsewhere
by the same chain and cut at 1.0 s; here 100 words of that corpus, by the same speakers, 10 of a digit, seed 0:

    ===============================================  ======================  ======================
    .                                                elsewhere (1500)        here (100)
    ===============================================  ======================  ======================
    spikes a word: mean; 10, 50, 90 %                4068; 2475, 3851, 5962  4011; 2474, 3909, 5496
    spikes a second of sound                         8720                    8779
    share in channels 0-229, 230-399 (%)             2.4, 10.8               2.3, 10.1
    share in channels 400-499, 500-599, 600-699 (%)  25.4, 33.3, 28.1        24.5, 34.6, 28.5
    interval in a channel: 1, 10, 50, 90 % (ms)      1.9, 3.4, 8.5, 27       1.9, 3.3, 8.3, 28
    rate of a cell where nothing is heard (1/s)      0.83                    0.83
    mean time of a spike (ms)                        192                     219
    ... in channels 300-349, 450-499, 650-699 (ms)   204, 182, 194           216, 197, 257
    ===============================================  ======================  ======================

Correlations: spikes over channels 0.997, each digit's over 35 bands of channels 0.993 or more (0.95 once the mean over
digits is taken off), the ten digits' counts 0.95, digit's and speaker's 0.89, spikes over steps of 50 ms 0.96.
GAIN and R0 were chosen so, two numbers for all words; the other constants of the membrane are the textbook's.

What differs is time: here low channels answer late, as the wave takes 5 ms to the place of 1.4 kHz, 19 ms to that of
350 Hz and 46 ms to that of 140 Hz. In the words made elsewhere they run ahead of the sound by about as much: with the
conjugate of the transfer function, which no sound can cause, spikes over time would correlate with 0.998 and the mean
times differ by 15 ms at most.

Source: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg spiking data sets for the systematic evaluation of
spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33(7), 2022,
doi 10.1109/TNNLS.2020.3044364, arXiv:1910.07407. Of the membrane: de Boer, "Auditory physics. Physical principles in
hearing theory. I", Physics Reports 62(2), 1980, doi 10.1016/0370-1573(80)90100-3. Of the hair cell: Meddis, Journal of
the Acoustical Society of America 79(3), 1986, doi 10.1121/1.393460.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EventArray, check_int
from suspike_datasets.shd import N_UNITS

RATE_HZ = 48_000
STEPS_PER_S = RATE_HZ // 2
"""An Euler step of the hair cell loses its footing when it is much longer: (L + R) dt is 0.38."""

RATES_HZ = (1000, 384_000)
MAX_S = 60
"""What a sound may be: sampled at rates from one to the other, and no longer."""

RMS = 0.3

LENGTH_CM = 3.5
STIFFNESS = 1e9
"""C0, g / (s^2 cm^2)."""

STIFFNESS_LESS = 3.5e3
"""a, g / (s^2 cm^2); it moves the last channel from 118 to 110 Hz."""

ALPHA = 3.0
"""1 / cm."""

MASS = 0.05
"""m, g / cm^2."""

DAMPING = 500.0
"""R0, g / (s cm^2); a resonance of quality 14."""

DENSITY = 1.0
"""rho, g / cm^3."""

HEIGHT_CM = 0.1
"""h, of each of the two channels of fluid along the membrane."""

GAIN = 34.0
"""The hair cell's input for a membrane that moves as fast as a stapes would that moves by the sound's numbers."""

FFT_SIZE = 60_000
BLOCK = 48_000
"""Samples that are filtered at once; the rest of the transform, 0.25 s, is for the membrane to come to rest."""

CUT = 1.3
"""A channel hears nothing above this multiple of its resonance, where its response has fallen by 74 dB or more."""

A, B, K = 5.0, 300.0, 2000.0
Y, L, R, X = 5.05, 2500.0, 6580.0, 66.31
FIRE_HZ = 50_000.0
"""H, for a cleft that holds all transmitter there is."""

N_FIBRES = 40
REFRACTORY_STEPS = STEPS_PER_S // 1000
WEIGHT_HZ = 13_000.0 / N_FIBRES
DECAY_U = math.exp(-1 / (1e-3 * STEPS_PER_S))
DECAY_I = math.exp(-1 / (0.5e-3 * STEPS_PER_S))

SPIKE_DTYPE = np.dtype([("t", np.int64), ("x", np.int64)])
"""One spike: time in microseconds and channel."""


def cochlea_spikes(sound: NDArray[Any], rate_hz: int, *, seed: int | Sequence[int]) -> EventArray:
    """Return the spikes of 700 bushy cells that hear a sound; how loud it is makes no difference.

    Parameters
    ----------
    sound : float or int [S]
        One channel, at most 60 s. Silence leaves about 0.8 spikes a second and cell.
    rate_hz : int, Hz
        From 1000 to 384000. Speech of 8 kHz holds nothing above 4 kHz: channels to 230 then stay all but silent.
    seed : int or sequence of int, from 0

    Returns
    -------
    structured array [E]
        int64 fields t (us, the fraction of one cut off) and x (channel; 0 hears 22.5 kHz, 699 hears 110 Hz), sorted by
        time, then channel. The same for the same arguments as long as numpy's random numbers and scipy's resampling
        stay what they are. The last bit of an FFT may differ between machines and versions; that moves a spike only
        where a random number lies within that bit of a probability: by estimate, once in 10^8 words.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind, shape or range.
    ImportError
        If scipy is missing.
    """
    rate_hz = check_int("rate_hz", rate_hz, *RATES_HZ)
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    rng = np.random.default_rng([check_int("seed", s, 0, 2**63 - 1) for s in seeds])
    if not isinstance(sound, np.ndarray) or sound.dtype.kind not in "fiu":
        kind = sound.dtype if isinstance(sound, np.ndarray) else type(sound).__name__
        raise TypeError(f"`sound` must be an array of numbers, got {kind}.")
    if sound.ndim != 1 or not 0 < len(sound) <= MAX_S * rate_hz:
        raise ValueError(f"`sound` must be of shape [S], 1 sample to {MAX_S} s, got shape {sound.shape}.")
    if not np.isfinite(sound).all():
        raise ValueError(f"`sound` must be finite, got {sound[~np.isfinite(sound)][0]}.")
    step, channel = np.divmod(_spikes(_heard(sound.astype(np.float64), rate_hz), rng), N_UNITS)
    events = np.empty(len(step), SPIKE_DTYPE)
    events["t"], events["x"] = step * 1_000_000 // STEPS_PER_S, channel
    return events


def _heard(sound: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    """Return the sound at 48 kHz, as loud as all others, from and into silence."""
    try:
        from scipy.signal import resample_poly  # type: ignore[import-untyped]
    except ImportError as err:
        raise ImportError("`cochlea_spikes` needs scipy: pip install 'suspike[datasets]'.") from err
    loudest = np.abs(sound).max()
    if loudest == 0:
        return np.zeros(-(-len(sound) * RATE_HZ // rate_hz))
    common = math.gcd(rate_hz, RATE_HZ)
    heard: NDArray[np.float64] = resample_poly(sound / loudest, RATE_HZ // common, rate_hz // common)
    heard *= np.hanning(len(heard)) * (RMS / np.sqrt(np.mean(heard * heard)))
    return heard


def _spikes(sound: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the spikes that a sound at 48 kHz makes, sorted, as ``step * 700 + channel``."""
    steps = np.empty((len(sound) + 1) // 2, np.int64)
    keys = []
    for channel, speed in enumerate(_membrane(sound)):
        n = _fire(GAIN * speed, rng.random(len(speed)), steps)
        keys.append(steps[:n] * N_UNITS + channel)
    return np.sort(np.concatenate(keys))


def _membrane(sound: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield the membrane's speed at every second sample, channel by channel."""
    spectra = [np.fft.rfft(sound[at : at + BLOCK], FFT_SIZE) for at in range(0, len(sound), BLOCK)]
    half = FFT_SIZE // 2
    product = np.empty(half + 1, np.complex128)
    for response in _responses():
        speed = np.zeros(((len(spectra) - 1) * BLOCK + FFT_SIZE) // 2)
        for b, spectrum in enumerate(spectra):
            product[: len(response)] = spectrum[: len(response)] * response
            product[len(response) :] = 0
            # every second sample: frequencies half the rate apart fall onto each other
            folded = product[: half // 2 + 1] + product[half // 2 :][::-1].conj()
            speed[b * BLOCK // 2 :][:half] += 0.5 * np.fft.irfft(folded, half)
        yield speed[: (len(sound) + 1) // 2]


@functools.cache
def _responses() -> tuple[NDArray[Any], ...]:
    """Return the transfer function of each channel at multiples of 0.8 Hz from 0 on: 3 s and 75 MB, once."""
    omega = np.linspace(0, np.pi * RATE_HZ, FFT_SIZE // 2 + 1)
    entry = _entry(omega[1:])
    responses = []
    for x in np.linspace(0, LENGTH_CM, N_UNITS):
        resonance = math.sqrt((STIFFNESS * math.exp(-ALPHA * x) - STIFFNESS_LESS) / MASS)
        end = np.searchsorted(omega, CUT * resonance)
        responses.append(np.concatenate([[0], _transfer(x, omega[1:end], entry[:, : end - 1])]))
    return tuple(responses)


def _stiffness(v: float, omega: NDArray[np.float64]) -> NDArray[Any]:
    """Return D at the place where e^(-alpha x / 2) is v: a polynomial, so 1 / (v sqrt(D)) has a closed integral."""
    return (STIFFNESS * v + 1j * omega * DAMPING) * v - STIFFNESS_LESS - MASS * omega**2


def _integral(v: float, omega: NDArray[np.float64]) -> NDArray[Any]:
    """Return that integral, of dv / (v sqrt(D)) to v; the logarithm's argument stays in the upper half plane."""
    root = np.sqrt(STIFFNESS_LESS + MASS * omega**2)
    inner = 1j * omega * DAMPING * v - 2 * root**2 + 2j * root * np.sqrt(_stiffness(v, omega))
    integral: NDArray[Any] = 1j / root * np.log(inner / v)
    return integral


def _entry(omega: NDArray[np.float64]) -> NDArray[Any]:
    """Return what does not depend on the place, [2, F]: G less the integral to there, and P for a stapes of speed 1."""
    from scipy.special import hankel2  # type: ignore[import-untyped]

    scale = omega * math.sqrt(2 * DENSITY / HEIGHT_CM)
    g = scale / np.sqrt(_stiffness(1.0, omega))
    way = 2 / ALPHA * (g + scale * _integral(1.0, omega))
    # of sqrt(G / g) H0(G), where G / g hardly changes: the slope is -sqrt(G / g) g H1(G)
    pressure: NDArray[Any] = 1j * omega * DENSITY / (math.sqrt(2 / ALPHA) * g * hankel2(1, 2 / ALPHA * g))
    return np.stack([way, pressure])


def _transfer(x_cm: float, omega: NDArray[np.float64], entry: NDArray[Any]) -> NDArray[Any]:
    """Return the membrane's velocity at a place over that of the stapes, at angular frequencies above 0."""
    from scipy.special import hankel2

    v = math.exp(-0.5 * ALPHA * x_cm)
    scale = omega * math.sqrt(2 * DENSITY / HEIGHT_CM)
    stiffness = _stiffness(v, omega)
    way = entry[0] - 2 / ALPHA * scale * _integral(v, omega)
    pressure = entry[1] * np.sqrt(way * np.sqrt(stiffness) / scale) * hankel2(0, way)
    velocity: NDArray[Any] = 1j * omega * pressure / stiffness
    return velocity


@numba.njit(nogil=True)
def _fire(drive: NDArray[np.float64], uniform: NDArray[np.float64], steps: NDArray[np.int64]) -> int:
    """Write the steps at which a bushy cell spikes into `steps`, return how many; one random number a step."""
    dt = 1 / STEPS_PER_S
    # the state of a hair cell that heard nothing for long
    k = K * A / (A + B)
    cleft = Y * k / (L * k + Y * (L + R))
    free, back = cleft * (L + R) / k, cleft * R / X
    fired = np.zeros(REFRACTORY_STEPS, np.int64)  # of the last millisecond, a ring
    resting = slot = 0
    u = current = 0.0
    ready = n = 0
    for i in range(len(drive)):
        s = max(drive[i] + A, 0.0)
        released = K * s / (s + B) * free
        free, cleft, back = (
            free + dt * (Y * (1 - free) + X * back - released),
            cleft + dt * (released - (L + R) * cleft),
            back + dt * (R * cleft - X * back),
        )
        resting -= fired[slot]
        fired[slot] = _binomial(N_FIBRES - resting, min(FIRE_HZ * cleft * dt, 1.0), uniform[i])
        resting += fired[slot]
        if i >= ready:
            u = DECAY_U * u + dt * current
        current = DECAY_I * current + WEIGHT_HZ * fired[slot]
        slot = (slot + 1) % REFRACTORY_STEPS
        if u >= 1:
            steps[n] = i
            n += 1
            u = 0.0
            ready = i + 1 + REFRACTORY_STEPS
    return n


@numba.njit(nogil=True)
def _binomial(n: int, p: float, u: float) -> int:
    """Return how many of n fire with probability p each: the inverse of the distribution at u, from 0 to below 1."""
    if u < 1 - n * p:  # (1 - p)^n is at least that, by Bernoulli
        return 0
    few = min(p, 1 - p)
    share = 1.0
    for _ in range(n):
        share *= 1 - few
    below, k = share, 0
    while u >= below and k < n:
        share *= few / (1 - few) * (n - k) / (k + 1)
        k += 1
        below += share
    return k if p <= 0.5 else n - k
