"""The objectives that ERM-MinMaxGAP is compared with, one class each, and the list of all.

A group k is a (cell, gender); L_k is its mean loss over the batch, K the number of groups in it. An utterance of
unknown gender belongs to no group: it keeps its weight 1/N (CVaR-DRO, which is blind to groups, treats it like all).

**A new method** is a subclass of ``Loss`` (or of ``Penalised``, if a fairness weight multiplies some of it) with a
``method`` name, its knobs as fields, and ``terms``; add it to ``Method`` at the end, and it can be set, searched,
checkpointed and compared. What it must remember from step to step it returns as ``memory`` tensors::

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
    own_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(batch.losses.mean())


class Reweighting(Loss):
    """sum_k L_k / K: every group counts the same, w_i = 1 / (K n_k), on natural batches.

    Importance weighting of groups; the difference from balanced sampling is the variance where n_k is small.
    """

    method: Literal["reweighting"] = "reweighting"
    own_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(_over_groups(batch, lambda losses: losses.mean()))


class GroupDro(Loss):
    """q_k <- q_k exp(eta L_k) / Z, then minimise sum_k q_k L_k (Sagawa et al. 2020, arXiv 1911.08731).

    q starts uniform and is the memory. A group that is absent from the batch keeps its q up to the normalisation, and
    the sum runs over the groups present, in proportion to their q (ours; the authors' code takes their loss as 0).

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
        here = q * (counts > 0)
        unknown, known = batch.unknown_risk()
        return LossTerms(unknown + known * (here * means).sum() / here.sum().clamp(min=1e-30), state={"q": q})


class VRex(PenalisedLoss):
    """mean_k L_k + lambda Var_k L_k (Krueger et al. 2021, arXiv 2003.00688); lambda is their beta.

    They use up to 10^4 after a warm-up, for environments; at our losses (about 1 nat) 0.1 to 10 is felt. The variance
    is that of the K groups present (divided by K).
    """

    method: Literal["v_rex"] = "v_rex"
    fairness_weight: FairnessWeight = ConstantWeight(weight=1.0)

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        variance = _group_losses(batch).var(correction=0) if (batch.groups >= 0).any() else batch.losses.sum() * 0.0
        return LossTerms(_over_groups(batch, lambda losses: losses.mean()), (variance,))


class CvarDro(Loss):
    """Mean of the worst ``tail`` of the utterance losses (Levy et al. 2020, arXiv 2010.05893); blind to gender.

    Attributes:
        tail: alpha; 1 is ERM. 0.2 to 0.7 are sane; the smaller, the more label noise leads.
    """

    method: Literal["cvar_dro"] = "cvar_dro"
    tail: Share = 0.5
    own_sampling: ClassVar[Sampling] = "natural"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        worst = batch.losses.sort(descending=True).values
        size = self.tail * len(worst)
        whole = int(size)  # of the next utterance, the fraction that is left counts
        shares = worst.new_tensor([1.0] * whole + [size - whole] * (whole < len(worst)))
        return LossTerms((shares * worst[: len(shares)]).sum() / size)


class MinimaxGroup(Loss):
    """max_k L_k: a subgradient step on the worst group of the batch (Diana et al. 2020, arXiv 2011.03108)."""

    method: Literal["minimax"] = "minimax"

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        return LossTerms(_over_groups(batch, lambda losses: losses.max()))


class MinDiff(PenalisedLoss):
    """L + lambda MMD^2(answer states of women, of men): MinDiff (Prost et al. 2019, arXiv 1910.11779).

    MMD^2 = mean k(f, f') + mean k(m, m') - 2 mean k(f, m) with a Gaussian kernel k on the mean hidden states over the
    answer tokens. Ours: its width is the median squared distance of the batch, so that it fits any backbone. 0 where a
    gender is absent.
    """

    method: Literal["min_diff"] = "min_diff"
    fairness_weight: FairnessWeight = ConstantWeight(weight=1.0)
    uses_hidden_states: ClassVar[bool] = True

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        risk, states = batch.losses.mean(), batch.states
        known = batch.groups >= 0
        female, male = known & (batch.groups % 2 == 0), known & (batch.groups % 2 == 1)
        if states is None or not (female.any() and male.any()):
            return LossTerms(risk, (risk * 0.0,))
        states = states.float()
        squared = (states[:, None] - states[None]).pow(2).sum(-1)
        pairs = known[:, None] & known & ~known.new_ones(len(known)).diag()  # of different utterances
        width = squared.detach()[pairs].median().clamp(min=1e-12)
        kernel = (-squared / width).exp()
        within = kernel[female][:, female].mean() + kernel[male][:, male].mean()
        return LossTerms(risk, (within - 2.0 * kernel[female][:, male].mean(),))


def _group_losses(batch: GlobalBatch) -> Tensor:
    """Mean losses (K,) of the groups present."""
    means, counts = batch.group_means()
    return means[counts > 0]


def _over_groups(batch: GlobalBatch, combine: Callable[[Tensor], Tensor]) -> Tensor:
    """``combine`` over the groups present, in proportion to their share; utterances of unknown gender at 1/N each."""
    losses = _group_losses(batch)
    unknown, known = batch.unknown_risk()
    return unknown + known * combine(losses) if len(losses) else unknown


AnyLoss = Annotated[
    Erm | Reweighting | GroupDro | VRex | CvarDro | MinimaxGroup | MinDiff | ErmMinMaxGap,
    Field(discriminator="method"),
]

LOSSES: dict[str, type[Loss]] = {
    method.model_fields["method"].default: method for method in get_args(get_args(AnyLoss)[0])
}
"""Every method by its name."""
