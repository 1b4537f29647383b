from .atomic_files import read_json as read_json
from .atomic_files import write_json as write_json
from .atomic_files import write_text as write_text
from .atomic_files import written_aside as written_aside
from .errors import InputError as InputError
from .errors import UsageError as UsageError
from .types import UNKNOWN_CLASS as UNKNOWN_CLASS
from .types import Geometry as Geometry
