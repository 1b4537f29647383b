"""Find the DICOM series in a folder, and read one with its geometry.

Headers are read by pydicom. The geometry is computed from them (DICOM PS3.3, C.7.6.2.1.1) rather
than taken from a reader, since readers average over a missing slice and stack what does not
belong together. Pixels are decoded by pydicom, those of the JPEG family through GDCM, in a worker
process.

find: files -> headers -> (kinds, duplicates, split) -> series; read: frames -> geometry -> pixels.
"""

from medsegdiff.data.dicom.channels import by_study, choose_channels
from medsegdiff.data.dicom.find import find_series
from medsegdiff.data.dicom.read import read_series
from medsegdiff.data.dicom.series import Series, case_id

__all__ = ["Series", "by_study", "case_id", "choose_channels", "find_series", "read_series"]
