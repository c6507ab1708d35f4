"""The losses, as pure functions and small modules, by the data that they want."""

from isthmus.losses.data_free import (
    activation_loss,
    adversarial_loss,
    alignment_loss,
    class_coding,
    distillation_loss,
    information_entropy,
    modality_loss,
    self_labelling,
)
from isthmus.losses.image_priors import NormStatistics, mode_seeking, statistics_loss, total_variation
from isthmus.losses.metric import SymmetricQueue, proxy_anchor
from isthmus.losses.paired import (
    attribute_consistency,
    attribute_entropy,
    attribute_loss,
    hardest_triplet,
    identity_loss,
    reverse_gradient,
)
from isthmus.losses.posterior import posterior_contrast
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
    "NormStatistics",
    "SymmetricQueue",
    "activation_loss",
    "adversarial_loss",
    "alignment_loss",
    "attribute_consistency",
    "attribute_entropy",
    "attribute_loss",
    "class_coding",
    "cross_domain_matching",
    "distillation_loss",
    "hardest_triplet",
    "identity_loss",
    "information_entropy",
    "instance_discrimination",
    "least_squares_gan",
    "modality_loss",
    "mode_seeking",
    "patch_nce",
    "posterior_contrast",
    "proxy_anchor",
    "pseudo_positive_pairs",
    "reverse_gradient",
    "self_labelling",
    "statistics_loss",
    "total_variation",
]
