"""invgraph: declare an invertible network as a graph of nodes, get one PyTorch module with an exact inverse."""

from typing import TYPE_CHECKING, Any

from invgraph import errors as errors
from invgraph import init as init
from invgraph import nets as nets
from invgraph.checkpoint.checkpoint import Checkpoint as Checkpoint
from invgraph.checkpoint.checkpoint import load as load
from invgraph.checkpoint.checkpoint import save as save
from invgraph.checkpoint.rng_state import rng_state as rng_state
from invgraph.checkpoint.rng_state import set_rng_state as set_rng_state
from invgraph.core.invertible import Invertible as Invertible
from invgraph.core.stochastic import reseed as reseed
from invgraph.core.subnet import Subnet as Subnet
from invgraph.core.subnet import SubnetFactory as SubnetFactory
from invgraph.core.wrappers import Inverse as Inverse
from invgraph.diagnose import Diagnosis as Diagnosis
from invgraph.diagnose import diagnose as diagnose
from invgraph.distributions.flow_distribution import FlowDistribution as FlowDistribution
from invgraph.distributions.graph_transform import GraphTransform as GraphTransform
from invgraph.errors import ArgumentError as ArgumentError
from invgraph.errors import CheckpointError as CheckpointError
from invgraph.errors import ClosedFormError as ClosedFormError
from invgraph.errors import ContractError as ContractError
from invgraph.errors import DependencyError as DependencyError
from invgraph.errors import GraphError as GraphError
from invgraph.errors import InputTypeError as InputTypeError
from invgraph.errors import InvgraphError as InvgraphError
from invgraph.errors import NumericsError as NumericsError
from invgraph.errors import ShapeError as ShapeError
from invgraph.export import export as export
from invgraph.export import export_aoti as export_aoti
from invgraph.export import export_onnx as export_onnx
from invgraph.flow import Flow as Flow
from invgraph.fused.switch import fused as fused
from invgraph.graph.chain import chain as chain
from invgraph.graph.graph import Graph as Graph
from invgraph.graph.node import ConditionNode as ConditionNode
from invgraph.graph.node import FeatureNode as FeatureNode
from invgraph.graph.node import InputNode as InputNode
from invgraph.graph.node import Node as Node
from invgraph.graph.node import Value as Value
from invgraph.graph.summary import NodeSummary as NodeSummary
from invgraph.graph.summary import Summary as Summary
from invgraph.graph.trace import Trace as Trace
from invgraph.layers.actnorm import ActNorm as ActNorm
from invgraph.layers.all_in_one import AllInOne as AllInOne
from invgraph.layers.autoregressive import Autoregressive as Autoregressive
from invgraph.layers.box import Box as Box
from invgraph.layers.concat import Concat as Concat
from invgraph.layers.continuous_flow import ContinuousFlow as ContinuousFlow
from invgraph.layers.conv1x1 import Conv1x1 as Conv1x1
from invgraph.layers.coupling import Coupling as Coupling
from invgraph.layers.dct import DCT as DCT
from invgraph.layers.dequantize import Dequantize as Dequantize
from invgraph.layers.elementwise import Elementwise as Elementwise
from invgraph.layers.gaussian_mixture import GaussianMixture as GaussianMixture
from invgraph.layers.haar import Haar as Haar
from invgraph.layers.householder import Householder as Householder
from invgraph.layers.learned_scaling import LearnedScaling as LearnedScaling
from invgraph.layers.linear import FixedLinear as FixedLinear
from invgraph.layers.linear import Orthogonal as Orthogonal
from invgraph.layers.low_rank_linear import LowRankLinear as LowRankLinear
from invgraph.layers.masked_coupling import MaskedCoupling as MaskedCoupling
from invgraph.layers.orthogonal_linear import OrthogonalLinear as OrthogonalLinear
from invgraph.layers.orthogonal_squeeze import OrthogonalSqueeze as OrthogonalSqueeze
from invgraph.layers.patch_autoregressive import PatchAutoregressive as PatchAutoregressive
from invgraph.layers.permute import Permute as Permute
from invgraph.layers.reshape import Flatten as Flatten
from invgraph.layers.reshape import Reshape as Reshape
from invgraph.layers.residual import Residual as Residual
from invgraph.layers.split import Split as Split
from invgraph.layers.squeeze import Squeeze as Squeeze
from invgraph.layers.standardize import Standardize as Standardize
from invgraph.reversible.runner import reversible as reversible
from invgraph.transforms.additive import Additive as Additive
from invgraph.transforms.affine import Affine as Affine
from invgraph.transforms.bernstein import Bernstein as Bernstein
from invgraph.transforms.circular_shift import CircularShift as CircularShift
from invgraph.transforms.cubic_spline import CubicSpline as CubicSpline
from invgraph.transforms.linear_spline import LinearSpline as LinearSpline
from invgraph.transforms.mixture_cdf import MixtureCDF as MixtureCDF
from invgraph.transforms.quadratic_spline import QuadraticSpline as QuadraticSpline
from invgraph.transforms.rational_quadratic_spline import RationalQuadraticSpline as RationalQuadraticSpline
from invgraph.transforms.sigmoid import Logit as Logit
from invgraph.transforms.sigmoid import Sigmoid as Sigmoid
from invgraph.transforms.softplus import Softplus as Softplus
from invgraph.transforms.transform import Transform as Transform
from invgraph.transforms.volume_preserving import VolumePreserving as VolumePreserving

__version__ = "0.1.0"

if TYPE_CHECKING:
    from invgraph import freia as freia
    from invgraph import inference as inference
    from invgraph import recipes as recipes
    from invgraph import sbi as sbi
    from invgraph import testing as testing
else:

    def __dir__() -> list[str]:
        """The public names, and none of the package's own modules."""
        named = ((name, getattr(value, "__module__", "")) for name, value in globals().items() if name[0] != "_")
        own = [name for name, module in named if module.startswith("invgraph")]
        return sorted(
            (*own, "errors", "freia", "inference", "init", "nets", "recipes", "sbi", "testing", "__version__")
        )

    def __getattr__(name: str) -> Any:
        """The subpackages that are imported when first asked for, so that ``import invgraph`` stays quick."""
        if name in ("freia", "inference", "recipes", "sbi", "testing"):
            import importlib

            return importlib.import_module(f"invgraph.{name}")
        raise AttributeError(f"module 'invgraph' has no attribute {name!r}")
