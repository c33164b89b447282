"""From a spec to its method: the one place where methods are known."""

from __future__ import annotations

from pemn.methods.mask import MaskMethod
from pemn.methods.method import Method
from pemn.wire.spec import Spec


def method_of(spec: Spec) -> Method:
    """Returns the method of a run."""
    return MaskMethod.of(spec)
