from .decisions import Plan as Plan
from .decisions import decide as decide
from .fingerprint import Fingerprint as Fingerprint
from .fingerprint import fingerprint_of as fingerprint_of
from .plan_bundle import plan as plan
