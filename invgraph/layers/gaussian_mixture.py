"""Mixture of Gaussians, of which the selected component becomes a standard normal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from invgraph.arguments import as_number, require_count, require_seed
from invgraph.core.call import Ports, check_together
from invgraph.core.constants import WithConstants
from invgraph.core.invertible import Invertible, Result
from invgraph.core.stochastic import uniform
from invgraph.core.subnet import make_subnet
from invgraph.errors import GraphError
from invgraph.numerics.linalg import own_precision
from invgraph.numerics.seeding import normal, to_defaults
from invgraph.numerics.soft_clamp import require_clamp, soft_clamp
from invgraph.shapes import Tensors
from invgraph.torch_internals import floating_tensor


class GaussianMixture(WithConstants, Invertible):
    r"""Map the selected component of a mixture of Gaussians to a standard normal.

    .. math:: y = U_k (x - \mu_k), \qquad p(x | c) = \sum_k w_k \, \mathcal N(x; \mu_k, (U_k^\top U_k)^{-1})

    where k is the component that the first condition, a one-hot vector, selects. :math:`U_k` is upper triangular with
    a positive diagonal: the Cholesky factor of the component's precision. Weights, means and factors depend on the
    other conditions through a subnet, or are learned directly. :meth:`log_prob` is the log-density of the whole
    mixture, :meth:`posterior` the probability of each component given a sample, and :meth:`choose` draws components.

    Shape:
        ``x: (B, D) -> y: (B, D)``; conditions: the selected component ``(B, K)``, then any vectors ``(B, C_c)``.

    Log-det:
        Sum of the logarithms of the diagonal of :math:`U_k`, nats per sample.

    Arguments:
        in_shapes: Shape of the input, a vector.
        cond_shapes: Shapes of the conditions; the first one, ``(K,)``, sets the number of components.
        subnet: Factory of a network that reads the other conditions; None for one learned set of parameters. A network
            that returns zeros gives equal weights, unit covariances and the initial means.
        clamp: Bound of the absolute value of the log diagonal. Default: 10.
        spread: Standard deviation of the initial means, which are learned; the network's output is added to them.
            Default: 1.
        seed: Seed of the initial means. Default: 0.

    Raises:
        GraphError: If the input is not a vector, there is no condition that selects a component, or the subnet does not
            fit the other conditions.
        ArgumentError: If an argument has the wrong type.

    References:
        P. Sorrenson, C. Rother, U. Koethe, "Disentanglement by Nonlinear ICA with General Incompressible-flow Networks
        (GIN)", 2020, https://arxiv.org/abs/2001.04872; C. M. Bishop, "Mixture Density Networks", 1994,
        https://publications.aston.ac.uk/id/eprint/373/

    Example:
        >>> import torch, invgraph as ig
        >>> mixture = ig.GaussianMixture((2,), ((3,), (5,)), subnet=ig.nets.MLP(hidden=8))
        >>> x, c = torch.zeros(4, 2), torch.zeros(4, 5)
        >>> (y,), log_det = mixture((x,), (mixture.choose((c,), seed=1), c))
        >>> y.shape, mixture.log_prob(x, (c,)).shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    range_kind = "any"
    conditional = True
    fixed_size_reason = "its means and factors are those of vectors of one size"
    places: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        subnet: object = None,
        clamp: float = 10.0,
        spread: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        shape = self.in_shapes[0]
        if len(shape) != 1:
            advice = "expected a vector (D,): put a Flatten before the layer"
            raise GraphError("GaussianMixture", f"input of shape {shape}", advice)
        if not self.cond_shapes or len(self.cond_shapes[0]) != 1:
            advice = "the first condition chooses the component: expected a one-hot vector (K,)"
            raise GraphError("GaussianMixture", f"conditions of shapes {self.cond_shapes}", advice)
        self.clamp = float(require_clamp("GaussianMixture", clamp, "atan"))
        spread = as_number("GaussianMixture", "spread", spread)
        if not math.isfinite(spread):
            raise GraphError("GaussianMixture", f"spread={spread}", "spread must be finite")
        seed = require_seed("GaussianMixture", seed)
        (self.dims,), (self.components,) = shape, self.cond_shapes[0]
        self._build(subnet, spread, seed)

    def _build(self, subnet: object, spread: float, seed: int) -> None:
        others = self.cond_shapes[1:]
        if (subnet is None) != (not others):
            given = f"subnet={subnet!r}, {len(others)} conditions after the first"
            advice = "further conditions need a subnet that reads them, and a subnet needs conditions"
            raise GraphError("GaussianMixture", given, advice)
        count, dims = self.components, self.dims
        self._register_constants()
        size = count * (1 + 2 * dims + dims * (dims - 1) // 2)
        self.params = nn.Parameter(torch.zeros(1, size)) if subnet is None else None
        net = None if subnet is None else make_subnet("GaussianMixture", subnet, others[0], others[1:], (size,))
        self.subnet = net
        self.centers = nn.Parameter(to_defaults(normal((count, dims), seed, torch.float32) * spread))

    def _constants(self) -> dict[str, Tensor]:
        # Index of each entry above the diagonal; all other entries refer to a zero appended after the last one.
        dims = self.dims
        places = torch.full((dims, dims), dims * (dims - 1) // 2, device="cpu")
        rows, columns = torch.triu_indices(dims, dims, 1, device="cpu")
        places[rows, columns] = torch.arange(len(rows), device="cpu")
        return {"places": places}

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        components = self._components(cs[1:])
        with own_precision(xs[0]):
            mean, log_diagonal, factor = self._select(xs[0], cs[0], components)
            y = (factor @ (xs[0] - mean)[..., None])[..., 0]
            return (y,), log_diagonal.sum(1)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        components = self._components(cs[1:])
        with own_precision(ys[0]):
            mean, log_diagonal, factor = self._select(ys[0], cs[0], components)
            wide = torch.promote_types(factor.dtype, torch.float32)  # torch has no solver for half precision
            solved = torch.linalg.solve_triangular(factor.to(wide), ys[0][..., None].to(wide), upper=True)[..., 0]
            return (solved.to(mean.dtype) + mean,), -log_diagonal.sum(1)

    def log_prob(self, x: Tensor, cs: Tensors = ()) -> Tensor:
        """Return the log-density of the mixture, shape ``(B,)``.

        Arguments:
            x: Samples, shape ``(B, D)``.
            cs: Conditions except the first, which selects the component.

        Raises:
            ShapeError: If a tensor is missing, is one too many, or has the wrong shape.
            InputTypeError: If something else was given, or tensors of another dtype or device.
        """
        x, cs = self._require_call("log_prob", x, cs)
        log_prob: Tensor = torch.logsumexp(self._log_joint(x, cs), dim=1)
        return log_prob

    def posterior(self, x: Tensor, cs: Tensors = ()) -> Tensor:
        """Return the probability of each component given x, shape ``(B, K)``.

        Arguments:
            x: Samples, shape ``(B, D)``.
            cs: Conditions except the first, which selects the component.

        Raises:
            ShapeError: If a tensor is missing, is one too many, or has the wrong shape.
            InputTypeError: If something else was given, or tensors of another dtype or device.
        """
        x, cs = self._require_call("posterior", x, cs)
        return torch.softmax(self._log_joint(x, cs), dim=1)

    def weights(self, cs: Tensors = ()) -> Tensor:
        """Return the probability of each component, shape ``(B, K)``, or ``(1, K)`` without conditions.

        Arguments:
            cs: Conditions except the first, which selects the component.
        """
        return self._components(self._require_others("weights({c})", cs))[0].exp()

    def choose(self, cs: Tensors = (), *, seed: int, count: int = 1) -> Tensor:
        """Draw components with their probabilities, as one-hot vectors of shape ``(B, K)``.

        Arguments:
            cs: Conditions except the first, which selects the component; one component is drawn per row.
            seed: Seed of the draw; the global random state is not used.
            count: Number of components to draw if there are no conditions. Default: 1.

        Raises:
            GraphError: If the seed or the count is out of range.
            ArgumentError: If an argument has the wrong type.
        """
        seed = require_seed(self.label, seed, bits=63)
        count = require_count(self.label, "count", count)
        cs = self._require_others(f"choose({{c}}, seed={seed})", cs)
        log_weights = self._components(cs)[0]
        # In half precision, most draws would round to 1, and sums of weights to less.
        weights = log_weights.to(torch.promote_types(log_weights.dtype, torch.float32)).exp()
        if not cs:
            weights = weights.expand(count, -1)
        bits = 50 if weights.dtype == torch.float64 else 22
        u = uniform(torch.tensor(seed, device=weights.device), weights[:, :1], bits)
        index = (weights.cumsum(1) < u).sum(1).clamp(max=self.components - 1)
        return torch.nn.functional.one_hot(index, self.components).to(log_weights.dtype)

    def _require_call(self, method: str, x: Tensor, cs: Tensors) -> tuple[Tensor, Tensors]:
        """Check a sample and the conditions after the first, as a call of the layer checks its arguments."""
        source, others = Ports("input", self.in_shapes, bare=True), self._others()
        others.require_given(self.label, cs, f"layer.{method}({{x}}, {{c}})", source)
        xs, given = source.unpack(self.label, x), others.unpack(self.label, cs)
        check_together(self.label, ((source, xs), (others, given)), floating_tensor(self))
        return xs[0], given

    def _require_others(self, call: str, cs: Tensors) -> Tensors:
        """Check the conditions after the first, as a call of the layer checks its arguments."""
        others = self._others()
        others.require_given(self.label, cs, f"layer.{call}")
        given = others.unpack(self.label, cs)
        if given:
            check_together(self.label, ((others, given),), floating_tensor(self))
        return given

    def _others(self) -> Ports:
        return Ports("condition", self.cond_shapes[1:])

    def _log_joint(self, x: Tensor, cs: Tensors) -> Tensor:
        """Return ``log w_k + log N(x; mu_k, ...)``, shape ``(B, K)``."""
        log_weights, means, log_diagonals, factors = self._components(cs)
        with own_precision(x):
            z = (factors @ (x[:, None] - means)[..., None])[..., 0]
        normal = -0.5 * (z.square().sum(2) + self.dims * math.log(2 * math.pi))
        return log_weights + normal + log_diagonals.sum(2)

    def _select(self, x: Tensor, choice: Tensor, components: Tensors) -> Tensors:
        """Return mean, log diagonal and factor of the component that a condition selects."""
        _, means, log_diagonals, factors = (p.expand(x.shape[0], *p.shape[1:]) for p in components)
        log_diagonal = torch.einsum("bk,bkd->bd", choice, log_diagonals)
        factor = torch.einsum("bk,bkde->bde", choice, factors).triu(1) + torch.diag_embed(log_diagonal.exp())
        return torch.einsum("bk,bkd->bd", choice, means), log_diagonal, factor

    def _components(self, cs: Tensors) -> Tensors:
        """Return log-weights ``(B, K)``, means and log diagonals ``(B, K, D)``, and factors ``(B, K, D, D)``."""
        raw = self.subnet(cs[0], cs[1:]).to(self.centers.dtype) if self.subnet is not None else self.params
        count, dims = self.components, self.dims
        assert raw is not None
        logits, means, diagonals, strict = raw.split(
            (count, count * dims, count * dims, count * dims * (dims - 1) // 2), dim=1
        )
        log_diagonals = soft_clamp(torch.unflatten(diagonals, 1, (count, dims)), self.clamp, "atan")
        strict = torch.nn.functional.pad(torch.unflatten(strict, 1, (count, dims * (dims - 1) // 2)), (0, 1))
        strict = strict[..., self.places]
        factors = strict + torch.diag_embed(log_diagonals.exp())
        return (
            torch.log_softmax(logits, dim=1),
            self.centers + torch.unflatten(means, 1, (count, dims)),
            log_diagonals,
            factors,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}, clamp={self.clamp}"
