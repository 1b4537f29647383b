"""MONAI's check of a workflow's properties, without making the objects that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import BundlePropertyConfig

from medsegdiff.core.errors import in_words


class DescribedWorkflow(ConfigWorkflow):
    """A workflow whose properties are what the configuration says: nothing of it is run or made."""

    def _get_property(self, name: str, property: dict[str, Any]) -> Any:
        key = property[BundlePropertyConfig.ID]
        if key not in self.parser:
            raise AttributeError(name)  # MONAI's own KeyError would end its check at the first one
        return self.parser[key]


def missing_properties(config: Path, metadata: Path, workflow: str) -> list[str]:
    """What MONAI finds wrong with the properties of a configuration.

    ``ConfigWorkflow.check_properties``: required properties that are missing, and optional ones
    that are there under another id than MONAI's.

    Args:
        config: Path of the configuration, which refers to no other file.
        metadata: Path of the bundle's ``metadata.json``.
        workflow: Kind of the workflow, ``train`` or ``infer``.

    Returns:
        For each fault the id that MONAI looks for, such as ``train#inferer``.

    Raises:
        ValueError: the check cannot be made, since a file or a reference is of another form.
    """
    try:
        described = DescribedWorkflow(
            str(config), str(metadata), logging_file=False, workflow_type=workflow
        )
        described.parser.resolve_macro_and_relative_ids()
        found = described.check_properties() or []
    except Exception as error:  # MONAI expects references to be texts
        raise ValueError(in_words(error)) from error
    ids = (str(described.properties[name][BundlePropertyConfig.ID]) for name in found)
    return [one.replace(ID_SEP_KEY, "#") for one in ids]
