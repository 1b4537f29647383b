from .bundle import Bundle as Bundle
from .bundle import list_bundles as list_bundles
from .bundle import load_bundle as load_bundle
from .bundle_checks import CheckResult as CheckResult
from .bundle_checks import validate as validate
from .network import load_network as load_network
from .trusted_bundles import trust as trust
