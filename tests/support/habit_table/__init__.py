"""A table of habits, graphs and runners: what people do with any module, done to every family of layers.

``python -m tests.habits`` prints it. Each file adds habits to :data:`~habit_table.cell.HABITS`.
"""

from __future__ import annotations

from . import copies, modules, on_layers, settings, training
from .cell import HABITS as HABITS
from .cell import RUNNERS as RUNNERS
from .cell import Cell as Cell
from .cell import Habit as Habit
from .graphs import GRAPHS as GRAPHS

FILES = (on_layers, copies, training, settings, modules)
