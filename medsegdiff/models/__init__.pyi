from .diffusion_segmenter import DiffusionSegmenter as DiffusionSegmenter
from .fold_ensemble import FoldEnsemble as FoldEnsemble
from .image_diffusion import ImageDiffusion as ImageDiffusion
from .losses import DiffusionSegmentationLoss as DiffusionSegmentationLoss
from .precision import autocast as autocast
