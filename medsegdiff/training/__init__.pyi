from .averaging import weight_average as weight_average
from .checkpoints import newest_that_loads as newest_that_loads
from .encoder_start import encoder_weights as encoder_weights
from .prepare_batch import NoisedMaskPrepareBatch as NoisedMaskPrepareBatch
from .prepare_images import NoisedImagePrepareBatch as NoisedImagePrepareBatch
from .pretrained import start_from_pretrained as start_from_pretrained
from .run import train as train
from .run_handlers import RunHandlers as RunHandlers
