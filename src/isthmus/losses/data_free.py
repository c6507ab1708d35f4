"""The losses of data-free retrieval on what networks answer: for generators, teachers and students (CVPR 2023).

What they need beside answers, images that look like those a teacher was trained on, is in `image_priors`; the metric
losses of the students are in `metric`. All work in float32 and want finite logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def self_labelling(logits: Tensor) -> Tensor:
    """L_oh: cross-entropy with the teacher's own first choice, small where the teacher is sure.

    `- mean_i log p_i[argmax p_i]` (DAFL, Chen et al., arXiv 1904.01186, eq. 2). The paper's weight is 3.

    Args:
        logits: (n, c) of the teacher.

    Returns:
        A scalar in [0, log c].

    Example:
        >>> round(float(self_labelling(torch.zeros(1, 2))), 4)
        0.6931
    """
    return F.cross_entropy(logits.float(), logits.argmax(dim=1))


def class_coding(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the classes that the generator was asked for: `- mean_i log p_i[y_i]`.

    Args:
        logits: (n, c) of the teacher.
        targets: (n,) int64, drawn beforehand.

    Returns:
        A scalar >= 0.
    """
    return F.cross_entropy(logits.float(), targets)


def information_entropy(logits: Tensor, base: float = math.e) -> Tensor:
    """L_ie: how unevenly a batch covers the classes, minus the entropy of its mean prediction.

    `sum_c q_c log_base q_c` with `q = mean_i p_i` (DAFL, eq. 5). Smallest, `- log_base c`, where all classes are
    covered alike. The paper's weight is 5 with `base=10`, which is 5 / ln 10 = 2.17 with the natural logarithm.

    Args:
        logits: (n, c) of the teacher.
        base: of the logarithm, > 1.

    Returns:
        A scalar in [- log_base c, 0].

    Example:
        >>> sure = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])
        >>> round(float(information_entropy(sure, base=2)), 4), round(float(information_entropy(sure[:1])), 4)
        (-1.0, -0.0)
    """
    # In logarithms, because q log q has no slope at a q that has become 0.
    q = F.log_softmax(logits.float(), dim=1).logsumexp(dim=0) - math.log(len(logits))
    return (q.exp() * q).sum() / math.log(base)


def activation_loss(features: Tensor) -> Tensor:
    """L_a: `- mean |f|`; images like those it was trained on excite a network's last features (DAFL, eq. 4).

    Args:
        features: (n, d), the teacher's penultimate activations.

    Returns:
        A scalar <= 0, without a bound: the paper's weight is 0.1.
    """
    return -features.float().abs().mean()


def modality_loss(logits: Tensor, domain_code: int | Tensor) -> Tensor:
    """Cross-entropy of the modality classifier with the domain that a generator stands for.

    Args:
        logits: (n, m) of the modality classifier.
        domain_code: the domain's column, or (n,) int64.

    Returns:
        A scalar >= 0.
    """
    targets = torch.as_tensor(domain_code, dtype=torch.int64, device=logits.device).expand(len(logits))
    return F.cross_entropy(logits.float(), targets)


def alignment_loss(
    photo_logits: Tensor,
    sketch_logits: Tensor,
    photo_columns: Sequence[int] | Tensor,
    sketch_columns: Sequence[int] | Tensor,
    detach: Literal["photo", "sketch"] | None = None,
) -> Tensor:
    """Both teachers are to see one class in the photo and the sketch of one z.

    `mean_i (KL(p_i || s_i) + KL(s_i || p_i)) / 2`, where p and s are the posteriors over the matched classes alone,
    renormalised. With `detach` the one-sided `KL(constant side || other side)`: the public code holds the sketch
    constant, so that the photo generator alone learns.

    Args:
        photo_logits: (n, c) of the photo teacher for the photos.
        sketch_logits: (n, c') of the sketch teacher for the sketches of the same z.
        photo_columns: the matched classes' columns, k of them.
        sketch_columns: the same classes' columns in the other teacher, in the same order.
        detach: which side is a constant; None: neither.

    Returns:
        A scalar >= 0; 0 for a single matched class.

    Raises:
        ValueError: not as many columns on one side as on the other, or none.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> float(alignment_loss(logits, logits[:, [2, 1]], [2, 1], [0, 1]))
        0.0
    """
    if len(photo_columns) != len(sketch_columns) or not len(photo_columns):
        raise ValueError(f"{len(photo_columns)} photo columns against {len(sketch_columns)} sketch columns")
    p, s = (
        F.log_softmax(logits[:, torch.as_tensor(columns, device=logits.device)].float(), dim=1)
        for logits, columns in ((photo_logits, photo_columns), (sketch_logits, sketch_columns))
    )
    if detach == "sketch":
        return _kl(s.detach(), p)
    if detach == "photo":
        return _kl(p.detach(), s)
    return 0.5 * (_kl(p, s) + _kl(s, p))


def adversarial_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    form: Literal["jensen-shannon", "cross-entropy"] = "jensen-shannon",
) -> Tensor:
    """Draws a generator to images on which the student still differs from the teacher.

    `- JS(p, q) = - mean_i (KL(p_i || m_i) + KL(q_i || m_i)) / 2` with `m = (p + q) / 2`, which can't fall below
    -log 2. The paper's `- mean_i CE(student_i, argmax teacher_i)` has no bound: a generator can follow it for ever to
    images on which the student is absurdly wrong.

    Args:
        student_logits: (n, c).
        teacher_logits: (n, c), in the same order of classes.
        form: which.

    Returns:
        A scalar in [-log 2, 0], or <= 0.

    Raises:
        ValueError: the two are not of one shape, or there is no such form.

    Example:
        >>> sure = torch.tensor([[50.0, 0.0]])
        >>> round(float(adversarial_loss(sure, sure.flip(1))), 4)
        -0.6931
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"student logits {tuple(student_logits.shape)}, teacher's {tuple(teacher_logits.shape)}")
    if form == "cross-entropy":
        return -F.cross_entropy(student_logits.float(), teacher_logits.argmax(dim=1))
    if form != "jensen-shannon":
        raise ValueError(f"no form {form!r}")
    p, q = F.log_softmax(student_logits.float(), dim=1), F.log_softmax(teacher_logits.float(), dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return -0.5 * (_kl(p, middle) + _kl(q, middle))


def distillation_loss(
    similarities: Tensor, teacher_logits: Tensor, *, scale: float, temperature: float = 1.0
) -> Tensor:
    """The student's nearness to each class is to be what the teacher believes of it.

    `mean_i KL(softmax(t_i / temperature) || softmax(scale s_i))`; the teacher is a constant.

    Args:
        similarities: (n, c), cosines of the student's embeddings with one vector a class.
        teacher_logits: (n, c), in the same order of classes.
        scale: > 0, how much a cosine counts; 1 / 0.07 is usual.
        temperature: > 0; above 1 it softens the teacher.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: the two are not of one shape.
    """
    if similarities.shape != teacher_logits.shape:
        raise ValueError(f"similarities {tuple(similarities.shape)}, teacher's logits {tuple(teacher_logits.shape)}")
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return _kl(teacher, F.log_softmax(scale * similarities.float(), dim=1))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Mean over rows of KL(p || q), of logarithms."""
    return F.kl_div(q, p, reduction="batchmean", log_target=True)
