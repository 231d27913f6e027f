"""Contract check of a layer or a graph, node by node."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from invgraph.arguments import require_amount, require_count, require_seed
from invgraph.core.invertible import Invertible, require_invertible
from invgraph.core.modes import evaluating
from invgraph.shapes import Structured
from invgraph.testing.checks import CHECKS
from invgraph.testing.measure import measure, parts
from invgraph.testing.randomize import draw
from invgraph.testing.report import NodeReport, Report
from invgraph.testing.subject import Subject, tolerances
from invgraph.torch_internals import floating_tensor


def check_invertible(
    module: Invertible,
    *,
    inputs: Structured | None = None,
    outputs: Structured | None = None,
    conditions: Structured | None = None,
    batch: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    log_det_tolerance: float | None = None,
    max_dims: int = 1024,
) -> Report:
    """Check a layer or a graph against the contract of invertible layers; a graph is checked node by node.

    The checks cover declared shapes, finite results, unchanged inputs (values and version counters), unchanged global
    random states of torch, numpy and random, repeatable calls, both round trips, log-dets that cancel, log-dets against
    the determinant of the autograd Jacobian, independent samples, the empty batch, and a finite gradient for every
    trainable parameter in both directions.

    Tolerances are absolute, for data of order one. By default, round trips and canceling log-dets may be off by 1e-10
    in float64 and 1e-4 in float32, log-dets against autograd by 1e-9 and 1e-3. Other dtypes have no default.

    The last layer of a new subnet is zero, which makes a new flow nearly the identity: call :func:`randomize` first.
    Layers that are initialized from data (ActNorm) must be initialized by the caller. Modules that draw random numbers
    in training mode (``module.stochastic``) are checked in evaluation mode.

    Arguments:
        module: Layer, graph or ``Inverse``, in the dtype and on the device to be checked.
        inputs: Data for the forward direction, as in a call. Default: standard normal, or the image of ``outputs``.
        outputs: Data for the inverse direction. Default: standard normal, or the image of ``inputs``.
        conditions: Conditions for both directions. Default: standard normal.
        batch: Batch size of the drawn data. Default: 3.
        seed: Seed of the private generator that draws the data. Default: 0.
        tolerance: Tolerance of round trips and canceling log-dets. Default: that of the dtype.
        log_det_tolerance: Tolerance of log-dets against autograd. Default: that of the dtype.
        max_dims: Maximum number of elements per sample up to which a node's Jacobian is computed. Default: 1024.

    Returns:
        One row of measurements for each node, and one for the whole.

    Raises:
        ContractError: If a check fails; the message names the node and the check.
        ArgumentError: If an argument has the wrong type.
        GraphError: If a count, seed or tolerance is out of range.

    Example:
        >>> import invgraph as ig
        >>> layer = ig.testing.randomize(ig.Elementwise((3,), transform=ig.Affine())).double()
        >>> report = ig.testing.check_invertible(layer)
        >>> report.whole.round_trip < 1e-10, report.whole.log_det_error < 1e-9
        (True, True)
    """
    where = "check_invertible"
    module = require_invertible(module, where)
    batch = require_count(where, "batch", batch)
    max_dims = require_count(where, "max_dims", max_dims, least=0)
    seed = require_seed(where, seed, bits=63)
    errors = tuple(
        None if error is None else require_amount(where, name, error)
        for name, error in (("tolerance", tolerance), ("log_det_tolerance", log_det_tolerance))
    )
    rows: list[NodeReport] = []
    with evaluating(module) if module.stochastic else nullcontext():
        subject = _subject(module, (inputs, outputs, conditions), batch, seed, errors)
        for name, part in (*parts(subject), ("", subject)):
            for check in CHECKS.values():
                check(part)
            rows.append(measure(name or "(all)", part, max_dims))
    return Report(tuple(rows), (*CHECKS, "log-dets against autograd"))


def _subject(
    module: Invertible,
    given: tuple[Structured | None, Structured | None, Structured | None],
    batch: int,
    seed: int,
    errors: tuple[float | None, ...],
) -> Subject:
    """Return the module with the caller's data, or standard normal data where none was given."""
    all_ports = (module._inputs(), module._outputs(), module._conditions())
    known = [None if v is None else p.unpack(module.label, v) for p, v in zip(all_ports, given, strict=True)]
    tensors = [tensor for side in known if side for tensor in side]
    reference = floating_tensor(module)
    if reference is None:
        reference = tensors[0] if tensors else torch.empty(0, dtype=torch.float64)
    rows = len(tensors[0]) if tensors else batch
    # Copies, so that a faulty layer that changes its inputs does not change the caller's tensors.
    xs, ys, cs = (
        draw(ports.shapes, rows, reference, seed + place)
        if side is None
        else tuple(tensor.detach().clone() for tensor in side)
        for place, (ports, side) in enumerate(zip(all_ports, known, strict=True))
    )
    subject = Subject(module, xs, ys, cs, tolerances(reference.dtype, *errors))
    if known[0] is not None and known[1] is None:
        with torch.no_grad():
            ys, _ = subject.directions[0].run()
        subject = replace(subject, ys=tuple(y.clone() for y in ys))
    elif known[1] is not None and known[0] is None:
        with torch.no_grad():
            xs, _ = subject.directions[1].run()
        subject = replace(subject, xs=tuple(x.clone() for x in xs))
    return subject
