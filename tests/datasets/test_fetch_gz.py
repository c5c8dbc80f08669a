"""MNIST: two archives of a file each, gzipped, instead of one of many."""

import gzip
import hashlib
import sys
from pathlib import Path

import pytest

from suspike_datasets.fetch import Archive, archives, fetch

MODULE = sys.modules["suspike_datasets.fetch"]  # in the package its name may be the function's
FILES = {"train-images-idx3-ubyte": bytes(range(200)) * 900, "train-labels-idx1-ubyte": bytes(300)}
PACKED = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in FILES.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder with both archives, whose md5s are known."""
    known = [
        Archive("http://127.0.0.1:1/", hashlib.md5(raw).hexdigest(), name, "smnist") for name, raw in PACKED.items()
    ]
    monkeypatch.setattr(MODULE, "archives", lambda name, split: known)
    folder = tmp_path / "smnist"
    folder.mkdir()
    for name, raw in PACKED.items():
        (folder / name).write_bytes(raw)
    return folder


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_archives_are_those_that_tonic_would_fetch(split, tmp_path, monkeypatch, no_network):
    import tonic.datasets

    found = []

    def ask(url, folder, filename, md5):
        found.append(Archive(url, md5, filename, Path(folder).name))

    monkeypatch.setattr(sys.modules["tonic.datasets.s_mnist"], "download_and_extract_archive", ask)
    with pytest.raises(FileNotFoundError):  # it goes on to read what it believes to have
        tonic.datasets.SMNIST(save_to=str(tmp_path), train=split == "train")
    assert archives("smnist", split) == archives("psmnist", split) == found
    assert [a.filename.removesuffix(".gz") for a in found] == [*MODULE.CONTENTS["smnist"][split]]
    assert len(found) == 2


@pytest.mark.parametrize("name", ["smnist", "psmnist"])
def test_both_are_unpacked(folder, name, monkeypatch, no_network):
    assert fetch(name, root=folder.parent, split="train") == folder / "train-images-idx3-ubyte"
    assert tree(folder) == FILES | PACKED
    monkeypatch.setattr(MODULE, "archives", None)  # not even asked for
    fetch(name, root=folder.parent, split="train")


def test_what_is_there_stays(folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    (folder / "train-labels-idx1-ubyte").write_bytes(b"mine")
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    fetch("smnist", root=folder.parent, split="train")
    assert tree(folder)["train-labels-idx1-ubyte"] == b"mine"
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ConnectionError, match=r"^`network` must give train-labels-idx1-ubyte\.gz, got "):
        fetch("smnist", root=folder.parent, split="train")


@pytest.mark.parametrize(
    "raw", [b"", b"123", b"no gzip " * 9, *(next(iter(PACKED.values()))[:n] for n in (-1, -4, -40))]
)
def test_a_damaged_one_is_refused_and_leaves_nothing(tmp_path, raw):
    place = tmp_path / "a.gz"
    for packed in (raw, next(iter(PACKED.values()))[:-4] + b"\0\0\0\1"):  # that length is a lie
        place.write_bytes(packed)
        with pytest.raises(ValueError, match=r"^`a\.gz` must (be a whole archive|hold \d+ bytes of 'a'), got "):
            MODULE._unpack(place, tmp_path / "a")
        assert [path.name for path in tmp_path.iterdir()] == ["a.gz"]
