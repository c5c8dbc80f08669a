"""Training with Lightning: it learns, resumes bit for bit, and keeps nothing that would have to be unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import suspike as su
from suspike import train
from suspike.loader import Loader, Recordings, batches
from suspike_kernels.layout import events_from_dense

N_IN, N_STEPS = 12, 15


def toy_recordings(n_samples: int, seed: int) -> Recordings:
    """Two classes: the first or the second half of the input fires more."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_samples)
    rate = np.where((np.arange(N_IN) < N_IN // 2)[None] == (labels[:, None] == 0), 0.4, 0.1)
    return Recordings(events_from_dense((rng.random((N_STEPS, n_samples, N_IN)) < rate).astype(int)), labels)


def toy_net(hidden: int = 8) -> su.nn.Stack:
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(hidden, open=0.5, n_steps=N_STEPS)
    return su.nn.Stack(
        su.nn.Dense(N_IN, hidden, su.nn.LIF(hidden, beta=0.9, gate=gate)),
        su.nn.Dense(hidden, 2, su.nn.LI(2, beta=0.9)),
    )


def loaders() -> tuple[Loader, Loader]:
    data, held_out = toy_recordings(64, 0), toy_recordings(32, 1)
    return batches(data, batch_size=16, shuffle=True, seed=2), batches(held_out, batch_size=20)


def fit(net: su.nn.Stack, folder: Path, epochs: int = 4) -> list[train.Epoch]:
    return train.fit(net, *loaders(), epochs=epochs, folder=folder, lr=1e-2, progress=False)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_and_says_how_it_went(tmp_path: Path) -> None:
    net = toy_net()
    gate_before = net[0].neuron.gate.phase.detach().clone()
    history = fit(net, tmp_path, epochs=6)
    assert [epoch["epoch"] for epoch in history] == list(range(6))
    assert history[-1]["train_loss"] < 0.6 * history[0]["train_loss"]
    assert history[-1]["held_out_accuracy"] > 0.9
    assert not torch.equal(gate_before, net[0].neuron.gate.phase)
    seen = train.evaluate(net, loaders()[1])
    assert seen.accuracy == history[-1]["held_out_accuracy"]
    assert seen.loss == pytest.approx(history[-1]["held_out_loss"])
    assert history[-1]["open_fraction"] == net[0].neuron.gate(N_STEPS).open.mean().item()


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = toy_net()
    history = fit(whole, tmp_path / "whole")

    class Stopped(Exception):
        pass

    evaluate, calls = train.evaluate, []

    def stop_in_third_epoch(*args: Any) -> train.Evaluation:
        calls.append(0)
        if len(calls) == 3:
            raise Stopped
        return evaluate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", stop_in_third_epoch)
        with pytest.raises(Stopped):
            fit(toy_net(), tmp_path / "stopped")
    missing: list[int] = []
    monkeypatch.setattr(train, "evaluate", lambda *args: (missing.append(0), evaluate(*args))[1])
    resumed = toy_net()
    assert fit(resumed, tmp_path / "stopped") == history
    assert same(resumed, whole)
    assert len(missing) == len(history) - 2, "two epochs had been kept"
    assert not (tmp_path / "stopped" / "weights.pt.tmp").exists()
    # and a finished one is only read
    again = toy_net()
    assert fit(again, tmp_path / "whole") == history
    assert same(again, whole)


def test_files_load_without_unpickling(tmp_path: Path) -> None:
    net = toy_net()
    fit(net, tmp_path, epochs=1)
    fresh = toy_net()
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert same(fresh, net)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["suspike_history"][0]["epoch"] == 0


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    fit(toy_net(), tmp_path, epochs=1)
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"^`folder` must be free, or hold a checkpoint of this network, got another"):
        fit(toy_net(hidden=9), tmp_path, epochs=2)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_run_of_other_settings_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    history = fit(toy_net(), tmp_path, epochs=2)
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(
        ValueError, match=r"^`folder` must be free, or hold a run of the same settings, got epochs 2 for 3"
    ):
        fit(toy_net(), tmp_path, epochs=3)
    with pytest.raises(ValueError, match=r"got lr 0\.01 for 0\.02 in .*last\.ckpt\. Choose another folder"):
        train.fit(toy_net(), *loaders(), epochs=2, folder=tmp_path, lr=2e-2, progress=False)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert fit(toy_net(), tmp_path, epochs=2) == history
    for damage in (before[: len(before) // 2], b"", b"not a checkpoint"):
        (tmp_path / "last.ckpt").write_bytes(damage)
        with pytest.raises(
            ValueError, match=r"^`folder` must be free, or hold a whole checkpoint of `fit`, got .*last\.ckpt"
        ):
            fit(toy_net(), tmp_path, epochs=2)


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^`folder` must be a folder that can be made \(.*\), got .*file\. Choose"):
        fit(toy_net(), tmp_path / "file")


def test_gates_are_not_decayed(tmp_path: Path) -> None:
    net = toy_net()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    still = {n: p.detach().clone() for n, p in net.named_parameters()}
    train.fit(net, *loaders(), epochs=1, folder=tmp_path, lr=1e-12, weight_decay=1e10, progress=False)
    for name, p in net.named_parameters():
        shrunk = not torch.allclose(p, still[name], rtol=1e-6, atol=1e-9)
        assert shrunk == ("gate" not in name and bool(still[name].any())), name


def test_evaluate_needs_recordings() -> None:
    nothing = Recordings(events_from_dense(np.zeros((N_STEPS, 0, N_IN), int)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"^`data` must be of at least one recording, got none\.$"):
        train.evaluate(toy_net(), batches(nothing, batch_size=2))


def test_without_lightning_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lightning", None)
    with pytest.raises(ImportError, match=r"`lightning` must be installed.*pip install 'suspike\[train\]'"):
        fit(toy_net(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
