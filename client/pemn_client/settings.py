"""What a person can set on a client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from pemn.errors import ConfigError
from pemn.link.address import Address

_SHARD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


class StartSettings(BaseSettings):
    """`pemn-client start`: take part in a federation until it is over."""

    server: str = Field(description="HOST:PORT of the server")
    credentials: Path | None = Field(
        default=None, description="this client's bundle, a folder that `pemn-server provision` has made"
    )
    insecure: bool = Field(default=False, description="connect without TLS; on this machine only")
    insecure_network: bool = Field(default=False, description="with --insecure: over a network as well")
    shard: str = Field(
        description="I/N: this client is number I (from 0) of N, and has that share of the data"
    )
    dataset: str | None = Field(
        default=None, description="data set that this client has; the run's if not given"
    )
    data_dir: Path | None = Field(default=None, description="folder with the data set's files")
    store: Path | None = Field(
        default=None,
        description="folder that keeps the seed, the network and the public state; pemn-store-I if not given",
    )
    model: str | None = Field(
        default=None,
        description="network from code that is installed here, PKG:FACTORY or timm:NAME, if the run's is one",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    half: bool = Field(default=False, description="train in bfloat16 (autocast)")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="torch threads; cores divided by local processes if not given"
    )
    give_up_after_s: float = Field(
        default=300.0, gt=0, description="seconds that the server may be away before the client gives up"
    )

    @property
    def slot(self) -> int:
        """Number of this client, 0 .. num_slots-1."""
        return int(self.shard.partition("/")[0])

    @property
    def num_slots(self) -> int:
        """Number of shares."""
        return int(self.shard.partition("/")[2])

    @model_validator(mode="after")
    def _check(self) -> Self:
        match = _SHARD.fullmatch(self.shard)
        if match is None or not int(match[1]) < int(match[2]):
            raise ConfigError("shard", got=self.shard, wanted="I/N with 0 <= I < N, for example 0/3")
        if self.insecure == (self.credentials is not None):
            got = "both" if self.insecure else "neither"
            raise ConfigError("TLS", got=got, wanted="--credentials DIR or --insecure")
        if self.insecure and not self.insecure_network and not Address.parse(self.server).is_loopback:
            wanted = "a server on this machine, or --insecure-network as well"
            raise ConfigError("connecting without TLS", got=self.server, wanted=wanted, where="--server")
        return self
