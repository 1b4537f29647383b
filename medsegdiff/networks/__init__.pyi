from .denoiser import Denoiser as Denoiser
from .encoder import ImageEncoder as ImageEncoder
from .image_denoiser import ImageDenoiser as ImageDenoiser
