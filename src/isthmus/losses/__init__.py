"""The losses, as pure functions and small modules, by the data that they want."""

from isthmus.losses.paired import (
    attribute_consistency,
    attribute_entropy,
    attribute_loss,
    hardest_triplet,
    identity_loss,
    reverse_gradient,
)
from isthmus.losses.unpaired import (
    MemoryBank,
    cross_domain_matching,
    instance_discrimination,
    least_squares_gan,
    patch_nce,
    pseudo_positive_pairs,
)

__all__ = [
    "MemoryBank",
    "attribute_consistency",
    "attribute_entropy",
    "attribute_loss",
    "cross_domain_matching",
    "hardest_triplet",
    "identity_loss",
    "instance_discrimination",
    "least_squares_gan",
    "patch_nce",
    "pseudo_positive_pairs",
    "reverse_gradient",
]
