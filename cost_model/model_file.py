"""Trained models on disk: one UBJ file that XGBoost itself can read, with all that it needs inside.

The file is the booster of y. Its attributes hold what the numbers mean (schema, feature order,
base estimate), what it was trained on (kind and target, devices, networks, hash and date), the
interval, a checksum, and the booster of the quantiles in base 64. Nothing is unpickled, and
XGBoost is needed to train only. A damaged file, or one of another schema or feature order, is
refused when it is read; one for another target or device when it is to be used.
"""

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

import hios
from cost_model.dataset import Dataset
from cost_model.features import FEATURES
from cost_model.forest import Forest
from cost_model.splits import network_of
from cost_model.train import Fitted, Start, Trained
from cost_model.ubjson import read_ubjson
from graph_executor.timed_device import TimedDevice
from hios.errors import CostModelMismatch
from hios.ir.serial import read_bytes, write_bytes

__all__ = [
    "MODEL_SCHEMA",
    "CostModel",
    "ModelFacts",
    "describe_model",
    "encode_model",
    "load_model",
    "save_model",
    "target_kind",
]

MODEL_SCHEMA = 1
"""Raised when a file of before would be understood wrongly."""

_FACTS = "hios.facts"
_QUANTILES = "hios.quantiles"
_CHECKSUM = "hios.checksum"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model is for and what it stands on.

    Attributes
    ----------
    schema
        `MODEL_SCHEMA`.
    features
        In order.
    device_kind, target_kind
        ``cpu`` and ``llvm``, or ``cuda`` and ``cuda``.
    devices
        Those that groups were measured on; their constants are features.
    networks
        What the groups were met in.
    groups, most_groups
        How many were learnt from, and the most chains in one.
    data_hash
        Of the measured groups and times.
    date
        Of the last measurement, ISO 8601 in UTC.
    version
        Of hios-tvm when it was trained.
    start, offset, coverage
        See `cost_model.train.Fitted`.
    noise
        Mean relative error of a perfect model, see `cost_model.noise.Noise.mape`; None where
        nothing was measured again.
    """

    schema: int
    features: tuple[str, ...]
    device_kind: str
    target_kind: str
    devices: tuple[TimedDevice, ...]
    networks: tuple[str, ...]
    groups: int
    most_groups: int
    data_hash: str
    date: str
    version: str
    start: Start
    offset: float
    coverage: float
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class CostModel:
    """A trained model, what it is for, and the file that holds both."""

    fitted: Fitted
    facts: ModelFacts
    content: bytes

    def device(self, name: str, units: int) -> TimedDevice | None:
        """Return the device of this name and size that it was trained on, or None."""
        for device in self.facts.devices:
            if device.name == name and device.units == units:
                return device
        return None

    def require(self, device_kind: str, target: str, what: str = "the cost model") -> None:
        """Check that it may be asked about kernels of `target` on devices of a kind.

        Raises
        ------
        CostModelMismatch
            When it was trained for others.
        """
        facts = self.facts
        asked = (device_kind, target_kind(target))
        if asked != (facts.device_kind, facts.target_kind):
            raise CostModelMismatch(
                f"{what} was trained for target {facts.target_kind} on {facts.device_kind} "
                f"devices, not for {asked[1]} on {asked[0]}; train one with `hios train`"
            )


def target_kind(target: str) -> str:
    """Return the kind of a TVM target, given as JSON or by name.

    Examples
    --------
    >>> target_kind('{"kind":"llvm","mcpu":"znver4"}'), target_kind("cuda -arch=sm_90")
    ('llvm', 'cuda')
    """
    if target.lstrip().startswith("{"):
        try:
            kind = json.loads(target).get("kind", "")
        except json.JSONDecodeError:
            return target
        # Some generations of TVM write the kind as an object of its own.
        return str(kind.get("name", "") if isinstance(kind, dict) else kind)
    return target.split(maxsplit=1)[0] if target.strip() else ""


def describe_model(data: Dataset, trained: Trained) -> CostModel:
    """Return the model of what was trained on a data set, with its facts.

    Raises
    ------
    CostModelMismatch
        When the groups are of several kinds of target.
    """
    fitted = trained.fitted
    records = data.records
    kinds = sorted({target_kind(record.target) for record in records})
    if len(kinds) > 1:
        raise CostModelMismatch(
            f"groups of targets {', '.join(kinds)}; train one model for each target"
        )
    facts = ModelFacts(
        schema=MODEL_SCHEMA,
        features=FEATURES,
        device_kind=records[0].device.kind,
        target_kind=kinds[0],
        devices=data.described,
        networks=tuple(sorted({network_of(model) for model in data.models})),
        groups=len(data),
        most_groups=max(record.streams for record in records),
        data_hash=data.digest(),
        date=max(record.date for record in records),
        version=hios.__version__,
        start=fitted.start,
        offset=fitted.offset,
        coverage=fitted.coverage,
        noise=None if data.noise is None else data.noise.mape,
    )
    return CostModel(fitted, facts, encode_model(trained, facts))


def encode_model(trained: Trained, facts: ModelFacts) -> bytes:
    """Return the content of a model file; the same training gives the same bytes."""
    told = msgspec.json.encode(facts, order="deterministic").decode()
    booster = trained.booster.copy()
    booster.set_attr(
        **{
            _FACTS: told,
            _QUANTILES: base64.b64encode(bytes(trained.quantiles.save_raw("ubj"))).decode(),
            _CHECKSUM: _checksum(trained.fitted.forest, trained.fitted.quantiles, told),
        }
    )
    return bytes(booster.save_raw("ubj"))


def save_model(model: CostModel, path: str | os.PathLike[str]) -> None:
    """Write a model.

    Raises
    ------
    StorageError
        When it cannot be written; nothing half-written is left.
    """
    write_bytes(path, model.content)


def load_model(path: str | os.PathLike[str]) -> CostModel:
    """Read a model.

    Raises
    ------
    MissingFile
        When there is no such file.
    CostModelMismatch
        When it is damaged, no cost model, or of another schema or feature order.
    """
    content = read_bytes(path)
    what = repr(Path(path).name)
    attributes = _attributes(content, what)
    told = attributes[_FACTS]
    schema = _schema(told)
    if schema != MODEL_SCHEMA:
        raise CostModelMismatch(
            f"{what} has schema {schema}, this version reads {MODEL_SCHEMA}; train again with "
            "`hios train`"
        )
    try:
        facts = msgspec.json.decode(told, type=ModelFacts)
        if facts.features != FEATURES:
            other = [f for f in facts.features if f not in FEATURES] or ["another order"]
            raise CostModelMismatch(
                f"{what} was trained on other features ({other[0]}); train again with `hios train`"
            )
        forest = Forest.read(read_ubjson(content))
        inner = base64.b64decode(attributes[_QUANTILES], validate=True)
        quantiles = Forest.read(read_ubjson(inner))
        if attributes[_CHECKSUM] != _checksum(forest, quantiles, told):
            raise ValueError("its checksum differs")
        if forest.n_features != len(FEATURES) or quantiles.n_features != len(FEATURES):
            raise ValueError("its trees know another number of features")
    except (KeyError, TypeError, IndexError, ValueError) as problem:
        if isinstance(problem, CostModelMismatch):
            raise
        raise CostModelMismatch(
            f"{what} is damaged: {problem}; train again with `hios train`"
        ) from problem
    fitted = Fitted(forest, quantiles, facts.start, facts.offset, facts.coverage)
    return CostModel(fitted, facts, content)


def _checksum(forest: Forest, quantiles: Forest, told: str) -> str:
    parts = f"{forest.digest()} {quantiles.digest()} {told}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _attributes(content: bytes, what: str) -> dict[str, str]:
    try:
        attributes = read_ubjson(content)["learner"]["attributes"]
        return {name: str(attributes[name]) for name in (_FACTS, _QUANTILES, _CHECKSUM)}
    except (KeyError, TypeError, IndexError, ValueError) as problem:
        raise CostModelMismatch(
            f"{what} is no cost model of hios-tvm ({problem}); train one with `hios train`"
        ) from problem


def _schema(told: str) -> object:
    try:
        facts = json.loads(told)
    except json.JSONDecodeError:
        return None
    return facts.get("schema") if isinstance(facts, dict) else None
