"""A graph and a base density: likelihoods, samples, the paper's loss, and a step of denoising."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, TransformedDistribution

from invgraph.arguments import require_amount, require_count
from invgraph.errors import ArgumentError, GraphError, InputTypeError, ShapeError
from invgraph.graph.graph import Graph, require_graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Shape, Structured, Tensors, numel
from invgraph.torch_internals import floating_tensor

Base: TypeAlias = Distribution | Sequence[object] | None


class Flow(nn.Module):
    r"""A conditional density: a graph that maps data to latents, and the density of the latents.

    .. math:: \log p(x | c) = \log p_Z(f(x; c)) + \log |\det \partial f / \partial x|

    Arguments:
        graph: maps data to latents; or ``reversible(graph)``, to train it in constant memory.
        base: density of the latents, from ``torch.distributions``: one, or one for each output of the graph, each over
            a whole output (its batch and event shape together are the output's shape). Default: standard normal. Its
            tensors are no parameters of the flow: they are neither trained, moved nor saved with it.

    Raises:
        GraphError: a base density has another shape than its output.
        ArgumentError: something other than a graph or distributions was given.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019, Eqs. 4 to 6,
        https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))
        >>> flow.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
        >>> flow.sample(7, torch.zeros(5, 3)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(self, graph: Graph | Reversible, base: Base = None) -> None:
        super().__init__()
        require_graph(graph.graph if isinstance(graph, Reversible) else graph, "Flow")
        self.graph = graph
        self.base = _bases(base, graph.out_shapes)
        self._base_tensors = tuple(map(_floating, self.base or ()))
        self.dims = numel(graph.in_shapes)

    def forward(self, x: Structured, c: Structured = ()) -> Tensor:
        """:meth:`log_prob`, so that DDP, compile and export see the density."""
        return self.log_prob(x, c)

    def log_prob(self, x: Structured, c: Structured = ()) -> Tensor:
        """Log-density of each sample, shape ``(B,)``, nats.

        Arguments:
            x: data, as the graph's forward takes it.
            c: conditions, as the graph takes them.
        """
        z, log_det = self.graph(x, c)
        log_prob: Tensor = self._base_log_prob(self.graph._outputs().unpack("Flow", z)) + log_det
        return log_prob

    def loss(self, x: Structured, c: Structured = (), tau: float = 0.0) -> Tensor:
        r"""The paper's loss (Eq. 6), in nats per sample, to be minimised.

        .. math:: E\left[\tfrac12 \|f(x; c)\|^2 - \log |J|\right] + \tau \|\theta\|^2

        for a standard normal base; for another one the first term is its negative log-density. The normal's constant
        ``dims / 2 * log(2 pi)`` is left out, as in the paper. Divide by ``dims`` for nats per dimension.

        Arguments:
            x: data.
            c: conditions.
            tau: weight of the Gaussian prior over the trained parameters, 1 / (2 sigma^2).
        """
        tau = require_amount("Flow.loss", "tau", tau)
        constant = 0.0 if self.base is not None else 0.5 * self.dims * math.log(2 * math.pi)
        loss = -self.log_prob(x, c).mean() - constant
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad] if tau else []
        if trained:
            squares = [parameter.square().sum() for parameter in trained]
            loss = loss + tau * torch.stack(squares).sum()
        return loss

    @torch.no_grad()
    def sample(
        self, n: int, c: Structured = (), temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Any:
        """``n`` samples for each condition, without gradient.

        Arguments:
            n: how many.
            c: conditions of batch B; ``()`` where the graph takes none.
            temperature: factor on the deviation of the latents from the base's mean.
            generator: source of randomness; None: torch's global one. A base of your own draws from the global one.

        Returns:
            Shape ``(n, B, ...)``, or ``(n, ...)`` without conditions, in the structure of the graph's inputs.

        Raises:
            ArgumentError: an argument has the wrong type or is out of its range.
            InputTypeError: the base is of another dtype or on another device than the graph.
        """
        return self._sample(n, c, temperature, generator)

    def rsample(
        self, n: int, c: Structured = (), temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Any:
        """As :meth:`sample`, with gradients with respect to parameters and conditions.

        Raises:
            ArgumentError: besides, a base density has no ``rsample``: its samples have no gradients.
        """
        for base in self.base or ():
            if not base.has_rsample:
                advice = "its samples have no gradients: call sample, or take a base that has rsample"
                raise ArgumentError("Flow.rsample", f"a base {_told(base)} without rsample", advice)
        return self._sample(n, c, temperature, generator)

    def _sample(self, n: int, c: Structured, temperature: float, generator: torch.Generator | None) -> Any:
        n = require_count("Flow.sample", "n", n, least=0, most=2**31 - 1)
        temperature = require_amount("Flow.sample", "temperature", temperature)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ArgumentError(
                "Flow.sample", f"generator={generator!r}", "generator must be a torch.Generator or None"
            )
        ports = self.graph._conditions()
        conditions = ports.unpack("Flow.sample", c)
        rows = conditions[0].shape[0] if conditions else 1
        if any(condition.shape[0] != rows for condition in conditions):
            given = f"conditions of batches {', '.join(str(condition.shape[0]) for condition in conditions)}"
            raise ShapeError("Flow.sample", given, "all conditions of a call have the same batch size")
        z = self._draw(n * rows, temperature, generator, conditions)
        target = self.graph._outputs()
        if not conditions:
            return self.graph.inverse(target.pack(z))[0]
        bound = self.graph.bind(c, gradients=True)
        return bound.inverse(target.pack(tuple(value.unflatten(0, (n, rows)) for value in z)))[0]

    def denoise(self, x: Structured, c: Structured = (), sigma: float | None = None) -> Any:
        r"""The expected clean data behind data with Gaussian noise: one step of Tweedie's formula.

        .. math:: E[x_\text{clean} | x, c] = x + \sigma^2 \nabla_x \log p(x | c)

        A model trained on data with noise of standard deviation ``sigma`` generates noisy data: this takes the noise
        off again.

        Arguments:
            x: data, or samples.
            c: conditions.
            sigma: standard deviation of the training noise, in the units of x; it has no default.

        Raises:
            ArgumentError: sigma is missing, or no finite number that is not negative.
            GraphError: it is called under ``torch.inference_mode``, where there are no gradients.

        References:
            B. Efron, "Tweedie's Formula and Selection Bias", 2011, https://doi.org/10.1198/jasa.2011.tm11181; S. Zhai
            et al., "Normalizing Flows are Capable Generative Models" (TarFlow), 2024,
            https://arxiv.org/abs/2412.06329
        """
        deviation = require_amount("Flow.denoise", "sigma", sigma)
        if torch.is_inference_mode_enabled():
            advice = "it needs a gradient with respect to the data: call it outside (torch.no_grad does no harm)"
            raise GraphError("Flow.denoise", "a call under torch.inference_mode", advice)
        ports, given = self.graph._inputs(), self.graph._conditions()
        conditions = given.pack(tuple(map(_recordable, given.unpack("Flow.denoise", c))))
        with torch.enable_grad():
            noisy = tuple(_recordable(v).detach().requires_grad_() for v in ports.unpack("Flow.denoise", x))
            gradients = torch.autograd.grad(self.log_prob(ports.pack(noisy), conditions).sum(), noisy)
        clean = tuple(value.detach() + deviation * deviation * g for value, g in zip(noisy, gradients, strict=True))
        return ports.pack(clean)

    def _base_log_prob(self, zs: Tensors) -> Tensor:
        if self.base is None:
            square = torch.stack([z.square().flatten(1).sum(1) for z in zs]).sum(0)
            return -0.5 * square - 0.5 * self.dims * math.log(2 * math.pi)
        self._check_bases(zs)
        parts = [_rowwise(base.log_prob(z)) for base, z in zip(self.base, zs, strict=True)]
        return torch.stack(parts).sum(0)

    def _draw(self, count: int, temperature: float, generator: torch.Generator | None, conditions: Tensors) -> Tensors:
        shapes = self.graph.out_shapes
        reference = floating_tensor(self.graph)
        if reference is None and conditions:
            reference = conditions[0]
        if self.base is not None:
            if generator is not None:
                raise ArgumentError("Flow.sample", "a generator", "torch.distributions draw from the global one only")
            if reference is not None:
                self._check_bases((reference,) * len(self.base))
            return tuple(_tempered(base, count, temperature) for base in self.base)
        reference = torch.empty(0) if reference is None else reference
        if generator is not None and generator.device.type != reference.device.type:
            advice = f"the samples are drawn on {reference.device}: take a generator of that device"
            raise ArgumentError("Flow.sample", f"a generator on {generator.device}", advice)
        return tuple(
            torch.randn(count, *shape, generator=generator, dtype=reference.dtype, device=reference.device)
            * temperature
            for shape in shapes
        )

    def _check_bases(self, zs: Tensors) -> None:
        """Refuse a base of another dtype or device than the latents."""
        for index, (own, z) in enumerate(zip(self._base_tensors, zs, strict=True)):
            if own is not None and (own.dtype, own.device) != (z.dtype, z.device):
                given = f"base {index}: {own.dtype} on {own.device}"
                advice = f"expected {z.dtype} on {z.device}: a base does not move with the flow, build it from such"
                raise InputTypeError("Flow", given, advice)

    def extra_repr(self) -> str:
        if self.base is None:
            return ""
        return f"base={', '.join(f'{_told(base)} {_shape(base)}' for base in self.base)}"


def _rowwise(terms: Tensor) -> Tensor:
    return terms.flatten(1).sum(1) if terms.ndim > 1 else terms


def _recordable(value: Tensor) -> Tensor:
    """The tensor, as autograd can save it: what inference mode made can't be."""
    return value.clone() if value.is_inference() else value


def _tempered(base: Distribution, count: int, temperature: float) -> Tensor:
    draw = base.rsample if base.has_rsample else base.sample
    z: Tensor = draw(torch.Size((count,)))
    if temperature == 1:
        return z
    try:
        mean = base.mean
    except NotImplementedError as error:
        advice = "this base knows no mean, from which a temperature scales the deviation: leave it at 1"
        raise ArgumentError("Flow.sample", f"temperature={temperature} with a base {_told(base)}", advice) from error
    return mean + temperature * (z - mean)


def _told(base: Distribution) -> str:
    """Which distribution, without its numbers: they may be trained, and differ from device to device."""
    inner = base.base_dist if isinstance(base, (Independent, TransformedDistribution)) else None
    return type(base).__name__ + ("" if inner is None else f"({_told(inner)})")


def _shape(base: Distribution) -> Shape:
    return tuple(base.batch_shape + base.event_shape)


def _floating(base: Distribution) -> Tensor | None:
    """A tensor that tells the dtype and device of the distribution's numbers; None where it holds none."""
    for value in vars(base).values():
        found = _floating(value) if isinstance(value, Distribution) else value
        if isinstance(found, Tensor) and found.is_floating_point():
            return found
    return None


def _bases(base: Base, shapes: tuple[Shape, ...]) -> tuple[Distribution, ...] | None:
    """One distribution for each output, or None for the standard normal."""
    if base is None:
        return None
    if not isinstance(base, (Distribution, list, tuple)):
        raise ArgumentError("Flow", f"base: {type(base).__name__}", "expected a Distribution, or one for each output")
    bases = (base,) if isinstance(base, Distribution) else tuple(base)
    if len(bases) != len(shapes):
        raise GraphError("Flow", f"{len(bases)} base densities", f"expected {len(shapes)}, one for each output")
    checked: list[Distribution] = []
    for index, (density, shape) in enumerate(zip(bases, shapes, strict=True)):
        if not isinstance(density, Distribution):
            given = f"base {index}: {type(density).__name__}"
            raise ArgumentError("Flow", given, "expected a torch.distributions.Distribution")
        own = _shape(density)
        if own != shape:
            given = f"base {index} of shape {own}"
            raise GraphError("Flow", given, f"expected {shape}, the shape of the output: see Distribution.expand")
        checked.append(density)
    return tuple(checked)
