"""The gate: a model goes on only if it is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_osai.operators.promotion import SKIP, OsaiGateOperator
from airflow_provider_osai.promotion.rule import Rule

if TYPE_CHECKING:
    from airflow.sdk import Asset

__all__ = ["OsaiModelGateOperator"]


class OsaiModelGateOperator(OsaiGateOperator):
    """Lets a model on, as the new champion, only if it is better than the champion. See docs/gate.md.

    One gate of a Dag runs at a time, mapped or not, unless you set ``max_active_tis_per_dag``.

    Returns ``model_id``, ``metrics``, ``verdict`` (``promoted`` or ``rejected``), ``reasons``, ``rule``, ``candidate``
    and ``champion``; also on a rejection, which fails nothing. A promotion is an event of the champion's asset and
    says all of it. That models can be compared is documented (docs.onestepai.com); how jobs tell metrics is assumed.

    :param candidate: what the job that made the model returned, or the model's id; of several, the best goes on.
    :param champion: the asset, ``osai_model("defects")``. Its last event says which model stands; none: the floor alone
        decides. It cannot be mapped over: give it in ``partial()``.
    :param metric: what counts. A figure that is missing or NaN rejects, and so does a tie.
    :param higher_is_better: which way is better, for ``metric`` and its floor.
    :param min_value: the floor: what is not at least as good is rejected, champion or not.
    :param min_improvement: by how much it has to be better, in the metric's own unit.
    :param guard_metrics: metrics with a veto: names, ``{"f1": 0.01}`` with the drop that is borne, or
        ``{"loss": {"higher_is_better": False, "max_drop": 0.1, "min_value": 0.5}}``.
    :param on_reject: ``skip`` (default) what follows, or the ids of tasks right after this one to follow instead, which
        a mapped gate cannot do.
    :param same_holdout: have OSAI evaluate both models on ``holdout_dataset_id`` before, by a prediction each.
    :param holdout_dataset_id: images with categories that neither model was trained on.
    :param any_data: compare what was measured on different or unknown data, which is else refused.
    """

    template_fields = (
        *("metric", "higher_is_better", "min_value", "min_improvement", "guard_metrics", "any_data"),
        *OsaiGateOperator.template_fields,
    )

    def __init__(
        self,
        *,
        candidate: Mapping[str, Any] | str | Sequence[Any],
        champion: Asset,
        metric: str = "accuracy",
        higher_is_better: bool = True,
        min_value: float | None = None,
        min_improvement: float = 0.0,
        guard_metrics: Mapping[str, Any] | Sequence[str] | str | None = None,
        on_reject: str | Sequence[str] = SKIP,
        same_holdout: bool = False,
        holdout_dataset_id: str | None = None,
        any_data: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(champion=champion, **kwargs)
        self.candidate = candidate
        self.metric = metric
        self.higher_is_better = higher_is_better
        self.min_value = min_value
        self.min_improvement = min_improvement
        self.guard_metrics = guard_metrics
        self.on_reject = on_reject
        self.same_holdout = same_holdout
        self.holdout_dataset_id = holdout_dataset_id
        self.any_data = any_data

    def build_rule(self) -> Rule:
        """Return when the candidate is better."""
        names = ("metric", "higher_is_better", "min_value", "min_improvement", "guard_metrics", "any_data")
        return Rule(**{name: getattr(self, name) for name in names})
