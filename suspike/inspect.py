"""Look into a network: what its layers put out, with gradient, and a table of what they did and cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suspike._lengths import running, unpadded
from suspike._summary import DEAD_SHARE as DEAD_SHARE
from suspike._summary import SATURATED_RATE as SATURATED_RATE
from suspike._summary import Row as Row
from suspike._summary import Summary as Summary
from suspike._validate import fail, message
from suspike.nn import Conv2d, DriveGate, Gate, GateTable, GateUse, InputGate, Layer, path
from suspike.nn.layer import lengths
from suspike.nn.recurrent import Recurrent
from suspike.nn.states import State
from suspike.nn.watching import CellRun, watch
from suspike.spikes import Spikes
from suspike_kernels.cells import CELLS
from suspike_kernels.counting import count_layer
from suspike_kernels.counts import Counts
from suspike_kernels.layout import Events, events_from_dense

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Call:
    """What one call of a layer took in and put out: its own tensors, in autograd's graph.

    Parameters
    ----------
    x : Spikes or Tensor [T, B, n_in]
    before : state or None
        The state passed in; None from rest.
    spikes : Spikes or Tensor [T, B, N] or None
        What it fired: Spikes for Spikes, a tensor for a tensor; None for a readout.
    membrane : Tensor [T, B, N] or None
        Of a readout; None for a layer that fires.
    gate : GateTable of [T, G], GateUse or None
        The gate of this very call: its table, or what data made of it; None when always open.
    n_steps : Tensor [B] or None
        True length of each sample; None where all last T steps.
    h : Tensor [T, B, H] or None
        Of a recurrent cell: the states of its last layer at every step, time first like `x`; None of a call of `final`.
    gates : tuple of (GateTable, GateUse or None) [num_layers]
        Of a recurrent cell: as `gate`, for each layer.
    """

    x: Spikes | Tensor
    before: State | None
    spikes: Spikes | Tensor | None
    membrane: Tensor | None
    gate: GateTable | GateUse | None
    n_steps: Tensor | None
    h: Tensor | None = None
    gates: tuple[GateTable | GateUse | None, ...] = ()


class Record(Mapping[str, Call]):
    """What layers put out: ``rec[name]`` is a layer's last call, ``rec.calls[name]`` the list of all, in order.

    A name is the layer's path in the module tree, as in ``net.named_modules()``. A layer that was not called is absent.
    """

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}

    def __getitem__(self, name: str) -> Call:
        if name not in self.calls:
            raise KeyError(message("name", f"a layer that was called, of {list(self.calls)}", repr(name)))
        return self.calls[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.calls)

    def __len__(self) -> int:
        return len(self.calls)


@contextmanager
def record(net: nn.Module) -> Iterator[Record]:
    """Collect what every layer and recurrent cell in `net` puts out while the context is open, with gradient.

    After ``with su.record(net) as rec: out, _ = net(spikes)`` a term like ``rec["0"].spikes.counts().mean()`` may
    enter the loss. What was recorded lives as long as `rec` does; nothing of it stays in the modules.

    Parameters
    ----------
    net : module
        Its `Dense` and `Conv2d` layers, `RNN`, `GRU` and `LSTM` cells may stand anywhere in its tree; those it has on
        entry are recorded, at each of their calls.

    Yields
    ------
    Record

    Raises
    ------
    ValueError
        If `net` has none of them.
    """
    found, rec = _layers(net), Record()
    layers = {name: x for name, x in found.items() if isinstance(x, Layer)}
    cells = {name: x for name, x in found.items() if isinstance(x, Recurrent)}
    tables: dict[nn.Module, list[GateTable | GateUse]] = {}

    # a gate runs within its layer's call, so its latest table is that call's, even where layers share the gate; where
    # layers of a cell do, the latest is the last layer's
    def keep_table(gate: nn.Module, _: Any, table: GateTable | GateUse) -> None:
        tables.setdefault(gate, []).append(table)

    def table_of(gate: nn.Module, name: str) -> GateTable | GateUse:
        if not tables.get(gate):
            fail("net", "left as it is while recorded", f"another gate in layer {name!r}", "Open a new record.")
        return tables[gate].pop()

    def keep_call(name: str, layer: Layer, args: Any, kwargs: dict[str, Any], result: tuple[Any, Any]) -> None:
        given = dict(zip(("x", "state"), args, strict=False)) | kwargs
        out, gate = result[0], _gate(layer)
        fires = layer.neuron.fires
        call = Call(
            given["x"],
            given.get("state"),
            spikes=out if fires else None,
            membrane=None if fires else out,
            gate=None if gate is None else table_of(gate, name),
            n_steps=lengths(given["x"], given.get("n_steps")),
        )
        rec.calls.setdefault(name, []).append(call)

    def keep_run(name: str, cell: Recurrent, run: CellRun) -> None:
        used = tuple(None if gate is None else table_of(gate, name) for gate in _gates(cell)[::-1])
        call = Call(run.x, run.before, None, None, None, run.n_steps, h=run.h, gates=used[::-1])
        rec.calls.setdefault(name, []).append(call)

    gates = {gate for gate in map(_gate, layers.values()) if gate is not None}
    gates |= {gate for cell in cells.values() for gate in _gates(cell) if gate is not None}
    handles = [gate.register_forward_hook(keep_table) for gate in gates]
    handles += [x.register_forward_hook(partial(keep_call, name), with_kwargs=True) for name, x in layers.items()]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for name, cell in cells.items():
            stack.enter_context(watch(cell, hear=partial(keep_run, name, cell)))
        yield rec


def summary(net: nn.Module, spikes: Spikes | Tensor, n_steps: Tensor | None = None) -> Summary:
    """Run `net` once and say what each layer is, did and cost; dead and saturated layers are named in a warning.

    Of a recurrent cell, each layer has a row, and synaptic operations are multiply-accumulates of its two products.

    Their bounds are `DEAD_SHARE` and `SATURATED_RATE`. It runs in evaluation mode and without gradient; training mode,
    buffers and torch's random numbers are left as they were.

    Parameters
    ----------
    net : module
        Called as ``net(spikes)``, or ``net(spikes, n_steps=n_steps)`` if they are given.
    spikes : Spikes or Tensor [T, B, n_in]
        Or [B, T, n_in], where the network takes that.
    n_steps : int Tensor [B], optional
        True length of each sample of a tensor: padding counts for nothing. Spikes hold their own.

    Returns
    -------
    Summary
        ``print`` shows it; ``.table()`` is a rich table, ``.rows`` the numbers, ``.dead`` and ``.saturated`` the names.

    Raises
    ------
    ValueError
        If `net` has no layer and no recurrent cell, or `spikes` no step or no sample.
    """
    n_time, n_samples = spikes.shape[:2]
    if n_time < 1 or n_samples < 1:
        fail("spikes", "of at least one step and one sample", f"shape {list(spikes.shape)}")
    modes = [(m, m.training) for m in net.modules()]
    buffers = [(m, name, b, b.clone()) for m in net.modules() for name, b in m.named_buffers(recurse=False)]
    devices = {p.device for p in net.parameters() if p.device.type == "cuda"}
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        try:
            net.eval()
            with record(net) as rec:
                net(spikes) if n_steps is None else net(spikes, n_steps=n_steps)
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, kept in buffers:
                setattr(module, name, buffer.copy_(kept))  # it was written into, or another stands in its place
    called = next((calls[0].x.shape[1] for calls in rec.calls.values()), n_samples)
    if called == n_time:  # a network that takes samples first
        n_time, n_samples = n_samples, n_time
    rows: list[Row] = []
    for name, layer in _layers(net).items():
        calls = rec.calls.get(name, [])
        if isinstance(layer, Layer):
            rows.append(_row(name, layer, calls, n_samples))
        else:
            rows += [_cell_row(name, layer, k, calls, n_samples) for k in range(layer.num_layers)]
    n = sum(p.numel() for p in net.parameters())
    found = Summary(f"samples: {n_samples}, steps: {n_time}, parameters: {n}", tuple(rows))
    for state, names, cure in (
        ("Dead", found.dead, "larger weights, a lower threshold or more open gates"),
        ("Saturated", found.saturated, "smaller weights or a higher threshold"),
    ):
        if names:
            log.warning("%s layers: %s. Give them %s.", state, ", ".join(n or "(net)" for n in names), cure)
    return found


def _row(name: str, layer: Layer, calls: list[Call], n_samples: int) -> Row:
    """Tell of one layer, over all of its calls."""
    kind = f"{type(layer).__name__} {type(layer.neuron).__name__}{' recurrent' * (layer.recurrent is not None)}"
    n = sum(p.numel() for p in layer.parameters())
    row = Row(name, kind, layer.n_in, layer.n_out, n, gated=_gate(layer) is not None)
    heard = [_events(call.x, call.n_steps) for call in calls]
    fired = [_events(call.spikes) for call in calls if call.spikes is not None]
    counts = [_count(layer, *of_call) for of_call in zip_longest(calls, heard, fired)]
    n_open = sum(c.updates_done for c in counts)
    places = n_open + sum(c.updates_skipped for c in counts)
    if not places:
        return row
    row = replace(row, open_fraction=n_open / places)
    if all(events is not None for events in heard) and not _hides_who_is_open(layer):
        done, skipped = sum(c.synops_done for c in counts), sum(c.synops_skipped for c in counts)
        row = replace(row, synops_done=done / n_samples, synops_skipped=skipped / n_samples)
    if fired:
        units = np.unique(np.concatenate([events.idx for events in fired if events is not None]))
        n_spikes, silent = sum(c.spikes for c in counts), (layer.n_out - len(units)) / layer.n_out
        active = [_n_active(layer, call, events) for call, events in zip(calls, heard, strict=True)]
        share = None if None in active else sum(n for n in active if n is not None) / places
        row = replace(
            row, rate=n_spikes / places, rate_open=n_spikes / max(n_open, 1), silent=silent, active_share=share
        )
    return row


def _events(x: Spikes | Tensor, n_steps: Tensor | None = None) -> Events | None:
    """Return the events of a spike train, None for a tensor that holds anything but whole counts."""
    if isinstance(x, Spikes):
        return x.events
    try:
        return events_from_dense(unpadded(x.detach(), n_steps, least=0).cpu().double().numpy())
    except ValueError:
        return None


def _count(layer: Layer, call: Call, heard: Events | None, fired: Events | None) -> Counts:
    t, b, n_in = call.x.shape
    if heard is None:  # its updates count all the same
        heard = Events(np.zeros((b, t + 1), np.int64), np.zeros(0, np.int32), n_in)
    gate, table, use, before = _gate(layer), None, call.gate, getattr(call.before, "spk", None)
    if isinstance(use, GateTable) and gate is not None:
        table = (gate.spread(use.open) > 0).cpu().numpy().astype(np.uint8)
    return count_layer(
        "",
        heard,
        layer.n_out,
        spikes=fired,
        gate=table,
        recurrent=layer.recurrent is not None,
        initial_spikes=None if before is None else (before > 0).cpu().numpy(),
        open_at=use.open_at.numpy() if isinstance(use, GateUse) else None,
        input_gates=gate.n_gates if isinstance(gate, InputGate) else 0,
        recurrent_gates=gate.n_gates if isinstance(gate, InputGate) and gate.recurrent is not None else 0,
        drive_gate=isinstance(gate, DriveGate),
        n_steps=None if call.n_steps is None else call.n_steps.cpu().long().numpy(),
        state_words=len(layer.neuron.state._fields) - 1 - layer.neuron.fires,
        geometry=layer.geometry if isinstance(layer, Conv2d) else None,
    )


def _hides_who_is_open(layer: Layer) -> bool:
    """Say whether only the number of open neurons is known, and events do not reach all of them alike."""
    return isinstance(layer, Conv2d) and isinstance(_gate(layer), InputGate)


def _n_active(layer: Layer, call: Call, heard: Events | None) -> int | None:
    """Count the active places of a call. Without gradient it has none, so the layer alone runs again to find them."""
    if heard is None or layer.weight.device.type != "cpu" or layer.weight.dtype not in (torch.float32, torch.float64):
        return None
    spikes = replace(Spikes.from_events(heard), n_steps=call.n_steps)
    if isinstance(call.x, Spikes):
        spikes = replace(spikes, scale=call.x.scale)
    spikes.values.requires_grad_()  # so that places are listed even where no parameter learns
    with torch.enable_grad(), path("event"):
        out = layer.forward(spikes, call.before)[0]
    return len(out.active.idx) if isinstance(out, Spikes) else None


def _gate(layer: Layer) -> Gate | None:
    return layer.neuron.gate


def _cell_row(name: str, cell: Recurrent, layer: int, calls: list[Call], n_samples: int) -> Row:
    """Tell of one layer of a cell, over all of its calls."""
    gate, (_, n_in), n = _gates(cell)[layer], cell.weights(layer).given.shape, cell.hidden_size
    parts: list[Tensor] = [p for p in cell.weights(layer) if p is not None]
    n_parameters = sum(p.numel() for p in [*parts, *([] if gate is None else gate.parameters())])
    title = name if cell.num_layers == 1 else f"{name}.l{layer}".removeprefix(".")
    row = Row(title, type(cell).__name__, n_in, n, n_parameters, gated=gate is not None)
    n_steps = sum(_true_steps(call) for call in calls)
    if not n_steps:
        return row
    n_open, places = sum(_n_open(call, gate, layer, n) for call in calls), n_steps * n
    an_update = CELLS[cell.kind].n_chunks * (n_in + n)
    done = (places if isinstance(gate, DriveGate) else n_open) * an_update  # a drive is known once all is computed
    skipped = places * an_update - done
    if isinstance(gate, InputGate):
        done += n_steps * gate.n_gates * (n_in + (0 if gate.recurrent is None else n))
    return replace(row, open_fraction=n_open / places, synops_done=done / n_samples, synops_skipped=skipped / n_samples)


def _true_steps(call: Call) -> int:
    return call.x.shape[0] * call.x.shape[1] if call.n_steps is None else int(call.n_steps.sum())


def _n_open(call: Call, gate: Gate | None, layer: int, n: int) -> int:
    """Count the units of a cell's layer that were open, over samples and steps."""
    use = call.gates[layer]
    if gate is None or use is None:
        return _true_steps(call) * n
    if isinstance(use, GateUse):
        return int(use.open_at.sum())
    at_step = (gate.spread(use.open) > 0).sum(1).cpu()
    n_time, n_samples = call.x.shape[:2]
    runs = n_samples if call.n_steps is None else running(call.n_steps, n_time, n_samples, least=0).sum((1, 2)).cpu()
    return int((at_step * runs).sum())


def _gates(cell: Recurrent) -> list[Gate | None]:
    return list(cell.gates)  # type: ignore[arg-type]


def _layers(net: nn.Module) -> dict[str, Layer | Recurrent]:
    layers = {name: module for name, module in net.named_modules() if isinstance(module, (Layer, Recurrent))}
    if not layers:
        fail("net", "a module with at least one Dense or Conv2d layer", f"a {type(net).__name__} without")
    return layers
