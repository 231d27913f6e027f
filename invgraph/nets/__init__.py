"""Subnets: picklable factories of the networks that a layer's parameters come from."""

from invgraph.nets.feedforward import MLP as MLP
from invgraph.nets.feedforward import ConvNet as ConvNet
