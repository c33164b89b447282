"""Settings of a command: flag before environment before TOML file before default, and where each came from.

An option is one field of a pydantic-settings class: its name, type, bounds, default and description. From it come
the flag `--some-option`, the variable `PREFIX_SOME_OPTION`, the TOML key `some-option` (or `some_option`) and the
line of `--help`. Fields are flat (no models in models), have no aliases and are not called `config` or `debug`,
which every command has. Lists are given as `a,b` or as JSON.
The TOML file is the one that `--config FILE` or `PREFIX_CONFIG` names; none is searched for. An empty variable
counts as not set.
"""

from __future__ import annotations

import argparse
import difflib
import enum
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar, Union

from pemn.errors import ConfigError

try:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings, CliSettingsSource, EnvSettingsSource, SettingsError
except ImportError as error:
    raise ConfigError("this command needs pydantic-settings: pip install 'pemn[train]'") from error

T = TypeVar("T", bound=BaseSettings)

_MAX_GOT_CHARS = 80


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """The settings that a command runs with.

    Attributes:
        settings: Checked values.
        origins: For every option, by its field's name, `flag --rounds`, `environment PEMN_SERVER_ROUNDS`,
            `file pemn.toml` or `default`.
        debug: Whether `--debug` was given: show tracebacks.
    """

    settings: T
    origins: Mapping[str, str]
    debug: bool


def resolve(settings_class: type[T], argv: Sequence[str], *, prog: str, env_prefix: str) -> Resolved[T]:
    """Reads the settings of a command; prints the help and exits when `--help` is among the flags.

    Args:
        settings_class: The options; a `PemnError` or `ValueError` of its validators reaches the user as it is.
        argv: Flags, without the name of the program.
        prog: What the user typed before them, for example `pemn-server start`.
        env_prefix: What the names of its variables begin with, for example `PEMN_SERVER_`; every such
            variable must be an option.

    Raises:
        ConfigError: If an option is unknown, missing or wrong, or the TOML file cannot be read.
    """
    parser = _Parser(settings_class, prog, env_prefix)
    flag_source = CliSettingsSource[_Parser](
        settings_class,
        root_parser=parser,
        parse_args_method=_Parser.parse_args,
        add_argument_method=_Parser.add_argument,
        cli_parse_none_str="\0",  # no argument can hold it, so "null" stays a text
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )
    try:
        given = vars(parser.parse_args(argv))
        config, debug = given.pop("config", None), given.pop("debug", False)
        flags = flag_source(parsed_args=given)()
        variables = _EnvSource(settings_class, env_prefix=env_prefix, env_ignore_empty=True)()
    except SettingsError as error:
        raise ConfigError(f"{prog}: {error}") from error
    _check_variables(settings_class, env_prefix)
    config = config or os.environ.get(f"{env_prefix}CONFIG")
    entries = _named(read_toml(Path(config)), settings_class, config) if config else {}

    origins = dict.fromkeys(settings_class.model_fields, "default")
    origins |= dict.fromkeys(entries, f"file {config}")
    origins |= {name: f"environment {env_prefix}{name.upper()}" for name in variables}
    origins |= {name: f"flag {_flag(name, value)}" for name, value in flags.items()}
    try:
        settings = _only_given(settings_class)(**{**entries, **variables, **flags})
    except ValidationError as error:
        raise _explain(error, origins, env_prefix) from error
    return Resolved(settings, types.MappingProxyType(origins), debug)


def settings_from(settings_class: type[T], entries: Mapping[str, Any], *, where: str) -> T:
    """Returns settings from a mapping that somebody else has read, by the names of the flags; empty is not given.

    Args:
        settings_class: The options.
        entries: Their values.
        where: What the mapping is, for errors.

    Raises:
        ConfigError: If an option is unknown or wrong.
    """
    given = {key: value for key, value in entries.items() if value != ""}
    named = _named(given, settings_class, where)
    try:
        settings = _only_given(settings_class)(**named)
    except ValidationError as error:
        raise _explain(error, dict.fromkeys(named, where), "") from error
    # Of the class itself, which other processes know.
    return settings_class.model_construct(settings.model_fields_set, **dict(settings))


def show(resolved: Resolved[Any]) -> str:
    """Returns a table of every option, its value and where it came from."""
    rows = [("option", "value", "origin")]
    for name, origin in resolved.origins.items():
        rows.append((_kebab(name), _text(getattr(resolved.settings, name)), origin))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{o:<{widths[0]}}  {v:<{widths[1]}}  {origin}" for o, v, origin in rows)


class _Parser(argparse.ArgumentParser):
    """Flags of a settings class; reports trouble as `ConfigError` instead of leaving the process."""

    def __init__(self, settings_class: type[BaseSettings], prog: str, env_prefix: str) -> None:
        self._fields = settings_class.model_fields
        self._env_prefix = env_prefix
        super().__init__(
            prog=prog,
            usage=f"{prog} [OPTION ...]",
            description=(settings_class.__doc__ or "").split("\n\n")[0],
            epilog="Taken from the flag, else the environment, else the TOML file, else the default.",
            allow_abbrev=False,
        )
        super().add_argument(
            "--config",
            metavar="FILE",
            default=argparse.SUPPRESS,
            help=f"TOML file with options, by the names of the flags. (env {env_prefix}CONFIG)",
        )
        super().add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="Show tracebacks of errors."
        )

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        """Adds the flag of a field, with words in place of pydantic's type names."""
        name = str(kwargs.get("dest"))
        if field := self._fields.get(name):
            kwargs["help"] = _help(field, f"{self._env_prefix}{name.upper()}").replace("%", "%%")
            if "metavar" in kwargs:
                kwargs["metavar"] = _placeholder(field.annotation)
        return super().add_argument(*names, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses flags; says which one an unknown flag may have been."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].split("=")[0]
            if not flag.startswith("-"):
                self.error(f"unexpected argument {flag!r}")
            self.error(f"unknown flag {flag}{_closest(flag, self._option_string_actions)}")
        return known

    def error(self, message: str) -> NoReturn:
        """Raises `ConfigError`."""
        raise ConfigError(f"{message.removeprefix('argument ')} ({self.prog} --help lists all flags)")


class _EnvSource(EnvSettingsSource):
    """Environment variables; lists may be written `a,b`, as on the command line."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return [item.strip() for item in value.split(",")]
        try:
            return json.loads(value)
        except ValueError as error:
            variable = f"{self.env_prefix}{field_name.upper()}"
            raise ConfigError(
                "not a list", got=repr(value), wanted="a,b or JSON", where=f"environment {variable}"
            ) from error


def _only_given(settings_class: type[T]) -> type[T]:
    """Returns the class without sources of its own: everything is read here, where origins are noted."""

    def settings_customise_sources(
        cls: type[T], settings_cls: object, /, init_settings: Any, **_: Any
    ) -> Any:
        return (init_settings,)

    members = {"__module__": settings_class.__module__, "__doc__": settings_class.__doc__}
    return type(
        settings_class.__name__,
        (settings_class,),
        members | {"settings_customise_sources": classmethod(settings_customise_sources)},
    )


def _check_variables(settings_class: type[BaseSettings], env_prefix: str) -> None:
    known = [f"{env_prefix}{name.upper()}" for name in (*settings_class.model_fields, "config")]
    for variable in sorted(os.environ):
        if variable.startswith(env_prefix) and variable not in known:
            raise ConfigError(f"unknown environment variable {variable}{_closest(variable, known)}")


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ConfigError: If it cannot be read or is none.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the file, {error.strerror}", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML, {error}", where=path) from error


def _named(document: Mapping[str, Any], settings_class: type[BaseSettings], where: object) -> dict[str, Any]:
    """Returns the values of options by the names of their fields."""
    entries: dict[str, Any] = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in settings_class.model_fields:
            close = _closest(_kebab(name), map(_kebab, settings_class.model_fields))
            raise ConfigError(f"unknown key {key!r}{close}", where=where)
        if name in entries:
            raise ConfigError(f"key {_kebab(name)!r} twice, with '-' and with '_'", where=where)
        entries[name] = value
    return entries


def _explain(error: ValidationError, origins: Mapping[str, str], env_prefix: str) -> ConfigError:
    """Says in one line what is wrong with the first wrong option, or which options are missing."""
    problems = error.errors(include_url=False)
    missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
    if missing:
        flags = ", ".join(_flag(name) for name in missing)
        return ConfigError(
            f"missing option{'s'[: len(missing) > 1]} {flags}",
            wanted=f"the flag, {env_prefix}{missing[0].upper()}, or a line in the file of --config",
        )
    first = problems[0]
    if not first["loc"]:  # a validator of the whole class
        return ConfigError(first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    # A union reports what each of its types wanted.
    texts = dict.fromkeys(problem["msg"] for problem in problems if problem["loc"][0] == name)
    what, wanted = f"wrong value of option {_kebab(name)}", None
    if all(text.startswith("Input should be ") for text in texts):
        wanted = " or ".join(text.removeprefix("Input should be ").split(", unable")[0] for text in texts)
    else:
        what += ", " + "; ".join(text.removeprefix("Value error, ") for text in texts)
    got = repr(first["input"])
    got = got if len(got) <= _MAX_GOT_CHARS else f"{got[:_MAX_GOT_CHARS]}..."
    return ConfigError(what, got=got, wanted=wanted, where=origins.get(name))


def _help(field: FieldInfo, variable: str) -> str:
    if field.is_required():
        default = "required"
    else:
        value = field.get_default(call_default_factory=True)
        default = "no default" if value is None else f"default {_text(value) or 'empty'}"
    return f"{field.description or ''} ({default}; env {variable})"


def _placeholder(annotation: Any) -> str:
    """Returns what stands for a value of a type in the help."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        parts = [_placeholder(argument) for argument in arguments if argument is not type(None)]
        return "|".join(dict.fromkeys(parts))
    if origin is typing.Annotated:
        return _placeholder(arguments[0])
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (list, tuple, set, frozenset):
        return f"{_placeholder(arguments[0])},..."
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(annotation, "VALUE")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(_text, value))
    return str(value)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _flag(name: str, value: object = None) -> str:
    return f"--{'no-' if value is False else ''}{_kebab(name)}"


def _closest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def check_unchanged(begun: Mapping[str, Any], here: Mapping[str, Any], names: Mapping[str, str] = {}) -> None:
    """Checks that what is resumed goes on with the options that decide its result.

    Args:
        begun: What it was begun with, by name.
        here: What it is to go on with; what is not in it is not compared.
        names: What people call those that are no flags.

    Raises:
        ConfigError: If one differs.
    """
    for name, wanted in begun.items():
        if name in here and here[name] != wanted:
            where = names.get(name, f"--{_kebab(name)}")
            raise ConfigError("resuming with another option", got=here[name], wanted=wanted, where=where)
