from . import bundle as bundle
from . import calibration as calibration
from . import cases as cases
from . import core as core
from . import counterfactual as counterfactual
from . import data as data
from . import dicomweb as dicomweb
from . import diffusion as diffusion
from . import evaluation as evaluation
from . import few_label as few_label
from . import metrics as metrics
from . import models as models
from . import networks as networks
from . import phantoms as phantoms
from . import prompting as prompting
from . import segmentation as segmentation
from . import synthesis as synthesis
from . import training as training
from . import viz as viz
from . import writers as writers
from .bundle.bundle import load_bundle as load_bundle
from .calibration.calibrate_bundle import calibrate as calibrate
from .cases.job import segment as segment
from .data.fitness import check as check
from .evaluation.folder import evaluate as evaluate
from .training.run import train as train

__version__: str
