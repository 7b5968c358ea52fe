"""Words by which fields are recognized where what they do leaves several possibilities; a weight of 1 is certain.

These are names that APIs of this kind commonly use, in the singular and in lower case. None is OSAI's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

__all__ = ["BATCHES", "CONFIDENT", "REQUEST", "RESPONSE", "SAMPLE", "VALUES", "Vocabulary"]

Vocabulary: TypeAlias = Mapping[str, float]

CONFIDENT: Final = 0.6
"""Weight from which a name alone is enough."""


def _vocabulary(*groups: str) -> Vocabulary:
    """Return the words of each group, with a weight that falls by 0.15 from group to group."""
    return {word: 1 - 0.15 * rank for rank, group in enumerate(groups) for word in group.split()}


_NAME = _vocabulary("name title label caption displayname modelname datasetname", "model output", "text description")
_TARGET = _vocabulary(
    "target platform hardware chip board accelerator hardwaretarget", "device architecture runtime", "kind type format"
)
REQUEST: Final[Mapping[str, Vocabulary]] = {
    "name": _NAME,
    "modelName": _NAME,
    "parameters": _vocabulary(
        "parameter option setting hyperparameter hyperparam hyper configuration config knob argument param arg tuning",
        "spec extra",
    ),
    "modelType": _vocabulary("modeltype modelkind task purpose detector box", "type kind", "mode category"),
    "target": _TARGET,
    "device": _vocabulary(
        "device hardware board devicetype devicekind", "accelerator platform chip target", "type kind"
    ),
    "duration": _vocabulary("duration second minute hour millisecond milli period", "length time ttl lease", "s value"),
    "minConfidence": _vocabulary(
        "confidence threshold minconfidence certainty minscore", "score floor min atleast minimum least"
    ),
    "mode": _vocabulary("mode scope policy selection strategy which", "image overwrite filter", "type kind"),
    "framework": _vocabulary("framework backend library"),
    "pretrainedModel": _vocabulary("pretrainedmodel pretrained basemodel backbone"),
    "template": _vocabulary("template preset recipe"),
    "annotations": _vocabulary("annotation box region mark shape rect tagging", "note label object"),
    "categoryId": _vocabulary("category categoryid class classid labelid tagid label tag"),
    "category": _vocabulary("category class label tag"),
}
"""Our fields of requests."""
RESPONSE: Final[Mapping[str, Vocabulary]] = {
    "status": _vocabulary(
        "status state phase statuscode jobstatus taskstatus trainingstatus", "stage condition readiness", "code"
    ),
    "progress": _vocabulary(
        "progress percent percentage percentcomplete percentdone progresspercent progresspermille completion",
        "done permille fraction",
        "ratio",
    ),
    "createdAt": _vocabulary(
        "createdat created creationtime createddatetime createddate creation queuedat queued born",
        "submitted requested enqueued",
    ),
    "startedAt": _vocabulary("startedat started starttime start starteddatetime began begun", "launched running"),
    "finishedAt": _vocabulary(
        "finishedat finished endedat ended endtime enddatetime end completedat over", "completed stopped closed done"
    ),
    "message": _vocabulary(
        "message error errormessage reason detail failurereason complaint note failure",
        "fault text description problem",
    ),
    "result.modelId": _vocabulary("modelid model network networkid modelref", "artifact weight"),
    "result.datasetId": _vocabulary("datasetid dataset collection collectionid album albumid datasetref", "set output"),
    "result.conversionId": _vocabulary(
        "conversionid conversion export exportid build buildid port portref", "artifact output"
    ),
    "result.deviceId": _vocabulary("deviceid device board boardid deviceref", "hardware unit"),
    "result.expiresAt": _vocabulary(
        "expiresat expire expirationtime expiration until due dueat deviceuntil leaseduntil reserveduntil", "end"
    ),
    "result.metrics": _vocabulary(
        "metric score quality evaluation mark accuracy performance scores metricspermille", "result figure statistic"
    ),
    "result.confusionMatrix": _vocabulary("confusionmatrix confusion matrix", "crosstab contingency"),
    "result.samples": _vocabulary("sample example sampleprediction", "prediction preview"),
    "history": _vocabulary("history epoch curve round log", "step iteration point"),
    "reference": _vocabulary(
        "reference externalref clientkey clientrequestid correlationid",
        "ref tag label mark memo key",
        "client correlation",
    ),
    "name": _NAME,
    "locked": _vocabulary("locked lock islocked busy inuse ingesting", "open uploading"),
    "imageCount": _vocabulary(
        "imagecount imagescount nimage itemcount picturecount photocount", "image picture photo count item"
    ),
    "updatedAt": _vocabulary(
        "updatedat updated changedat changed modifiedat modified lastmodificationtime modifieddatetime touched"
    ),
    "modelType": _vocabulary("modeltype modelkind task purpose detector box", "type kind"),
    "metrics": _vocabulary("metric score quality evaluation mark", "result performance"),
    "fileName": _vocabulary("filename file name originalname"),
    "digest": _vocabulary("digest sha256 sha hash checksum sum"),
    "categoryId": _vocabulary("categoryid category classid class labelid label tagid tag"),
    "annotations": _vocabulary("annotation box region mark shape rect tagging", "note"),
    "target": _TARGET,
    "jobId": _vocabulary("jobid job taskid task operationid operation processid process runid run"),
    "category": _vocabulary("category class label tag categoryname classname labelname tagname"),
    "datasetId": _vocabulary("datasetid dataset collectionid collection albumid album"),
}
"""Our fields of responses."""
EPOCH: Final[Mapping[str, Vocabulary]] = {
    "epoch": _vocabulary("epoch round number index step iteration"),
    "valLoss": _vocabulary("valloss testloss validationloss"),
    "valAccuracy": _vocabulary("valaccuracy testaccuracy validationaccuracy testacc valacc"),
    "loss": _vocabulary("loss trainloss trainingloss"),
    "accuracy": _vocabulary("accuracy trainaccuracy trainacc trainingaccuracy acc"),
}
"""Our fields of one epoch."""
SAMPLE: Final[Mapping[str, Vocabulary]] = {
    "fileName": _vocabulary("filename file image imagename picture", "name path"),
    "predicted": _vocabulary(
        "predicted prediction predictedlabel predictedclass guess", "output", "label class category"
    ),
    "confidence": _vocabulary("confidence probability certainty", "score"),
    "actual": _vocabulary("actual truth groundtruth true truelabel trueclass expected", "target reference"),
}
"""Our fields of one sample prediction."""
VALUES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "modelType": {
        "classification": frozenset({"classification", "classifier", "classify", "class", "cls", "c"}),
        "detection": frozenset({"detection", "detector", "detect", "object", "box", "det", "d"}),
    },
    "mode": {
        "all": frozenset({"all", "every", "everything", "a"}),
        "replace": frozenset({"replace", "overwrite", "redo", "relabel", "r"}),
        "unannotated": frozenset(
            {"unannotated", "unlabelled", "unlabeled", "missing", "new", "fresh", "untagged", "u"}
        ),
    },
}
"""Words of our fixed values."""
BATCHES: Final = frozenset({"total", "count", "totalcount", "totalitems"})
