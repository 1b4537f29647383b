from .healthy_image import Counterfactual as Counterfactual
from .maker import CounterfactualMaker as CounterfactualMaker
from .maker import counterfactual as counterfactual
from .maker import fit_differences as fit_differences
from .maker import probabilities as probabilities
