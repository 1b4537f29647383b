from .demonstration import demo as demo
from .fold import segment_fold as segment_fold
from .image_items import image_items as image_items
from .job import segment as segment
from .one_by_one import raise_for_failures as raise_for_failures
from .placing import Placing as Placing
from .segmenter import CaseSegmenter as CaseSegmenter
