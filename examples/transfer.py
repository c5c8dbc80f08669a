"""Does a network that has only seen encoded images know real recordings? The check of the encoder in docs/transfer.md.

``python examples/transfer.py DATA MNIST FOLDER`` reads DATA/NMNIST/{Train,Test} (850 + 150 real recordings, each of the
MNIST training image that its file is numbered by) and MNIST, an mnist.npz. One gated network is trained three ways and
tested on real recordings of digits that it has seen in no form, in five folds. FOLDER keeps encoded recordings and
checkpoints: stopped, it goes on with what is missing. ``pip install 'suspike[train]'`` brings what it needs.
"""

import argparse
import json
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

import suspike as su
from suspike._files import write_atomic
from suspike.augment import shift
from suspike.convert import to_graph
from suspike.loader import Recordings, batches, load
from suspike.simulate import simulate
from suspike.train import fit
from suspike_datasets import bin_events, from_recordings
from suspike_datasets.cache import arrays_once, code_hash
from suspike_datasets.camera import saccade_events
from suspike_datasets.nmnist import SENSOR, files_of

DT_MS, N_STEPS = 10, 32
HIDDEN, OPEN, BATCH = 512, 0.4, 32
EPOCHS = {"encoded": (12, 3e-3), "real": (40, 3e-3), "both": (5, 1e-3)}
"""Of each training, and its learning rate."""

REPEATED, BESIDE = 4, 4000
"""In "both", which goes on from "encoded": how often an epoch holds each real recording, and how many encoded ones."""

FIRST = 1000
"""Images before this one were before the real camera: none of them is ever encoded."""

FOLDS = 5


def real(root: Path) -> Recordings:
    """Return the real recordings of both folders."""
    numbers = [int(path.stem) for split in ("train", "test") for path in files_of(root, split)]
    if max(numbers) > FIRST:
        raise ValueError(f"recording {max(numbers)} is of an image that may be encoded: raise FIRST")
    options = {"dt_ms": DT_MS, "n_steps": N_STEPS, "merge": True}
    return joined(*(load("nmnist", root=root, split=split, **options) for split in ("train", "test")))


def encoded(mnist: Path, cache: Path, n_images: int) -> Recordings:
    """Return what the event camera of `suspike_datasets` makes of MNIST training images."""
    with np.load(mnist, allow_pickle=False) as file:
        images, labels = (file[name][FIRST : FIRST + n_images] for name in ("x_train", "y_train"))

    def make() -> dict[str, np.ndarray]:
        recordings = [
            saccade_events(255 - image, seed=(0, FIRST + i))  # dark strokes on a light screen, as N-MNIST's
            for i, image in enumerate(track(images, "encoding"))
        ]
        events = from_recordings(recordings, sensor=SENSOR)
        binned = bin_events(events, dt_us=DT_MS * 1000, n_steps=N_STEPS, merge=True)
        return {"ptr": binned.ptr, "idx": binned.idx}

    code = code_hash("binning.py", "camera.py", "checks.py", "sets.py")
    shaped_by = {"images": len(images), "crc": zlib.crc32(images.tobytes()), "first": FIRST, "code": code}
    shaped_by |= {"dt_ms": DT_MS, "n_steps": N_STEPS}
    found = arrays_once(cache, "encoded-mnist", shaped_by, make)
    events = su.Events(found["ptr"], found["idx"], int(np.prod(SENSOR)))
    return Recordings(events, labels.astype(np.int64), sensor=SENSOR)


def joined(*parts: Recordings) -> Recordings:
    """Return the recordings of all parts, one part behind the other; all last `N_STEPS`."""
    before = np.cumsum([0, *(len(part.events.idx) for part in parts)])
    ptr = np.concatenate([part.events.ptr + n for part, n in zip(parts, before, strict=False)])
    idx = np.concatenate([part.events.idx for part in parts])
    events = su.Events(ptr, idx, parts[0].events.n_units)
    return Recordings(events, np.concatenate([part.labels for part in parts]), sensor=SENSOR)


def network(first: su.Spikes) -> su.nn.Stack:
    """Return 2312 -> LIF neurons with a learned rhythm -> 10 readouts."""
    gate = su.nn.RhythmGate(HIDDEN, open=OPEN, n_steps=N_STEPS)
    net = su.nn.Stack(
        su.nn.Dense(first.shape[2], HIDDEN, su.nn.LIF(HIDDEN, beta=0.8, gate=gate)),
        su.nn.Dense(HIDDEN, 10, su.nn.LI(10, beta=0.95)),
    )
    su.nn.start_at_rate(net, first, rate=0.08)
    return net


def run(
    name: str, seed: int, place: Path, data: Recordings, tests: list[Recordings], start: Path | None = None
) -> dict:
    """Train, from the weights at `start` where it is given, and test; what has been done is found in `place`."""
    done, (epochs, lr) = place / "found.json", EPOCHS[name]
    if done.exists():
        return json.loads(done.read_text())
    print(place)
    drawn = batches(data, batch_size=BATCH, shuffle=True, seed=seed, augment=shift(1, 1))
    torch.manual_seed(seed)
    net = network(next(iter(drawn))[0])
    if start is not None:
        net.load_state_dict(torch.load(start, weights_only=True))
    began = time.process_time()
    fit(net, drawn, batches(tests[1], batch_size=100), epochs=epochs, lr=lr, folder=place)
    seconds = time.process_time() - began
    graph, _ = to_graph(net, dt_ms=DT_MS)  # tested with the weights on their exact grid
    results = [simulate(graph, part.events) for part in tests]
    right = [(r.output.mean(0).argmax(1) == part.labels).tolist() for r, part in zip(results, tests, strict=True)]
    hidden, n = results[0].counts[0], len(tests[0].labels)
    found = {"right": right[0], "encoded": np.mean(right[1]), "seconds": seconds, "spikes": hidden.spikes / n}
    found["open"] = hidden.updates_done / (hidden.updates_done + hidden.updates_skipped)
    for key in ("synops_done", "synops_skipped"):
        found[key] = sum(getattr(c, key) for c in results[0].counts) / n
    write_atomic(done, json.dumps(found).encode())
    return found


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    z = 1.96
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def main(data: Path, mnist: Path, folder: Path, n_images: int, seeds: list[int]) -> None:
    true, made = real(data), encoded(mnist, folder / "cache", n_images + 1000)
    made, held_out = made.take(range(n_images)), made.take(range(n_images, n_images + 1000))
    # results of other data or settings stand elsewhere
    settings = zlib.crc32(f"{EPOCHS} {HIDDEN} {OPEN} {BATCH} {REPEATED} {BESIDE} {n_images}".encode())
    for array in (*true.events[:2], true.labels, *made.events[:2], made.labels):
        settings = zlib.crc32(np.ascontiguousarray(array), settings)
    fold = np.zeros(len(true.labels), int)
    for label in range(10):  # of each digit as many, in the order of their files
        members = np.flatnonzero(true.labels == label)
        fold[members] = np.arange(len(members)) % FOLDS
    n_test, rows = len(files_of(data, "test")), []
    for seed in seeds:
        place = folder / f"{settings:08x}" / f"seed{seed}"
        found = {"encoded": [run("encoded", seed, place / "encoded", made, [true, held_out])], "real": [], "both": []}
        for k in range(FOLDS):
            seen, tested = (true.take(np.flatnonzero(x)) for x in (fold != k, fold == k))
            found["real"].append(run("real", seed, place / f"real{k}", seen, [tested, held_out]))
            both, start = (
                joined(made.take(range(min(BESIDE, n_images))), *[seen] * REPEATED),
                place / "encoded" / "weights.pt",
            )
            found["both"].append(run("both", seed, place / f"both{k}", both, [tested, held_out], start))
        for name, each in found.items():
            order = np.arange(len(fold)) if len(each) == 1 else np.argsort(fold, kind="stable")
            right = np.concatenate([x["right"] for x in each])[np.argsort(order)]
            rows.append({
                "seed": seed, "trained on": name, "right": right.mean(), "95 %": wilson(right.mean(), len(right)),
                "folds": [right[fold == k].mean() for k in range(FOLDS)], "folds 1-4": right[fold > 0].mean(),
                "Test": right[-n_test:].mean(),
            } | {key: np.mean([x[key] for x in each]) for key in each[0] if key != "right"})  # fmt: skip
    for row in rows:
        print("  ".join(f"{key} {np.array2string(np.array(x), precision=3)}" for key, x in row.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder that holds NMNIST/{Train,Test}")
    parser.add_argument("mnist", type=Path, metavar="MNIST", help="mnist.npz")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="encoded recordings and checkpoints")
    parser.add_argument("--images", type=int, default=20_000, help="how many are encoded to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of the gradients' sums, and with it the last digits, hangs on it
    main(args.data, args.mnist, args.folder, args.images, args.seeds)
