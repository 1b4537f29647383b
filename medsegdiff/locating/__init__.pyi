from .given import GivenPlaces as GivenPlaces
from .given import read_points as read_points
from .place import Located as Located
from .place import Place as Place
from .place import cut_out as cut_out
from .template import TemplateLocator as TemplateLocator
