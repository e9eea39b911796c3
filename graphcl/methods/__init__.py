"""The pretraining methods by name. One method, one file; method.py is the contract."""

from graphcl.methods.adgcl import ADGCL
from graphcl.methods.attribute_masking import AttributeMasking
from graphcl.methods.bgrl import BGRL
from graphcl.methods.context_prediction import ContextPrediction
from graphcl.methods.dgi import DGI
from graphcl.methods.gae import GAE
from graphcl.methods.grace import GRACE
from graphcl.methods.graphcl import GraphCL
from graphcl.methods.infograph import InfoGraph
from graphcl.methods.method import Method
from graphcl.methods.moco import MoCo
from graphcl.methods.pcl import PCL

METHODS: dict[str, type[Method]] = {
    "graphcl": GraphCL,
    "moco": MoCo,
    "grace": GRACE,
    "bgrl": BGRL,
    "dgi": DGI,
    "infograph": InfoGraph,
    "gae": GAE,
    "pcl": PCL,
    "adgcl": ADGCL,
    "attribute_masking": AttributeMasking,
    "context_prediction": ContextPrediction,
}
