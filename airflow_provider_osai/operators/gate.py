"""The model gate: promotes a model only if it is better than the current champion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, SkipMixin

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError, OsaiJobFailed, OsaiRequestError
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import PredictionRequest
from airflow_provider_osai.assets.events import asset_event_extras, set_asset_event_extra, suppress_asset_events
from airflow_provider_osai.jobs.log_group import group_lines
from airflow_provider_osai.jobs.wanted import RETURN_VALUE
from airflow_provider_osai.links.portal import leave_links_as_pushed
from airflow_provider_osai.operators._callbacks import collect_callbacks, run_callbacks
from airflow_provider_osai.operators._outputs import push_outputs
from airflow_provider_osai.operators._state_store import job_checkpoint_store
from airflow_provider_osai.operators._tracking import check_tracker, has_tracker, promote_in_tracker
from airflow_provider_osai.operators.base import fail_without_retry
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.promotion.champion import Run, current_champion, promotion_extra
from airflow_provider_osai.promotion.decision import (
    Decision,
    DecisionRecord,
    ModelScore,
    Verdict,
    best_candidate,
    decide,
)
from airflow_provider_osai.promotion.rule import PromotionPolicy

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Asset, Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_osai.api.calls import Call
    from airflow_provider_osai.jobs.checkpoint import JobCheckpointStore
    from airflow_provider_osai.promotion.champion import Champion

__all__ = ["GateResult", "OsaiModelGateOperator"]

SKIP: Final = "skip"
FAIL: Final = "fail"
IGNORE: Final = "ignore"
GONE: Final = frozenset({404, 410})
"""HTTP statuses that mean OSAI does not have the object."""
EVALUATED: Final = "osai_evaluated"
"""The XCom with the metrics of each model evaluated in this try; ``None`` for a model that OSAI does not have."""
EVALUATING: Final = "osai_evaluating"
"""The XCom with the id of the model that is being evaluated."""
EVALUATION_JOBS: Final = "osai_evaluation_jobs"
"""The XCom with the job id of each evaluation by model id, for the gate page."""
MAX_CONFIDENCE: Final = 1.0
"""The ``min_confidence`` of an evaluation: next to no labels are written, so the dataset stays almost unchanged."""
TASK_DEFAULTS: Final[Mapping[str, Any]] = {"max_active_tis_per_dag": 1}
"""Gates of overlapping runs decide one after the other, so that each sees the previous promotion."""
ONLY_SKIP: Final = "a mapped gate can only skip or fail, not branch; give all candidates to one gate"
"""Airflow runs both branches of a mapped task; since 3.2 also in a mapped task group (apache/airflow#67265)."""


class GateResult(DecisionRecord):
    """The result of a gate: the decision, with the candidate's id and metrics."""

    model_id: str
    metrics: dict[str, Any]


class OsaiModelGateOperator(OsaiJobOperator, SkipMixin):
    """Promotes a model to champion only if it is better than the current champion. See docs/gate.md.

    One gate of a Dag runs at a time, mapped or not, unless you set ``max_active_tis_per_dag``.

    Returns ``model_id``, ``metrics``, ``decision`` (``promoted`` or ``rejected``), ``reasons``, ``rule``, ``candidate``
    and ``champion``. A rejection pushes them too, and does not fail the Dag run by default. A promotion creates an
    event of the champion's asset with the decision. That models can be compared is documented (docs.onestepai.com);
    how jobs report metrics is assumed.

    :param candidate: the result of the job that made the model, or the model's id; of several, such as the list of a
        batch, the best is used.
    :param champion: the asset, ``osai_model("defects")``. Its last event names the current champion; without an event,
        only the thresholds apply. It cannot be mapped: pass it to ``partial()``.
    :param metric: the metric to compare. A missing or NaN value rejects the candidate, and so does a tie.
    :param higher_is_better: the direction of ``metric``.
    :param threshold: the minimum value (the maximum with ``higher_is_better=False``), with or without a champion.
    :param min_improvement: the minimum improvement over the champion, in the metric's own unit.
    :param guardrail_metrics: further metrics that can reject the candidate: names, ``{"f1": 0.01}`` with the maximum
        drop, or ``{"loss": {"higher_is_better": False, "max_drop": 0.1, "threshold": 0.5}}``.
    :param on_reject: what a rejection does: ``skip`` (default) the gate and its downstream tasks, or ``fail`` the task,
        without retries.
    :param rejected_task_ids: ids of tasks directly downstream to run after a rejection, instead of the others. A mapped
        gate cannot branch.
    :param evaluation_dataset_id: have OSAI evaluate both models on this dataset first, with one prediction each: images
        with categories that neither model was trained on. Default ``None``: compare the metrics of the trainings.
    :param if_champion_missing: what to do if OSAI does not have the champion's model any more. ``fail`` (default): fail
        without retries when the champion is to be evaluated; the error names it and its promotion. ``ignore``: apply
        only the thresholds, as without a champion. If OSAI is unreachable or rejects the token, the champion does not
        count as missing.
    :param allow_different_data: compare metrics measured on different or unknown data, which otherwise rejects.
    :param on_promoted: called in the task after a promotion: a function ``f(context)``, a notifier, or a list of them.
        The context also has ``osai_gate``, the gate's result. An error is logged, and changes nothing. Not called for a
        candidate that is the champion already. Default ``None``: nothing is called.
    :param on_rejected: the same after a rejection, before the task is skipped or fails.
    :param track_to: ``mlflow``: move the alias ``champion`` of MLflow's registered model to a promoted model; see
        docs/mlflow.md. An MLflow that fails never fails the gate. Default ``None``: write nothing.
    :param mlflow_experiment: the experiment of the candidate's training. Default: as for the training.
    :param mlflow_model: the name of the registered model. Default: the last part of the champion's URI.
    """

    inherits_from_skipmixin = True
    task_defaults = TASK_DEFAULTS
    fixed_arguments: ClassVar[Mapping[str, Any]] = {"wait_for_completion": True}
    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {"champion": ("inlets", "outlets")}
    callback_arguments = ("on_promoted", "on_rejected")
    template_fields = (
        *("metric", "higher_is_better", "threshold", "min_improvement", "guardrail_metrics", "allow_different_data"),
        *("candidate", "champion", "on_reject", "rejected_task_ids", "evaluation_dataset_id", "if_champion_missing"),
        *("track_to", "mlflow_experiment", "mlflow_model"),
        *OsaiJobOperator.template_fields,
    )

    def __init__(
        self,
        *,
        candidate: Mapping[str, Any] | str | Sequence[Any],
        champion: Asset,
        metric: str = "accuracy",
        higher_is_better: bool = True,
        threshold: float | None = None,
        min_improvement: float = 0.0,
        guardrail_metrics: Mapping[str, Any] | Sequence[str] | str | None = None,
        on_reject: str = SKIP,
        rejected_task_ids: str | Sequence[str] | None = None,
        evaluation_dataset_id: str | None = None,
        if_champion_missing: str = FAIL,
        allow_different_data: bool = False,
        on_promoted: Callable[[Context], object] | Sequence[Callable[[Context], object]] | None = None,
        on_rejected: Callable[[Context], object] | Sequence[Callable[[Context], object]] | None = None,
        track_to: str | None = None,
        mlflow_experiment: str | None = None,
        mlflow_model: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**self.fixed_arguments, **kwargs)
        self.champion = champion
        self._add_assets()
        self.candidate = candidate
        self.metric = metric
        self.higher_is_better = higher_is_better
        self.threshold = threshold
        self.min_improvement = min_improvement
        self.guardrail_metrics = guardrail_metrics
        self.on_reject = on_reject
        self.rejected_task_ids = rejected_task_ids
        self.evaluation_dataset_id = evaluation_dataset_id
        self.if_champion_missing = if_champion_missing
        self.allow_different_data = allow_different_data
        self.on_promoted = on_promoted
        self.on_rejected = on_rejected
        self.track_to = track_to
        self.mlflow_experiment = mlflow_experiment
        self.mlflow_model = mlflow_model
        self._model_id = ""
        self._evaluations: dict[str, Any] = {}
        self._evaluation_jobs: dict[str, str] = {}

    def build_policy(self) -> PromotionPolicy:
        """Return the promotion policy."""
        names = (
            "metric",
            "higher_is_better",
            "threshold",
            "min_improvement",
            "guardrail_metrics",
            "allow_different_data",
        )
        return PromotionPolicy(**{name: getattr(self, name) for name in names})

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Return the mapped operator with the arguments that all its instances share.

        :raises OsaiArgumentError: if *rejected_task_ids* is given.
        """
        if (task_ids := kwargs.get("rejected_task_ids")) is not None:
            raise OsaiArgumentError(f"rejected_task_ids = {task_ids!r}: {ONLY_SKIP}")
        return super().partial(**kwargs)

    def build_request(self) -> PredictionRequest:
        """Return the prediction that evaluates the current model."""
        return PredictionRequest(
            model_id=self._model_id, dataset_id=self.evaluation_dataset_id, min_confidence=MAX_CONFIDENCE
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Evaluate both models if requested, then decide."""
        leave_links_as_pushed(self)
        with fail_without_retry():
            self._must_read_assets(context)
            self._evaluations = {}
            self._evaluation_jobs = {}
            return self._decide(context)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Continue after an evaluation."""
        with fail_without_retry():
            self._evaluations = dict(self._pull_own_xcom(context, EVALUATED) or {})
            self._evaluation_jobs = dict(self._pull_own_xcom(context, EVALUATION_JOBS) or {})
            model_id = str(self._pull_own_xcom(context, EVALUATING))
            self._evaluate(context, model_id, partial(super().execute_complete, context, event))
            return self._decide(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Restore the id of the model that is being evaluated, then resume the task."""
        self._model_id = str(self._pull_own_xcom(context, EVALUATING) or "")
        return super().resume_execution(next_method, next_kwargs, context)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return no facets: the lineage follows from the task's assets."""
        from airflow.providers.openlineage.extractors import OperatorLineage  # optional dependency

        return OperatorLineage()

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def _update_asset_events(self, context: Context, result: dict[str, Any]) -> None:
        """Add nothing to the asset event: it describes the promotion, not an evaluation."""

    def _decide(self, context: Context) -> dict[str, Any]:
        policy = self.build_policy()
        check_tracker(self.track_to)
        run = _dag_run(context)
        branch = self._branch(context)
        callbacks = {
            Verdict.PROMOTED: collect_callbacks("on_promoted", self.on_promoted),
            Verdict.REJECTED: collect_callbacks("on_rejected", self.on_rejected),
        }
        ignores_missing = self._choice("if_champion_missing", FAIL, IGNORE) == IGNORE
        candidate = self._candidate_score(policy)
        current = current_champion(asset_event_extras(context, self.champion))
        if current is not None and current.model.model_id == candidate.model_id:
            decision = Decision(Verdict.PROMOTED, ["it is the champion already"], policy, candidate, current.model)
            return self._apply_decision(context, decision, branch, is_event=False)
        champion = current.model if current else None
        if self.evaluation_dataset_id is not None:
            candidate = self._evaluated(context, candidate) or candidate
            champion = champion and self._evaluated(context, champion)
        elif champion and ignores_missing and self._is_gone(champion.model_id, candidate.model_id):
            champion = None
        missing = current.model.model_id if current and champion is None else None
        decision = decide(policy, candidate, champion, missing)
        if decision.is_promotion and current and current.run and run.is_before(current.run):
            reason = f"a later run, {current.run.run_id}, has promoted its model already"
            decision = Decision(Verdict.REJECTED, [reason], policy, candidate, champion, decision.comparisons)
        if decision.is_promotion:
            set_asset_event_extra(self, context, promotion_extra(decision.to_dict(), current, run))
        return self._apply_decision(
            context, decision, branch, is_event=decision.is_promotion, callbacks=callbacks[decision.verdict]
        )

    def _candidate_score(self, policy: PromotionPolicy) -> ModelScore:
        """Return the score of the candidate, or of the best of several; fetch the metrics of a bare model id."""
        candidates = [self.candidate] if isinstance(self.candidate, (str, Mapping)) else self.candidate
        if isinstance(candidates, Iterable):
            candidates = [value for value in candidates if not _has_failed(value)]
        if not isinstance(candidates, Iterable) or not (scores := [self._score(value) for value in candidates]):
            raise OsaiArgumentError(f"candidate = {self.candidate!r}: a model id or the result of its job is required")
        return best_candidate(scores, policy)

    def _score(self, candidate: Any) -> ModelScore:
        if isinstance(candidate, str) and candidate.strip() not in ("", "None", "null"):
            with self._connected() as client:
                model = client.send(client.calls.get_model(candidate))
            return ModelScore(candidate, model.metrics or {}, source="OSAI's record of the model")
        if not isinstance(candidate, Mapping) or not candidate.get("model_id"):
            raise OsaiArgumentError(f"candidate = {candidate!r}: no model_id. Does the upstream task return one?")
        measured_on = candidate.get("measured_on") or candidate.get("data_digest")
        metrics, source = candidate.get("metrics") or {}, "the result of its job"
        if not metrics:
            with self._connected() as client:
                if client.calls.contract.lacks("training.get", "result.metrics"):
                    metrics = client.get_model(str(candidate["model_id"])).metrics or {}
                    source = "OSAI's record of the model"
        return ModelScore(str(candidate["model_id"]), metrics, measured_on, source)

    def _choice(self, argument: str, *choices: str) -> str:
        value = getattr(self, argument)
        if (choice := str(value).strip().lower()) not in choices:
            raise OsaiArgumentError(f"{argument} = {value!r}: must be {' or '.join(map(repr, choices))}")
        return choice

    def _evaluated(self, context: Context, score: ModelScore) -> ModelScore | None:
        """Return the score on the evaluation dataset, or ``None`` for a missing champion that is ignored.

        May defer the task until the evaluation has finished.
        """
        model_id = self._model_id = score.model_id
        if model_id not in self._evaluations:
            # Push them before deferring, so that the resumed task can pull them.
            context["ti"].xcom_push(key=EVALUATED, value=self._evaluations)
            context["ti"].xcom_push(key=EVALUATION_JOBS, value=self._evaluation_jobs)
            context["ti"].xcom_push(key=EVALUATING, value=model_id)
            self._evaluate(context, model_id, partial(super().execute, context))
        if (metrics := self._evaluations[model_id]) is None:
            return None
        return ModelScore(model_id, metrics, f"dataset {self.evaluation_dataset_id}", "the evaluation")

    def _evaluate(self, context: Context, model_id: str, evaluate: Callable[[], dict[str, Any]]) -> None:
        """Run an evaluation and store its metrics: ``None`` for a missing champion that is ignored.

        :raises OsaiArgumentError: if the champion is missing and not ignored.
        """
        metrics = None
        try:
            result = evaluate()
            metrics = result["metrics"]
            self._evaluation_jobs[model_id] = result["job_id"]
        except (AirflowFailException, OsaiJobFailed) as error:
            cause = error.__cause__ if isinstance(error, AirflowFailException) else error
            current = current_champion(asset_event_extras(context, self.champion))
            # The candidate is evaluated first, so a model that exists at OSAI is known by now.
            existing_id = next(iter(self._evaluations), None)
            if current is None or current.model.model_id != model_id or existing_id is None:
                raise
            if not isinstance(cause, (OsaiRequestError, OsaiJobFailed)):
                raise
            if not self._is_gone(model_id, existing_id, cause):
                raise
            if self._choice("if_champion_missing", FAIL, IGNORE) != IGNORE:
                raise self._missing_error(current, cause) from cause
            self.log.warning("Champion model %s is missing at OSAI and is ignored: %s", model_id, cause)
        self._evaluations[model_id] = metrics
        context["ti"].xcom_push(key=EVALUATED, value=self._evaluations)
        context["ti"].xcom_push(key=EVALUATION_JOBS, value=self._evaluation_jobs)

    def _missing_error(self, current: Champion, cause: Exception) -> OsaiArgumentError:
        return OsaiArgumentError(
            f"Champion model {current.model.model_id} is missing at OSAI (deleted, or in another account): {cause}. "
            f"It is the champion of {self.champion.uri}, {current.promoted_by()}. Set if_champion_missing='ignore' to "
            "apply only the thresholds, or create an event of that asset that names an existing model"
        )

    def _is_gone(self, model_id: str, existing_id: str, refusal: Exception | None = None) -> bool:
        """Return whether OSAI does not have a model, provided that its answer distinguishes models.

        :param existing_id: a model that exists at OSAI: a 404 for it too shows that reading models is not supported.
        :param refusal: the error from the attempt to use the model.
        """
        with self._connected() as client:

            def exists(call: Callable[[str], Call[Any]], endpoint: str, object_id: str) -> bool | None:
                if endpoint not in client.calls.contract:
                    return None
                try:
                    client.send(call(object_id))
                except OsaiRequestError as error:
                    return False if error.status in GONE else None
                except OsaiContractError:
                    return None
                return True

            model_exists = exists(client.calls.get_model, "model.get", model_id)
            if model_exists is False and exists(client.calls.get_model, "model.get", existing_id):
                return True
            if model_exists or not isinstance(refusal, OsaiRequestError) or refusal.status not in GONE:
                return False
            # Either the model or the dataset was not found; if the dataset exists, it was the model.
            return bool(exists(client.calls.get_dataset, "dataset.get", str(self.evaluation_dataset_id)))

    def _checkpoint_store(self, context: Context) -> JobCheckpointStore:
        return job_checkpoint_store(context, self._model_id)

    def _branch(self, context: Context) -> set[str] | None:
        """Return the tasks to run after a rejection, or ``None`` if a rejection skips or fails the task."""
        on_reject = self._choice("on_reject", SKIP, FAIL)
        task_ids = self.rejected_task_ids
        if task_ids is None:
            return None
        if on_reject == FAIL:
            msg = f"rejected_task_ids = {task_ids!r}: not allowed with on_reject='fail'; remove one of them"
            raise OsaiArgumentError(msg)
        if context["ti"].map_index not in (None, -1):
            raise OsaiArgumentError(f"rejected_task_ids = {task_ids!r}: {ONLY_SKIP}")
        branch = {task_ids} if isinstance(task_ids, str) else set(task_ids)
        downstream = set(self.downstream_task_ids)
        if not branch or not branch <= downstream:
            available = ", ".join(sorted(downstream)) or "none"
            raise OsaiArgumentError(
                f"rejected_task_ids = {task_ids!r}: must be ids of tasks directly downstream ({available})"
            )
        return branch

    def _apply_decision(
        self,
        context: Context,
        decision: Decision,
        branch: set[str] | None,
        *,
        is_event: bool,
        callbacks: Sequence[Callable[[Context], object]] = (),
    ) -> dict[str, Any]:
        """Log and push the decision, run the callbacks, then succeed, branch, skip or fail."""
        result = self._push_decision(context, decision)
        if decision.is_promotion and has_tracker(self.track_to):
            promote_in_tracker(self, context, result, self.champion)
        if not is_event:
            suppress_asset_events(self, self.champion.__eq__)
        if callbacks:
            run_callbacks(callbacks, context, self.log, osai_gate=result)
        if branch is not None:
            downstream = set(self.downstream_task_ids)
            self.skip_all_except(context["ti"], downstream - branch if decision.is_promotion else branch)
        elif not decision.is_promotion:
            error = AirflowSkipException if self._choice("on_reject", SKIP, FAIL) == SKIP else AirflowFailException
            raise error(f"Model {result['model_id']} is not promoted: {'; '.join(decision.reasons)}")
        return dict(result)

    def _push_result(self, context: Context, result: dict[str, Any]) -> None:
        """Push nothing: the task's result is the decision, not an evaluation."""

    def _push_decision(self, context: Context, decision: Decision) -> GateResult:
        """Log the decision and push it to XCom, since a skipped task returns nothing."""
        fields = decision.to_dict()
        candidate = fields["candidate"]
        result: GateResult = {"model_id": candidate["model_id"], "metrics": candidate["metrics"], **fields}
        self.log.info("Model %s is %s: %s", result["model_id"], decision.verdict, "; ".join(decision.reasons))
        for line in group_lines(f"Metrics compared for model {result['model_id']}", decision.table().splitlines()):
            self.log.info("%s", line)
        context["ti"].xcom_push(key=RETURN_VALUE, value=result)
        return push_outputs(self, context, result)


def _dag_run(context: Context) -> Run:
    run = context["dag_run"]
    return Run(run.dag_id, run.run_id, getattr(run, "run_after", None) or run.logical_date)


def _has_failed(candidate: Any) -> bool:
    """Return whether this is the result of a job of a batch that did not succeed, and so made no model."""
    return isinstance(candidate, Mapping) and "index" in candidate and candidate.get("state") != JobState.SUCCEEDED
