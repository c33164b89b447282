"""What a method puts into a message, before it is coded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any


class Payload:
    """Something to be sent; coded when its bytes are wanted.

    Between the ends of one process nothing need be coded: the other end is given the content.

    Args:
        content: What the receiver would have read.
        code: Returns its bytes.
        estimate: Returns about how many they are, without coding it; by default they are counted.

    Attributes:
        content: See above.
    """

    def __init__(
        self, content: Any, code: Callable[[], bytes], estimate: Callable[[], int] | None = None
    ) -> None:
        self.content, self._code, self._estimate = content, code, estimate

    @cached_property
    def data(self) -> bytes:
        """The bytes."""
        return self._code()

    @cached_property
    def about(self) -> int:
        """About how many bytes they are."""
        return len(self.data) if self._estimate is None else self._estimate()

    def __len__(self) -> int:
        """Returns the number of bytes."""
        return len(self.data)

    def __bytes__(self) -> bytes:
        """Returns the bytes."""
        return self.data
