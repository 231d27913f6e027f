"""Subnets: picklable factories of the networks that compute the parameters of a layer."""

from invgraph.nets.attention import GatedAttention as GatedAttention
from invgraph.nets.feedforward import MLP as MLP
from invgraph.nets.feedforward import ConvNet as ConvNet
from invgraph.nets.residual import ResidualConvNet as ResidualConvNet
from invgraph.nets.residual import ResidualMLP as ResidualMLP
from invgraph.nets.summary import SeriesSummary as SeriesSummary
from invgraph.nets.summary import SetSummary as SetSummary
from invgraph.nets.summary import Standardizer as Standardizer
from invgraph.nets.unet import UNet as UNet
from invgraph.nets.vit import ViT as ViT
