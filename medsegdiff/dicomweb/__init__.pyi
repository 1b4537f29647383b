from .stow import store as store
from .wado import fetch as fetch
