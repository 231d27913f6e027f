"""Densities from a graph and a base density: log-likelihoods, samples, the loss of the paper, denoising."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from invgraph.arguments import require_amount, require_count, require_precise
from invgraph.densities.bases import Base
from invgraph.densities.bound_flow import BoundFlow, is_broadcast
from invgraph.densities.chunks import draw_samples, in_chunks
from invgraph.densities.denoising import denoised
from invgraph.densities.latents import Latents
from invgraph.distributions.flow_distribution import FlowDistribution
from invgraph.errors import GraphError
from invgraph.graph.graph import Graph, require_graph
from invgraph.graph.holder import GraphHolder
from invgraph.reversible.runner import Reversible
from invgraph.shapes import Structured, numel
from invgraph.torch_internals import floating_tensor


class Flow(GraphHolder[Graph | Reversible]):
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
        self.latents = Latents(graph._outputs(), base)
        self.model = graph  # calls _hold, which sets dims; `graph` is the same object: see GraphHolder

    def _hold(self, graph: Any) -> None:
        if isinstance(graph, (Graph, Reversible)):
            self.latents = Latents(graph._outputs(), self.latents.bases, graph.range, graph._ends)
            self.dims = numel(graph.in_shapes)
        elif not isinstance(graph, nn.Module) or not any(isinstance(part, Graph) for part in graph.modules()):
            require_graph(graph, "Flow")  # raises; what wraps a graph may take its place

    @property
    def base(self) -> tuple[Distribution, ...]:
        """The density of each output; the standard normal has the dtype and the device of the flow."""
        return self.latents.distributions(floating_tensor(self.graph))

    @base.setter
    def base(self, base: Base) -> None:
        self.latents = Latents(self.graph._outputs(), base, self.graph.range, self.graph._ends)

    @property
    def has_rsample(self) -> bool:
        """True if samples have gradients: unless a base has no ``rsample``."""
        return self.latents.has_rsample

    def forward(self, x: Structured, c: Structured = ()) -> Tensor:
        """Return :meth:`log_prob`, so that DDP, compile and export work on the density."""
        return self.log_prob(x, c)

    def log_prob(self, x: Structured, c: Structured = (), *, chunk: int | None = None) -> Tensor:
        """Return the log-density of each sample, in nats.

        Data with more leading axes than the batch, and any number of data under a single row of conditions, are
        broadcast: what depends on the conditions alone is computed once per row, as in :meth:`bind`.

        Arguments:
            x: Data ``(B, *shape)``, as in a call of the graph; or ``(n, B, *shape)``, as :meth:`sample` returns them;
                or, under conditions of one row, data of any leading axes, such as a grid ``(N, *shape)``.
            c: Conditions of B rows, as in a call of the graph. Default: none.
            chunk: Largest number of rows that go through the graph at once; see :meth:`sample`. Default: all for data
                of one batch axis, otherwise as in :meth:`bind`.

        Returns:
            A tensor of the data's leading axes: ``(B,)``, ``(n, B)`` or ``(N,)``.

        Raises:
            InputTypeError: If the data are in half precision, which is too coarse for log-densities.
            NumericsError: If an output lies outside the support of its base, and the base validates its arguments.
        """
        self._require_given("Flow.log_prob", c, "flow.log_prob({x}, {c})")
        if is_broadcast(self.graph, x, c):
            return self.bind(c, gradients=True).log_prob(x, chunk=chunk)
        if chunk is None:
            return self._log_prob(x, c)
        return in_chunks(self._log_prob, self.graph, x, c, chunk)

    def _log_prob(self, x: Structured, c: Structured) -> Tensor:
        z, log_det = self.graph(x, c)
        return require_precise(self.latents.log_prob(self.graph._outputs().unpack("Flow", z)) + log_det)

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
        constant = 0.0 if self.latents.bases is not None else 0.5 * self.dims * math.log(2 * math.pi)
        loss = -self.log_prob(x, c).mean() - constant
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad] if tau else []
        if trained:
            loss = loss + tau * torch.stack([parameter.square().sum() for parameter in trained]).sum()
        return loss

    def bind(self, c: Structured, *, gradients: bool = False) -> BoundFlow:
        """Return the flow under fixed conditions; everything that depends on these alone is computed once, now.

        Arguments:
            c: Conditions of B rows.
            gradients: True to record gradients of what is computed here, as in :meth:`Graph.bind`. Default: False.

        Returns:
            An object with ``log_prob``, ``sample``, ``rsample``, ``sample_and_log_prob`` and ``rsample_and_log_prob``.

        Raises:
            GraphError: If the graph has no conditions.

        Example:
            >>> import torch, invgraph as ig
            >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
            >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
            >>> flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))
            >>> posterior = flow.bind(torch.zeros(1, 3))
            >>> samples = posterior.sample(1000)
            >>> samples.shape, posterior.log_prob(samples).shape
            (torch.Size([1000, 1, 2]), torch.Size([1000, 1]))
        """
        return BoundFlow(self.latents, self.graph.bind(c, gradients=gradients))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        c: Structured = (),
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Any:
        """Draw ``n`` samples for each condition, without gradient.

        Arguments:
            n: Number of samples.
            c: Conditions with batch size B. Default: none.
            temperature: Factor on the latents' deviation from their mean; at most 1 for a bounded base. Default: 1.
            generator: Generator of the random numbers, for the standard normal base only. Default: the global one of
                torch, which a base given by the user always uses.
            chunk: Largest number of rows, samples times conditions, that go through the graph at once. Besides latents,
                samples and three numbers per row, affine and spline layers need up to ``20 * chunk * width`` bytes in
                float32, for the widest layer; with more conditions, also latents and samples of ``chunk`` of them.
                Default: all with gradients, noise or batch statistics; else 65,536 elements on CPUs, 4,194,304 on GPUs.

        Returns:
            Samples ``(n, B, ...)``, or ``(n, ...)`` without conditions, in the structure of the graph's inputs.

        Raises:
            ArgumentError: If an argument has the wrong type, or does not fit the base.
            GraphError: If ``n``, the chunk or the temperature is out of range, or a chunk would change noise or batch
                statistics.
            InputTypeError: If the dtype or device of the base differs from that of the graph.
        """
        return self._sample("sample", n, c, temperature, generator, chunk)[0]

    def rsample(
        self,
        n: int,
        c: Structured = (),
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Any:
        """Draw samples like :meth:`sample`, with gradients with respect to parameters and conditions.

        Raises:
            ArgumentError: Also if a base density has no ``rsample``, because its samples have no gradients.
        """
        self.latents.require_rsample()
        return self._sample("rsample", n, c, temperature, generator, chunk)[0]

    @torch.no_grad()
    def sample_and_log_prob(
        self, n: int, c: Structured = (), *, generator: torch.Generator | None = None, chunk: int | None = None
    ) -> tuple[Any, Tensor]:
        """Return samples like :meth:`sample`, and their log-densities, ``(n, B)`` or ``(n,)``, from one pass."""
        return self._sample("sample_and_log_prob", n, c, 1.0, generator, chunk)

    def rsample_and_log_prob(
        self, n: int, c: Structured = (), *, generator: torch.Generator | None = None, chunk: int | None = None
    ) -> tuple[Any, Tensor]:
        """Return samples like :meth:`rsample`, and their log-densities, ``(n, B)`` or ``(n,)``, from one pass.

        The mean of ``log_prob - log_p(samples)`` is the reverse Kullback-Leibler divergence from an unnormalized p.
        """
        self.latents.require_rsample()
        return self._sample("rsample_and_log_prob", n, c, 1.0, generator, chunk)

    def _sample(self, method: str, n: int, c: Structured, *args: Any) -> tuple[Any, Tensor]:
        n = require_count(f"Flow.{method}", "n", n, least=0, most=2**31 - 1)
        self._require_given(f"Flow.{method}", c, f"flow.{method}({n}, {{c}})")
        xs, log_prob = draw_samples(f"Flow.{method}", self.graph, self.latents, n, c, *args)
        return xs, require_precise(log_prob) if "log_prob" in method else log_prob

    def given(self, c: Structured = ()) -> FlowDistribution:
        """Return the density under given conditions as a ``torch.distributions.Distribution``.

        Arguments:
            c: Conditions with any leading axes, or none, which become the batch shape. Default: no conditions.

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
            x: Data or samples, of the leading axes that :meth:`log_prob` takes.
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
        return denoised(self.log_prob, self.graph, x, c, deviation)

    def _require_given(self, where: str, c: Structured, call: str) -> None:
        self.graph._conditions().require_given(where, c, call, self.graph._inputs())

    def extra_repr(self) -> str:
        return self.latents.describe()
