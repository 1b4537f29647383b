from .pictures import members_picture as members_picture
from .pictures import save_png as save_png
from .pictures import three_planes as three_planes
