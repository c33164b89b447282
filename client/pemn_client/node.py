"""One client: it takes a task and gives an answer, whichever engine brings them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pemn.errors import MalformedFrame, MissingSpec, OutOfSync
from pemn.federation.public import PublicState
from pemn.methods import Client, Memory, Trainer
from pemn.wire.messages import Broadcast, Content, Failure, Update
from pemn.wire.spec import Spec
from pemn_client.store import Store

_LOG = logging.getLogger(__name__)

TRAIN, QUERY = "train", "query"
"""What a task can ask for: a vote, or just to have the public state."""


@dataclass(frozen=True)
class _Run:
    """A run that this client takes part in."""

    client: Client
    trainer: Trainer


class Node:
    """A client of a run.

    Args:
        slot: Its number, 0 .. N-1.
        store: Where its spec and public state are kept.
        make_trainer: Checks that this machine can take part in a run, and makes its trainer.
        hand_over: Whether the server is in this process; see `pemn.methods.Client`.
        sign: Given a vote and the bits of the network's mask, returns it signed; None where nobody wants that.
    """

    def __init__(
        self,
        slot: int,
        store: Store,
        make_trainer: Callable[[Spec, int], Trainer],
        hand_over: bool = False,
        sign: Callable[[Update, int], Update] | None = None,
    ) -> None:
        self._slot, self._store, self._make_trainer = slot, store, make_trainer
        self._hand_over, self._sign = hand_over, sign
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
            run, state = self._take(task, task.broadcast)
        except MissingSpec as error:
            _LOG.warning("asking the server for the spec: %s", error)
            return Content(error=Failure(MissingSpec.code, str(error)))
        except (OutOfSync, MalformedFrame) as error:
            # Moves that make no sense here are those for another state than ours: a keyframe mends both.
            _LOG.warning("asking the server for a keyframe: %s", error)
            return Content(error=Failure(OutOfSync.code, str(error)))
        if action == TRAIN:
            update = self._train(run, state)
            metrics = update.metrics
            if isinstance(update.vote, bytes):  # a payload that is handed over would be coded to be counted
                _LOG.info(
                    "round %d: trained on %d images, loss %.3f, %.1f s; voted in %d bytes",
                    update.round,
                    metrics.num_images,
                    metrics.loss_milli / 1000,
                    metrics.train_ms / 1000,
                    len(update.vote),
                )
            return Content(update=update)
        return Content(ack=run.client.acknowledge(state))

    def _train(self, run: _Run, state: PublicState) -> Update:
        """Votes; a round that is asked for again is trained from what was kept before it was trained first."""
        round_, kept = state.round + 1, self._store.load_memory(run.client.spec)
        memory = kept.before(round_) if kept else None
        update, after = run.client.train(state, run.trainer, memory)
        if after is not None:
            self._store.save_memory(run.client.spec, Memory(round_, memory, after))
        return update if self._sign is None else self._sign(update, run.client.spec.model.num_bits)

    def _take(self, task: Content, broadcast: Broadcast) -> tuple[_Run, PublicState]:
        """Applies a broadcast, and keeps what came of it; a task that is refused leaves everything as it was."""
        run, kept = self._place(task.spec, broadcast.run_id)
        before = kept or run.client.start()
        state = run.client.apply(before, broadcast)
        if task.spec is not None and kept is None:
            self._store.save_spec(task.spec)
        if state is not before:
            self._store.save_state(run.client.spec, state)
        self._run, self._state = run, state
        return run, state

    def _place(self, spec: Spec | None, run_id: int) -> tuple[_Run, PublicState | None]:
        """Returns the run of a task, and the state in which this client has it, if it has one."""
        if self._run is not None and spec in (None, self._run.client.spec):
            return self._run, self._state
        kept = self._store.load()
        if kept is not None and kept[0].run_id == run_id and spec in (None, kept[0]):
            _LOG.info("taking run %016x up again from the store", run_id)
            return self._enter(kept[0]), kept[1]
        if spec is None:
            raise MissingSpec("no spec of this run", where="the client's store")
        _LOG.info("joining run %016x: %s", spec.run_id, spec.model.architecture)
        return self._enter(spec), None

    def _enter(self, spec: Spec) -> _Run:
        return _Run(Client.of(spec, self._slot, self._hand_over), self._make_trainer(spec, self._slot))
