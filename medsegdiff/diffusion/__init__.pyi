from .categorical import CategoricalProcess as CategoricalProcess
from .flow import RectifiedFlow as RectifiedFlow
from .gaussian import GaussianProcess as GaussianProcess
from .samplers import make_sampler as make_sampler
