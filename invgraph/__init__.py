"""invgraph: declare an invertible network as a graph of nodes, get one PyTorch module with an exact inverse."""

from typing import TYPE_CHECKING, Any

from invgraph import errors as errors
from invgraph import init as init
from invgraph import nets as nets
from invgraph.checkpoint import Checkpoint as Checkpoint
from invgraph.checkpoint import load as load
from invgraph.checkpoint import save as save
from invgraph.diagnose import Diagnosis as Diagnosis
from invgraph.diagnose import diagnose as diagnose
from invgraph.errors import ArgumentError as ArgumentError
from invgraph.errors import CheckpointError as CheckpointError
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
from invgraph.graph import Graph as Graph
from invgraph.invertible import Inverse as Inverse
from invgraph.invertible import Invertible as Invertible
from invgraph.modules.actnorm import ActNorm as ActNorm
from invgraph.modules.all_in_one import AllInOne as AllInOne
from invgraph.modules.autoregressive import Autoregressive as Autoregressive
from invgraph.modules.concat import Concat as Concat
from invgraph.modules.continuous_flow import ContinuousFlow as ContinuousFlow
from invgraph.modules.conv1x1 import Conv1x1 as Conv1x1
from invgraph.modules.coupling import Coupling as Coupling
from invgraph.modules.dct import DCT as DCT
from invgraph.modules.dequantize import Dequantize as Dequantize
from invgraph.modules.elementwise import Elementwise as Elementwise
from invgraph.modules.gaussian_mixture import GaussianMixture as GaussianMixture
from invgraph.modules.haar import Haar as Haar
from invgraph.modules.householder import Householder as Householder
from invgraph.modules.learned_scaling import LearnedScaling as LearnedScaling
from invgraph.modules.linear import FixedLinear as FixedLinear
from invgraph.modules.linear import Orthogonal as Orthogonal
from invgraph.modules.low_rank_linear import LowRankLinear as LowRankLinear
from invgraph.modules.masked_coupling import MaskedCoupling as MaskedCoupling
from invgraph.modules.orthogonal_linear import OrthogonalLinear as OrthogonalLinear
from invgraph.modules.patch_autoregressive import PatchAutoregressive as PatchAutoregressive
from invgraph.modules.permute import Permute as Permute
from invgraph.modules.reshape import Flatten as Flatten
from invgraph.modules.reshape import Reshape as Reshape
from invgraph.modules.residual import Residual as Residual
from invgraph.modules.split import Split as Split
from invgraph.modules.squeeze import Squeeze as Squeeze
from invgraph.node import ConditionNode as ConditionNode
from invgraph.node import FeatureNode as FeatureNode
from invgraph.node import InputNode as InputNode
from invgraph.node import Node as Node
from invgraph.node import Value as Value
from invgraph.node import chain as chain
from invgraph.noise import reseed as reseed
from invgraph.reversible import reversible as reversible
from invgraph.rng import rng_state as rng_state
from invgraph.rng import set_rng_state as set_rng_state
from invgraph.subnet import Subnet as Subnet
from invgraph.subnet import SubnetFactory as SubnetFactory
from invgraph.transforms.additive import Additive as Additive
from invgraph.transforms.affine import Affine as Affine
from invgraph.transforms.bernstein import Bernstein as Bernstein
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
    from invgraph import testing as testing
else:

    def __getattr__(name: str) -> Any:
        """The subpackages that are imported when first asked for, so that ``import invgraph`` stays quick."""
        if name == "testing":
            import importlib

            return importlib.import_module(f"invgraph.{name}")
        raise AttributeError(f"module 'invgraph' has no attribute {name!r}")
