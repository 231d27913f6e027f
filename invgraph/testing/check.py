"""One call that holds a layer or a graph against the contract, and measures every node."""

from __future__ import annotations

from dataclasses import replace

import torch

from invgraph.arguments import require_amount, require_count, require_seed
from invgraph.core.invertible import Invertible, require_invertible
from invgraph.shapes import Structured, floating_tensor
from invgraph.testing.checks import CHECKS
from invgraph.testing.measure import measure, parts
from invgraph.testing.randomize import draw
from invgraph.testing.report import NodeReport, Report
from invgraph.testing.subject import Subject, tolerances


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
    """Hold a layer or a graph against the contract; of a graph, node by node.

    Checked are: the declared shapes; finite results; that no input changes (values and version counter); the global
    random states of torch, numpy and random; that a call gives the same twice; both round trips; log-dets that
    cancel; the log-det against the determinant of the autograd Jacobian; independent rows, and the empty batch; a
    finite gradient to every trainable parameter in both directions.

    The errors that pass are absolute, for data of order one. By default, round trips and cancelling log-dets: 1e-10 in
    float64, 1e-4 in float32; the log-det against autograd: 1e-9 and 1e-3. Other dtypes have no default.

    Freshly built subnets end in zeros, so that a new flow is nearly the identity: :func:`randomize` it first. Layers
    that start from data (ActNorm) are initialized by the caller.

    Arguments:
        module: a layer, a graph, or an ``Inverse``, in the dtype and on the device to be checked.
        inputs: data for the forward direction, as for a call. Default: standard normal.
        outputs: data for the inverse direction. Default: standard normal; if one of the two is given, the other is what
            it maps to.
        conditions: conditions for both. Default: standard normal.
        batch: rows of the drawn data.
        seed: of the drawn data; a generator of its own draws it.
        tolerance: for round trips and cancelling log-dets, instead of the dtype's.
        log_det_tolerance: for the log-det against autograd.
        max_dims: no Jacobian is computed of nodes with more numbers per sample than this.

    Raises:
        ContractError: a check failed; the message names the node and the check.
        ArgumentError: an argument has the wrong type.
        GraphError: a count or seed out of its range.

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
    subject = _subject(module, (inputs, outputs, conditions), batch, seed, errors)
    rows: list[NodeReport] = []
    for name, part in (*parts(subject), ("", subject)):
        for check in CHECKS.values():
            check(part)
        rows.append(measure(name or "(all)", part, max_dims))
    return Report(tuple(rows), (*CHECKS, "log-dets of the Jacobian"))


def _subject(
    module: Invertible,
    given: tuple[Structured | None, Structured | None, Structured | None],
    batch: int,
    seed: int,
    errors: tuple[float | None, ...],
) -> Subject:
    """The module with the caller's data, and normal numbers in place of what was not given."""
    all_ports = (module._inputs(), module._outputs(), module._conditions())
    known = [None if v is None else p.unpack(module.label, v) for p, v in zip(all_ports, given, strict=True)]
    tensors = [tensor for side in known if side for tensor in side]
    reference = floating_tensor(module)
    if reference is None:
        reference = tensors[0] if tensors else torch.empty(0, dtype=torch.float64)
    rows = len(tensors[0]) if tensors else batch
    # Copies, so that what a faulty layer does to its inputs does not reach the caller's tensors.
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
