"""App of MONAI Label: masks, variance and clicked points of medsegdiff's bundles in 3D Slicer.

monailabel start_server --app integrations/monai_label --studies IMAGES
    --conf python /path/of/medsegdiff's/environment/bin/python
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ensemble_task import SETTINGS, EnsembleTask, PointTask
from kept_process import KeptProcess
from monailabel.interfaces.app import MONAILabelApp

BUNDLES = "hippocampus_mr,lung_nodule_ct"


class MedSegDiffApp(MONAILabelApp):
    """Three models a bundle: its mask, its variance, and its mask at clicked points.

    Args:
        app_dir: Folder of this file.
        studies: Folder of the images, or address of a DICOMweb server.
        conf: Values of ``--conf``: ``python`` (of medsegdiff's environment), ``bundles``
            (separated by commas), and ``members``, ``steps``, ``seed``, ``device`` as in
            ``medsegdiff segment``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.worker = KeptProcess(conf.get("python", "python3"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="medsegdiff",
            description="A set of plausible masks, its consensus and its variance",
        )

    def init_infers(self) -> dict[str, EnsembleTask]:
        """Models by their names, which the viewer lists."""
        found = {}
        settings = {key: self.conf[key] for key in SETTINGS if key in self.conf}
        for bundle in self.conf.get("bundles", BUNDLES).split(","):
            described = self.worker.describe(bundle)
            name = described["name"]
            of_bundle = (self.worker, bundle, described, settings)
            found[name] = EnsembleTask(*of_bundle)
            found[f"{name}_variance"] = EnsembleTask(*of_bundle, shown="variance")
            if described["at_points"]:
                found[f"{name}_at_points"] = PointTask(*of_bundle)
        return found
