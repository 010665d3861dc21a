"""The losses that ERM-MinMaxGAP is compared with, and the registry of all losses.

Notation: a group k is a (cell, gender), L_k is its mean loss over the batch, K is the number of groups in the batch. An
utterance of unknown gender belongs to no group and keeps the weight 1/N (CVaR-DRO ignores groups and treats it like any
other).

**To add a loss**, write a subclass of ``Loss``, or of ``PenalisedLoss`` if a fairness weight multiplies part of it,
with a ``method`` name, its hyperparameters as fields, and ``terms``. Then add it to ``AnyLoss`` at the end of this
file. It can now be set, searched, checkpointed and compared. What it carries from step to step it returns as the
tensors of ``state``::

    class WorstCell(Loss):
        \"\"\"max_c L_c: the mean loss of the worst cell.\"\"\"

        method: Literal["worst_cell"] = "worst_cell"

        def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
            means, counts = batch.group_means()
            sums = (means * counts).view(-1, 2).sum(1)
            return LossTerms((sums / counts.view(-1, 2).sum(1).clamp(min=1)).max())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import Field

from study.common.base_model import Positive, Share
from study.losses.base import GlobalBatch, Loss, LossState, LossTerms, PenalisedLoss, Sampling
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import ConstantWeight, FairnessWeight

if TYPE_CHECKING:
    from torch import Tensor


class Erm(Loss):
    """(1/N) sum_i l_i."""

    method: Literal["erm"] = "erm"
    default_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(batch.losses.mean())


class Reweighting(Loss):
    """sum_k L_k / K: group reweighting, w_i = 1 / (K n_k), on natural batches.

    It differs from balanced sampling in its variance where n_k is small.
    """

    method: Literal["reweighting"] = "reweighting"
    default_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(_over_groups(batch, lambda losses: losses.mean()))


class GroupDro(Loss):
    """q_k <- q_k exp(eta L_k) / Z, then minimise sum_k q_k L_k (Sagawa et al. 2020, arXiv 1911.08731).

    q is the loss state and starts uniform. A group that is absent from the batch keeps its q up to the normalisation,
    and the sum runs over the groups present, in proportion to their q (ours; the authors' code takes their loss as 0).

    Attributes:
        step_size: eta; their experiments use 0.01, with strong regularisation.
    """

    method: Literal["group_dro"] = "group_dro"
    step_size: Positive = 0.01

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        means, counts = batch.group_means()
        q = state["q"] if state else means.new_full(means.shape, 1.0 / len(means))
        q = q * (self.step_size * means.detach()).exp()
        q = q / q.sum()
        q_present = q * (counts > 0)
        unknown, known_share = batch.unknown_gender_risk()
        worst = (q_present * means).sum() / q_present.sum().clamp(min=1e-30)
        return LossTerms(unknown + known_share * worst, state={"q": q})


class VRex(PenalisedLoss):
    """mean_k L_k + lambda Var_k L_k (Krueger et al. 2021, arXiv 2003.00688); lambda is their beta.

    They use up to 10^4 after a warm-up, for environments; at our losses (about 1 nat), 0.1 to 10 has an effect. The
    variance is that of the K groups present (divided by K).
    """

    method: Literal["v_rex"] = "v_rex"
    fairness_weight: FairnessWeight = ConstantWeight(weight=1.0)

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        variance = _group_losses(batch).var(correction=0) if (batch.groups >= 0).any() else batch.losses.sum() * 0.0
        return LossTerms(_over_groups(batch, lambda losses: losses.mean()), (variance,))


class CvarDro(Loss):
    """The mean of the worst ``tail`` of the utterance losses (Levy et al. 2020, arXiv 2010.05893); ignores gender.

    Attributes:
        tail: alpha; 1 is ERM. Sensible values are 0.2 to 0.7; the smaller it is, the more label noise dominates.
    """

    method: Literal["cvar_dro"] = "cvar_dro"
    tail: Share = 0.5
    default_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        worst = batch.losses.sort(descending=True).values
        size = self.tail * len(worst)
        whole = int(size)  # the next utterance counts by the fraction that remains
        shares = worst.new_tensor([1.0] * whole + [size - whole] * (whole < len(worst)))
        return LossTerms((shares * worst[: len(shares)]).sum() / size)


class MinimaxGroup(Loss):
    """max_k L_k: a subgradient step on the worst group of the batch (Diana et al. 2020, arXiv 2011.03108)."""

    method: Literal["minimax"] = "minimax"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(_over_groups(batch, lambda losses: losses.max()))


class MinDiff(PenalisedLoss):
    """L + lambda MMD^2(hidden states of women, of men): MinDiff (Prost et al. 2019, arXiv 1910.11779).

    MMD^2 = mean k(f, f') + mean k(m, m') - 2 mean k(f, m) with a Gaussian kernel k on the mean hidden states over the
    answer tokens. Ours: its width is the median squared distance of the batch, so that it fits any backbone. MMD^2 is 0
    where a gender is absent.
    """

    method: Literal["min_diff"] = "min_diff"
    fairness_weight: FairnessWeight = ConstantWeight(weight=1.0)
    uses_hidden_states: ClassVar[bool] = True

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        risk, hidden_states = batch.losses.mean(), batch.hidden_states
        known = batch.groups >= 0
        female, male = known & (batch.groups % 2 == 0), known & (batch.groups % 2 == 1)
        if hidden_states is None or not (female.any() and male.any()):
            return LossTerms(risk, (risk * 0.0,))
        hidden_states = hidden_states.float()
        squared = (hidden_states[:, None] - hidden_states[None]).pow(2).sum(-1)
        pairs = known[:, None] & known & ~known.new_ones(len(known)).diag()  # of different utterances
        width = squared.detach()[pairs].median().clamp(min=1e-12)
        kernel = (-squared / width).exp()
        within = kernel[female][:, female].mean() + kernel[male][:, male].mean()
        return LossTerms(risk, (within - 2.0 * kernel[female][:, male].mean(),))


def _group_losses(batch: GlobalBatch) -> Tensor:
    """Return the mean losses (K,) of the groups present."""
    means, counts = batch.group_means()
    return means[counts > 0]


def _over_groups(batch: GlobalBatch, combine: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``combine`` of the L_k present, weighted by their share, plus the risk of utterances of unknown gender."""
    losses = _group_losses(batch)
    unknown, known_share = batch.unknown_gender_risk()
    return unknown + known_share * combine(losses) if len(losses) else unknown


AnyLoss = Annotated[
    Erm | Reweighting | GroupDro | VRex | CvarDro | MinimaxGroup | MinDiff | ErmMinMaxGap,
    Field(discriminator="method"),
]

LOSSES: dict[str, type[Loss]] = {loss.model_fields["method"].default: loss for loss in get_args(get_args(AnyLoss)[0])}
"""Every loss by the name of its method."""
