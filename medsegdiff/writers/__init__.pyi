from .dicom_seg import write_binary_seg as write_binary_seg
from .dicom_seg import write_fractional_seg as write_fractional_seg
from .nifti import write_nifti as write_nifti
from .nrrd import write_seg_nrrd as write_seg_nrrd
from .secondary_capture import write_secondary_capture as write_secondary_capture
