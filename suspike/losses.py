"""Scores, losses and measures of what a network puts out: plain functions, in which padding counts for nothing.

Readouts give scores [B, N]; ``torch.nn.functional.cross_entropy(scores, labels)`` makes a loss of them. Wherever
`n_steps` [B] gives each sample's true length, the steps from ``n_steps[b]`` on reach neither a value nor a gradient.
Spikes hold theirs: of them it need not be given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from suspike._lengths import require_whole, running, unpadded
from suspike._validate import fail
from suspike.nn.gates import GateUse
from suspike.spikes import Spikes
from suspike_kernels.layout import Events, offsets

Opened = Tensor | GateUse
"""Who was open in a layer: as a share at each step, or what a gate did in a call."""


def mean_over_time(out: Tensor, n_steps: Tensor | None = None) -> Tensor:
    r"""Return the scores [B, N] :math:`\frac{1}{n_b} \sum_{t < n_b} v_{t,b,i}`: each readout's mean membrane.

    Parameters
    ----------
    out : float Tensor [T, B, N]
        Membrane, in units of the readout.
    n_steps : int Tensor [B], optional
        True length n of each sample in steps, 1 to T; T without it.

    Raises
    ------
    ValueError
        Another shape or type, an empty tensor, or a length out of range.
    """
    _require_floats("out", out, "T", "B", "N")
    if n_steps is None:
        return out.mean(0)
    return unpadded(out, n_steps, 0.0).sum(0) / n_steps.to(out.device)[:, None]


def max_over_time(out: Tensor, n_steps: Tensor | None = None) -> Tensor:
    r"""Return the scores [B, N] :math:`\max_{t < n_b} v_{t,b,i}`; steps that tie share the gradient evenly.

    Parameters and errors are those of `mean_over_time`.
    """
    _require_floats("out", out, "T", "B", "N")
    return unpadded(out, n_steps, -math.inf).amax(0)


def last_step(out: Tensor, n_steps: Tensor | None = None) -> Tensor:
    r"""Return the scores [B, N] :math:`v_{n_b - 1,b,i}`: the membrane at each sample's last true step.

    Parameters and errors are those of `mean_over_time`.
    """
    _require_floats("out", out, "T", "B", "N")
    if n_steps is None:
        return out[-1]
    running(n_steps, *out.shape[:2])
    return out[n_steps.to(out.device).long() - 1, torch.arange(out.shape[1], device=out.device)]


def spike_counts(spikes: Spikes | Tensor, n_steps: Tensor | None = None) -> Tensor:
    r"""Return each unit's number of spikes [B, N], :math:`\sum_{t < n_b} s_{t,b,i}`, differentiable.

    `spikes` is a Spikes, never made dense, or a Tensor [T, B, N]; `n_steps` and errors are those of `mean_over_time`.
    """
    spikes = _cut(spikes, _lengths(spikes, n_steps))
    return spikes.counts() if isinstance(spikes, Spikes) else spikes.sum(0)


def first_spike_times(spikes: Spikes | Tensor, n_steps: Tensor | None = None) -> Tensor:
    r"""Return the step of each unit's first spike [B, N], as floats; n (or T) where it stays silent.

    .. math:: t_{b,i} = \sum_{t < n_b} \prod_{r \le t} (1 - \min(1, s_{r,b,i}))

    The steps with no spike so far are counted. The gradient is that of this very sum: with the first spike at f and
    the next at f' (n where there is none), one more spike at :math:`r < f` would save :math:`f - r` steps, losing the
    one at f would cost :math:`f' - f`, and what comes later changes nothing. It needs an active place at f or before:
    a unit with none learns nothing from its silence (nor from `rate_penalty`). Lists carry it to first order only.
    Parameters and errors are those of `spike_counts`.
    """
    n_steps = _lengths(spikes, n_steps)
    cut = _cut(spikes, n_steps)
    n_time, n_samples, n_units = cut.shape
    if isinstance(cut, Tensor):
        return unpadded((1 - cut.clamp(max=1)).cumprod(0), n_steps, 0.0).sum(0)
    end = np.full(n_samples, n_time) if n_steps is None else n_steps.cpu().long().numpy()
    sample, step, _ = cut.events.places()
    unit, ends = sample * n_units + cut.events.idx, []
    for _ in range(2):  # each unit's first spike, then its next; events come in order of time
        units, at = np.unique(unit, return_index=True)
        ends.append(np.repeat(end, n_units))
        ends[-1][units] = step[at]
        unit, step = np.delete(unit, at), np.delete(step, at)
    first, second = ends
    sample, step, _ = cut.active.places()
    unit = sample * n_units + cut.active.idx
    slope = np.where(step < first[unit], step - first[unit], (first - second)[unit] * (step == first[unit]))
    moved = torch.from_numpy(slope).to(cut.values.dtype) * (cut.values - cut.values.detach())
    times = torch.from_numpy(first).to(cut.values.dtype).index_add(0, torch.from_numpy(unit), moved)
    return times.reshape(n_samples, n_units)


def count_mse(counts: Tensor, labels: Tensor, *, correct: float, incorrect: float) -> Tensor:
    r"""Return :math:`\frac{1}{BN} \sum_{b,i} (c_{b,i} - c^*_{b,i})^2`, the squared error of the spike counts.

    Where samples differ in length, pass rates, ``counts / n_steps[:, None]``, and target rates with them. After SLAYER
    (arXiv:1810.08646); snnTorch's mse_count_loss takes rates as targets and divides by T too.

    Parameters
    ----------
    counts : float Tensor [B, N]
        Spikes of each class's unit: `spike_counts`.
    labels : int Tensor [B]
        The right class, 0 to N - 1.
    correct, incorrect : float
        Target :math:`c^*` in spikes for the right class and for all others, from 0.

    Raises
    ------
    ValueError
        Another shape or type, a label out of range, a negative target, or an empty tensor.
    """
    _require_scores("counts", counts, labels)
    for name, target in (("correct", correct), ("incorrect", incorrect)):
        if not 0 <= target < math.inf:
            fail(name, "a finite number of spikes from 0", repr(target))
    right = functional.one_hot(labels.long(), counts.shape[1]).bool()
    return functional.mse_loss(counts, torch.full_like(counts, incorrect).masked_fill(right, correct))


def ttfs_cross_entropy(times: Tensor, labels: Tensor) -> Tensor:
    r"""Return :math:`-\frac{1}{B} \sum_b \log \text{softmax}_i(-t_{b,i})` at the labels: the right class spikes first.

    `times` [B, N] is in steps, from `first_spike_times`; `labels` and errors are those of `count_mse`. A lead of a few
    steps saturates it: pass ``times / tau`` with tau in steps for a softer choice.
    """
    _require_scores("times", times, labels)
    return functional.cross_entropy(-times, labels.long())


def rate_penalty(
    spikes: Spikes | Tensor, *, lower: float = 0.0, upper: float = 1.0, n_steps: Tensor | None = None
) -> Tensor:
    r"""Return :math:`\frac{1}{N} \sum_i \max(0, \text{lower} - r_i)^2 + \max(0, r_i - \text{upper})^2`.

    :math:`r_i = \sum_b c_{b,i} / \sum_b n_b` is the unit's rate over all true steps of the batch, and the bounds are in
    spikes a step, ``0 <= lower <= upper``. `spikes`, `n_steps` and all other errors are those of `spike_counts`.
    """
    if not 0 <= lower <= upper:
        fail("lower", f"from 0 to upper = {upper!r}", repr(lower))
    n_steps = _lengths(spikes, n_steps)
    total = spike_counts(spikes, n_steps).sum(0)
    rate = total / max(math.prod(spikes.shape[:2]) if n_steps is None else int(n_steps.sum()), 1)
    return (functional.relu(lower - rate) ** 2 + functional.relu(rate - upper) ** 2).mean()


def open_share(opened: Opened, n_steps: Tensor | None = None) -> Tensor:
    r"""Return :math:`p = \frac{\sum_b \sum_{t < n_b} \sum_i g_{t,i}}{N \sum_b n_b}`, a layer's open neuron-steps.

    Parameters
    ----------
    opened : float Tensor [T, N] or GateUse
        ``gate.share(T)`` of a rhythm, or of a gate that data open its ``rec[name].gate`` of `suspike.record`.
    n_steps : int Tensor [B], optional
        True length n of each sample in steps, 0 to T; T without it. A GateUse holds its own.

    Raises
    ------
    ValueError
        Another shape or type, an empty tensor, or a length out of range.
    """
    use = isinstance(opened, GateUse)
    table = opened.share if isinstance(opened, GateUse) else opened
    _require_floats("opened", table, "B" if use else "T", "N", cure="" if use else "Pass `gate.share(T)`.")
    if isinstance(opened, GateUse):  # a sample weighs as much as it has steps
        weight = None if opened.n_steps is None else opened.n_steps[:, None]
    else:  # a step weighs as much as samples still run in it
        weight = None if n_steps is None else running(n_steps, len(table), max(n_steps.numel(), 1), least=0).sum(1)
    if weight is None:
        return table.mean()
    weight = weight.to(table.device)
    table = torch.where(weight > 0, table, 0.0) * (weight.to(table.dtype) * len(table) / weight.sum().clamp_min(1))
    return table.mean()


def update_budget(opened: Opened | Sequence[Opened], target: float, *, n_steps: Tensor | None = None) -> Tensor:
    r"""Return :math:`(p - \text{target})^2`, p the share of neuron-steps with an open gate: `open_share`.

    Of several layers, p is the mean weighted by their units: the network's budget, which its layers may divide freely.

    Parameters
    ----------
    opened : float Tensor [T, N] or GateUse, or a sequence of them
        Of each layer, as `open_share` takes it.
    target : float
        Wanted share, 0 to 1; `n_steps` and all other errors are those of `open_share`.
    """
    if not 0 <= target <= 1:
        fail("target", "a share from 0 to 1", repr(target))
    each = [opened] if isinstance(opened, (Tensor, GateUse)) else opened
    if not each:
        fail("opened", "of at least one layer", "none")
    sizes = [(x.share if isinstance(x, GateUse) else x).shape[-1] for x in each]
    shares = [open_share(x, n_steps) * size for x, size in zip(each, sizes, strict=True)]
    return (torch.stack(shares).sum() / sum(sizes) - target) ** 2


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Return the share of samples with :math:`\text{argmax}_i\, y_{b,i}` = label, 0 to 1; a tie goes to the first.

    `scores` [B, N] are any scores or counts; `labels` and errors are those of `count_mse`, and NaN raises too.
    """
    _require_scores("scores", scores, labels)
    if scores.isnan().any():
        fail("scores", "free of NaN", f"{int(scores.isnan().sum())} of them")
    return (scores.argmax(1) == labels).to(torch.get_default_dtype()).mean()


def accuracy_by_first_spike(times: Tensor, labels: Tensor) -> Tensor:
    r"""Return the share of samples with :math:`\text{argmin}_i\, t_{b,i}` = label, 0 to 1; a tie goes to the first.

    So a sample in which no unit fires counts as class 0. Parameters and errors are those of `accuracy`.
    """
    _require_scores("times", times, labels)
    return accuracy(-times, labels)


def _lengths(spikes: Spikes | Tensor, n_steps: Tensor | None) -> Tensor | None:
    """Return the lengths that were given or that the spikes hold; those of both must agree."""
    held = spikes.n_steps if isinstance(spikes, Spikes) else None
    if held is None or n_steps is None:
        return held if n_steps is None else n_steps
    if n_steps.tolist() != held.tolist():
        fail("n_steps", "left out beside Spikes, which hold their own", "others")
    return held


def _cut(spikes: Spikes | Tensor, n_steps: Tensor | None) -> Spikes | Tensor:
    """Return the spikes without those in padding, as lists or as floats."""
    if isinstance(spikes, Tensor):
        spikes = spikes if spikes.is_floating_point() else spikes.to(torch.get_default_dtype())
        _require_floats("spikes", spikes, "T", "B", "N")
        return unpadded(spikes, n_steps, 0.0)
    if 0 in spikes.shape:
        fail("spikes", "of shape [T, B, N], none of them 0", f"shape {list(spikes.shape)}")
    if n_steps is None or spikes.n_steps is not None:  # no layer and no reader puts anything behind an end
        return spikes
    lasts = running(n_steps, *spikes.shape[:2])[..., 0].cpu().numpy().T  # [B, T]
    both = spikes.events, spikes.active
    kept = [lasts[e.places()[:2]] for e in both]
    cut = [Events(offsets(e.per_step() * lasts), e.idx[k], e.n_units) for e, k in zip(both, kept, strict=True)]
    return Spikes(cut[0], cut[1], spikes.values[torch.from_numpy(kept[1])], spikes.scale)


def _require_scores(name: str, scores: Tensor, labels: Tensor) -> None:
    _require_floats(name, scores, "B", "N")
    require_whole("labels", labels, len(scores), 0, scores.shape[1] - 1, f"N - 1 = {scores.shape[1] - 1}")


def _require_floats(name: str, x: Tensor, *sizes: str, cure: str = "") -> None:
    if x.dim() != len(sizes) or not x.numel() or not x.is_floating_point():
        fail(name, f"floats of shape [{', '.join(sizes)}], none of them 0", f"{x.dtype} of shape {list(x.shape)}", cure)
