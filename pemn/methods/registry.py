"""From a spec to its method: the one place where methods are known."""

from __future__ import annotations

from pemn.methods.fedavg import FedAvgMethod
from pemn.methods.fedpm import FedPMMethod
from pemn.methods.mask import MaskMethod
from pemn.methods.method import Method
from pemn.methods.stc import StcMethod
from pemn.wire.protocols import FedAvgProtocol, FedPMProtocol, StcProtocol
from pemn.wire.spec import Spec


def method_of(spec: Spec) -> Method:
    """Returns the method of a run."""
    match spec.protocol:
        case FedPMProtocol() as protocol:
            return FedPMMethod(spec, protocol)
        case FedAvgProtocol():
            return FedAvgMethod(spec)
        case StcProtocol() as protocol:
            return StcMethod(spec, protocol)
    return MaskMethod.of(spec)
