from .familiarity import Familiarity as Familiarity
from .familiarity import crossed as crossed
from .log_odds import log_odds as log_odds
from .triage import KnownCase as KnownCase
from .triage import Triage as Triage
from .triage import fit_triage as fit_triage
