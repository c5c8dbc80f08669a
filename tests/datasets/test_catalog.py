"""What is known of the data sets by name, and that every name is read, fetched and told of alike."""

from pathlib import Path
from typing import get_args

import pytest

from suspike_datasets import catalog, fetch, load, load_binned
from suspike_datasets.catalog import ABOUT, WHOLE, Name, extent, files

NAMES = list(ABOUT)


def test_the_names_are_the_same_everywhere():
    assert tuple(NAMES) == get_args(Name) == tuple(fetch.CONTENTS) == get_args(fetch.Name)
    for name, about in ABOUT.items():
        assert about.splits == tuple(fetch.CONTENTS[name])
        assert all((name, split) not in WHOLE or split in about.splits for split in about.splits)
    assert {name for name, _ in WHOLE} <= {*NAMES}
    modules = {path.name for path in Path(catalog.__file__).parent.glob("*.py")}
    assert {*catalog.CODE} <= modules


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in NAMES for split in ABOUT[name].splits])
def test_what_is_not_there_says_how_to_get_it(tmp_path, no_network, name, split):
    known = {"psmnist": "smnist"}.get(name, name)
    for call in (load, files, load_binned):
        options = {"dt_us": 1000, "cache": tmp_path / "cache"} if call is load_binned else {}
        with pytest.raises(FileNotFoundError, match=r"^`root` must hold ") as caught:
            call(name, root=tmp_path, split=split, **options)
        assert str(caught.value).endswith(f". `suspike data get {known} --root {tmp_path} --split {split}` fetches it.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_another_split_or_name_is_refused(tmp_path, name):
    for call in (load, files):
        with pytest.raises(ValueError, match=r"^`split` must be 'train' or .*'test', got 'extra'\.$"):
            call(name, root=tmp_path, split="extra")
        with pytest.raises(ValueError, match=r"^`name` must be 'nmnist' or .* or 'psmnist', got 'mnist'\.$"):
            call("mnist", root=tmp_path, split="train")


def test_a_part_is_called_a_part():
    assert extent("nmnist", "train", 850) == "850 of 60,000 recordings"
    assert extent("psmnist", "test", 10_000) == "10,000 of 10,000 recordings"
    assert extent("shd", "train", 1250) == "1,250 recordings"
