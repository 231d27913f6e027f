"""FrEIA's names on this library's engine: same scripts, same checkpoints, same numbers.

``import invgraph.freia.framework as Ff`` and ``import invgraph.freia.modules as Fm`` stand in for FrEIA's imports, or
:func:`install` lets a script keep its own.
"""

from invgraph.freia import distributions as distributions
from invgraph.freia import framework as framework
from invgraph.freia import modules as modules
from invgraph.freia import transforms as transforms
from invgraph.freia import utils as utils
from invgraph.freia.contract import wrap as wrap
from invgraph.freia.framework.checkpoints import candidate_orders as candidate_orders
from invgraph.freia.framework.checkpoints import load_in_order as load_in_order
from invgraph.freia.framework.checkpoints import optimizer_in_order as optimizer_in_order
from invgraph.freia.framework.loading import OrderWarning as OrderWarning
from invgraph.freia.install import install as install
from invgraph.freia.native import node as node
from invgraph.freia.seeding import seeds_like_freia as seeds_like_freia
from invgraph.freia.sides import sides as sides

__all__ = [
    "OrderWarning",
    "candidate_orders",
    "distributions",
    "framework",
    "install",
    "load_in_order",
    "modules",
    "node",
    "optimizer_in_order",
    "seeds_like_freia",
    "sides",
    "transforms",
    "utils",
    "wrap",
]
