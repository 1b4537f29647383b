from .bundle_changes import write_single as write_single
from .run_study import fit as fit
from .stage_record import Stage as Stage
from .stage_record import StageRecord as StageRecord
