from .application import read_bundle_calibration as read_bundle_calibration
from .calibrate_bundle import calibrate as calibrate
from .fitted import Calibration as Calibration
from .scaling import Scaling as Scaling
from .scaling import fit_scaling as fit_scaling
