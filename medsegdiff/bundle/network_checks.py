"""Checks that make a bundle's network, and so run the bundle's own code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import WEIGHTS, list_bundles
from medsegdiff.bundle.checked_bundle import CheckedBundle, NotApplicableError
from medsegdiff.bundle.trusted_bundles import check_trust
from medsegdiff.core.errors import InputError, in_words

NETWORK = "network_def"
"""Key of the network, as MONAI names it."""


def check_network(of: CheckedBundle) -> None:
    """Refuse a network whose input and output are not those of the metadata.

    By MONAI's ``verify_net_in_out``, on the CPU.

    Raises:
        InputError: they are not, the network cannot be made, or the bundle is not trusted.
    """
    from monai.bundle import verify_net_in_out

    with _with_network(of) as config:
        try:
            verify_net_in_out(
                NETWORK, str(of.metadata_file), str(config), "cpu", bundle_root=str(of.root)
            )
        except Exception as error:
            rule = f"network_def does not take and give what the metadata say ({in_words(error)})"
            remedy = "Correct network_data_format, or let the network be callable as network(image)"
            raise InputError(of.root, rule, remedy) from error


def check_weights(of: CheckedBundle) -> None:
    """Refuse weights that do not fit the network.

    Raises:
        NotApplicableError: there are none.
        InputError: they do not, or cannot be read, or the bundle is not trusted.
    """
    from medsegdiff.bundle.network import read_weights

    if not (of.root / WEIGHTS).is_file():
        raise NotApplicableError(f"there is no {WEIGHTS}")
    with _with_network(of) as config:
        weights, network = read_weights(of.bundle), _network(of, config)
        try:
            network.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            rule = f"do not fit network_def ({in_words(error)})"
            remedy = "Use the weights of this network, or describe the network that has them"
            raise InputError(of.root / WEIGHTS, rule, remedy) from error


def check_torchscript(of: CheckedBundle) -> None:
    """Refuse a network that TorchScript does not understand.

    Raises:
        InputError: it does not, the network cannot be made, or the bundle is not trusted.
    """
    import torch

    with _with_network(of) as config:
        network = _network(of, config)
        try:
            torch.jit.script(network)
        except Exception as error:
            rule = f"network_def cannot be a TorchScript ({in_words(error)})"
            remedy = "Say why under not_applicable#torchscript in metadata.json, as the zoo allows"
            raise InputError(of.root, rule, remedy) from error


def _network(of: CheckedBundle, config: Path) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(config))
    parser.read_meta(str(of.metadata_file))
    parser.update({"bundle_root": str(of.root)})
    try:
        return parser.get_parsed_content(NETWORK)
    except Exception as error:
        rule = f"network_def cannot be made ({in_words(error)})"
        raise InputError(of.root, rule, "Compare it with a bundle that ships") from error


@contextmanager
def _with_network(of: CheckedBundle) -> Iterator[Path]:
    """A configuration with the network, for any working folder; the bundle's code can be imported.

    Raises:
        InputError: no configuration has a network, or the bundle is not trusted.
    """
    from monai.bundle import ConfigParser

    check_trust(of.root, (one.root for one in list_bundles()))
    names = sorted(of.bundle.configs, key=lambda name: (name != "inference", name != "train"))
    loaded = ((name, ConfigParser.load_config_file(of.bundle.config(name))) for name in names)
    name = next((name for name, content in loaded if NETWORK in content), None)
    if name is None:
        remedy = "Describe the network there, or say why not under not_applicable in metadata.json"
        raise InputError(of.root / "configs", f"describes no {NETWORK}", remedy)
    before = list(sys.path)
    sys.path.insert(0, str(of.root))
    try:
        with of.resolved(name) as config:
            yield config
    finally:
        sys.path[:] = before
