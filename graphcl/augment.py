"""The augmentations under graphcl's own name: `graphcl.augment.DropNodes` is `augment.DropNodes`."""

from augment import *  # noqa: F403
from augment import __all__ as __all__
