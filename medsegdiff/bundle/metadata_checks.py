"""Checks of a bundle's ``metadata.json``, as MONAI's model zoo makes them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from medsegdiff.bundle.checked_bundle import CheckedBundle, NotApplicableError
from medsegdiff.core.errors import InputError, in_words, needs_extra

REQUIRED = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
    *("required_packages_version", "task", "description", "authors", "copyright"),
    "network_data_format",
)
"""Keys of the metadata that MONAI's specification of bundles and the zoo ask for."""

TENSOR = (
    *("type", "format", "num_channels", "spatial_shape", "dtype", "value_range"),
    *("is_patch_data", "channel_def"),
)
"""Keys of each input and output in ``network_data_format``."""


def check_version(of: CheckedBundle) -> None:
    """Refuse a version that the changelog lacks.

    Raises:
        InputError: it does.
    """
    version, log = of.metadata.get("version"), of.metadata.get("changelog")
    if not isinstance(log, dict) or version not in log:
        rule = f"says version {version}, which its changelog lacks"
        raise InputError(of.metadata_file, rule, "Add it to changelog, with what is new")


def check_keys_of_metadata(of: CheckedBundle) -> None:
    """Refuse metadata without the keys that the zoo asks for.

    Raises:
        InputError: a key is missing.
    """
    missing = [key for key in REQUIRED if key not in of.metadata]
    for place, tensor in of.tensors().items():
        missing += [f"network_data_format#{place}#{key}" for key in TENSOR if key not in tensor]
    if missing:
        rule = f"lacks {', '.join(missing)}"
        raise InputError(of.metadata_file, rule, "Write them as in the bundles that ship")


def check_channels(of: CheckedBundle) -> None:
    """Refuse channels that have no name, or a name of a channel that is not there.

    A ``segmentation`` of one channel holds class numbers, which may have any names.

    Raises:
        InputError: they do not fit each other.
    """
    for place, tensor in of.tensors().items():
        count, names = tensor.get("num_channels"), tensor.get("channel_def")
        if tensor.get("format") == "segmentation" and count == 1:
            continue
        numbers = sorted(map(str, names)) if isinstance(names, dict) else []
        if not isinstance(count, int) or numbers != sorted(map(str, range(count))):
            rule = f"{place} has {count} channels, but channel_def names {', '.join(numbers)}"
            raise InputError(of.metadata_file, rule, "Name each channel once, from 0")


def check_schema(of: CheckedBundle) -> None:
    """Refuse metadata that break the JSON schema.

    Raises:
        NotApplicableError: there is no schema, and none may be downloaded.
        InputError: they break it; or the schema cannot be had; or jsonschema is not installed.
    """
    if of.schema is None and not of.online:
        raise NotApplicableError(
            "offline, the keys alone are looked at; give --schema FILE, or --online"
        )
    with needs_extra("validate --schema", "jsonschema", "validate"):
        import jsonschema
    if of.schema is None:
        return _check_online(of)
    try:
        schema = json.loads(of.schema.read_text(encoding="utf-8"))
        jsonschema.validate(of.metadata, schema)
    except (OSError, json.JSONDecodeError, jsonschema.SchemaError) as error:
        rule = f"is no JSON schema that can be read ({in_words(error)})"
        raise InputError(of.schema, rule, "Get the file again") from error
    except jsonschema.ValidationError as error:
        place = "#".join(map(str, error.absolute_path)) or "all of it"
        raise InputError(of.metadata_file, f"{place}: {error.message}", "Correct it") from error


def _check_online(of: CheckedBundle) -> None:
    """By MONAI's own ``verify_metadata``, with the schema that the metadata name."""
    from monai.bundle import verify_metadata

    with tempfile.TemporaryDirectory() as folder:
        try:
            verify_metadata(str(of.metadata_file), str(Path(folder) / "schema.json"))
        except ValueError as error:
            raise InputError(of.metadata_file, in_words(error), "Correct it") from error
        except Exception as error:  # whatever a download ends with
            rule = f"its schema cannot be downloaded ({in_words(error)})"
            remedy = "Try again, or give --schema FILE"
            raise InputError(of.metadata_file, rule, remedy) from error
