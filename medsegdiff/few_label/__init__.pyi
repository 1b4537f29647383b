from .inferer import FewLabelInferer as FewLabelInferer
from .learn_from_few import FewLabelLearner as FewLabelLearner
from .marker import FewLabelMarker as FewLabelMarker
from .marker import label_efficient as label_efficient
