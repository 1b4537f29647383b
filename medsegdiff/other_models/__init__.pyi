from .adopt_predictions import adopt as adopt
from .calibrate_adopted import calibrate_other as calibrate_other
