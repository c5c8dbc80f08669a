"""`suspike data`: which data sets there are, what of them is here, downloads, encoded sounds and images, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

app = typer.Typer(help="Data sets: list, info, get, encode-audio, encode-images, show.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As `suspike data list` has it.")]
Root = Annotated[Path, typer.Option(help="The folder that holds the data sets, as tonic lays them out.")]
Split = Annotated[str, typer.Option(help="train, test, or valid where there is one.")]


@app.command("list")
def list_() -> None:
    """Name the data sets, their licences and their sources."""
    from suspike_datasets.catalog import ABOUT

    table = Table("name", "what", "sensor", "splits", "licence", "source")
    for name, about in ABOUT.items():
        sensor = " x ".join(map(str, about.sensor))
        table.add_row(name, about.title, sensor, ", ".join(about.splits), about.licence, about.source)
    Console().print(table)


@app.command()
def info(name: Name, root: Root = Path("data")) -> None:
    """Count what is here of a data set: recordings, events, lengths, classes."""
    from suspike_datasets import load
    from suspike_datasets.catalog import ABOUT, extent
    from suspike_datasets.checks import check_choice

    about = ABOUT[check_choice("name", name, tuple(ABOUT))]
    table = Table("split", "recordings", "events each", "length (ms)", "a class", "subjects", title=f"{name} in {root}")
    absent = []
    for split in about.splits:
        try:
            events = load(name, root=root, split=split)  # type: ignore[arg-type]
        except FileNotFoundError as err:
            absent.append(err)
            continue
        sizes, counts = np.diff(events.start), np.bincount(events.labels, minlength=len(events.classes))
        last = events.t[events.start[1:][sizes > 0] - 1] / 1000
        subjects = sorted(set(events.subjects[events.subjects >= 0].tolist()))
        table.add_row(
            split, extent(name, split, events.n_recordings),  # type: ignore[arg-type]
            f"{sizes.mean():,.0f} ({sizes.min():,} to {sizes.max():,})" if len(sizes) else "none",
            f"{last.min():.0f} to {last.max():.0f}" if len(last) else "none",
            f"{counts.min()} to {counts.max()} of {len(counts)}" if len(counts) else "none",
            str(len(subjects)) if subjects else "unknown",
        )  # fmt: skip
    if len(absent) == len(about.splits):
        raise absent[0]
    console = Console()
    console.print(table)
    for reason in absent:
        console.print(escape(str(reason)), soft_wrap=True)


@app.command()
def get(
    name: Name,
    root: Root = Path("data"),
    split: Split = "train",
) -> None:
    """Download the original archive of a split and unpack it, unless it is here; goes on where it was stopped."""
    from suspike_datasets.fetch import fetch

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{name}, {split}", total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        path = fetch(name, root=root, split=split, progress=progress)  # type: ignore[arg-type]
    console.print(f"{name}, {split}: {path}", soft_wrap=True, highlight=False)


@app.command("encode-audio")
def encode_audio(
    folder: Annotated[Path, typer.Argument(help="Its wav files: CLASS/*.wav, or CLASS_SPEAKER_NUMBER.wav.")],
    path: Annotated[Path, typer.Argument(help="The HDF5 file to write, in SHD's layout.")],
    seed: Annotated[int, typer.Option(help="Of the spikes.")] = 0,
) -> None:
    """Turn a folder of sounds into spikes of a cochlea, in SHD's file layout."""
    from suspike_datasets.words import encode_words

    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("encoding", total=None)
        events = encode_words(
            folder, path, seed=seed, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )  # fmt: skip
    console.print(
        f"{path}: {events.n_recordings:,} recordings of {len(events.classes)} classes, "
        f"{len(events.t) / max(events.n_recordings, 1):,.0f} spikes each",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


@app.command("encode-images")
def encode_images(
    source: Annotated[
        Path, typer.Argument(help="CLASS/*.png|jpg, below train and test or not; an .npz; MNIST's idx files.")
    ],
    path: Annotated[Path, typer.Argument(help="The folder below which NMNIST is written.")],
    images: Annotated[tuple[int, int] | None, typer.Option(help="First and last of each split, from 1.")] = None,
    invert: Annotated[
        bool | None, typer.Option(help="Exchange black and white; by default where borders are dark.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the events.")] = 0,
) -> None:
    """Turn images into recordings of a simulated event camera, in N-MNIST's layout."""
    from suspike_datasets.images import encode_images as encode

    console = Console()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("encoding", total=None)
        done = 0

        def progress(n: int, total: int) -> None:
            nonlocal done
            done = n
            bar.update(task, completed=n, total=total)

        root = encode(source, path, images=images, invert=invert, seed=seed, progress=progress)
    console.print(f"{root / 'NMNIST'}: {done:,} recordings", soft_wrap=True, highlight=False)


@app.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(
            help="A .bin of N-MNIST's format, an .npy of DVS Gesture's, an .h5 of SHD's layout, images-idx3-ubyte."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The picture: .png, .pdf or .svg.")] = Path("recording.png"),
    number: Annotated[int, typer.Option(help="Which recording of an .h5, or image, from 0 on.")] = 0,
) -> None:
    """Draw a recording: a camera's frames and events, or a cochlea's spikes and rates."""
    from suspike.plot_recordings import recording

    events, title = _recording(path, number)
    figure: Any = recording(events.t, events.unit, events.sensor, title=title)
    figure.savefig(out, dpi=150)
    Console().print(f"{title}: {out}", soft_wrap=True, highlight=False)


def _recording(path: Path, number: int) -> tuple[Any, str]:
    """Return one recording as a set, and what to call it."""
    from suspike_datasets import dvs_gesture, from_recordings, nmnist, shd, smnist

    if path.suffix in (".bin", ".npy"):
        camera = nmnist if path.suffix == ".bin" else dvs_gesture
        events = from_recordings([camera.read_recording(path)], sensor=camera.SENSOR)
        return events, f"{path.parent.name}/{path.name}, {len(events.t):,} events"
    if path.name.endswith("images-idx3-ubyte"):
        images = smnist.read_idx(path)
        _require_number(number, len(images), path)
        events = smnist.encode(images[number : number + 1])
        return events, f"{path.name}, image {number}, {len(events.t):,} spikes"
    if path.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"`path` must be a .bin, .npy, .h5 or images-idx3-ubyte file, got {path}.")
    events = shd.read_file(path)
    _require_number(number, events.n_recordings, path)
    one = events.take([number])
    return one, f"{path.name}, recording {number}, {events.classes[one.labels[0]]!r}, {len(one.t):,} spikes"


def _require_number(number: int, n: int, path: Path) -> None:
    if not n:
        raise ValueError(f"`path` must hold recordings, got none in {path}.")
    if not 0 <= number < n:
        raise ValueError(f"`number` must be from 0 to {n - 1}, got {number}.")
