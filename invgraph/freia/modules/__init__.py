"""FrEIA's layers: its names, its keys, its numbers."""

from invgraph.freia.modules.all_in_one_block import AllInOneBlock as AllInOneBlock
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.coupling_layers import AffineCouplingOneSided as AffineCouplingOneSided
from invgraph.freia.modules.coupling_layers import ConditionalAffineTransform as ConditionalAffineTransform
from invgraph.freia.modules.coupling_layers import GINCouplingBlock as GINCouplingBlock
from invgraph.freia.modules.coupling_layers import GLOWCouplingBlock as GLOWCouplingBlock
from invgraph.freia.modules.coupling_layers import NICECouplingBlock as NICECouplingBlock
from invgraph.freia.modules.coupling_layers import RNVPCouplingBlock as RNVPCouplingBlock
from invgraph.freia.modules.fixed_transforms import Fixed1x1Conv as Fixed1x1Conv
from invgraph.freia.modules.fixed_transforms import FixedLinearTransform as FixedLinearTransform
from invgraph.freia.modules.fixed_transforms import InvertibleSigmoid as InvertibleSigmoid
from invgraph.freia.modules.fixed_transforms import PermuteRandom as PermuteRandom
from invgraph.freia.modules.gaussian_mixture import GaussianMixtureModel as GaussianMixtureModel
from invgraph.freia.modules.graph_topology import Concat as Concat
from invgraph.freia.modules.graph_topology import Concat1d as Concat1d
from invgraph.freia.modules.graph_topology import ConcatChannel as ConcatChannel
from invgraph.freia.modules.graph_topology import Split as Split
from invgraph.freia.modules.graph_topology import Split1D as Split1D
from invgraph.freia.modules.graph_topology import SplitChannel as SplitChannel
from invgraph.freia.modules.inv_auto_layers import InvAutoAct as InvAutoAct
from invgraph.freia.modules.inv_auto_layers import InvAutoActFixed as InvAutoActFixed
from invgraph.freia.modules.inv_auto_layers import InvAutoActTwoSided as InvAutoActTwoSided
from invgraph.freia.modules.inv_auto_layers import InvAutoConv2D as InvAutoConv2D
from invgraph.freia.modules.inv_auto_layers import InvAutoFC as InvAutoFC
from invgraph.freia.modules.inv_auto_layers import LearnedElementwiseScaling as LearnedElementwiseScaling
from invgraph.freia.modules.inverse import Inverse as Inverse
from invgraph.freia.modules.invertible_resnet import ActNorm as ActNorm
from invgraph.freia.modules.invertible_resnet import IResNetLayer as IResNetLayer
from invgraph.freia.modules.orthogonal import HouseholderPerm as HouseholderPerm
from invgraph.freia.modules.orthogonal import OrthogonalTransform as OrthogonalTransform
from invgraph.freia.modules.reshapes import Flatten as Flatten
from invgraph.freia.modules.reshapes import HaarDownsampling as HaarDownsampling
from invgraph.freia.modules.reshapes import HaarUpsampling as HaarUpsampling
from invgraph.freia.modules.reshapes import IRevNetDownsampling as IRevNetDownsampling
from invgraph.freia.modules.reshapes import IRevNetUpsampling as IRevNetUpsampling
from invgraph.freia.modules.reshapes import Reshape as Reshape
from invgraph.freia.modules.splines import BinnedSpline as BinnedSpline
from invgraph.freia.modules.splines import BinnedSplineBase as BinnedSplineBase
from invgraph.freia.modules.splines import ElementwiseRationalQuadraticSpline as ElementwiseRationalQuadraticSpline
from invgraph.freia.modules.splines import LinearSpline as LinearSpline
from invgraph.freia.modules.splines import RationalQuadraticSpline as RationalQuadraticSpline
from invgraph.freia.modules.splines import rational_quadratic_spline as rational_quadratic_spline

__all__ = [
    "ActNorm",
    "AffineCouplingOneSided",
    "AllInOneBlock",
    "BinnedSpline",
    "BinnedSplineBase",
    "Concat",
    "Concat1d",
    "ConcatChannel",
    "ConditionalAffineTransform",
    "ElementwiseRationalQuadraticSpline",
    "Fixed1x1Conv",
    "FixedLinearTransform",
    "Flatten",
    "GINCouplingBlock",
    "GLOWCouplingBlock",
    "GaussianMixtureModel",
    "HaarDownsampling",
    "HaarUpsampling",
    "HouseholderPerm",
    "IResNetLayer",
    "IRevNetDownsampling",
    "IRevNetUpsampling",
    "InvAutoAct",
    "InvAutoActFixed",
    "InvAutoActTwoSided",
    "InvAutoConv2D",
    "InvAutoFC",
    "Inverse",
    "InvertibleModule",
    "InvertibleSigmoid",
    "LearnedElementwiseScaling",
    "LinearSpline",
    "NICECouplingBlock",
    "OrthogonalTransform",
    "PermuteRandom",
    "RNVPCouplingBlock",
    "RationalQuadraticSpline",
    "Reshape",
    "Split",
    "Split1D",
    "SplitChannel",
    "rational_quadratic_spline",
]
