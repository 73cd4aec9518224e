"""The training loss: Tversky plus cross-entropy from logits, and its sum over the levels of deep supervision.

Shapes: B samples, N classes or regions, V voxels of any number of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from autoseg.data.labels import LabelSet
from autoseg.network.factory import load_factory
from autoseg.planning.schema import LossPlan

Parts = dict[str, Tensor]


class Loss(Protocol):
    """Of one output, or (see `deep_supervision_loss`) of a list of outputs, full resolution first."""

    def __call__(self, logits: Tensor | Sequence[Tensor], target: Tensor, present: Tensor | None = None) -> tuple[Tensor, Parts]: ...


class Counts(NamedTuple):
    """Soft counts of each sample and class, and each voxel's cross-entropy."""

    overlap: Tensor  # (B, N) sum of y p: soft true positives
    predicted: Tensor  # (B, N) sum of p
    present: Tensor  # (B, N) sum of y
    cross_entropy: Tensor  # (B, *V), of regions (B, N, *V); 0 where nobody annotated
    annotated: Tensor | None  # bool, as cross_entropy; None: everywhere


def tversky_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    fn_weight: float = 0.5,
    fp_weight: float = 0.5,
    smoothing: float = 1e-6,
    background: bool = True,
    pool: str = "sample",
    power: float = 1,
    class_weight: Sequence[float] | None = None,
    top_k: float | None = None,
    regions: bool = False,
    ignore: int | None = None,
    present: Tensor | Sequence[Sequence[bool]] | None = None,
) -> tuple[Tensor, Parts]:
    """Tversky plus cross-entropy loss, at equal weights (paper.md item 13).

    With p the softmax (regions: sigmoid) of the logits, y the one-hot target, sums over the annotated voxels of one sample:

        TP = sum y p    FN = sum y (1 - p)    FP = sum (1 - y) p
        T_bc = (TP + smoothing) / (TP + fn_weight FN + fp_weight FP + smoothing)
        tversky = mean over b of the sum over c of class_weight_c (1 - T_bc)^power
        cross_entropy = mean over b and annotated voxels of -log p of the true class (regions: binary, over voxels and regions)

    So at power 1 and without class weights the Tversky term is N minus the sum over N classes, 0..N. At .5 and .5 T is the soft Dice,
    whose own smoothing is twice this one. Log-probabilities come from log-softmax; Keras's clip of p to 1e-7..1 - 1e-7 is
    not copied: it would only stop the gradient of the worst voxels. Sums run in float32 (float64 for float64 logits), also under autocast.

    Where a sample's case annotates only some classes, its background may hide the others. There the loss is that of the coarser problem
    that was annotated: the probabilities of background and of the classes that are not annotated are summed (before the logarithm, as
    the log-sum-exp of their logits) and stand, together, for background in both terms; those classes have no term of their own,
    neither in a sample nor in a pooled sum. So moving probability between background and such a class changes nothing. Regions, which
    have no background, are simply left out.

    Args:
        logits: (B, N, *V); N classes with background first, or N regions.
        target: (B, *V) class indices, or (B, N, *V) zeros and ones for regions.
        fn_weight, fp_weight: weights of false negatives and false positives in the index.
        smoothing: added to numerator and denominator, in voxels.
        background: whether class 0 counts in the Tversky term; regions have no background.
        pool: "sample", or "batch": the sums run over the whole batch and there is one T_c.
        power: of (1 - T); below 1 it is the focal Tversky loss.
        class_weight: N weights of the Tversky term, or None for ones.
        top_k: share (0..1] of the annotated voxels, the hardest of the batch, that the cross-entropy is the mean of; None: all.
        regions: overlapping outputs.
        ignore: the target value of voxels that nobody annotated; they count in neither term and get no gradient.
        present: (B, N) booleans, whether the sample's case annotates the class or region; background's entry is not looked at. Where a
            target shows a class that is not annotated, it counts as background. None: all are annotated.

    Returns:
        The loss, and its parts, each a tensor: "tversky", "cross_entropy" (both attached to the graph), and "dice": (N,) soft
        Dice of each class over the samples that annotate it, detached, NaN for a class that the target lacks.

    Raises:
        ValueError: shapes that do not belong together, or an unknown `pool`.
    """
    if present is not None:
        present = torch.as_tensor(present, dtype=torch.bool, device=logits.device)
    _check(logits, target, pool, class_weight, regions, present)
    with torch.autocast(logits.device.type, enabled=False):
        counts = (_count_regions if regions else _count_classes)(logits, target, ignore, present)
        first = 0 if background or regions else 1
        tversky = _tversky(counts, first, fn_weight, fp_weight, smoothing, pool, power, class_weight)
        cross_entropy = _mean_cross_entropy(counts, top_k)
        dice = _dice(counts)
    return tversky + cross_entropy, {"tversky": tversky, "cross_entropy": cross_entropy, "dice": dice}


def make_loss(plan: LossPlan, labels: LabelSet, *, pool_over_batch: bool) -> Loss:
    """The planned loss of one output: `loss(logits, target, present) -> (loss, parts)`.

    The loss is weighted by the plan; its parts are not, and are detached. A factory's loss is called as it is: with `present` only
    where a sample of the batch annotates some classes and not others.

    Raises:
        PlanError: the factory cannot be loaded.
    """
    if plan.factory is not None:
        return _own_loss(load_factory(plan.factory, key="training.loss.factory")(plan, labels.outputs))

    def loss(logits: Tensor, target: Tensor, present: Tensor | None = None) -> tuple[Tensor, Parts]:
        _, parts = tversky_cross_entropy(
            logits,
            target,
            fn_weight=plan.tversky.fn_weight,
            fp_weight=plan.tversky.fp_weight,
            smoothing=plan.tversky.smoothing,
            background=plan.tversky.background,
            pool="batch" if pool_over_batch else "sample",
            power=plan.tversky.power,
            class_weight=plan.tversky.class_weight,
            top_k=plan.cross_entropy.top_k,
            regions=labels.regions,
            ignore=labels.ignore_index,
            present=present,
        )
        total = plan.tversky.weight * parts["tversky"] + plan.cross_entropy.weight * parts["cross_entropy"]
        return total, {name: part.detach() for name, part in parts.items()}

    return loss


def _own_loss(own: Callable[..., tuple[Tensor, Parts]]) -> Loss:
    """The factory's loss; one that has no argument `present` is never shown a batch that needs it (see `knows_present`)."""

    def loss(logits: Tensor, target: Tensor, present: Tensor | None = None) -> tuple[Tensor, Parts]:
        return own(logits, target) if present is None else own(logits, target, present=present)

    loss.knows_present = _takes_present(own)
    return loss


def knows_present(loss: Loss) -> bool:
    """Whether a loss of `make_loss` can take cases that annotate only some classes: the planned one, or one with an argument `present`."""
    return getattr(loss, "knows_present", True)


def _takes_present(own: Callable) -> bool:
    try:
        parameters = signature(own).parameters.values()
    except (TypeError, ValueError):  # built in, or compiled
        return False
    return any(p.name == "present" or p.kind is p.VAR_KEYWORD for p in parameters)


def level_weights(levels: int) -> tuple[float, ...]:
    """Weights of deep supervision, full resolution first: 1, 1/2, 1/4, ..., the lowest 0, made to sum to 1 (peer section 4.7)."""
    if levels == 1:
        return (1.0,)
    halves = [0.5**level for level in range(levels - 1)]
    return (*(weight / sum(halves) for weight in halves), 0.0)


def deep_supervision_loss(loss: Loss, weights: Sequence[float] | None = None) -> Loss:
    """A loss over a list of logits, full resolution first, each against the target brought to its size by nearest neighbour.

    The parts are those of the full resolution. Levels of weight 0 are skipped. A single tensor is passed on to `loss` as it is.

    Args:
        loss: of one output.
        weights: one a level; None: `level_weights`.
    """

    def summed(outputs: Tensor | Sequence[Tensor], target: Tensor, present: Tensor | None = None) -> tuple[Tensor, Parts]:
        if isinstance(outputs, Tensor):
            return loss(outputs, target, present)
        shares = level_weights(len(outputs)) if weights is None else weights
        total, parts = loss(outputs[0], target, present)
        total = shares[0] * total
        for share, logits in zip(shares[1:], outputs[1:], strict=True):
            if share > 0:
                total = total + share * loss(logits, downsample_nearest(target, logits.shape[2:]), present)[0]
        return total, parts

    return summed


def downsample_nearest(target: Tensor, shape: Sequence[int]) -> Tensor:
    """The last axes of `target` brought to `shape`: each new voxel takes the value at its own centre ("nearest-exact")."""
    first = target.ndim - len(shape)
    for axis, (new, old) in enumerate(zip(shape, target.shape[first:], strict=True), start=first):
        if new != old:
            centres = torch.arange(new, device=target.device)
            target = target.index_select(axis, ((2 * centres + 1) * old).div(2 * new, rounding_mode="floor"))
    return target


def _check(logits: Tensor, target: Tensor, pool: str, class_weight: Sequence[float] | None, regions: bool, present: Tensor | None) -> None:
    wanted = tuple(logits.shape) if regions else (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != wanted:
        raise ValueError(f"logits {tuple(logits.shape)} need a target of shape {wanted}, not {tuple(target.shape)}")
    if pool not in ("sample", "batch"):
        raise ValueError(f'pool is "sample" or "batch", not {pool!r}')
    if class_weight is not None and len(class_weight) != logits.shape[1]:
        raise ValueError(f"class_weight has {len(class_weight)} numbers for {logits.shape[1]} outputs")
    if present is not None and tuple(present.shape) != tuple(logits.shape[:2]):
        raise ValueError(f"present has shape {tuple(present.shape)}, logits {tuple(logits.shape)} need {tuple(logits.shape[:2])}")


def _count_classes(logits: Tensor, target: Tensor, ignore: int | None, present: Tensor | None) -> Counts:
    labels, annotated = target.long(), None
    if ignore is not None:
        annotated = labels != ignore
        labels = labels.masked_fill(~annotated, 0)
    if present is not None:
        logits, labels = _with_merged_background(logits, labels, annotated, present)
    return Counts(*_ClassCounts.apply(logits, labels, annotated), annotated)


def _with_merged_background(logits: Tensor, labels: Tensor, annotated: Tensor | None, present: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels of the problem in which what a sample does not annotate is part of its background.

    The softmax of log-sum-exps is the sum of softmaxes; what was merged has probability 0, hence no count and no gradient of its own.
    """
    logits = _at_least_float32(logits)
    if annotated is not None:  # or values that nobody looks at, NaN perhaps, would reach the gradient
        logits = logits.masked_fill(~annotated.unsqueeze(1), 0)
    absent = ~present  # (B, N)
    labels = labels.masked_fill(absent.gather(1, labels.flatten(1)).view(labels.shape), 0)
    absent = absent.view(*absent.shape, *[1] * (logits.ndim - 2))
    background = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(~absent[:, 1:], -torch.inf)], 1).logsumexp(1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(absent[:, 1:], -torch.inf)], 1), labels


class _ClassCounts(torch.autograd.Function):
    """Softmax, its sums and its cross-entropy in one, without a one-hot target.

    Autograd would keep log-probabilities, probabilities and several masks of N x V each; this keeps the probabilities, and its
    gradient is one more array of that size. Voxels that are not annotated have probability 0 everywhere, hence no gradient.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, annotated: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        log_p = torch.log_softmax(_at_least_float32(logits), dim=1)  # (B, N, *V)
        cross_entropy = log_p.gather(1, labels.unsqueeze(1)).squeeze(1).neg_()  # (B, *V)
        p = log_p.exp_()  # (B, N, *V)
        if annotated is not None:
            cross_entropy.masked_fill_(~annotated, 0)
            p.masked_fill_(~annotated.unsqueeze(1), 0)
        voxels = tuple(range(1, labels.ndim))
        overlap, present = [], []
        for index in range(p.shape[1]):  # class by class: no N x V one-hot, and sums that are pairwise, hence exact
            y = labels == index if annotated is None else (labels == index) & annotated
            y = y.to(p.dtype)  # (B, *V)
            present.append(y.sum(voxels))
            overlap.append(y.mul_(p[:, index]).sum(voxels))
        ctx.save_for_backward(p, labels, annotated)
        ctx.logits_type = logits.dtype
        present = torch.stack(present, 1)
        ctx.mark_non_differentiable(present)
        return torch.stack(overlap, 1), p.flatten(2).sum(2), present, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, overlap: Tensor, predicted: Tensor, _present: Tensor, cross_entropy: Tensor) -> tuple[Tensor, None, None]:
        """With g = dL/dp: dL/dlogit_c = p_c (g_c - sum_k p_k g_k) + dL/dCE (p_c - y_c), where g_c = predicted_c + y_c overlap_c."""
        p, labels, annotated = ctx.saved_tensors
        cross_entropy = cross_entropy.unsqueeze(1)  # (B, 1, *V)
        if annotated is not None:
            cross_entropy = cross_entropy.masked_fill(~annotated.unsqueeze(1), 0)
        at = labels.unsqueeze(1)  # (B, 1, *V)
        of_truth = overlap.gather(1, at.flatten(1)).view(at.shape) * p.gather(1, at)  # (B, 1, *V)
        gradient = p * predicted.view(*predicted.shape, *[1] * (p.ndim - 2))  # (B, N, *V)
        mean = gradient.sum(1, keepdim=True).add_(of_truth)
        gradient.addcmul_(p, cross_entropy - mean)
        gradient.scatter_add_(1, at, of_truth.sub_(cross_entropy))
        return gradient.to(ctx.logits_type), None, None


def _count_regions(logits: Tensor, target: Tensor, ignore: int | None, present: Tensor | None) -> Counts:
    logits = _at_least_float32(logits)
    target = target.to(logits.dtype)
    annotated = None if ignore is None else target != ignore
    if present is not None:
        here = present.view(*present.shape, *[1] * (logits.ndim - 2)).expand_as(target)
        annotated = here if annotated is None else annotated & here
    if annotated is not None:
        logits, target = logits.masked_fill(~annotated, 0), target.masked_fill(~annotated, 0)
    p = torch.sigmoid(logits)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if annotated is not None:
        p, cross_entropy = p.masked_fill(~annotated, 0), cross_entropy.masked_fill(~annotated, 0)
    voxels = tuple(range(2, logits.ndim))
    return Counts((p * target).sum(voxels), p.sum(voxels), target.sum(voxels), cross_entropy, annotated)


def _tversky(
    counts: Counts,
    first: int,
    fn_weight: float,
    fp_weight: float,
    smoothing: float,
    pool: str,
    power: float,
    class_weight: Sequence[float] | None,
) -> Tensor:
    overlap, predicted, present = (sums[:, first:] for sums in counts[:3])  # (B, N)
    if pool == "batch":
        overlap, predicted, present = (sums.sum(0, keepdim=True) for sums in (overlap, predicted, present))
    wrong = fn_weight * (present - overlap) + fp_weight * (predicted - overlap)
    # 1 - T, written as one quotient: no cancellation near 0, and 0 for an absent, unpredicted class without smoothing.
    loss = wrong / (overlap + wrong + smoothing).clamp_min(torch.finfo(wrong.dtype).tiny)
    if power != 1:
        above = loss > 0
        loss = torch.where(above, loss, 1) ** power * above  # a root's slope at 0 is infinite
    if class_weight is not None:
        loss = loss * loss.new_tensor(class_weight[first:])
    return loss.sum(1).mean()


def _mean_cross_entropy(counts: Counts, top_k: float | None) -> Tensor:
    losses, annotated = counts.cross_entropy, counts.annotated
    if top_k is not None:
        hardest = losses.flatten().topk(max(1, _share_of(losses.numel(), top_k))).values  # falling; 0 where nobody annotated
        if annotated is None:
            return hardest.mean()
        number = _share_of(annotated.sum(), top_k).clamp(min=1)  # stays on the device: a GPU is not waited for
        counting = torch.arange(len(hardest), device=losses.device) < number
        return hardest.masked_fill(~counting, 0).sum() / number
    if annotated is None:
        return losses.mean()
    return losses.sum() / annotated.sum().clamp(min=1)


def _share_of(number: int | Tensor, share: float) -> int | Tensor:
    """Rounded down, the share taken to six digits: 3 of 10 are 0.3, whatever 0.3 is in binary."""
    return number * round(share * 1_000_000) // 1_000_000


def _dice(counts: Counts) -> Tensor:
    overlap, predicted, present = (sums.detach().sum(0) for sums in counts[:3])  # (N,)
    return torch.where(present > 0, 2 * overlap / (present + predicted), torch.nan)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
