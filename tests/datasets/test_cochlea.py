import itertools
import math
import shutil
import sys
import tracemalloc
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from suspike_datasets import cochlea, load, shd
from suspike_datasets.cochlea import RATE_HZ, STEPS_PER_S, cochlea_spikes
from suspike_datasets.sets import UNKNOWN
from suspike_datasets.words import encode_words, read_wav

MS = STEPS_PER_S // 1000


def tone(hz, seconds=0.2, rate_hz=RATE_HZ):
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def channel_of(hz):
    """The channel whose stiffness and mass are in balance at a frequency."""
    omega = 2 * np.pi * hz
    x = -np.log((cochlea.MASS * omega**2 + cochlea.STIFFNESS_LESS) / cochlea.STIFFNESS) / cochlea.ALPHA
    return x / cochlea.LENGTH_CM * (shd.N_UNITS - 1)


def transfer(x, omega):
    omega = np.atleast_1d(omega)
    return cochlea._transfer(x, omega, cochlea._entry(omega))


def one_by_one(motion, n_cells, rng):
    """Spikes of `n_cells` bushy cells that see one motion, and the gaps between each fibre's spikes; fibre by fibre."""
    dt = 1 / STEPS_PER_S
    k = 2000 * 5 / 305
    c = 5.05 * k / (2500 * k + 5.05 * 9080)
    q, w = c * 9080 / k, c * 6580 / 66.31
    last = np.full((n_cells, 40), -1000)
    current, u, ready, cells = np.zeros(n_cells), np.zeros(n_cells), np.zeros(n_cells, int), np.zeros(n_cells, int)
    for i, s in enumerate(motion):
        k = 2000 * (s + 5) / (s + 305) if s > -5 else 0
        q, c, w = (
            q + dt * (5.05 * (1 - q) + 66.31 * w - k * q),
            c + dt * (k * q - 9080 * c),
            w + dt * (6580 * c - 66.31 * w),
        )
        fires = (rng.random(last.shape) < 50_000 * c * dt) & (i - last >= MS)
        last[fires] = i
        u = np.where(i >= ready, np.exp(-dt / 1e-3) * u + dt * current, 0)
        current = np.exp(-dt / 0.5e-3) * current + 325 * fires.sum(1)
        spikes = u >= 1
        u[spikes], ready[spikes] = 0, i + 1 + MS
        cells += spikes
    return cells


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(n=st.integers(0, 40), p=st.one_of(st.floats(0, 1), st.floats(0, 0.01), st.sampled_from([0.5, 1.0])))
def test_one_draw_has_the_binomial_distribution(n, p):
    u = (np.arange(4001) + 0.5) / 4001
    shares = np.bincount([cochlea._binomial(n, p, x) for x in u], minlength=n + 1) / len(u)
    np.testing.assert_allclose(shares, stats.binom.pmf(np.arange(n + 1), n, p), atol=1.01 / len(u))


@pytest.mark.parametrize(("level", "seconds"), [(0.0, 0.5), (30.0, 0.2), (3000.0, 0.1)])
def test_one_draw_replaces_a_loop_over_fibres(level, seconds):
    motion = level * tone(500, seconds)[::2]
    rng, steps = np.random.default_rng(7), np.empty(len(motion), np.int64)
    slow = one_by_one(motion, 300, rng)
    fast = np.array([cochlea._fire(motion, rng.random(len(motion)), steps) for _ in range(3000)])
    assert abs(slow.mean() - fast.mean()) < 4 * math.sqrt(slow.var() / 300 + fast.var() / 3000)
    # spread too: a chi-squared of 299 degrees of freedom
    assert 0.65 < slow.var() / fast.var() < 1.45


def test_a_bushy_cell_rests_for_a_millisecond():
    """Where all fibres fire at once, again and again: the second spike comes as soon as it may."""
    motion, rng, gaps = np.full(300, 1e5), np.random.default_rng(0), []
    for _ in range(200):
        steps = np.empty(len(motion), np.int64)
        n = cochlea._fire(motion, rng.random(len(motion)), steps)
        gaps += np.diff(steps[:n]).tolist()
    assert len(gaps) >= 200
    assert MS < min(gaps) < 1.5 * MS


@pytest.mark.parametrize("x", [0.4, 1.7, 3.5])
@pytest.mark.parametrize("hz", [60.0, 440.0, 3000.0, 12_000.0])
def test_transfer_holds_the_integral_of_the_wave_number(x, hz):
    omega = 2 * np.pi * hz

    def impedance(x):
        s = cochlea.STIFFNESS * np.exp(-3 * x) - cochlea.STIFFNESS_LESS - cochlea.MASS * omega**2
        return s + 1j * omega * cochlea.DAMPING * np.exp(-1.5 * x)

    def g(x):
        return omega * np.sqrt(20 / impedance(x))

    peak = cochlea.LENGTH_CM * channel_of(hz) / 699
    inside = [peak] if 0 < peak < x else None
    way = 2 / 3 * g(0) + integrate.quad(g, 0, x, points=inside, limit=500, complex_func=True)[0]
    at_stapes = -math.sqrt(2 / 3) * g(0) * special.hankel2(1, 2 / 3 * g(0))
    p = np.sqrt(way / g(x)) * special.hankel2(0, way) * (-1j * omega / at_stapes)
    np.testing.assert_allclose(transfer(x, omega), 1j * omega * p / impedance(x), rtol=1e-6)


@pytest.mark.parametrize("hz", [200.0, 1000.0, 4000.0])
def test_transfer_solves_the_wave_equation(hz):
    """p'' = -g^2 p from the far end, where next to nothing is left, to a stapes of speed 1: a few per cent."""
    omega, end = 2 * np.pi * hz, min(3.5, cochlea.LENGTH_CM * channel_of(hz) / 699 + 0.5)
    places = np.linspace(0, end - 0.5, 30)

    def slope(x, state):
        d = 1e9 * np.exp(-3 * x) - cochlea.STIFFNESS_LESS - 0.05 * omega**2 + 500j * omega * np.exp(-1.5 * x)
        return [state[1], -20 * omega**2 / d * state[0]]

    def d(x):
        return 1e9 * np.exp(-3 * x) - cochlea.STIFFNESS_LESS - 0.05 * omega**2 + 500j * omega * np.exp(-1.5 * x)

    g_end = omega * np.sqrt(20 / d(end))
    found = integrate.solve_ivp(slope, (end, 0), [1.0, -1j * g_end], rtol=1e-8, atol=1e-12, t_eval=places[::-1])
    p = found.y[0][::-1] * (-1j * omega / found.y[1][-1])
    want = 1j * omega * p / d(places)
    mine = np.array([transfer(x, omega)[0] for x in places])
    assert np.abs(mine - want).max() < 0.12 * np.abs(want).max()


@pytest.fixture
def some_channels(monkeypatch):
    """Leave a few channels alone, by number: the others take time."""

    def leave(*channels):
        responses = {channel: cochlea._responses()[channel] for channel in channels}
        monkeypatch.setattr(cochlea, "_responses", lambda: tuple(responses.values()))
        return responses

    return leave


def test_filter_bank_is_the_sum_over_frequencies(some_channels):
    """Against a direct sum, across the seam of two blocks."""
    sound = np.random.default_rng(3).standard_normal(cochlea.BLOCK + 3001)
    at = np.array([0, 100, 11_999, 23_999, 24_000, 24_001, 25_000, 25_500])
    responses = some_channels(0, 60, 300, 650)
    for response, speed in zip(responses.values(), cochlea._membrane(sound), strict=True):
        assert len(speed) == (len(sound) + 1) // 2
        omega, want = 2 * np.pi * np.arange(len(response)) / cochlea.FFT_SIZE, np.zeros(len(at))
        for first in (0, cochlea.BLOCK):
            spectrum = np.fft.fft(sound[first : first + cochlea.BLOCK], cochlea.FFT_SIZE)[: len(response)]
            weights = np.where(np.arange(len(response)) == cochlea.FFT_SIZE // 2, 1, 2) * spectrum * response
            for j, step in enumerate(2 * at):
                if first <= step < first + cochlea.FFT_SIZE:
                    want[j] += (weights * np.exp(1j * omega * (step - first))).real.sum() / cochlea.FFT_SIZE
        np.testing.assert_allclose(speed[at], want, atol=1e-9 * np.abs(speed).max())


def test_a_channels_response_is_the_transfer_function_up_to_where_it_is_cut():
    for channel in (1, 200, 699):
        response = cochlea._responses()[channel]
        omega = 2 * np.pi * 0.8 * np.arange(1, len(response))
        want = transfer(3.5 * channel / 699, omega)
        assert response[0] == 0
        np.testing.assert_allclose(response[1:], want, rtol=1e-9, atol=1e-12)
        assert abs(response[-1]) < 1e-3 * np.abs(response).max() or len(response) == cochlea.FFT_SIZE // 2 + 1


def test_the_membrane_moves_after_the_sound_and_comes_to_rest(some_channels):
    click = np.zeros(RATE_HZ // 2)
    click[4800] = 1
    some_channels(*range(50, 700, 100))
    peaks = []
    for speed in cochlea._membrane(click):
        size = np.abs(speed)
        assert size[:2376].max() < 0.02 * size.max()
        assert size[-1200:].max() < 0.01 * size.max()
        peaks.append(size.argmax() - 2400)
    assert peaks[0] >= 0
    assert peaks == sorted(peaks)  # the wave runs from the stapes on
    assert 5 * MS < peaks[5] < 25 * MS


def test_silence_leaves_the_spontaneous_rate():
    events = cochlea_spikes(np.zeros(16_000), 8000, seed=1)
    steps, rng = np.empty(STEPS_PER_S, np.int64), np.random.default_rng(5)
    alone = np.mean([cochlea._fire(np.zeros(STEPS_PER_S), rng.random(STEPS_PER_S), steps) for _ in range(1000)])
    assert 0.7 < alone < 0.95  # 0.83 a second in the words made elsewhere, where nothing is heard
    assert len(events) == pytest.approx(2 * 700 * alone, abs=5 * math.sqrt(1400 * alone))
    per_100 = np.bincount(events["x"] // 100)
    assert stats.chisquare(per_100).pvalue > 1e-4


def test_a_tone_excites_the_channels_around_its_frequency():
    found = []
    for hz in (200, 500, 1200, 3200, 10_000):
        # below saturation, or the peak is a plateau
        counts = np.bincount(cochlea._spikes(0.3 * tone(hz), np.random.default_rng(0)) % 700, minlength=700)
        smooth = np.convolve(counts, np.ones(21), "same")
        found.append(int(smooth.argmax()))
        assert abs(found[-1] - channel_of(hz)) < 30  # a third of an octave
        assert counts[: max(0, found[-1] - 200)].sum() < 0.15 * counts.sum()  # those far above hear nothing
    assert found == sorted(found, reverse=True)


def test_louder_is_more_spikes_until_loudness_is_evened_out():
    sound = tone(500) + tone(1300)
    counts = [len(cochlea._spikes(a * sound, np.random.default_rng(0))) for a in (0.03, 0.1, 0.5, 3)]
    assert all(b > 1.2 * a for a, b in itertools.pairwise(counts))
    for a in (0.01, 100):
        heard = cochlea._heard(a * sound, RATE_HZ) / np.maximum(np.hanning(len(sound)), 1e-3)
        assert math.sqrt((heard[100:-100] ** 2).mean()) == pytest.approx(0.3, rel=0.01)
    quiet, loud = (cochlea_spikes(a * sound, RATE_HZ, seed=0) for a in (2.0**-20, 2.0**20))
    np.testing.assert_array_equal(quiet, loud)


def test_form_and_seed():
    sound = tone(700, 0.1, 8000)
    events = cochlea_spikes(sound, 8000, seed=(3, 1))
    assert events.dtype == np.dtype([("t", "i8"), ("x", "i8")])
    key = events["t"] * 700 + events["x"]
    assert (np.diff(key) > 0).all()
    assert 0 <= events["t"].min()
    assert events["t"].max() < 100_000
    np.random.seed(0)  # noqa: NPY002  the global state must not matter
    np.testing.assert_array_equal(cochlea_spikes(sound, 8000, seed=(3, 1)), events)
    assert not np.array_equal(cochlea_spikes(sound, 8000, seed=(3, 2)), events)
    whole = np.round(sound * 2**14).astype(np.int16)
    np.testing.assert_array_equal(cochlea_spikes(whole, 8000, seed=3), cochlea_spikes(whole * 1.0, 8000, seed=3))


def test_spikes_are_pinned():
    # at 48 kHz, so that no resampling takes part
    sound = (np.arange(4800) * np.arange(4800) % 257 - 128) / 128
    events = cochlea_spikes(sound, RATE_HZ, seed=0)
    # not to the last one: on another processor FFT and Bessel functions may differ in their last bits
    assert len(events) == pytest.approx(263, abs=1)
    assert events["t"].sum() == pytest.approx(15_652_910, rel=0.01)
    assert events["x"].sum() == pytest.approx(128_375, rel=0.01)
    assert set(zip(events["t"][:5], events["x"][:5], strict=True)) & {(3541, 455), (3750, 140), (7916, 576)}


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 96_000])
def test_the_rate_does_not_matter(rate_hz):
    """One tone, recorded at several rates: the same length, and about the same spikes."""
    want = cochlea_spikes(tone(900), RATE_HZ, seed=0)
    found = cochlea_spikes(tone(900, 0.2, rate_hz), rate_hz, seed=0)
    assert len(cochlea._heard(tone(900, 0.2, rate_hz), rate_hz)) == pytest.approx(9600, abs=2)
    assert len(found) == pytest.approx(len(want), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sound": [0.5]}, TypeError, "`sound` must be an array of numbers, got list."),
        ({"sound": np.zeros(3, bool)}, TypeError, "`sound` must be an array of numbers, got bool."),
        ({"sound": np.zeros((3, 2))}, ValueError, "`sound` must be of shape [S], 1 sample to 60 s, got shape (3, 2)."),
        ({"sound": np.zeros(0)}, ValueError, "`sound` must be of shape [S], 1 sample to 60 s, got shape (0,)."),
        (
            {"sound": np.zeros(480_001)},
            ValueError,
            "`sound` must be of shape [S], 1 sample to 60 s, got shape (480001,).",
        ),
        ({"sound": np.array([0, np.nan])}, ValueError, "`sound` must be finite, got nan."),
        ({"rate_hz": 8000.0}, TypeError, "`rate_hz` must be an integer, got 8000.0."),
        ({"rate_hz": 999}, ValueError, "`rate_hz` must be from 1000 to 384000, got 999."),
        ({"seed": None}, TypeError, "`seed` must be an integer, got None."),
        ({"seed": (1, -1)}, ValueError, "`seed` must be from 0 to 9223372036854775807, got -1."),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        cochlea_spikes(**{"sound": np.zeros(8), "rate_hz": 8000, "seed": 0, **arguments})
    assert str(caught.value) == message


def test_scipy_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(ImportError, match=r"^`cochlea_spikes` needs scipy: pip install 'suspike\[datasets\]'\.$"):
        cochlea_spikes(np.ones(8), 8000, seed=0)


@pytest.mark.parametrize("sound", [np.ones(1), np.array([1.0, -1.0]), np.full(9, 5e-324), np.full(9, 1e308)])
def test_odd_sounds(sound):
    assert cochlea_spikes(sound, 8000, seed=0).dtype.names == ("t", "x")


def write_wav(path, samples, *, width=2, rate_hz=8000):
    """`samples` [S] or [S, channels], integers around 0."""
    samples = np.asarray(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.ndim and samples.reshape(len(samples), -1).shape[1] if len(samples) else 1)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        kind = {1: "u1", 2: "<i2", 4: "<i4"}.get(width, "u1")
        file.writeframes((samples + (128 if width == 1 else 0)).astype(kind).tobytes())


@pytest.mark.parametrize("width", [1, 2, 4])
@settings(deadline=None, derandomize=True, database=None, max_examples=30)
@given(data=st.data(), size=st.integers(1, 20), channels=st.integers(1, 3), rate_hz=st.sampled_from([8000, 44_100]))
def test_a_wav_is_read_as_it_was_written(tmp_path_factory, width, data, size, channels, rate_hz):
    half = 1 << (8 * width - 1)
    samples = np.array(
        data.draw(st.lists(st.integers(-half, half - 1), min_size=size * channels, max_size=size * channels))
    ).reshape(size, channels)
    path = tmp_path_factory.getbasetemp() / "one.wav"
    write_wav(path, samples, width=width, rate_hz=rate_hz)
    sound, rate = read_wav(path)
    assert rate == rate_hz
    np.testing.assert_allclose(sound, samples.mean(1), rtol=1e-12)


def test_a_folder_of_words_becomes_a_file(tmp_path):
    words = tmp_path / "words"
    (words / "three" / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-3000, 3000, (9, 400))
    names = ("two_zoe_1.wav", "one_adam_0.wav", "one_eve.wav", "one_zoe_0.WAV", "three/b_c_d.wav", "three/deep/a.wav")
    for samples, name in zip(noise, names, strict=False):
        write_wav(words / name, samples)
    (words / "notes.txt").write_text("no sound")
    seen = []
    events = encode_words(words, tmp_path / "SHD.h5", seed=4, progress=lambda *step: seen.append(step))
    assert seen == [(b + 1, 6) for b in range(6)]
    order = sorted(names)  # of paths below the folder
    assert order[:3] == ["one_adam_0.wav", "one_eve.wav", "one_zoe_0.WAV"]
    assert events.classes == ("deep", "one", "three", "two")
    assert [events.classes[k] for k in events.labels] == ["one", "one", "one", "three", "deep", "two"]
    assert events.subjects.tolist() == [0, UNKNOWN, 1, UNKNOWN, UNKNOWN, 1]
    for b in (1, 4):
        name = order[b]
        want = cochlea_spikes(noise[names.index(name)], 8000, seed=(4, b))
        np.testing.assert_array_equal(events.recording(b)["t"], want["t"])
        np.testing.assert_array_equal(events.recording(b)["x"], want["x"])
    (tmp_path / "SHD").mkdir()
    (tmp_path / "SHD.h5").rename(tmp_path / "SHD" / "shd_train.h5")
    again = load("shd", root=tmp_path, split="train")
    for field in ("start", "labels"):
        np.testing.assert_array_equal(getattr(again, field), getattr(events, field))
    assert again.classes == events.classes
    assert np.abs(again.t - events.t).max() <= 31  # half floats below 64 ms
    np.testing.assert_array_equal(again.subjects, np.maximum(events.subjects, 0))


def damage(kind, path):
    good = path.read_bytes()
    if kind == "cut":
        path.write_bytes(good[:-10])
    elif kind == "no header":
        path.write_bytes(good[:20])
    elif kind == "text":
        path.write_text("not a wav, though it is called one")
    elif kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "empty":
        write_wav(path, [])
    elif kind == "24 bits":
        write_wav(path, np.zeros(30), width=3)
    elif kind == "floats":
        path.write_bytes(good[:20] + b"\x03\x00" + good[22:])
    elif kind == "long":
        write_wav(path, np.zeros(60_001), width=1, rate_hz=1000)
    elif kind == "slow":
        write_wav(path, np.zeros(40), rate_hz=10)


@pytest.mark.parametrize(
    "kind", ["cut", "no header", "text", "zero bytes", "empty", "24 bits", "floats", "long", "slow"]
)
def test_a_damaged_wav_is_named_and_nothing_written(tmp_path, kind):
    words, path = tmp_path / "words", tmp_path / "out.h5"
    words.mkdir()
    for name in ("a_x_0.wav", "b_x_0.wav"):
        write_wav(words / name, np.arange(200))
    damage(kind, words / "b_x_0.wav")
    with pytest.raises(ValueError, match=r"^`folder` must hold whole wavs of 8, 16 or 32-bit PCM") as caught:
        encode_words(words, path)
    assert str(words / "b_x_0.wav") in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["words"]


def test_a_header_that_promises_too_much_costs_no_memory(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, np.arange(200), rate_hz=384_000)
    raw = bytearray(path.read_bytes())
    raw[4:8], raw[40:44] = (40_000_036).to_bytes(4, "little"), (40_000_000).to_bytes(4, "little")
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"it is cut off\.$"):
        read_wav(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^`folder` must hold wavs, got none below "):
        encode_words(tmp_path, tmp_path / "a.h5")
    write_wav(tmp_path / "a.wav", np.arange(50))
    with pytest.raises(FileNotFoundError, match=r"^`path` must be in a folder that exists, got "):
        encode_words(tmp_path, tmp_path / "none" / "a.h5")


def test_agrees_with_the_words_made_elsewhere(speech_root, tmp_path):
    """Fifteen words against the 450 recordings of the same digits by the same speakers, whichever of them are ours."""
    words = tmp_path / "words"
    words.mkdir()
    for path in (speech_root / "wav").glob("*_5.wav"):
        if path.name[0] in "069":
            shutil.copy(path, words)
    mine = encode_words(words, tmp_path / "words.h5")
    assert mine.classes == ("0", "6", "9")
    assert np.bincount(mine.subjects).tolist() == [3] * 5
    train, test = (load("shd", root=speech_root, split=split) for split in ("train", "test"))
    theirs = [part.take(np.flatnonzero(np.isin(part.labels, [0, 6, 9]))) for part in (train, test)]
    n_theirs = sum(part.n_recordings for part in theirs)
    t, unit = (np.concatenate([getattr(part, key) for part in theirs]) for key in ("t", "unit"))
    assert len(mine.t) / 15 == pytest.approx(len(t) / n_theirs, rel=0.15)
    channels = [np.bincount(x // 20, minlength=35) for x in (unit, mine.unit)]
    assert np.corrcoef(*channels)[0, 1] > 0.98
    assert channels[1][:11].sum() / len(mine.t) < 0.04
    times = [np.bincount(x // 50_000, minlength=24)[:24] for x in (t, mine.t)]
    assert np.corrcoef(*times)[0, 1] > 0.9
