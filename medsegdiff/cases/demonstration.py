"""Demonstration on a real volume that comes with a package: both hippocampi of ICBM152."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cases.job import segment
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError

BUNDLE = "hippocampus_mr"
CASE = "icbm152"


def demo(output: Path, *, members: int = 16) -> list[Path]:
    """Segment both hippocampi of the ICBM152 T1 template, a whole head (1 mm, Fonov et al. 2011).

    Args:
        output: Folder for ``input/`` with the head, a folder for the case, and ``report.html``.
        members: Number of masks drawn for each side.

    Returns:
        Path of the picture, and of the page that shows it.

    Raises:
        InputError: it could not be segmented.
    """
    head = output / "input" / f"{CASE}.nii.gz"
    with written_aside(head) as aside:
        nib.save(load_template(), aside)
    failures = segment(head, load_bundle(BUNDLE), output, members=members, overwrite=True)
    for case, reason in failures.items():
        raise InputError(case, f"could not be segmented ({reason})", "Run it with --debug")
    return [output / CASE / f"{CASE}_preview.png", output / "report.html"]


def load_template() -> nib.Nifti1Image:
    """The ICBM152 T1 template at 1 mm, from the files of the nilearn package."""
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=1)
