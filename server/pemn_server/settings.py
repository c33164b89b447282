"""What a person can set: one field an option, for flags, environment and TOML file alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings

from pemn.errors import ConfigError
from pemn.link.address import Address
from pemn.wire import limits

Positive = Annotated[int, Field(ge=1)]
Clients = Annotated[int, Field(ge=1, le=limits.MAX_SLOTS)]


def _text_of_schedule(value: object) -> object:
    """A file may have a number where a flag has its text."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ScheduleText = Annotated[str, BeforeValidator(_text_of_schedule)]
"""A number, or numbers by round; see `pemn.schedule.parse_schedule`."""


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
    learning_rate: ScheduleText | None = Field(
        default=None,
        description="of the clients' optimizer; by default 0.3 for mask, 0.1 for the others. Like step, "
        "server-step and leak it may change by round: 0.3,12:0.1 is 0.3, and 0.1 from round 12 on; 0.3,60%:0.1 is "
        "0.3, and 0.1 after 60 % of the rounds",
    )
    logit_adjustment: float = Field(
        default=1.0,
        ge=0,
        le=limits.MAX_LOGIT_ADJUSTMENT,
        description="how much of the log of a client's own class frequencies its loss adds to the logits; 0: none",
    )
    step: ScheduleText = Field(
        default="0.5", description="distance of two public levels, as a probability, 1/128 .. below 1"
    )
    server_step: ScheduleText = Field(
        default="1,70%:0.5,85%:0.25", description="how far the server follows the votes, eta"
    )
    leak: ScheduleText = Field(
        default="0.1,70%:0.05,85%:0.025",
        description="what part the server forgets each round of what was learnt and has not been told, in 1/256",
    )
    averaging: Positive = Field(
        default=5,
        le=limits.MAX_WINDOW,
        description="rounds that the released model is averaged over, about; 1: it is that of the last",
    )
    spread: float = Field(
        default=3.0, ge=0, le=20, description="standard deviation of the scores that the seed starts from"
    )
    gain: float = Field(
        default=1.4142135,
        gt=0,
        le=1000,
        description="size of the frozen weights, in units of 1 / sqrt(fan-in)",
    )
    tie: Positive = Field(
        default=1, le=limits.MAX_TIE, description="weights of a layer that share a bit of the mask"
    )
    terms: Positive = Field(
        default=16,
        le=limits.MAX_TERMS // 2,
        description="masked values that a weight of the first layer is the sum of, and half as many as one of the "
        "last, where these are small; 1: none is",
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
    label: str | None = Field(
        default=None,
        min_length=1,
        max_length=60,
        description="what the run is called where runs are compared; its method if not given",
    )
    images: Annotated[int, Field(ge=1, lt=1 << 32)] | None = Field(
        default=None, description="training images to deal out, the first of the data set; all if not given"
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

    participation: float = Field(
        default=1.0, gt=0, le=1, description="share of the clients whose votes a round waits for"
    )
    over_select: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="how many times as many clients a round asks as it waits for; the first to answer count",
    )

    defence: Literal["none", "trim", "score"] = Field(
        default="none",
        description="votes that are left out: of each weight's the extreme ones, or whole ones unlike all others",
    )

    @property
    def cohort(self) -> int | None:
        """How many votes a round waits for; None: those of all that are here."""
        return max(1, round(self.participation * self.num_slots)) if self.participation < 1 else None

    @model_validator(mode="after")
    def _check_clients(self) -> Self:
        if self.over_select > 1 and self.cohort is None:
            wanted = "--participation below 1: there is nobody else to ask"
            raise ConfigError("over-selection", got=self.over_select, wanted=wanted, where="--over-select")
        if self.cohort is not None and self.cohort < self.min_clients:
            raise ConfigError(
                "votes that a round waits for",
                got=self.cohort,
                wanted=f"at least --min-clients, {self.min_clients}",
                where="--participation",
            )
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
    credentials: Path | None = Field(
        default=None,
        description="folder that `pemn-server provision` has made: certificate, key, list of clients",
    )
    insecure: bool = Field(
        default=False, description="listen without TLS, to whoever comes; on this machine only"
    )
    insecure_network: bool = Field(default=False, description="with --insecure: on a network as well")
    log_format: Literal["text", "json"] = Field(
        default="text", description="what the server writes: lines for a person, or a JSON object a line"
    )
    metrics: str | None = Field(
        default=None, description="HOST:PORT for Prometheus; whoever reaches it can read how the run goes"
    )
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
        if self.insecure == (self.credentials is not None):
            got = "both" if self.insecure else "neither"
            raise ConfigError("TLS", got=got, wanted="--credentials DIR or --insecure")
        if self.insecure and not self.insecure_network and not Address.parse(self.listen).is_loopback:
            wanted = "an address of this machine alone, 127.0.0.1 say, or --insecure-network as well"
            raise ConfigError("listening without TLS", got=self.listen, wanted=wanted, where="--listen")


class SimulateSettings(BaseSettings, RunOptions):
    """Runs a federation on this machine or a Ray cluster, with the same apps as over gRPC, and leaves its results."""

    method: Literal["mask", "fedpm", "fedpm-counts", "fedavg", "fedavg-int8", "stc"] = Field(
        default="mask", description="what clients and server do; those after mask are to compare with"
    )
    clients: Clients | None = Field(default=10, description="clients to simulate")
    drop_out: float = Field(
        default=0.0, ge=0, lt=1, description="chance that a client that is asked is lost in that round"
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
    account: Literal["code", "estimate"] = Field(
        default="code",
        description="how messages are counted: coded, or by an estimate of their codes, which is faster",
    )
    share: float = Field(
        default=0.01, gt=0, le=1, description="of the weights, that a message of stc changes"
    )
    half: bool = Field(
        default=False,
        description="clients train in bfloat16 (autocast): sooner where the processor or GPU has it",
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="processes that train clients at the same time, on this machine's cores"
    )
    cohort_batch: Clients = Field(
        default=1,
        description="clients that train at once, as one batch; for GPUs, results differ by rounding",
    )

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.workers > 1 and self.cohort_batch > 1:
            raise ConfigError(
                "--workers with --cohort-batch",
                wanted="one of them: batches are for one GPU, workers for many cores",
            )
        if self.engine == "ray":
            for given, flag, why in (
                (self.resume, "--resume", "on Ray no checkpoint is kept"),
                (self.workers > 1, "--workers", "on Ray actors are the workers"),
                (self.cohort_batch > 1, "--cohort-batch", "on Ray each client trains by itself"),
                (self.drop_out > 0, "--drop-out", "on Ray clients are lost by themselves"),
                (self.account == "estimate", "--account estimate", "on Ray every message is coded"),
            ):
                if given:
                    raise ConfigError("engine", got=f"ray with {flag}", wanted=f"inprocess: {why}")
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


class CompareSettings(BaseSettings):
    """Runs methods by seeds by splits by networks, and puts them side by side.

    What is compared is in the file CONFIG.toml (docs/comparisons.md).
    """

    run_dir: Path = Field(description="folder for the runs and what they give")
    resume: bool = Field(default=False, description="go on with the runs in --run-dir")
    jobs: Positive = Field(default=1, description="runs at a time, each in a process of its own")
    threads: Positive | None = Field(
        default=None, description="torch threads of a run; cores divided by --jobs if not given"
    )
