from .bundle import Bundle as Bundle
from .bundle import list_bundles as list_bundles
from .bundle import load_bundle as load_bundle
from .network import load_network as load_network
from .trusted_bundles import trust as trust
