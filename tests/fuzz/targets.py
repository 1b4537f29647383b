"""All kinds of inputs that are tried, and how many of each a test tries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz.bundle_inputs import attempt_bundle
from tests.fuzz.dicom_inputs import attempt_dicom
from tests.fuzz.dicomweb_inputs import attempt_dicomweb
from tests.fuzz.isolation import Attempt
from tests.fuzz.itk_inputs import attempt_itk
from tests.fuzz.manifest_inputs import attempt_manifest
from tests.fuzz.nifti_inputs import attempt_nifti
from tests.fuzz.picture_inputs import attempt_picture

TARGETS: dict[str, tuple[Callable[[Path], Attempt], int]] = {
    "nifti": (attempt_nifti, 150),
    "itk": (attempt_itk, 60),
    "picture": (attempt_picture, 80),
    "dicom": (attempt_dicom, 40),
    "manifest": (attempt_manifest, 50),
    "bundle": (attempt_bundle, 3),
    "dicomweb": (attempt_dicomweb, 30),
}
"""Name -> function of a folder that makes valid inputs and the attempt; number of inputs in the
tests, which take two seconds or so for each kind. The long run tries in the same proportion."""
