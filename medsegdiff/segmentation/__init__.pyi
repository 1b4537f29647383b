from .ensemble import RunningMoments as RunningMoments
from .fusion import vote_shares as vote_shares
from .noise import MemberNoise as MemberNoise
from .noise import generator_for as generator_for
from .segmented_case import SegmentedCase as SegmentedCase
from .segmented_case import segment_case as segment_case
from .sliding_window import EnsembleInferer as EnsembleInferer
