"""How well the event camera of `suspike_datasets.camera` agrees with real recordings, and how it was fitted to them.

``python examples/camera_fit.py NMNIST MNIST`` compares encoded with real recordings of the same images; NMNIST is a
folder of ``Train/<digit>/NNNNN.bin`` and ``Test/...``, NNNNN the 1-based index of an image in x_train of MNIST, an npz.
Nothing is ever fetched. ``--classify N`` adds a linear classifier: trained on N encoded images of other digits, tested
on all real recordings. ``--fit`` fits the camera to the recordings of Train first, from a crude start, some minutes.
``pip install 'suspike[datasets]'`` brings what it needs.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import ks_2samp, wasserstein_distance

from suspike_datasets import read_recording
from suspike_datasets.camera import (
    END_US,
    FITTED,
    HOT_PIXELS,
    KNOT_US,
    LETTER,
    LETTERS,
    PATH_PX,
    PATTERN,
    SIDE,
    Camera,
    record,
)

PIXELS = SIDE * SIDE
SACCADES_US = (102_000, 205_000)  # what lies between belongs to the second
BIN_US = 10_000
N_BINS = 31
QUANTILES = (0.01, 0.1, 0.5, 0.9)
PRIOR = 300  # events; a pixel's threshold is known by far more, or hardly at all

Array = NDArray[np.float64]


class Pairs(NamedTuple):
    """Real recordings and the images they were recorded from, dark strokes on light, 0 to 1."""

    numbers: list[int]
    labels: NDArray[np.int64]
    images: list[Array]
    real: list[NDArray[np.void]]

    def every(self, step: int) -> "Pairs":
        return Pairs(*(part[::step] for part in self))


class Fit(NamedTuple):
    """A camera, the thresholds of its pixels, and each recording's delays or None for random ones."""

    camera: Camera = FITTED
    pattern: Array = PATTERN
    delays_us: Array | None = None


def read(root: Path, split: str, digits: NDArray[np.uint8]) -> Pairs:
    files = sorted((root / split).glob("*/*.bin"), key=lambda file: int(file.stem))
    numbers = [int(file.stem) - 1 for file in files]
    labels = np.array([int(file.parent.name) for file in files])
    return Pairs(numbers, labels, [1 - digits[i] / 255 for i in numbers], [read_recording(file) for file in files])


def encode(pairs: Pairs, fit: Fit, *, seed: int = 1) -> list[NDArray[np.void]]:
    """Encode every image; for the same seed, changes of the camera alone change the recordings."""
    recordings = []
    for n, (number, image) in enumerate(zip(pairs.numbers, pairs.images, strict=True)):
        camera = fit.camera
        if fit.delays_us is not None:
            camera = camera._replace(delay_us=tuple(fit.delays_us[n]), jitter_us=(0.0, 0.0, 0.0))
        recordings.append(record(image, camera, np.random.default_rng((seed, number)), fit.pattern))
    return recordings


# What is compared: counts by polarity and pixel, in three saccades or in bins of 10 ms


def count(events: NDArray[np.void], part: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    unit = (events["p"] * SIDE + events["y"]) * SIDE + events["x"]
    return np.bincount(part * 2 * PIXELS + unit, minlength=n * 2 * PIXELS).astype(np.float32)


def maps(recordings: list[NDArray[np.void]]) -> NDArray[np.float32]:
    return np.array([count(e, np.searchsorted(SACCADES_US, e["t"]), 3) for e in recordings])


def fine(recordings: list[NDArray[np.void]]) -> NDArray[np.float32]:
    return np.array([count(e, np.minimum(e["t"] // BIN_US, N_BINS - 1), N_BINS) for e in recordings])


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return r of each row of a with the same row of b."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def intervals_ms(recordings: list[NDArray[np.void]]) -> Array:
    """Return the times between events of one pixel, of all recordings."""
    found = []
    for e in recordings:
        pixel = e["y"] * SIDE + e["x"]
        order = np.lexsort((e["t"], pixel))
        found.append(np.diff(e["t"][order])[np.diff(pixel[order]) == 0] / 1000)
    return np.concatenate(found)


def saccade_times_us(recordings: list[NDArray[np.void]]) -> Array:
    """Return the median time of each saccade's events [B, 3]."""
    edges = (0, *SACCADES_US, END_US)
    times = [[np.median(e["t"][(e["t"] >= a) & (e["t"] < b)]) for a, b in pairwise(edges)] for e in recordings]
    return np.array(times)


# The fit


def cost(pairs: Pairs, fit: Fit, real: tuple[NDArray[np.float32], NDArray[np.float32], Array]) -> float:
    """Return how far encoded recordings are from real ones: both correlations, counts, their spread, intervals."""
    recordings = encode(pairs, fit)
    encoded = maps(recordings)
    spread = np.log(encoded.sum(1).std() / real[0].sum(1).std())
    shares = np.log(encoded.reshape(-1, 6, PIXELS).sum((0, 2)) / real[0].reshape(-1, 6, PIXELS).sum((0, 2)))
    intervals = np.log(np.quantile(intervals_ms(recordings), QUANTILES) / np.quantile(real[2], QUANTILES))
    return float(
        2 - correlation(real[0], encoded).mean() - correlation(real[1], fine(recordings)).mean()
        + 0.3 * (shares**2).sum() + 0.02 * (intervals**2).sum() + 0.05 * spread**2
    )  # fmt: skip


def fit_constants(pairs: Pairs, fit: Fit, names: tuple[str, ...], n_evaluations: int) -> Fit:
    """Fit the named constants, all above 0, by Nelder-Mead on their logarithms."""
    start = np.log([getattr(fit.camera, name) for name in names])
    real = maps(pairs.real), fine(pairs.real), intervals_ms(pairs.real)

    def changed(x: Array) -> Fit:
        return fit._replace(camera=fit.camera._replace(**dict(zip(names, np.exp(x).tolist(), strict=True))))

    simplex = np.vstack([start, start + 0.2 * np.eye(len(names))])
    options = {"maxfev": n_evaluations, "initial_simplex": simplex, "adaptive": True}
    found = minimize(lambda x: cost(pairs, changed(x), real), start, method="Nelder-Mead", options=options)
    print(f"cost {found.fun:.4f}", *(f"{n} {v:.4g}" for n, v in zip(names, np.exp(found.x), strict=True)), flush=True)
    return changed(found.x)


def first_path(pairs: Pairs) -> Array:
    """Return where the image stands at each knot, read off the recordings alone.

    What ON minus OFF events of 5 ms are to the log image, in the mean over recordings, is a kernel; it lies where the
    image was.
    """
    step_us, n = 5000, 62
    above, below = np.zeros((n, SIDE, SIDE // 2 + 1), complex), np.zeros((SIDE, SIDE // 2 + 1))
    for image, e in zip(pairs.images, pairs.real, strict=True):
        seen = np.fft.rfft2(np.log1p(2 * np.pad(image, 3, constant_values=1)) - np.log(3))
        sent = np.zeros((n, SIDE, SIDE))
        np.add.at(sent, (np.minimum(e["t"] // step_us, n - 1), e["y"], e["x"]), 2.0 * e["p"] - 1)
        above += np.fft.rfft2(sent) * seen.conj()
        below += np.abs(seen) ** 2
    kernels = np.fft.fftshift(np.fft.irfft2(above / (below + 5e-4 * below.max()), (SIDE, SIDE)), axes=(1, 2))
    kernels = np.abs(kernels[:, 9:26, 9:26])  # 8 pixels around the middle
    kernels *= kernels > 0.3 * kernels.max((1, 2), keepdims=True)
    axis, total = np.arange(-8, 9), kernels.sum((1, 2))
    x, y = (kernels.sum(1) * axis).sum(1) / total, (kernels.sum(2) * axis).sum(1) / total
    t_us = np.arange(len(PATH_PX)) * KNOT_US
    return np.stack([np.interp(t_us, (np.arange(n) + 0.5) * step_us, place) for place in (x, y)], 1)


def fit_path(pairs: Pairs, fit: Fit, n_sweeps: int, step_px: float) -> Fit:
    """Move knots to where the bins around them agree better; every fourth at once, as they do not share bins."""
    knots = np.array(fit.camera.path_px)
    steps = np.full(knots.shape, step_px)
    real = fine(pairs.real).reshape(len(pairs.real), N_BINS, -1)
    windows = [slice(max(i - 2, 0), min(i + 2, N_BINS)) for i in range(len(knots))]

    def agreement(path: Array) -> Array:
        camera = fit.camera._replace(path_px=path)  # type: ignore[arg-type]  # an array does as well
        encoded = fine(encode(pairs, fit._replace(camera=camera))).reshape(real.shape)
        both, ones, twos = ((a * b).sum((0, 2)) for a, b in ((encoded, real), (encoded, encoded), (real, real)))
        n, m = encoded.sum((0, 2)), real.sum((0, 2))
        r = [both[w].sum() / np.sqrt(ones[w].sum() * twos[w].sum()) for w in windows]
        return np.array(r) - [0.4 * np.log((n[w].sum() + 1) / (m[w].sum() + 1)) ** 2 for w in windows]

    for _ in range(n_sweeps):
        for first in range(4):
            for axis in range(2):
                some = np.zeros(knots.shape)
                some[first::4, axis] = steps[first::4, axis]
                here, up, down = (agreement(knots + sign * some) for sign in (0, 1, -1))
                for i in range(first, len(knots), 4):
                    if here[i] >= max(up[i], down[i]):
                        steps[i, axis] *= 0.6
                    else:
                        knots[i, axis] += steps[i, axis] * (1 if up[i] > down[i] else -1)
    return fit._replace(camera=fit.camera._replace(path_px=tuple(map(tuple, knots.round(2).tolist()))))


def fit_thresholds(pairs: Pairs, fit: Fit) -> Fit:
    """Raise the thresholds of pixels that send too much, and lower those of the others."""
    sent, encoded = (maps(e).reshape(-1, 3, 2, PIXELS).sum((0, 1)) for e in (pairs.real, encode(pairs, fit, seed=2)))
    known = sent.min(0) / (sent.min(0) + PRIOR)  # few events of one kind: mere noise
    known[[y * SIDE + x for x, y, _ in HOT_PIXELS]] = 0
    ratio = (encoded + PRIOR) / (sent * encoded.sum() / sent.sum() + PRIOR)
    factor = (1 + fit.camera.mismatch * fit.pattern) * ratio[::-1] ** known  # OFF is 0 among events, 1 among thresholds
    return fit._replace(pattern=(np.clip(factor, 0.4, 2.5) - 1) / fit.camera.mismatch)


def fit_camera(train: Pairs) -> Fit:
    """Fit everything but the noise, which was counted where an image is empty."""
    crude = FITTED._replace(
        span_px=28.0, rotation=0.005, contrast=3.0, blur_px=0.5, lag_us=1000.0, threshold=0.15, wobble=0.05,
        refractory_us=1000.0, memory_us=100_000.0, path_px=tuple(map(tuple, first_path(train).round(2).tolist())),
    )  # fmt: skip
    fit = Fit(crude, np.zeros((2, PIXELS)), np.zeros((len(train.real), 3)))
    names = ("contrast", "blur_px", "threshold", "refractory_us", "lag_us", "memory_us")
    step = len(train.real) // 50

    def on_some(change: Callable[[Pairs, Fit], Fit]) -> Fit:
        some = fit._replace(delays_us=fit.delays_us[::step])  # type: ignore[index]
        return change(train.every(step), some)._replace(delays_us=fit.delays_us)

    fit = on_some(lambda pairs, some: fit_constants(pairs, some, names, 80))
    fit = on_some(lambda pairs, some: fit_path(pairs, some, 4, 0.25))
    late = saccade_times_us(train.real) - saccade_times_us(encode(train, fit))
    fit = fit_thresholds(train, fit._replace(delays_us=fit.delays_us + late))
    fit = on_some(lambda pairs, some: fit_path(pairs, some, 2, 0.1))
    fit = on_some(lambda pairs, some: fit_constants(pairs, some, (*names, "wobble", "span_px", "rotation"), 120))
    for _ in range(2):
        fit = fit_thresholds(train, fit)
    middle, half = fit.delays_us.mean(0), fit.delays_us.std(0) * np.sqrt(3)  # of a uniform distribution
    delays = {"delay_us": tuple(middle.round(-2).tolist()), "jitter_us": tuple(half.round(-2).tolist())}
    fit = Fit(fit.camera._replace(**delays), fit.pattern)
    for _ in range(2):
        ratio = sum(map(len, encode(train, fit, seed=3))) / sum(map(len, train.real))
        fit = fit._replace(camera=fit.camera._replace(threshold=fit.camera.threshold * ratio))
    return rounded(fit)


def rounded(fit: Fit) -> Fit:
    """Return a fit as `camera` holds it, constants of three digits and thresholds in letters, and print it."""
    factor = 1 + fit.camera.mismatch * fit.pattern
    mismatch = factor.reshape(2, SIDE, SIDE)[:, 5:29, 9:25].std()  # where digits are
    constants = fit.camera._replace(mismatch=mismatch)._asdict()
    constants |= {name: float(f"{value:.3g}") for name, value in constants.items() if np.isscalar(value)}
    camera = Camera(**constants)
    number = np.round((factor - 1) / camera.mismatch / LETTER).astype(int)
    number = np.clip(number + len(LETTERS) // 2, 0, len(LETTERS) - 1)
    print(camera, "".join(LETTERS[i] for i in number.ravel()), sep="\n", flush=True)
    return Fit(camera, LETTER * (number - len(LETTERS) // 2))


# The report


def statistics(recordings: list[NDArray[np.void]]) -> dict[str, Array]:
    """Return what is compared, one value a recording."""
    saccade = maps(recordings).reshape(-1, 3, 2 * PIXELS).sum(2)
    middle = saccade_times_us(recordings) / 1000
    pause = [((e["t"] >= 80_000) & (e["t"] < 100_000)) | ((e["t"] >= 190_000) & (e["t"] < 220_000)) for e in recordings]
    of_pixel = maps(recordings).reshape(-1, 6, PIXELS).sum(1)
    intervals = np.array([np.quantile(intervals_ms([e]), (0.01, 0.1, 0.5)) for e in recordings])
    return {
        "events": saccade.sum(1).astype(float),
        **{f"events of saccade {s + 1}": saccade[:, s].astype(float) for s in range(3)},
        "share of ON": np.array([e["p"].mean() for e in recordings]),
        **{f"std of {name} (px)": np.array([e[name].std() for e in recordings]) for name in "xy"},
        **{f"median time of saccade {s + 1} (ms)": middle[:, s] for s in range(3)},
        "share in the pauses": np.array([at.mean() for at in pause]),
        "pixels with 4 events or more": (of_pixel >= 4).mean(1),
        **{f"interval in a pixel: {q} % (ms)": intervals[:, i] for i, q in enumerate((1, 10, 50))},
    }


def report(pairs: Pairs, fit: Fit) -> None:
    recordings = encode(pairs, fit)
    real, encoded = statistics(pairs.real), statistics(recordings)
    print(f"| {len(pairs.real)} recordings | real | encoded | KS | Wasserstein / std | r |\n|---|---|---|---|---|---|")
    for name, a in real.items():
        b = encoded[name]
        apart = wasserstein_distance(a, b) / a.std()
        print(f"| {name} | {a.mean():.4g} +- {a.std():.2g} | {b.mean():.4g} +- {b.std():.2g} "
              f"| {ks_2samp(a, b).statistic:.3f} | {apart:.2f} | {np.corrcoef(a, b)[0, 1]:.3f} |")  # fmt: skip
    again = encode(pairs, fit, seed=2)
    for name, form in (("saccade", maps), ("10 ms", fine)):
        r, own = correlation(form(pairs.real), form(recordings)), correlation(form(recordings), form(again))
        print(f"maps by {name}, polarity and pixel: r {r.mean():.4f} +- {r.std():.4f}, worst {r.min():.3f} "
              f"(image {pairs.numbers[int(r.argmin())]}); two encodings of an image: {own.mean():.4f}")  # fmt: skip


def classify(real: Pairs, digits: NDArray[np.uint8], labels: NDArray[np.uint8], fit: Fit, n: int, seed: int) -> None:
    """Train logistic regression on log counts of encoded images that were not recorded, test on the real ones."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.setdiff1d(np.arange(len(digits)), real.numbers))[:n].tolist()
    train = Pairs(chosen, labels[chosen].astype(np.int64), [1 - digits[i] / 255 for i in chosen], [])
    inputs = np.log1p(maps(encode(train, fit)))
    middle = inputs.mean(0)
    model = LogisticRegression(C=1e-3, max_iter=300).fit(inputs - middle, train.labels)
    for name, recordings in (("real recordings", real.real), ("the same images encoded", encode(real, fit))):
        right = model.predict(np.log1p(maps(recordings)) - middle) == real.labels
        print(f"trained on {n} encoded images, seed {seed}: {right.mean():.1%} of {len(right)} {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nmnist", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--classify", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the images that the classifier is trained on")
    chosen = parser.parse_args()
    with np.load(chosen.mnist, allow_pickle=False) as data:
        digits, labels = data["x_train"], data["y_train"]
    train, test = (read(chosen.nmnist, split, digits) for split in ("Train", "Test"))
    fit = fit_camera(train) if chosen.fit else Fit()
    report(test, fit)
    if chosen.classify:
        both = Pairs(train.numbers + test.numbers, np.concatenate([train.labels, test.labels]),
                     train.images + test.images, train.real + test.real)  # fmt: skip
        classify(both, digits, labels, fit, chosen.classify, chosen.seed)


if __name__ == "__main__":
    main()
