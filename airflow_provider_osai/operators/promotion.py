"""What a gate does: it reads who stands, has both evaluated if need be, decides, and lets on, skips or branches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, SkipMixin

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.requests import PredictionRequest
from airflow_provider_osai.assets.events import announce, extras, keep_silent
from airflow_provider_osai.operators.base import no_vain_retries
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.operators.ledger import ledger_of
from airflow_provider_osai.promotion.champion import Run, champion_of, extra_of
from airflow_provider_osai.promotion.decision import Contender, Decision, Verdict, best, judge

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Asset, Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_osai.jobs.ledger import Ledger
    from airflow_provider_osai.promotion.rule import Rule

__all__ = ["OsaiGateOperator"]

SKIP: Final = "skip"
EVALUATED: Final = "osai_evaluated"
"""The XCom with the metrics of each model that this try has evaluated."""
EVALUATING: Final = "osai_evaluating"
"""The XCom with the model that is being evaluated."""
NOTHING_UNSURE: Final = 1.0
"""The confidence that a label needs to be written while a model is evaluated: the dataset stays what it was."""
ONE_AT_A_TIME: Final[Mapping[str, Any]] = {"max_active_tis_per_dag": 1}
"""Gates of overlapping runs decide one after the other, so that each sees what the one before it did."""
ONLY_SKIP: Final = "a mapped gate can only skip what follows, not choose it; give all candidates to one gate"
"""Airflow runs both branches of a mapped task; since 3.2 also in a mapped task group (apache/airflow#67265)."""


class OsaiGateOperator(OsaiJobOperator, SkipMixin):
    """Decides whether a candidate replaces the champion, an asset whose events are the log of promotions.

    :param champion: the asset. It becomes an inlet and an outlet of the task; its event is made on a promotion only.
    :param kwargs: as for ``OsaiJobOperator``. ``wait_for_completion`` means nothing here and is refused.
    """

    inherits_from_skipmixin = True
    task_defaults = ONE_AT_A_TIME
    fixed_arguments: ClassVar[Mapping[str, Any]] = {"wait_for_completion": True}
    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {"champion": ("inlets", "outlets")}
    template_fields: Sequence[str] = (
        *("candidate", "champion", "on_reject", "same_holdout", "holdout_dataset_id"),
        *OsaiJobOperator.template_fields,
    )

    def __init__(self, *, champion: Asset, **kwargs: Any) -> None:
        super().__init__(**self.fixed_arguments, **kwargs)
        self.champion = champion
        self._add_assets()
        self.candidate: Any = None
        self.on_reject: str | Sequence[str] = SKIP
        self.same_holdout: bool = False
        self.holdout_dataset_id: str | None = None
        self._model_id = ""

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Return the gate with the arguments that are the same for all mapped instances.

        :raises OsaiArgumentError: if *on_reject* names tasks.
        """
        if (on_reject := kwargs.get("on_reject", SKIP)) != SKIP:
            raise OsaiArgumentError(f"on_reject = {on_reject!r}: {ONLY_SKIP}")
        return super().partial(**kwargs)

    @abstractmethod
    def build_rule(self) -> Rule:
        """Return when the candidate is better; raise OsaiArgumentError on a bad value."""

    def build_request(self) -> PredictionRequest:
        """Return the evaluation of the model whose turn it is."""
        return PredictionRequest(
            model_id=self._model_id, dataset_id=self.holdout_dataset_id, min_confidence=NOTHING_UNSURE
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Decide, with both models evaluated before if they have to be."""
        with no_vain_retries():
            self._must_read_assets(context)
            return self._decide(context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Go on after an evaluation."""
        told = super().execute_complete(context, event)
        with no_vain_retries():
            self._remember(context, str(self._recall(context, EVALUATING)), told["metrics"])
            return self._decide(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task with the evaluation that it was deferred on."""
        self._model_id = str(self._recall(context, EVALUATING) or "")
        return super().resume_execution(next_method, next_kwargs, context)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 - its signature
        """Leave it to the assets: a gate reads the champion, and makes a new one if it has an event to tell."""
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415 - an extra

        return OperatorLineage()

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _announce_result(self, context: Context, result: dict[str, Any]) -> None:
        """Say nothing of an evaluation: the champion's event is about the promotion only."""

    def _decide(self, context: Context) -> dict[str, Any]:
        rule, ours = self.build_rule(), _run_of(context)
        branch = self._branch(context)
        candidate, stands = self._chosen(rule), champion_of(extras(context, self.champion))
        if stands is not None and stands.model.model_id == candidate.model_id:
            decision = Decision(Verdict.PROMOTED, ["it is the champion already"], rule, candidate, stands.model)
            return self._conclusion(context, decision, branch, is_event=False)
        champion = stands.model if stands else None
        if self._is_same_holdout():
            candidate = self._evaluated(context, candidate)
            champion = champion and self._evaluated(context, champion)
        decision = judge(rule, candidate, champion)
        if decision.is_promotion and stands and stands.run and ours.is_before(stands.run):
            late = f"a later run, {stands.run.run_id}, has promoted its model already"
            decision = Decision(Verdict.REJECTED, [late], rule, candidate, champion, decision.lines)
        if decision.is_promotion:
            announce(self, context, extra_of(decision.told(), stands, ours))
        return self._conclusion(context, decision, branch, is_event=decision.is_promotion)

    def _chosen(self, rule: Rule) -> Contender:
        """Return the candidate, of several the best; OSAI is asked for the figures of one that is an id alone."""
        several = [self.candidate] if isinstance(self.candidate, (str, Mapping)) else self.candidate
        if not isinstance(several, Iterable) or not (found := [self._contender(told) for told in several]):
            raise OsaiArgumentError(f"candidate = {self.candidate!r}: a model's id is needed, or what its job returned")
        return best(found, rule)

    def _contender(self, told: Any) -> Contender:
        if isinstance(told, str) and told.strip() not in ("", "None", "null"):
            with self._connected() as client:
                model = client.send(client.calls.get_model(told))
            return Contender(told, model.metrics or {})
        if not isinstance(told, Mapping) or not told.get("model_id"):
            raise OsaiArgumentError(f"candidate = {told!r}: it names no model; does the task that it comes from?")
        measured_on = told.get("measured_on") or told.get("data_digest")
        return Contender(str(told["model_id"]), told.get("metrics") or {}, measured_on)

    def _is_same_holdout(self) -> bool:
        wanted = str(self.same_holdout).strip().lower()
        if wanted not in ("true", "false"):
            raise OsaiArgumentError(f"same_holdout = {self.same_holdout!r}: choose True or False")
        if wanted == "true" and not self.holdout_dataset_id:
            raise OsaiArgumentError("same_holdout needs a holdout_dataset_id: the dataset to evaluate both models on")
        return wanted == "true"

    def _evaluated(self, context: Context, contender: Contender) -> Contender:
        """Return the contender with its figures on the holdout; the task may be deferred here until they are known."""
        seen = self._recall(context, EVALUATED) or {}
        if contender.model_id not in seen:
            self._model_id = contender.model_id
            context["ti"].xcom_push(key=EVALUATING, value=contender.model_id)
            told = super().execute(context)
            seen = self._remember(context, contender.model_id, told["metrics"])
        return Contender(contender.model_id, seen[contender.model_id], f"dataset {self.holdout_dataset_id}")

    def _remember(self, context: Context, model_id: str, metrics: dict[str, Any]) -> dict[str, Any]:
        seen = {**(self._recall(context, EVALUATED) or {}), model_id: metrics}
        context["ti"].xcom_push(key=EVALUATED, value=seen)
        return seen

    def _ledger(self, context: Context) -> Ledger:
        return ledger_of(context, self._model_id)

    def _branch(self, context: Context) -> set[str] | None:
        """Return the tasks that a rejection leads to, or ``None`` if it skips what follows."""
        if self.on_reject == SKIP:
            return None
        if context["ti"].map_index not in (None, -1):
            raise OsaiArgumentError(f"on_reject = {self.on_reject!r}: {ONLY_SKIP}")
        branch = {self.on_reject} if isinstance(self.on_reject, str) else set(self.on_reject)
        following = set(self.downstream_task_ids)
        if not branch or not branch <= following:
            known = ", ".join(sorted(following)) or "none"
            raise OsaiArgumentError(
                f"on_reject = {self.on_reject!r}: 'skip', or ids of tasks right after this one ({known})"
            )
        return branch

    def _conclusion(
        self, context: Context, decision: Decision, branch: set[str] | None, *, is_event: bool
    ) -> dict[str, Any]:
        """Tell of the decision, and let on, branch or skip."""
        told = self._tell(context, decision)
        if not is_event:
            keep_silent(self, self.champion.__eq__)
        if branch is not None:
            following = set(self.downstream_task_ids)
            self.skip_all_except(context["ti"], following - branch if decision.is_promotion else branch)
        elif not decision.is_promotion:
            raise AirflowSkipException(f"model {told['model_id']} is not promoted: {'; '.join(decision.reasons)}")
        return told

    def _tell(self, context: Context, decision: Decision) -> dict[str, Any]:
        """Log the decision and push it: a task that skips returns nothing by itself."""
        told = decision.told()
        said = {"model_id": decision.candidate.model_id, "metrics": told["candidate"]["metrics"], **told}
        self.log.info("Model %s is %s: %s", said["model_id"], decision.verdict, "; ".join(decision.reasons))
        self.log.info("%s", decision.table())
        for key, value in {"return_value": said, **said}.items():
            context["ti"].xcom_push(key=key, value=value)
        return said


def _run_of(context: Context) -> Run:
    run = context["dag_run"]
    return Run(run.dag_id, run.run_id, getattr(run, "run_after", None) or run.logical_date)
