from .given import GivenPlaces as GivenPlaces
from .given import read_points as read_points
from .network_locator import NetworkLocator as NetworkLocator
from .place import Located as Located
from .place import Place as Place
from .place import cut_out as cut_out
from .template import TemplateLocator as TemplateLocator
from .train_locator import train_locator as train_locator
