"""Pictures hold the data they are given, and a report is one file that is there whole or not at all."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suspike import plot, report
from suspike.graph import Rhythm
from suspike.report import Picture, Table, write_report
from suspike_kernels.layout import Events, events_from_dense
from suspike_kernels.rhythm import rhythm

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

DT_MS = 3.0


def gates(n_steps: int = 40, n: int = 24, share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(3)
    omega = 2 * np.pi / np.array([5.0, 12.0, 30.0])
    amplitude, phase = rng.normal(size=(n, 3)), rng.uniform(0, 2 * np.pi, (n, 3))
    swing = rhythm(np.zeros(n), amplitude, phase, omega, start=0, n_steps=n_steps)
    return Rhythm(-np.quantile(swing, 1 - share, axis=0), amplitude, phase, 2 * np.pi / omega).table(n_steps)


def gated_spikes(table: np.ndarray, n_samples: int = 3) -> np.ndarray:
    """Dense spikes [T, B, N], in open steps only."""
    rng = np.random.default_rng(4)
    return ((rng.random((len(table), n_samples, table.shape[1])) < 0.2) & (table[:, None] > 0)).astype(np.int64)


def dots(axes: Any) -> list[np.ndarray]:
    return [np.asarray(c.get_offsets()) for c in axes.collections]


def cells(points: np.ndarray) -> set[tuple[int, int]]:
    """The step and row of each dot."""
    return {(int(np.floor(x / DT_MS)), int(y)) for x, y in points}


@pytest.mark.parametrize("ordered", [False, True])
def test_raster_shows_every_spike_on_the_gate_table(ordered: bool) -> None:
    table = gates()
    dense = gated_spikes(table)
    order = plot.phase_order(table) if ordered else None
    figure = plot.raster(events_from_dense(dense), 1, open_steps=table, order=order, dt_ms=DT_MS, title="a")
    (axes,) = figure.axes
    rows = np.arange(24) if order is None else order
    (points,) = dots(axes)
    assert len(points) == dense[:, 1].sum() > 50
    assert cells(points) == {(t, int(np.flatnonzero(rows == n)[0])) for t, n in np.argwhere(dense[:, 1])}
    assert np.allclose(points[:, 0] / DT_MS % 1, 0.5)  # in the middle of a step
    (image,) = axes.images
    shown = np.asarray(image.get_array())
    assert np.array_equal(shown, table[:, rows].T)
    assert image.get_extent() == [0, 40 * DT_MS, -0.5, 23.5]
    assert image.origin == "lower"
    assert all(shown[row, t] for t, row in cells(points))
    assert axes.get_title() == "a"
    assert "ms" in axes.get_xlabel()


def test_a_spike_in_a_closed_step_is_not_hidden() -> None:
    table = gates()
    dense = gated_spikes(table)
    t, n = np.argwhere(table == 0)[7]
    dense[t, 0, n] = 1
    figure = plot.raster(events_from_dense(dense), 0, open_steps=table, dt_ms=DT_MS)
    inside, outside = figure.axes[0].collections
    assert cells(np.asarray(outside.get_offsets())) == {(t, n)}
    assert len(inside.get_offsets()) == dense[:, 0].sum() - 1
    assert to_hex(inside.get_facecolor()[0]) != to_hex(outside.get_facecolor()[0])
    assert outside.get_zorder() > inside.get_zorder() > figure.axes[0].images[0].get_zorder()
    assert "spikes in CLOSED steps: 1" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_raster_with_inputs_and_repeats() -> None:
    table = gates()
    spikes = events_from_dense(gated_spikes(table))
    counts = np.zeros((40, 3, 2312), np.int64)
    counts[5, 2, 2311], counts[6, 2, 0], counts[6, 1, 4] = 2, 1, 1
    figure = plot.raster(spikes, 2, inputs=events_from_dense(counts), dt_ms=DT_MS)
    layer, above = figure.axes
    assert not layer.images
    assert sorted(map(tuple, dots(above)[0])) == [(5.5 * DT_MS, 2311), (5.5 * DT_MS, 2311), (6.5 * DT_MS, 0)]
    assert above.get_xlim() == layer.get_xlim() == (0, 40 * DT_MS)


def test_raster_without_spikes_draws() -> None:
    figure = plot.raster(silence(4, 1), 0, open_steps=np.ones((4, 2), np.uint8), dt_ms=1)
    figure.savefig(io.BytesIO())
    assert [len(d) for d in dots(figure.axes[0])] == [0]


def silence(n_steps: int, n_samples: int, n_units: int = 2) -> Events:
    return events_from_dense(np.zeros((n_steps, n_samples, n_units), np.int64))


def draw_raster(events: Events | None = None, sample: int = 0, **options: Any) -> Figure:
    spikes = events_from_dense(gated_spikes(gates())) if events is None else events
    return plot.raster(spikes, sample, **({"dt_ms": DT_MS} | options))


def test_schedule_shows_the_table_and_its_mean() -> None:
    table = gates()
    figure = plot.schedule(table, dt_ms=DT_MS)
    image, share = figure.axes
    assert np.array_equal(np.asarray(image.images[0].get_array()), table[:, plot.phase_order(table)].T)
    values, edges, _ = share.patches[0].get_data()
    assert np.array_equal(values, table.mean(1))
    assert np.array_equal(edges, np.arange(41) * DT_MS)
    assert share.get_xlim() == image.get_xlim() == (0, 40 * DT_MS)
    assert f"mean {table.mean():.1%}" in share.get_legend().get_texts()[0].get_text()


def test_phase_order_sorts_by_period_then_phase() -> None:
    step = np.arange(60)
    periods, lags = np.array([6, 20, 6, 20, 20, 6]), np.array([4, 10, 2, 0, 5, 0])
    moving = (step[:, None] - lags) % periods < periods // 3
    table = np.concatenate([np.ones((60, 1)), moving, np.zeros((60, 1))], axis=1).astype(np.uint8)
    assert plot.phase_order(table).tolist() == [
        4,
        5,
        2,
        6,
        3,
        1,
        0,
        7,
    ]  # 20 steps, then 6, then those that never change


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (7, 1)])
def test_phase_order_is_a_permutation(shape: tuple[int, int]) -> None:
    table = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    assert sorted(plot.phase_order(table)) == list(range(shape[1]))
    plot.schedule(table, dt_ms=1.0).savefig(io.BytesIO())


def run(*accuracy: float, **more: Any) -> list[dict[str, Any]]:
    return [{"epoch": k, "train_loss": 1 / k, "held_out_accuracy": a} | more for k, a in enumerate(accuracy, 1)]


def test_learning_curve_of_two_runs() -> None:
    runs = {r"gated $\frac$": run(0.5, 0.8, 0.9, open_fraction=0.3), "always open": run(0.6, 0.7)}
    runs["always open"][0]["held_out_accuracy"] = None
    figure = plot.learning_curve(runs)
    accuracy, loss, opened = figure.axes
    assert [line.get_xydata().tolist() for line in accuracy.lines] == [[[1, 0.5], [2, 0.8], [3, 0.9]], [[2, 0.7]]]
    assert [line.get_ydata().tolist() for line in loss.lines] == [[1, 1 / 2, 1 / 3], [1, 1 / 2]]
    assert [line.get_ydata().tolist() for line in opened.lines] == [[0.3] * 3, []]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs)
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in loss.lines}) == 2
    figure.savefig(io.BytesIO())  # names are no formulas


def test_learning_curve_of_one_run_has_no_legend() -> None:
    figure = plot.learning_curve(run(0.5, float("nan")), title="one")
    assert [len(figure.axes), figure.legends, figure.get_suptitle()] == [2, [], "one"]


def confusion(labels: Any, guesses: Any, n_classes: int) -> Figure:
    return plot.confusion(np.array(labels), np.array(guesses), n_classes)


def test_confusion_counts() -> None:
    axes = confusion([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0], 4).axes[0]
    counts = np.array([[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    written = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}
    assert written == {(i, j): counts[i, j] for i, j in np.argwhere(counts)}
    assert np.allclose(np.asarray(axes.images[0].get_array())[:3], counts[:3] / counts[:3].sum(1, keepdims=True))
    assert axes.get_title() == "4 of 6 right (66.7%)"
    assert "true" in axes.get_ylabel()


def energy_rows() -> list[dict[str, Any]]:
    return [
        {"card": card, "network": network, "scenario": scenario, "energy_pj": base * (1 + n) / (1 + s)}
        for card, base in (("odin", 340.0), ("loihi", 2.3e6), ("horowitz", 999.9), ("spinnaker", 4e7))
        for s, scenario in enumerate(("as_is", "gate_aware"))
        for n, network in enumerate(("always open", "gated"))
    ]


def test_energy_bars_hold_the_energies() -> None:
    rows = energy_rows()
    figure = plot.energy_bars(rows)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    names = [f"{network}, {scenario}" for network in ("always open", "gated") for scenario in ("as is", "gate aware")]
    assert [bars.get_label() for bars in axes.containers] == names
    assert [text.get_text() for text in axes.get_yticklabels()] == ["odin", "loihi", "horowitz", "spinnaker"]
    for bars, name in zip(axes.containers, names, strict=True):
        series = [r for r in rows if f"{r['network']}, {r['scenario'].replace('_', ' ')}" == name]
        assert [bar.get_width() for bar in bars] == [r["energy_pj"] for r in series]
        assert [round(bar.get_y() + bar.get_height() / 2) for bar in bars] == [0, 1, 2, 3]  # each in its card's group
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 4
    written = [text.get_text() for text in axes.texts]
    assert len(written) == len(rows)
    assert {"340 pJ", "1.00 nJ", "2.30 µJ", "80.0 µJ"} <= set(written)
    low, high = axes.get_xlim()
    assert all(low < row["energy_pj"] < high for row in rows)
    figure.draw_without_rendering()
    assert {"1 nJ", "10 µJ"} <= {text.get_text() for text in axes.get_xticklabels()}


def test_energy_bars_of_nothing_and_of_gaps() -> None:
    rows = energy_rows()[:3]
    rows[0]["energy_pj"] = 0.0
    figure = plot.energy_bars(rows)
    assert figure.axes[0].texts[0].get_text() == "0 pJ"
    assert [len(bars) for bars in figure.axes[0].containers] == [1, 1, 1]
    for drawn in (figure, plot.energy_bars([rows[0]])):
        drawn.savefig(io.BytesIO())


@pytest.mark.parametrize(
    ("pj", "text"), [(0.25, "0.250 pJ"), (99.96, "100 pJ"), (9.999e5, "1.00 µJ"), (3e12, "3.00 J")]
)
def test_energies_are_rounded_before_their_unit_is_chosen(pj: float, text: str) -> None:
    (bar,) = plot.energy_bars([energy_rows()[0] | {"energy_pj": pj}]).axes[0].texts
    assert bar.get_text() == text


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: draw_raster(sample=3), "`sample` must be from 0 to 2"),
        (lambda: draw_raster(sample=-1), "`sample` must be"),
        (lambda: draw_raster(dt_ms=float("nan")), "`dt_ms` must be above 0"),
        (lambda: draw_raster(open_steps=np.ones((24, 40))), r"`open_steps` must be of shape \[40, 24\]"),
        (lambda: draw_raster(open_steps=np.full((40, 24), 2)), "`open_steps` must be 0 or 1, got 2"),
        (lambda: draw_raster(order=np.zeros(24, int)), "`order` must be each neuron"),
        (lambda: draw_raster(inputs=silence(39, 3)), "`inputs` must be of 40 steps"),
        (lambda: draw_raster(inputs=silence(40, 1), sample=1), "samples of `inputs`"),
        (lambda: draw_raster(silence(0, 1)), "`events` must be of one"),
        (lambda: draw_raster(silence(2, 1)._replace(idx=np.zeros(1, np.int32))), r"`events.ptr` must"),
        (lambda: plot.schedule(np.zeros((0, 3), np.uint8), dt_ms=1.0), "`open_steps` must be of shape"),
        (lambda: plot.schedule(np.zeros(3, np.uint8), dt_ms=1.0), "`open_steps` must be of shape"),
        (lambda: plot.schedule(np.full((2, 2), 3, np.uint8), dt_ms=1.0), "`open_steps` must be 0 or 1, got 3"),
        (lambda: plot.schedule(gates(), dt_ms=-1.0), "`dt_ms` must be above 0"),
        (lambda: plot.learning_curve({"a": []}), "`history` must be of one epoch"),
        (lambda: plot.learning_curve([{"train_loss": 1.0}]), "with an `epoch`, got one with train_loss"),
        (lambda: plot.learning_curve([{"epoch": 1}]), "`history` must be of entries with"),
        (lambda: plot.learning_curve(run(97.0)), "`held_out_accuracy of ''` must be from 0 to 1, got 97.0"),
        (lambda: confusion([], [], 3), "`labels` must be of shape"),
        (lambda: confusion([[0]], [[0]], 3), "`labels` must be of shape"),
        (lambda: confusion([0, 1], [0], 3), "`predictions` must be of shape"),
        (lambda: confusion([0, 3], [0, 1], 3), "`labels` must be whole numbers from 0 to n_classes - 1 = 2, got 3"),
        (lambda: confusion([0, 1], [0, -1], 3), "`predictions` must be whole numbers"),
        (lambda: confusion([0, 1], [0.5, 1.0], 3), "`predictions` must be whole numbers .* got 0.5"),
        (lambda: plot.energy_bars([]), "`rows` must be of one bar"),
        (lambda: plot.energy_bars(energy_rows()[:1] * 2), "`rows` must be .* got odin, always open, as_is twice"),
        (lambda: plot.energy_bars([energy_rows()[0] | {"energy_pj": -1.0}]), "`energy_pj` must be from 0"),
        (lambda: plot.energy_bars([energy_rows()[0] | {"energy_pj": np.inf}]), "`energy_pj` must be finite"),
    ],
)
def test_plots_refuse(draw: Callable[[], Figure], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw()


def test_import_loads_neither_matplotlib_nor_torch_and_drawing_leaves_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np, suspike.plot, suspike.report\n"
        "print([m for m in ('matplotlib', 'torch') if m in sys.modules])\n"
        "zero = np.zeros(1, int); suspike.plot.confusion(zero, zero, 1).savefig(sys.argv[1], format='png')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, os.devnull], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_raster(),
        lambda: plot.schedule(gates(), dt_ms=1.0),
        lambda: plot.learning_curve(run(0.5)),
        lambda: confusion([0], [0], 1),
        lambda: plot.energy_bars(energy_rows()),
    ],
)
def test_a_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], Figure]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"`matplotlib` must be installed.*suspike\[plot\]"):
        draw()


class Page(HTMLParser):
    """What stands in a page, and that its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def inside(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def picture(name: str = "gates", caption: str = "when gates open", alt: str = "a table") -> Picture:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, len(name)])
    return Picture(name, figure, caption, alt)


def write(path: Path, **change: Any) -> Path:
    content: dict[str, Any] = {
        "title": "A run",
        "summary": [("held-out accuracy", 0.971234567), ("epochs", 12)],
        "tables": [Table("energy", ["card", "energy", "n"], [["odin", "1.20 nJ", 3], ["loihi", "-", None]])],
        "figures": [picture()],
        "notes": ["an estimate"],
    }
    return write_report(path, **(content | change))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_report_embeds_its_figures_and_writes_them_beside_it(tmp_path: Path) -> None:
    pictures = [picture(), picture("b-2", "second", 'alt "quoted"')]
    path = write(tmp_path / "deep" / "run.html", figures=pictures)
    assert path == tmp_path / "deep" / "run.html"
    assert set(tree(tmp_path)) == {"deep/run.html", "deep/figures/gates.png", "deep/figures/b-2.png"}
    page = Page(path.read_text("utf-8"))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["a table", 'alt "quoted"']
    for image, name in zip(images, ("gates", "b-2"), strict=True):
        start, data = str(image["src"]).split(",")
        assert start == "data:image/png;base64"
        png = base64.b64decode(data, validate=True)
        assert png.startswith(b"\x89PNG")
        assert b"Software" not in png
        assert png == (tmp_path / "deep" / "figures" / f"{name}.png").read_bytes()
    assert page.inside("figcaption") == ["Figure 1. when gates open", "Figure 2. second"]
    assert page.inside("h2") == ["Summary", "Tables", "Figures", "Notes"]
    assert page.inside("h1") == page.inside("title") == ["A run"]
    assert [page.inside("dt"), page.inside("dd")] == [["held-out accuracy", "epochs"], ["0.971235", "12"]]
    assert page.inside("caption") == ["energy"]
    assert page.inside("th") == ["card", "energy", "n"]
    assert page.inside("td") == ["odin", "1.20 nJ", "3", "loihi", "-", "-"]
    assert [cell.get("class") for cell in page.all("td")] == [None, "number", "number"] * 2
    assert page.inside("p") == ["an estimate"]


def test_report_fetches_nothing(tmp_path: Path) -> None:
    text = write(tmp_path / "run.html").read_text("utf-8")
    page = Page(text)
    links = [str(value) for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert {link[1:] for link in links if link[0] == "#"} <= {str(s["id"]) for s in page.all("section")}
    assert not page.all("script") + page.all("link")
    assert not re.search(r"url\(|@import|://", text)
    assert "prefers-color-scheme: dark" in text


def test_report_escapes_whatever_it_is_given(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script> & \"x\" {title}"
    path = write(
        tmp_path / "run.html",
        title=evil,
        summary={evil: evil},
        tables=[(evil, [evil], [[evil], ["\ud800"]])],
        figures=[picture(caption=evil, alt=evil)],
        notes=[evil],
    )
    page = Page(path.read_text("utf-8"))
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == evil
    for tag in ("title", "h1", "dt", "dd", "caption", "th", "td", "p"):
        assert page.inside(tag)[0] == evil
    assert page.inside("figcaption") == [f"Figure 1. {evil}"]


def test_report_without_parts_has_no_empty_sections(tmp_path: Path) -> None:
    path = write(tmp_path / "run.html", summary=[], tables=[Table("none", ["a", "b"], [])], figures=[], notes=())
    page = Page(path.read_text("utf-8"))
    assert page.inside("h2") + page.inside("th") == ["Tables", "a", "b"]
    assert set(tree(tmp_path)) == {"run.html"}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    shown = picture()
    write(tmp_path / "a" / "run.html", figures=[shown])
    write(tmp_path / "b" / "run.html", figures=[shown])
    write(tmp_path / "c" / "run.html")
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")


class Broken(Figure):
    def savefig(self, *args: Any, **options: Any) -> None:
        raise RuntimeError("cannot draw")


def test_a_figure_that_fails_leaves_the_old_report(tmp_path: Path) -> None:
    write(tmp_path / "run.html")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="cannot draw"):
        write(tmp_path / "run.html", title="new", figures=[picture("new"), Picture("bad", Broken(), "c", "a")])
    assert tree(tmp_path) == before
    with pytest.raises(RuntimeError, match="cannot draw"):
        write(tmp_path / "other" / "run.html", figures=[Picture("bad", Broken(), "c", "a")])
    assert not (tmp_path / "other").exists()


def test_a_disk_that_fills_up_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run.html")
    before = tree(tmp_path)
    real = report.write_new

    def full(path: Path, data: bytes) -> None:
        if data.startswith(b"<!DOCTYPE"):
            path.write_bytes(data[:10])
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(report, "write_new", full)
    with pytest.raises(OSError, match=r"No space left on device; the report is not written: .*run\.html"):
        write(tmp_path / "run.html", title="new", figures=[picture("new")])
    assert tree(tmp_path) == before
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x" / "y" / "run.html")
    assert not (tmp_path / "x").exists()


def test_a_file_where_a_folder_should_be_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(OSError, match=r"the report is not written: .*figures/gates\.png"):
        write(tmp_path / "run.html")
    with pytest.raises(OSError, match=r"the report is not written: .*figures/deep"):
        write(tmp_path / "figures" / "deep" / "run.html")
    assert tree(tmp_path) == {"figures": b"mine"}
    (tmp_path / "figures").unlink()
    (tmp_path / "run.html").mkdir()
    with pytest.raises(OSError, match=r"Not a regular file; the report is not written: .*run\.html"):
        write(tmp_path / "run.html")
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run.html").symlink_to(tmp_path / "real" / "page.html")
    write(tmp_path / "run.html")
    assert (tmp_path / "run.html").is_symlink()
    assert Page((tmp_path / "real" / "page.html").read_text("utf-8")).inside("h1") == ["A run"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"figures": [Picture("../up", Figure(), "", "")]}, r"`name of a figure` must be letters, .* got '\.\./up'"),
        ({"figures": [Picture("a\n", Figure(), "", "")]}, "`name of a figure` must be"),
        ({"figures": [Picture("a", Figure(), "", ""), Picture("A", Figure(), "", "")]}, "'A' twice"),
        (
            {"tables": [Table("t", ["a", "b"], [[1, 2], [1]])]},
            "`rows of table 't'` must be of 2 cells, .* got one of 1",
        ),
    ],
)
def test_report_refuses(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "run.html", **change)
    assert not tree(tmp_path)
