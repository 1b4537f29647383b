from .familiarity import Familiarity as Familiarity
from .familiarity import crossed as crossed
from .triage import KnownCase as KnownCase
from .triage import Triage as Triage
from .triage import fit_triage as fit_triage
