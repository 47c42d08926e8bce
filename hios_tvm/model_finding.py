"""What `hios doctor` says of the cost model for a device: which one applies, and how old it is."""

from hios_tvm.finding import Finding

__all__ = ["model_finding"]

_REMEDY = "hios collect --train MODEL.ubj, then --costs learned --model MODEL.ubj"


def model_finding(label: str, device_kind: str, name: str, units: int, target: str) -> Finding:
    """Return the finding.

    Parameters
    ----------
    label
        Of the finding.
    device_kind, name, units
        ``cpu`` or ``cuda``, the model of the device, its cores or multiprocessors.
    target
        Of its kernels.
    """
    from cost_model.shipped import describe_shipped
    from hios.errors import HiosError

    try:
        told = describe_shipped(device_kind, name, units, target)
    except HiosError as problem:
        return Finding(label, "absent", str(problem), _REMEDY)
    return Finding(label, "ok", told)
