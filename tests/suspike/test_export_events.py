"""Schedules, AEDAT 2.0 and SONATA: exact there and back, read by others, and refused where damaged."""

from __future__ import annotations

import os
import struct
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from suspike.export import (
    open_intervals,
    read_aedat,
    read_schedule,
    read_sonata,
    table_of_intervals,
    write_aedat,
    write_schedule,
    write_sonata,
)
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike_kernels.layout import Events, events_from_dense

HEADER_END = b"#End Of ASCII Header\r\n"


def gated_graph(*, seed=0, sizes=(3, 9, 17), gated=(True, True), dt_ms=0.1):
    rng, layers = np.random.default_rng(seed), []
    for i, (n_in, n) in enumerate(pairwise(sizes)):
        gate = Rhythm(rng.normal(size=n), rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), 2 + 9 * rng.random(2))
        one = np.ones(n, np.float32)
        layers.append(
            Layer(f"l{i}", np.ones((n_in, n), np.float32), one, LIF(one / 2, one, gate=gate if gated[i] else None))
        )
    return Graph(tuple(layers), dt_ms)


def trains_of(*, seed=0, n_steps=40, sizes=(3, 300, 1), rate=0.1):
    rng = np.random.default_rng(seed)
    return {f"p{9 - i}": events_from_dense(rng.random((n_steps, 1, n)) < rate) for i, n in enumerate(sizes)}


@st.composite
def drawn_trains(draw):
    n_steps = draw(st.integers(0, 30))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    return trains_of(seed=draw(st.integers(0, 99)), n_steps=n_steps, sizes=sizes, rate=draw(st.floats(0, 1)))


DTS = st.one_of(st.floats(1e-3, 50), st.sampled_from([1.0, 0.1, 1e-3, 1 / 3, 0.0015]))


def assert_same_trains(found, trains):
    assert list(found) == list(trains)
    for name, events in trains.items():
        assert found[name].n_units == events.n_units
        np.testing.assert_array_equal(found[name].ptr, events.ptr)
        np.testing.assert_array_equal(found[name].idx, events.idx)


def test_assert_same_trains_can_fail():
    one, other = trains_of(), trains_of(seed=1)
    for wrong in (other, {"p9": one["p9"]}, one | {"p8": one["p8"]._replace(n_units=301)}):
        with pytest.raises(AssertionError):
            assert_same_trains(wrong, one)


# --- intervals and schedule


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 9), st.integers(0, 99))
def test_intervals_and_table_are_inverse(n_steps, n_units, seed):
    table = (np.random.default_rng(seed).random((n_steps, n_units)) < 0.5).astype(np.uint8)
    intervals = open_intervals(table)
    slow = np.zeros_like(table)
    for neuron, start, stop in intervals:
        assert not slow[start:stop, neuron].any()
        slow[start:stop, neuron] = 1
    assert intervals.dtype == np.int64
    assert intervals.tolist() == sorted(intervals.tolist())
    np.testing.assert_array_equal(slow, table)
    np.testing.assert_array_equal(table_of_intervals(intervals, n_steps=n_steps, n_units=n_units), table)


@pytest.mark.parametrize(
    "intervals", [[[0, 2, 2]], [[0, 0, 2], [0, 2, 3]], [[1, 0, 1], [0, 0, 1]], [[2, 0, 1]], [[0, 0, 9]], [[0, -1, 1]],
                  [[0, 0, 3], [0, 1, 2]], [[-1, 0, 1]]]
)  # fmt: skip
def test_intervals_of_no_table_are_refused(intervals):
    with pytest.raises(ValueError, match="`intervals` must be"):
        table_of_intervals(np.array(intervals), n_steps=4, n_units=2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(0, 50), st.integers(1, 20), st.floats(1e-3, 10))
def test_schedule_round_trip(tmp_path_factory, seed, n_steps, n, dt_ms):
    path = tmp_path_factory.getbasetemp() / "schedule.npz"
    graph = gated_graph(seed=seed, sizes=(1, n, 3), gated=(True, seed % 2 == 0), dt_ms=dt_ms)
    write_schedule(path, graph, n_steps)
    schedule = read_schedule(path)
    assert (schedule.n_steps, schedule.dt_ms) == (n_steps, dt_ms)
    assert list(schedule.tables) == (["l0", "l1"] if seed % 2 == 0 else ["l0"])
    with np.load(path, allow_pickle=False) as file:
        for layer in graph.layers[: len(schedule.tables)]:
            table = layer.neuron.gate.table(n_steps)
            np.testing.assert_array_equal(schedule.tables[layer.name], table)
            assert file[f"bits.{layer.name}"].shape == (n_steps, -(-table.shape[1] // 8))
            for t, i in np.argwhere(table)[:5]:  # most significant bit first
                assert file[f"bits.{layer.name}"][t, i // 8] >> (7 - i % 8) & 1


def test_a_schedule_needs_a_gate_and_steps(tmp_path):
    with pytest.raises(ValueError, match="at least one gated layer"):
        write_schedule(tmp_path / "s", gated_graph(gated=(False, False)), 5)
    with pytest.raises(ValueError, match="`n_steps` must be 0 or more, got -1"):
        write_schedule(tmp_path / "s", gated_graph(), -1)
    ungated = Graph((Layer("o", np.ones((1, 1), "f4"), np.ones(1, "f4"), LI(np.ones(1, "f4"))),), 1.0)
    with pytest.raises(ValueError, match="at least one gated layer"):
        write_schedule(tmp_path / "s", ungated, 5)
    assert not list(tmp_path.iterdir())


def flip(array):
    array = array.copy()
    array.flat[0] ^= 128
    return array


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("bits.l0", flip),
        ("bits.l0", lambda x: x[1:]),
        ("bits.l0", lambda x: x.astype("i4")),
        ("n_steps", lambda x: x + 1),
        ("dt_ms", lambda x: -x),
        ("format", lambda x: x + 1),
        ("n_units", lambda x: x + 8),
        ("layers", lambda x: x[:1]),
        ("layers", lambda x: x.astype(object)),
        ("sha256", lambda x: x[::-1]),
        ("bits.l1", None),
        ("layers", None),
    ],
)
def test_a_changed_schedule_is_refused(tmp_path, key, change):
    path = tmp_path / "s.npz"
    write_schedule(path, gated_graph(), 6)
    with np.load(path) as file:
        arrays = dict(file)
    array = arrays.pop(key)
    np.savez(path, **(arrays | ({key: change(array)} if change else {})))
    with pytest.raises(ValueError, match=r"`s.npz` must be a gate schedule of suspike, got one that fails"):
        read_schedule(path)


# --- AEDAT 2.0


@settings(deadline=None, max_examples=50)
@given(drawn_trains(), DTS)
@example({"p": Events(np.array([[0, 2, 3]]), np.array([4, 1, 0], np.int32), 5)}, 1.0)  # a step in another order
def test_aedat_round_trip(tmp_path_factory, trains, dt_ms):
    path = tmp_path_factory.getbasetemp() / "r.aedat"
    write_aedat(path, trains, dt_ms=dt_ms)
    found = read_aedat(path)
    assert found.dt_ms == dt_ms
    assert found.gates == {}
    assert_same_trains(found.trains, {name: events_from_dense(events.dense()) for name, events in trains.items()})


def test_aedat_bytes(tmp_path):
    path = tmp_path / "r.aedat"
    one = Events(np.array([[0, 0, 1]]), np.array([258], np.int32), 300)
    write_aedat(path, {"input": Events(np.array([[0, 1, 1]]), np.array([2], np.int32), 3), "hidden": one}, dt_ms=0.1)
    header, _, body = path.read_bytes().partition(HEADER_END)
    assert header.startswith(b"#!AER-DAT2.0\r\n")
    assert all(line.startswith(b"#") for line in header.split(b"\r\n")[:-1])
    assert b'"populations": [["input", 0, 3], ["hidden", 3, 300]]' in header
    assert body == struct.pack(">4I", 2, 100, 3 + 258, 200)


def test_tonic_reads_the_aedat(tmp_path):
    tonic_io = pytest.importorskip("tonic.io")
    path, trains = str(tmp_path / "r.aedat"), trains_of()
    write_aedat(path, trains, dt_ms=0.5)
    found = tonic_io.get_aer_events_from_file(path, *tonic_io.read_aedat_header_from_file(path)[:2])
    rows, base = [], 0
    for events in trains.values():
        rows += [((k + 1) * 500, base + i) for k, _, i in np.argwhere(events.dense())]
        base += events.n_units
    assert len(rows) > 1000
    assert list(zip(found["timeStamp"].tolist(), found["address"].tolist(), strict=True)) == sorted(rows)


def lone(ptr, idx, n_units=3):
    return {"a": Events(np.array([ptr]), np.array(idx, np.int32), n_units)}


REFUSED = [
    ({}, 1.0, "`trains` must be at least one population"),
    (lone([0, 2, 1], [0]), 1.0, "must not decrease|must run from 0"),
    (lone([0, 2, 1, 2], [0, 1]), 1.0, "sort the events by time"),
    (lone([0, 1], [3]), 1.0, "units from 0 to n_units - 1 = 2, got 3"),
    (lone([0, 1], [-1]), 1.0, "units from 0 to n_units - 1 = 2, got -1"),
    (
        lone([0, 0, 2], [1, 1]),
        1.0,
        r"`trains\['a'\]` must be at most one event a unit and step .* unit 1 twice in step 1",
    ),
    ({"a": events_from_dense(np.zeros((2, 2, 1)))}, 1.0, r"of one sample, got 2. Take one recording with events.take"),
    (lone([0, 0], []) | {"b": lone([0], [])["a"]}, 1.0, "of one number of steps, got 0, 1"),
    ({"a/b": lone([0, 0], [])["a"]}, 1.0, "`population name` must be of letters"),
    (lone([0, 0], []), 0.0, "`dt_ms` must be above 0"),
    (lone([0, 0], []), float("nan"), "`dt_ms` must be above 0"),
]


@pytest.mark.parametrize(("trains", "dt_ms", "match"), REFUSED)
@pytest.mark.parametrize("write", [write_aedat, write_sonata])
def test_trains_that_break_the_rules_are_refused(tmp_path, write, trains, dt_ms, match):
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "r", trains, dt_ms=dt_ms)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trains", "dt_ms", "match"),
    [
        (lone([0] * 3, []), 2**31 / 2000, "at most 2147483647 us in an AEDAT 2.0 file"),
        (lone([0] * 3, []), 0.0005, "at least 0.001 in an AEDAT 2.0 file"),
        (lone([0] * 3, [], 0x23000001), 1.0, "of at most 587202560 units"),
    ],
)
def test_what_aedat_cannot_hold_is_refused(tmp_path, trains, dt_ms, match):
    with pytest.raises(ValueError, match=match):
        write_aedat(tmp_path / "r", trains, dt_ms=dt_ms)
    assert not list(tmp_path.iterdir())


def events_at(*pairs):
    return lambda data: (
        data.partition(HEADER_END)[0] + HEADER_END + b"".join(struct.pack(">2I", *pair) for pair in pairs)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: data.replace(b"2.0", b"3.1"),
        lambda data: data.replace(b"# suspike", b"# other"),
        lambda data: data.replace(b'"populations"', b'"others"'),
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
        lambda data: data.replace(b'"dt_ms": 1.0', b'"dt_ms": 0'),
        lambda data: data.replace(b'["p8", 3,', b'["p8", 2,'),
        lambda data: data.replace(b'"n_steps": 40', b'"n_steps": 2'),
        lambda data: data.replace(b"p8", b"p9"),
        events_at((0, 2000), (0, 1000)),
        events_at((3, 2000), (0, 1000)),  # of two populations, each sorted
        events_at((0, 1000), (0, 1000)),
        events_at((1, 1000), (0, 1000)),
        events_at((304, 1000)),
        events_at((0, 0)),
        events_at((0, 1500)),
        events_at((0, 41000)),
    ],
)
def test_a_changed_aedat_is_refused(tmp_path, change):
    path = tmp_path / "r.aedat"
    write_aedat(path, trains_of(), dt_ms=1.0)
    data = path.read_bytes()
    read_aedat(path)
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    with pytest.raises(ValueError, match=r"`r.aedat` must be an AEDAT 2.0 file of suspike, got one that fails"):
        read_aedat(path)


# --- SONATA


@settings(deadline=None, max_examples=40)
@given(drawn_trains(), DTS, st.integers(0, 99))
def test_sonata_round_trip(tmp_path_factory, trains, dt_ms, seed):
    path = tmp_path_factory.getbasetemp() / "r.h5"
    rng, (name, events) = np.random.default_rng(seed), next(iter(trains.items()))
    table = (rng.random((events.n_steps, events.n_units)) < 0.6).astype(np.uint8)
    write_sonata(path, trains, dt_ms=dt_ms, gates={name: table})
    found = read_sonata(path)
    assert found.dt_ms == dt_ms
    assert_same_trains(found.trains, trains)
    assert list(found.gates) == [name]
    np.testing.assert_array_equal(found.gates[name], table)


def test_sonata_structure(tmp_path):
    path, trains = tmp_path / "r.h5", trains_of(n_steps=6, sizes=(2, 5), rate=0.5)
    table = np.array([[1, 0], [1, 1], [0, 1], [0, 1], [1, 1], [1, 0]], np.uint8)
    write_sonata(path, trains, dt_ms=0.5, gates={"p9": table})
    with h5py.File(path) as file:
        assert (file.attrs["magic"], file.attrs["magic"].dtype) == (0x0A7A, np.uint32)
        assert (file.attrs["version"].tolist(), file.attrs["version"].dtype) == ([0, 1], np.uint32)
        assert sorted(file["spikes"]) == ["p8", "p9", "p9_gate"]
        for group in file["spikes"].values():
            sorting = group.attrs.get_id("sorting").dtype
            assert h5py.check_enum_dtype(sorting) == {"none": 0, "by_id": 1, "by_time": 2}
            assert (sorting, group.attrs["sorting"]) == (np.uint8, 2)
            assert group["timestamps"].attrs["units"] == "ms"
            assert (group["timestamps"].dtype, group["node_ids"].dtype) == (np.float64, np.uint64)
        rows = [((k + 1) * 0.5, i) for k, _, i in np.argwhere(trains["p8"].dense())]
        spikes = file["spikes/p8"]
        assert list(zip(spikes["timestamps"], spikes["node_ids"], strict=True)) == rows
        edges = file["spikes/p9_gate"]  # 0 opens in step 0, 1 in step 1; 0 shuts in step 2; ... each at the step's end
        assert list(zip(edges["timestamps"], edges["node_ids"], strict=True)) == [
            (0.5, 0), (1.0, 1), (1.5, 2), (2.5, 0), (3.0, 3), (3.5, 2),
        ]  # fmt: skip
        schedule = file["suspike/schedule/p9"]
        assert [schedule[key][()].tolist() for key in ("node_ids", "start", "stop")] == [
            [0, 0, 1],
            [0, 4, 1],
            [2, 6, 5],
        ]
        assert (schedule.attrs["dt_ms"], schedule.attrs["n_steps"], schedule.attrs["n_units"]) == (0.5, 6, 2)


def test_gates_that_do_not_fit_are_refused(tmp_path):
    trains = trains_of(n_steps=4, sizes=(2, 3))
    for gates, match in (
        ({"x": np.ones((4, 2))}, "of populations in `trains` .p9, p8., got 'x'"),
        ({"p9": np.ones((4, 3))}, r"`gates\['p9'\]` must be of shape \[4, 2\], got shape \[4, 3\]"),
    ):
        with pytest.raises(ValueError, match=match):
            write_sonata(tmp_path / "r", trains, dt_ms=1.0, gates=gates)
    with pytest.raises(ValueError, match="`population name` must be unique in a file, got 'p9_gate' twice"):
        write_sonata(tmp_path / "r", trains | {"p9_gate": trains["p8"]}, dt_ms=1.0, gates={"p9": np.ones((4, 2))})


def set_attribute(where, key, value):
    def change(file):
        file[where].attrs[key] = value

    return change


def set_data(where, change_data):
    def change(file):
        data = change_data(file[where][()])
        attributes = dict(file[where].attrs)
        del file[where]
        file[where] = data
        file[where].attrs.update(attributes)

    return change


def remove(where):
    def change(file):
        del file[where]

    return change


def with_first(value):
    return lambda data: np.concatenate([[value], data[1:]]).astype(data.dtype)


@pytest.mark.parametrize(
    "change",
    [
        set_attribute("/", "magic", 1),
        set_attribute("suspike", "format", 2),
        set_attribute("suspike", "dt_ms", 2.0),
        set_attribute("suspike", "dt_ms", -1.0),
        set_attribute("suspike", "n_steps", 3),
        set_attribute("suspike", "n_units", [1]),
        set_attribute("suspike", "populations", ["p9"]),
        set_attribute("spikes/p8", "sorting", np.uint8(0)),
        set_attribute("spikes/p8/timestamps", "units", "s"),
        set_data("spikes/p8/timestamps", lambda x: x[::-1]),
        set_data("spikes/p8/timestamps", lambda x: x[1:]),
        set_data("spikes/p8/timestamps", with_first(np.nan)),
        set_data("spikes/p8/timestamps", with_first(0.0)),
        set_data("spikes/p8/node_ids", lambda x: x + np.uint64(300)),
        set_data("spikes/p8/node_ids", with_first(2**63)),
        set_data("spikes/p9_gate/node_ids", lambda x: x[::-1]),
        set_data("suspike/schedule/p9/start", lambda x: x + 1),
        set_data("suspike/schedule/p9/stop", lambda x: x + 100),
        remove("spikes/p9_gate"),
        remove("spikes/p8"),
        remove("spikes"),
        remove("suspike"),
        remove("suspike/schedule"),
    ],
)
def test_a_changed_sonata_file_is_refused(tmp_path, change):
    path, trains = tmp_path / "r.h5", trains_of()
    table = (np.random.default_rng(0).random((40, 3)) < 0.5).astype(np.uint8)
    write_sonata(path, trains, dt_ms=1.0, gates={"p9": table})
    read_sonata(path)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=r"`r.h5` must be a SONATA spike file of suspike, got one that fails"):
        read_sonata(path)


# --- places that cannot be written


@pytest.mark.parametrize("write", [write_aedat, write_sonata])
def test_unwritable_places_are_refused_and_left_alone(tmp_path, write):
    trains = trains_of(n_steps=3, sizes=(2,))
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "r", tmp_path / "none" / "r", tmp_path / "folder", "/dev/full"):
        with pytest.raises(OSError, match="nothing was written"):
            write(place, trains, dt_ms=1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not os.path.isfile("/dev/full")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", trains, dt_ms=1.0)  # what the link points to is replaced
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() != b"old"
    with pytest.raises(OSError, match="Not a regular file"):
        read_aedat("/dev/full")
