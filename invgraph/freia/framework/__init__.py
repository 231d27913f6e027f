"""FrEIA's nodes and networks, run as native graphs."""

from invgraph.freia.framework.graph_inn import GraphINN as GraphINN
from invgraph.freia.framework.node import ConditionNode as ConditionNode
from invgraph.freia.framework.node import FeedForwardNode as FeedForwardNode
from invgraph.freia.framework.node import InputNode as InputNode
from invgraph.freia.framework.node import Node as Node
from invgraph.freia.framework.node import OutputNode as OutputNode
from invgraph.freia.framework.node import collect_nodes as collect_nodes
from invgraph.freia.framework.reversible_graph_net import ReversibleGraphNet as ReversibleGraphNet
from invgraph.freia.framework.reversible_sequential_net import ReversibleSequential as ReversibleSequential
from invgraph.freia.framework.sequence_inn import SequenceINN as SequenceINN
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule

__all__ = [
    "ConditionNode",
    "FeedForwardNode",
    "GraphINN",
    "InputNode",
    "Node",
    "OutputNode",
    "ReversibleGraphNet",
    "ReversibleSequential",
    "SequenceINN",
    "collect_nodes",
]
