"""Models that come with the package, found by the device that they were trained on."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cost_model.model_file import CostModel, load_model, target_kind
from hios.errors import CostModelMismatch

__all__ = ["Shipped", "describe_shipped", "find_shipped", "list_shipped"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model of the package and where it lies."""

    path: Path
    model: CostModel


def list_shipped(folder: Path | None = None) -> list[Shipped]:
    """Return all models of a folder, by default those of the package, by file name."""
    paths = sorted((folder or _FOLDER).glob("*.ubj"))
    return [Shipped(path, load_model(path)) for path in paths]


def find_shipped(
    device_kind: str, name: str, units: int, target: str, folder: Path | None = None
) -> Shipped:
    """Return the newest model that was trained on such a device.

    Parameters
    ----------
    device_kind, name, units
        ``cpu`` or ``cuda``, the model of the device, and its cores or multiprocessors.
    target
        TVM's JSON of the target of the kernels.
    folder
        Where to look; None for the package.

    Raises
    ------
    CostModelMismatch
        When there is none, with the devices that there are models for.
    """
    every = list_shipped(folder)
    fitting = []
    for one in every:
        if one.model.device(name, units) is None:
            continue
        try:
            one.model.require(device_kind, target)
        except CostModelMismatch:
            continue
        fitting.append(one)
    if fitting:
        return max(fitting, key=lambda one: one.model.facts.date)
    known = sorted({f"{d.name} ×{d.units}" for one in every for d in one.model.facts.devices})
    raise CostModelMismatch(
        f"no cost model for {name} ×{units} and target {target_kind(target)} comes with hios-tvm "
        f"(there are models for {', '.join(known) or 'no device'}); train one with `hios collect` "
        "and `hios train` and give it with --model, or use --costs profile"
    )


def describe_shipped(device_kind: str, name: str, units: int, target: str) -> str:
    """Return one line on the model for a device: which, what it stands on, and how old it is.

    Raises
    ------
    CostModelMismatch
        When there is none.
    """
    found = find_shipped(device_kind, name, units, target)
    facts = found.model.facts
    age = datetime.now(UTC) - datetime.fromisoformat(facts.date)
    return (
        f"{found.path.name} for {name} ×{units}: {facts.groups} groups of "
        f"{len(facts.networks)} networks, {max(0, age.days)} days old ({facts.date[:10]})"
    )
