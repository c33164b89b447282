"""What a person can set: one field an option, for flags, environment and TOML file alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_settings import BaseSettings

from pemn.errors import ConfigError
from pemn.wire import limits

Positive = Annotated[int, Field(ge=1)]
Clients = Annotated[int, Field(ge=1, le=limits.MAX_SLOTS)]


class RunOptions(BaseModel):
    """A federation, whichever engine runs it."""

    dataset: str = Field(
        default="digits", description="data set: digits, cifar10, cifar100, folder[:SIZE] or PKG:FUNCTION"
    )
    data_dir: Path | None = Field(default=None, description="folder with the data set's files")
    model: str = Field(default="mlp-256-256", description="network: mlp-W1-W2-... or cnn-C1-C2-...")
    strategy: str = Field(
        default="rp:1e-2", description="how a prototype fills the network: full, one-layer, mp or rp:RATIO"
    )
    partition: str = Field(
        default="iid",
        description="whose data is whose: own (each client's data are all its own), or shares of one data set: "
        "iid, dirichlet:A, classes:C",
    )
    rounds: Positive = Field(default=20, le=limits.MAX_ROUND - 1, description="rounds of training")
    epochs: Positive = Field(default=3, le=10_000, description="passes of a client over its data in a round")
    batch_size: Positive = Field(default=64, le=1 << 20, description="images a step")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="of the clients' optimizer; by default 0.2 for mask, 0.1 for fedpm, 0.05 for the others",
    )
    step: float = Field(
        default=0.5, ge=1 / 128, lt=1, description="distance of two public levels, as a probability"
    )
    server_step: float = Field(
        default=1.0, ge=0.001, le=65, description="how far the server follows the votes, eta"
    )
    spread: float = Field(
        default=3.0, ge=0, le=20, description="standard deviation of the scores that the seed starts from"
    )
    seed: int | None = Field(
        default=None, ge=0, lt=1 << 64, description="64-bit seed of everything; drawn if not given"
    )
    threads: Positive | None = Field(
        default=None, description="torch threads; cores divided by local processes if not given"
    )
    run_dir: Path | None = Field(
        default=None, description="folder for the results; runs/DATE-TIME if not given"
    )
    clients: Clients | None = Field(
        default=None, description="shares that the data is split into; as many as --min-clients if not given"
    )
    min_clients: Clients = Field(
        default=2, description="clients to wait for; a round with fewer votes is repeated"
    )

    @property
    def num_slots(self) -> int:
        """Number of shares of the data."""
        return self.clients or self.min_clients

    @property
    def cohort(self) -> int | None:
        """How many clients a round asks; None: all that are here."""
        return None

    @model_validator(mode="after")
    def _check_clients(self) -> Self:
        if self.num_slots < self.min_clients:
            raise ConfigError(
                "clients", got=self.clients, wanted=f"at least --min-clients, {self.min_clients}"
            )
        return self


class StartSettings(BaseSettings, RunOptions):
    """Waits for clients, runs a federation over gRPC and leaves its results."""

    listen: str = Field(
        default="127.0.0.1:8470", description="HOST:PORT that clients connect to; port 0 picks a free one"
    )
    cert: Path | None = Field(default=None, description="server certificate, PEM")
    key: Path | None = Field(default=None, description="private key of the certificate, PEM")
    insecure: bool = Field(default=False, description="listen without TLS")
    wait_timeout_s: float | None = Field(
        default=None, gt=0, description="seconds to wait for clients that are missing; for ever if not given"
    )
    round_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="seconds after which a round goes on without the votes that are missing",
    )

    def check_tls(self) -> None:
        """Refuses options that leave open whether the link is encrypted, or say both.

        Raises:
            ConfigError: If they do.
        """
        if self.insecure == (self.cert is not None or self.key is not None):
            raise ConfigError(
                "TLS", got="both" if self.insecure else "neither", wanted="--cert and --key, or --insecure"
            )
        if not self.insecure and (self.cert is None or self.key is None):
            raise ConfigError("TLS", got="one of them", wanted="both --cert and --key")


class SimulateSettings(BaseSettings, RunOptions):
    """Runs a federation on this machine or a Ray cluster, with the same apps as over gRPC, and leaves its results."""

    method: Literal["mask", "fedpm", "fedpm-counts", "fedavg", "fedavg-int8", "stc"] = Field(
        default="mask", description="what clients and server do; those after mask are to compare with"
    )
    clients: Clients | None = Field(default=10, description="clients to simulate")
    participation: float = Field(
        default=1.0, gt=0, le=1, description="share of the clients that a round asks"
    )
    min_clients: Clients = Field(default=1, description="votes without which a round is repeated")
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="of the clients' SGD, where weights are trained"
    )
    engine: Literal["inprocess", "ray"] = Field(
        default="inprocess", description="what runs the clients: this process, or Flower's engine on Ray"
    )
    resume: bool = Field(
        default=False, description="go on with the run in --run-dir after its last whole round, bit for bit"
    )
    share: float = Field(
        default=0.01, gt=0, le=1, description="of the weights, that a message of stc changes"
    )

    @property
    def cohort(self) -> int | None:
        """How many clients a round asks; None: all."""
        return max(1, round(self.participation * self.num_slots)) if self.participation < 1 else None

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.resume and self.engine == "ray":
            raise ConfigError(
                "engine", got="ray with --resume", wanted="inprocess: on Ray no checkpoint is kept"
            )
        return self


class StockSettings(SimulateSettings):
    """Runs a federation as a stock Flower app; these are the keys of its run config."""

    clients: Clients | None = Field(default=2, description="as many as there are SuperNodes")
    min_clients: Clients = Field(default=2, description="votes without which a round is repeated")
    wait_timeout_s: float = Field(
        default=300.0, gt=0, description="seconds to wait for clients that are missing"
    )
    round_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="seconds after which a round goes on without the votes that are missing",
    )
