"""How the images of a data set are dealt out to clients: the value that a spec names (docs/wire.md, "DataPlan").

    own             every client has data of its own
    iid             at random
    dirichlet:A     class by class, in shares drawn from Dirichlet(A, ..., A)
    classes:C       C classes for every client

`pemn.data.partition` deals.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pemn.errors import ConfigError

_DIRICHLET = re.compile(r"dirichlet:([0-9.]+(?:e[+-]?[0-9]+)?)")
_CLASSES = re.compile(r"classes:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Partition:
    """How images are dealt out.

    Attributes:
        kind: `own`, `iid`, `dirichlet` or `classes`.
        alpha: For `dirichlet`, the concentration, > 0: the smaller, the fewer classes a client mostly has; else 1.
        num_classes: For `classes`, how many classes a client has, >= 1; else 1.
    """

    kind: str
    alpha: float = 1.0
    num_classes: int = 1

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Reads `own`, `iid`, `dirichlet:A` or `classes:C`.

        Raises:
            ConfigError: If `text` is none of these, A is not a finite number > 0 or C not an integer,
                1 .. 999,999,999.
        """
        if text in ("own", "iid"):
            return cls(text)
        if match := _CLASSES.fullmatch(text):
            return cls("classes", num_classes=int(match[1]))
        if match := _DIRICHLET.fullmatch(text):
            try:
                alpha = float(match[1])
            except ValueError:
                alpha = math.nan
            if 0.0 < alpha < math.inf:
                return cls("dirichlet", alpha=alpha)
        raise ConfigError(
            "unknown partition",
            got=repr(text),
            wanted="own, iid, dirichlet:A with A > 0, or classes:C with C >= 1",
        )

    def __str__(self) -> str:
        """Returns the one spelling that `parse` reads back to the same value."""
        if self.kind == "dirichlet":
            return f"dirichlet:{self.alpha!r}"
        return f"classes:{self.num_classes}" if self.kind == "classes" else self.kind
