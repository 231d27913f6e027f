"""Densities from a graph and a base density: log-likelihoods, samples, the loss of the paper, denoising."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.arguments import require_amount, require_count
from invgraph.bases import Base, as_bases, base_log_prob, base_shape, base_tensor, describe_base, draw_scaled
from invgraph.distributions.flow_distribution import FlowDistribution
from invgraph.errors import ArgumentError, GraphError, InputTypeError, ShapeError
from invgraph.graph.graph import Graph, require_graph
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Structured, Tensors, numel
from invgraph.torch_internals import floating_tensor


class Flow(nn.Module):
    r"""Conditional density, given by a graph that maps data to latents and a density of the latents.

    .. math:: \log p(x | c) = \log p_Z(f(x; c)) + \log |\det \partial f / \partial x|

    Arguments:
        graph: Graph that maps data to latents, or ``reversible(graph)`` to train it in constant memory.
        base: Density of the latents: a ``torch.distributions.Distribution``, or one for each output of the graph, whose
            batch and event shape together equal the shape of the output. Default: standard normal. Its tensors are not
            part of the flow: they are not trained, moved or saved with it.

    Raises:
        GraphError: If the shape of a base density differs from that of its output.
        ArgumentError: If ``graph`` is not a graph, or ``base`` not a distribution.

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
        self.base = as_bases(base, graph.out_shapes)
        self._base_tensors = tuple(map(base_tensor, self.base or ()))
        self.dims = numel(graph.in_shapes)

    @property
    def has_rsample(self) -> bool:
        """True if samples have gradients: unless a base has no ``rsample``."""
        return all(base.has_rsample for base in self.base or ())

    def forward(self, x: Structured, c: Structured = ()) -> Tensor:
        """Return :meth:`log_prob`, so that DDP, compile and export work on the density."""
        return self.log_prob(x, c)

    def log_prob(self, x: Structured, c: Structured = ()) -> Tensor:
        """Return the log-density of each sample, shape ``(B,)``, in nats.

        Arguments:
            x: Data, as in a call of the graph.
            c: Conditions, as in a call of the graph. Default: none.

        Raises:
            NumericsError: If an output lies outside the support of its base, and the base validates its arguments.
        """
        self._require_given("Flow.log_prob", c, "flow.log_prob({x}, {c})")
        z, log_det = self.graph(x, c)
        log_prob: Tensor = self._base_log_prob(self.graph._outputs().unpack("Flow", z)) + log_det
        return log_prob

    def loss(self, x: Structured, c: Structured = (), tau: float = 0.0) -> Tensor:
        r"""Return the loss of the paper (Eq. 6), in nats per sample, to be minimized.

        .. math:: E\left[\tfrac12 \|f(x; c)\|^2 - \log |J|\right] + \tau \|\theta\|^2

        for a standard normal base, without its constant ``dims / 2 * log(2 pi)``, as in the paper; for any other base,
        the first term is its negative log-density. Divide by ``dims`` for nats per dimension.

        Arguments:
            x: Data.
            c: Conditions. Default: none.
            tau: Weight of the Gaussian prior on the trained parameters, 1 / (2 sigma^2). Default: 0.
        """
        tau = require_amount("Flow.loss", "tau", tau)
        self._require_given("Flow.loss", c, "flow.loss({x}, {c})")
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
        """Draw ``n`` samples for each condition, without gradient.

        Arguments:
            n: Number of samples.
            c: Conditions with batch size B. Default: none.
            temperature: Factor that scales the deviation of the latents from the mean of the base. Default: 1.
            generator: Generator of the random numbers, for the standard normal base only. Default: the global one of
                torch, which a base given by the user always uses.

        Returns:
            Samples ``(n, B, ...)``, or ``(n, ...)`` without conditions, in the structure of the graph's inputs.

        Raises:
            ArgumentError: If an argument has the wrong type, or does not fit the base.
            GraphError: If ``n`` or the temperature is out of range.
            InputTypeError: If the dtype or device of the base differs from that of the graph.
        """
        return self._sample("sample", n, c, temperature, generator)

    def rsample(
        self, n: int, c: Structured = (), temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Any:
        """Draw samples like :meth:`sample`, with gradients with respect to parameters and conditions.

        Raises:
            ArgumentError: Also if a base density has no ``rsample``, because its samples have no gradients.
        """
        for base in self.base or ():
            if not base.has_rsample:
                advice = "its samples have no gradients: call sample, or use a base that has rsample"
                raise ArgumentError("Flow.rsample", f"a base {describe_base(base)} without rsample", advice)
        return self._sample("rsample", n, c, temperature, generator)

    def _sample(self, method: str, n: int, c: Structured, temperature: float, generator: torch.Generator | None) -> Any:
        n = require_count("Flow.sample", "n", n, least=0, most=2**31 - 1)
        temperature = require_amount("Flow.sample", "temperature", temperature)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ArgumentError(
                "Flow.sample", f"generator={generator!r}", "generator must be a torch.Generator or None"
            )
        self._require_given(f"Flow.{method}", c, f"flow.{method}({n}, {{c}})")
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

    def given(self, c: Structured = ()) -> FlowDistribution:
        """Return the density under given conditions as a ``torch.distributions.Distribution``.

        Arguments:
            c: Conditions with any number of leading axes, which become the batch shape; there may be none. Default: no
                conditions.

        Returns:
            A distribution with ``sample``, ``rsample``, ``log_prob``, ``expand``, ``rsample_and_log_prob``, and
            ``to_pyro`` for Pyro's methods.

        Raises:
            GraphError: If the graph has several inputs: a distribution has one value.

        Example:
            >>> import torch, invgraph as ig
            >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
            >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
            >>> flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))
            >>> posterior = flow.given(torch.zeros(5, 3))
            >>> posterior.batch_shape, posterior.event_shape, posterior.sample((7,)).shape
            (torch.Size([5]), torch.Size([2]), torch.Size([7, 5, 2]))
        """
        return FlowDistribution(self, c)

    def denoise(self, x: Structured, c: Structured = (), sigma: float | None = None) -> Any:
        r"""Return the expected clean data, given data with Gaussian noise, by Tweedie's formula.

        .. math:: E[x_\text{clean} | x, c] = x + \sigma^2 \nabla_x \log p(x | c)

        A model trained on data with noise of standard deviation ``sigma`` generates noisy data. This removes the noise.

        Arguments:
            x: Data or samples.
            c: Conditions. Default: none.
            sigma: Standard deviation of the training noise, in units of x. Required.

        Raises:
            ArgumentError: If ``sigma`` is missing or not a number.
            GraphError: If ``sigma`` is negative or not finite, or gradients are unavailable because of
                ``torch.inference_mode``.

        References:
            B. Efron, "Tweedie's Formula and Selection Bias", 2011, https://doi.org/10.1198/jasa.2011.tm11181; S. Zhai
            et al., "Normalizing Flows are Capable Generative Models" (TarFlow), 2024,
            https://arxiv.org/abs/2412.06329
        """
        deviation = require_amount("Flow.denoise", "sigma", sigma)
        if torch.is_inference_mode_enabled():
            advice = "the gradient with respect to the data is needed: call it outside (torch.no_grad is fine)"
            raise GraphError("Flow.denoise", "a call under torch.inference_mode", advice)
        self._require_given("Flow.denoise", c, f"flow.denoise({{x}}, {{c}}, sigma={deviation})")
        ports, given = self.graph._inputs(), self.graph._conditions()
        conditions = given.pack(tuple(map(_without_inference, given.unpack("Flow.denoise", c))))
        with torch.enable_grad():
            noisy = tuple(_without_inference(v).detach().requires_grad_() for v in ports.unpack("Flow.denoise", x))
            gradients = torch.autograd.grad(self.log_prob(ports.pack(noisy), conditions).sum(), noisy)
        clean = tuple(value.detach() + deviation * deviation * g for value, g in zip(noisy, gradients, strict=True))
        return ports.pack(clean)

    def _require_given(self, where: str, c: Structured, call: str) -> None:
        self.graph._conditions().require_given(where, c, call, self.graph._inputs())

    def _base_log_prob(self, zs: Tensors) -> Tensor:
        if self.base is None:
            square = torch.stack([z.square().flatten(1).sum(1) for z in zs]).sum(0)
            return -0.5 * square - 0.5 * self.dims * math.log(2 * math.pi)
        self._check_bases(zs)
        ports = self.graph._outputs()
        parts = [base_log_prob(base, z, ports.label(k)) for k, (base, z) in enumerate(zip(self.base, zs, strict=True))]
        return torch.stack(parts).sum(0)

    def _draw(self, count: int, temperature: float, generator: torch.Generator | None, conditions: Tensors) -> Tensors:
        shapes = self.graph.out_shapes
        reference = floating_tensor(self.graph)
        if reference is None and conditions:
            reference = conditions[0]
        if self.base is not None:
            if generator is not None:
                advice = "torch.distributions only draw from the global generator"
                raise ArgumentError("Flow.sample", "a generator", advice)
            if reference is not None:
                self._check_bases((reference,) * len(self.base))
            return tuple(draw_scaled(base, count, temperature) for base in self.base)
        reference = torch.empty(0) if reference is None else reference
        if generator is not None and generator.device.type != reference.device.type:
            advice = f"the samples are drawn on {reference.device}: use a generator on that device"
            raise ArgumentError("Flow.sample", f"a generator on {generator.device}", advice)
        return tuple(
            torch.randn(count, *shape, generator=generator, dtype=reference.dtype, device=reference.device)
            * temperature
            for shape in shapes
        )

    def _check_bases(self, zs: Tensors) -> None:
        """Raise InputTypeError if dtype or device of a base differ from those of the latents."""
        for index, (own, z) in enumerate(zip(self._base_tensors, zs, strict=True)):
            if own is not None and (own.dtype, own.device) != (z.dtype, z.device):
                advice = f"expected {z.dtype} on {z.device}: a base does not move with the flow, so build it there"
                raise InputTypeError("Flow", f"base {index}: {own.dtype} on {own.device}", advice)

    def extra_repr(self) -> str:
        if self.base is None:
            return ""
        return f"base={', '.join(f'{describe_base(base)} {base_shape(base)}' for base in self.base)}"


def _without_inference(value: Tensor) -> Tensor:
    """Return a tensor that autograd can save: inference tensors are cloned."""
    return value.clone() if value.is_inference() else value
