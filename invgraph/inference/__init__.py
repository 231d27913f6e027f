"""Tools around a conditional density: training with early stopping, calibration, pictures."""

from invgraph.inference.calibration import Calibration as Calibration
from invgraph.inference.calibration import calibrate as calibrate
from invgraph.inference.pictures import corner as corner
from invgraph.inference.pictures import draw_calibration as draw_calibration
from invgraph.inference.training import History as History
from invgraph.inference.training import fit as fit
