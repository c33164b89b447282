"""One client: it takes a task and gives an answer, whichever engine brings them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pemn.errors import MalformedFrame, MissingSpec, OutOfSync
from pemn.federation.public import PublicState
from pemn.methods.mask import MaskClient, Trainer
from pemn.wire.messages import Broadcast, Content, Failure
from pemn.wire.spec import Spec
from pemn_client.store import Store

_LOG = logging.getLogger(__name__)

TRAIN, QUERY = "train", "query"
"""What a task can ask for: a vote, or just to have the public state."""


@dataclass(frozen=True)
class _Run:
    """A run that this client takes part in."""

    client: MaskClient
    trainer: Trainer


class Node:
    """A client of a run.

    Args:
        slot: Its number, 0 .. N-1.
        store: Where its spec and public state are kept.
        make_trainer: Checks that this machine can take part in a run, and makes its trainer.
    """

    def __init__(self, slot: int, store: Store, make_trainer: Callable[[Spec, int], Trainer]) -> None:
        self._slot, self._store, self._make_trainer = slot, store, make_trainer
        self._run: _Run | None = None
        self._state: PublicState | None = None

    def handle(self, action: str, task: Content) -> Content:
        """Does a task.

        A server that is out of step with this client is told so in the answer, and mends it.

        Raises:
            MalformedFrame: If it is no task.
            WrongSpec: If this client cannot take part in the run.
            ConfigError: If its own settings or data do not fit.
        """
        if task.broadcast is None:
            raise MalformedFrame("task without a broadcast")
        try:
            if task.spec is not None:
                self._join(task.spec)
            run, state = self._catch_up(task.broadcast)
        except MissingSpec as error:
            _LOG.warning("asking the server for the spec: %s", error)
            return Content(error=Failure(MissingSpec.code, str(error)))
        except (OutOfSync, MalformedFrame) as error:
            # Moves that make no sense here are those for another state than ours: a keyframe mends both.
            _LOG.warning("asking the server for a keyframe: %s", error)
            return Content(error=Failure(OutOfSync.code, str(error)))
        if action == TRAIN:
            update = run.client.train(state, run.trainer)
            metrics = update.metrics
            _LOG.info(
                "round %d: trained on %d images, loss %.3f, %.1f s; voted in %d bytes",
                update.round,
                metrics.num_images,
                metrics.loss_milli / 1000,
                metrics.train_ms / 1000,
                len(update.flips),
            )
            return Content(update=update)
        return Content(ack=run.client.acknowledge(state))

    def _join(self, spec: Spec) -> None:
        if self._run is not None and self._run.client.spec == spec:
            return
        run = self._enter(spec)
        self._store.save_spec(spec)
        self._run, self._state = run, None
        _LOG.info("joined run %016x: %s", spec.run_id, spec.model.architecture)

    def _enter(self, spec: Spec) -> _Run:
        return _Run(MaskClient.of(spec, self._slot), self._make_trainer(spec, self._slot))

    def _return_to(self, run_id: int) -> _Run:
        """Takes a run up again that the store remembers."""
        kept = self._store.load()
        if kept is None or kept[0].run_id != run_id:
            raise MissingSpec("no spec of this run", where="the client's store")
        spec, self._state = kept
        self._run = self._enter(spec)
        _LOG.info("took run %016x up again from the store", run_id)
        return self._run

    def _catch_up(self, broadcast: Broadcast) -> tuple[_Run, PublicState]:
        run = self._run or self._return_to(broadcast.run_id)
        before = self._state or run.client.start()
        state = run.client.apply(before, broadcast)
        if state is not before:
            self._store.save_state(run.client.spec, state)
        self._state = state
        return run, state
