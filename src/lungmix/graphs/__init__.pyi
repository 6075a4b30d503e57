from .labels import median_labels as median_labels
from .labels import tissue_labels as tissue_labels
from .mask import lung_mask as lung_mask
from .mask import mask_graph as mask_graph
from .potts import potts_labels as potts_labels
