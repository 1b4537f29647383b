"""What the documentation says of learning from few labels is there."""

from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import check_keys, load_bundle
from tests.docs.test_docs import DOCS, section, table_keys

REFERENCE = DOCS / "reference"


def test_documented_keys_of_the_configuration_exist() -> None:
    keys = table_keys(section(REFERENCE / "configuration.md", "## `label_efficient.yaml`"))
    path = load_bundle("hippocampus_label_efficient").config("label_efficient")
    parser = ConfigParser()
    parser.read_config(str(path))
    assert len(keys) >= 20
    check_keys(parser, dict.fromkeys(keys), path)


def test_the_network_is_as_wide_as_the_encoder_that_it_may_start() -> None:
    train = load_bundle("hippocampus_label_efficient").parser("train")
    encoder = load_bundle("hippocampus_mr").parser("train")["network_def#encoder#channels"]
    assert train["network_def#denoiser#channels"] == encoder
