from .folder import evaluate as evaluate
from .member_agreement import compare_settings as compare_settings
