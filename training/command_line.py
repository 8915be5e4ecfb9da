"""Command lines for scripts: several dataclasses, one per purpose, filled from flags and a YAML file.

    adapter, data = parse_arguments("Train an adapter.", AdapterArguments, DataArguments)

Every dataclass is one titled group of `--help`. Its title is the class variable `title`, or the first line of its
docstring. Its section of a YAML file is the class's name in snake case without a last word such as `Arguments`. A
field's help is `field(metadata={"help": "..."})`. A value is looked for in the flags first, then in the YAML file,
then in the default. In a YAML file a field may be a dataclass again, or a list or mapping of such.
"""

import argparse
import dataclasses
import difflib
import enum
import json
import os
import re
import shlex
import shutil
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import psutil
import yaml

_SUFFIXES = ("_arguments", "_options", "_settings", "_configuration", "_config")
_LAUNCHER_MODULES = {"accelerate.commands.launch": "accelerate launch", "torch.distributed.run": "torchrun"}


def parse_arguments(
    description: str, *groups: type, argv: Sequence[str] | None = None, underneath: Path | None = None
) -> tuple[Any, ...]:
    """Fills the dataclasses `groups` from a command line and the YAML file its `--config` names.

    Args:
        description: What the script does, shown at the top of `--help`.
        groups: Dataclasses with defaults where a value is optional. Their field names must differ between groups.
        argv: The words after the script's name; those of this process when left out.
        underneath: The YAML file that is read where no `--config` names one.

    Returns:
        One instance of every dataclass, in the order given.

    A mistake of the user (an unknown flag or key, a value of the wrong type, a `ValueError` in `__post_init__`) ends
    the program with status 2 and one line that names it. `TypeError` or `ValueError` is raised for groups that
    contradict each other, which is a mistake of the script.
    """
    fields = _collect_fields(groups)
    parser = _build_parser(description, groups, fields)
    words, unknown = parser.parse_known_args(_underscored(sys.argv[1:] if argv is None else argv))
    given = vars(words)
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}{_nearest(unknown[0].partition('=')[0], flags)}")
    try:
        path = given.pop("config", None) or underneath
        values = {**(read_yaml(path, *groups) if path else {}), **_from_flags(given, fields)}
        return tuple(_fill(group, fields, values) for group in groups)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def read_yaml(path: str | Path, *groups: type) -> dict[str, Any]:
    """Reads the values that a YAML file gives to the fields of `groups`, either flat or nested by group.

    Raises `ValueError` naming the key, the file and the nearest valid key when a key is unknown or given twice, and
    naming the key when its value has the wrong type.
    """
    fields = _collect_fields(groups)
    sections = {section_name(group): group for group in groups}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a mapping of keys to values, not a {type(content).__name__}")
    values: dict[str, Any] = {}
    for key, value, allowed in _flatten(content, sections, fields, path):
        if key not in allowed:
            raise ValueError(f"unknown key {key!r} in {path}{_nearest(str(key), allowed)}")
        if key in values:
            raise ValueError(f"key {key!r} is given twice in {path}: keep one")
        try:
            values[key] = _convert(value, fields[key].annotation)
        except ValueError as error:
            raise ValueError(f"key {key!r} in {path}: {error}") from error
    return values


def plain_settings(*groups: Any) -> dict[str, Any]:
    """The values of dataclasses as a report shows them; what was left empty is left out, zeros are not."""
    values = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return {name: value for name, value in shown.items() if value not in (None, "", [], {})}


def as_command(argv: Sequence[str] | None = None, launched_by: Sequence[str] | None = None) -> str:
    """The command line that started this process, as one would type it, without the path of the python binary.

    Args:
        argv: The script and its arguments; those of this process when left out.
        launched_by: The words of the parent process, looked at for `accelerate launch` or `torchrun`; asked of the
            operating system when left out.

    Returns:
        For example `accelerate launch examples/train_adapter.py --seed 3`. Paths below the working directory are
        written relative to it.
    """
    words = list(sys.argv if argv is None else argv)
    parent = _parent_command() if launched_by is None else list(launched_by)
    launcher = _launcher_words(parent, script=words[0])
    return shlex.join([_relative(word) for word in [*launcher, *words]])


def section_name(group: type) -> str:
    """The key under which a YAML file may nest the fields of `group`: `DataArguments` gives `data`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", group.__name__).lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    group: type
    annotation: Any
    default: Any  # dataclasses.MISSING when a value is required
    help: str

    @property
    def flags(self) -> list[str]:
        return [f"--{self.name}", f"--no_{self.name}"] if _core(self.annotation) is bool else [f"--{self.name}"]


def _collect_fields(groups: Sequence[type]) -> dict[str, _Field]:
    fields: dict[str, _Field] = {}
    for group in groups:
        annotations = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            if not field.init:
                continue
            if field.name in fields or field.name == "config":
                raise ValueError(f"field {field.name!r} of {group.__name__} has a name that is taken: rename it")
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            fields[field.name] = _Field(
                field.name, group, annotations[field.name], default, field.metadata.get("help", "")
            )
    sections = [section_name(group) for group in groups]
    if clashing := [name for name in sections if name in fields or sections.count(name) > 1]:
        raise ValueError(f"section {clashing[0]!r} is also a field or another section: rename the class or the field")
    return fields


def _flatten(
    content: Mapping[Any, Any], sections: Mapping[str, type], fields: Mapping[str, _Field], path: str | Path
) -> list[tuple[Any, Any, list[str]]]:
    """Triples of a key, its value and the keys allowed where it stands."""
    entries = []
    for key, value in content.items():
        if key not in sections:
            entries.append((key, value, [*fields, *sections]))
            continue
        if not isinstance(value, Mapping):
            raise ValueError(f"section {key!r} in {path} must hold keys and values, not {value!r}")
        allowed = [name for name, field in fields.items() if field.group is sections[key]]
        entries += [(inner, inner_value, allowed) for inner, inner_value in value.items()]
    return entries


def _from_flags(given: Mapping[str, Any], fields: Mapping[str, _Field]) -> dict[str, Any]:
    values = {}
    for name, words in given.items():
        try:
            values[name] = words if isinstance(words, bool) else _convert_words(words, fields[name].annotation)
        except ValueError as error:
            raise ValueError(f"argument --{name}: {error}") from error
    return values


def _fill(group: type, fields: Mapping[str, _Field], values: Mapping[str, Any]) -> Any:
    own = [field for field in fields.values() if field.group is group]
    for field in own:
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{field.name!r} has no value: give --{field.name} or the key in the --config file")
    return group(**{field.name: values[field.name] for field in own if field.name in values})


# Values


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types a value may have: those of a union, or the one type."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _core(annotation: Any) -> Any:
    """The type without `None`, and its first member when several are left."""
    return next(member for member in _members(annotation) if member is not type(None))


def _is_sequence(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in (list, tuple, Sequence)


def _is_mapping(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in (dict, Mapping)


def _convert(value: Any, annotation: Any) -> Any:
    """The value of a YAML file as the type of its field. Raises `ValueError` when it is of another type."""
    problems = []
    for member in sorted(_members(annotation), key=lambda member: member is str):
        try:
            return _convert_one(value, member)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(problems[0] if len(problems) == 1 else f"expected {type_name(annotation)}, got {value!r}")


def _convert_one(value: Any, kind: Any) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        # Compared with their types: True is not 1.
        matches = [choice for choice in arguments if choice == value and type(choice) is type(value)]
        if matches:
            return matches[0]
    elif kind is Any:
        return value
    elif _is_sequence(kind) and isinstance(value, (list, tuple)):
        return _convert_items(value, kind)
    elif _is_mapping(kind) and isinstance(value, Mapping):
        inner = arguments[1] if arguments else Any
        return {key: _convert_inside(key, item, inner) for key, item in value.items()}
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _convert_dataclass(value, kind)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value in [choice.value for choice in kind]:
            return kind(value)
    elif kind is type(None) and value is None:
        return None
    elif kind is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        # YAML 1.1 reads 1e-4 as text.
        return _parse_number(value, float)
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif kind in (bool, int, str) and type(value) is kind:
        return value
    hint = ", put it in quotes" if kind is str and value is not None else ""
    raise ValueError(f"expected {type_name(kind)}, got {value!r}{hint}")


def _convert_inside(key: Any, value: Any, annotation: Any) -> Any:
    """The value of a key of a mapping; an error names the key."""
    try:
        return _convert(value, annotation)
    except ValueError as error:
        raise ValueError(f"{key!r}: {error}") from error


def _convert_dataclass(values: Mapping[Any, Any], kind: type) -> Any:
    """A mapping as a dataclass, which may hold others."""
    fields = _collect_fields([kind])
    for key in values:
        if key not in fields:
            raise ValueError(f"unknown key {key!r}{_nearest(str(key), list(fields))}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise ValueError(f"{missing[0]!r} has no value")
    return kind(**{key: _convert_inside(key, value, fields[key].annotation) for key, value in values.items()})


def _convert_items(values: Sequence[Any], kind: Any) -> Any:
    arguments = typing.get_args(kind)
    container = typing.get_origin(kind) or kind
    if container is not tuple:
        return [_convert(value, arguments[0] if arguments else Any) for value in values]
    if not arguments or Ellipsis in arguments:
        return tuple(_convert(value, arguments[0] if arguments else Any) for value in values)
    if len(values) != len(arguments):
        raise ValueError(f"expected {len(arguments)} values, got {len(values)}")
    return tuple(_convert(value, member) for value, member in zip(values, arguments, strict=True))


def _convert_words(words: Any, annotation: Any) -> Any:
    """The words after a flag as the type of its field."""
    if isinstance(words, list):
        member = next(member for member in _members(annotation) if _is_sequence(member))
        inner = [item for item in typing.get_args(member) if item is not Ellipsis] or [str]
        kinds = inner if len(inner) == len(words) else inner[:1] * len(words)
        return _convert_items([_parse(word, kind) for word, kind in zip(words, kinds, strict=True)], member)
    return _convert(_parse(words, annotation), annotation)


def _parse(word: str, annotation: Any) -> Any:
    """What a YAML file would have held for a word of the command line."""
    members = _members(annotation)
    if type(None) in members and word.lower() in ("none", "null"):
        return None
    for member in sorted(members, key=lambda member: member is str):
        choices = typing.get_args(member) if typing.get_origin(member) is Literal else _enum_values(member)
        by_text = {str(choice): choice for choice in choices}
        if word in by_text:
            return by_text[word]
        if _is_mapping(member):
            return _parse_mapping(word) if word.lstrip().startswith("{") or str not in members else word
        if member is int and re.fullmatch(r"[+-]?\d+", word):
            return int(word)
        if member is bool and word.lower() in ("true", "false"):
            return word.lower() == "true"
        if member is float and (str not in members or re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", word)):
            return _parse_number(word, float)
    return word


def _enum_values(kind: Any) -> list[Any]:
    return [choice.value for choice in kind] if isinstance(kind, type) and issubclass(kind, enum.Enum) else []


def _parse_number(value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"expected a {type_name(kind)}, got {value!r}") from None


def _parse_mapping(word: str) -> Any:
    try:
        return json.loads(word)
    except json.JSONDecodeError as error:
        raise ValueError(f"""expected JSON such as '{{"key": 1}}', got {word!r} ({error})""") from None


# Help


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        super().__init__(prog, max_help_position=34, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keeps the line breaks of a description; a line is broken anew where it is too long."""
        fill = super()._fill_text
        lines = text.strip().splitlines()
        return "\n".join(indent + line if len(line) <= width else fill(line, width, indent) for line in lines)


class _Switch(argparse.Action):
    """`--flag` and `--no_flag` under one entry of the help."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def _build_parser(description: str, groups: Sequence[type], fields: Mapping[str, _Field]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [--config file.yaml] [flags]",
        formatter_class=_HelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        epilog="Flags override the YAML file, which overrides the defaults. Words are joined by _ or -.",
    )
    parser.add_argument("--config", metavar="file.yaml", help="YAML file with any of the values below, by name")
    for group in groups:
        titled = parser.add_argument_group(f"{_title(group)} (section {section_name(group)!r})")
        for field in fields.values():
            if field.group is group:
                _add_flag(titled, field)
    return parser


def _add_flag(group: Any, field: _Field) -> None:
    default = "required" if field.default is dataclasses.MISSING else f"default: {_show(field.default)}"
    options: dict[str, Any] = {"dest": field.name, "help": f"{field.help} ({default})".strip().replace("%", "%%")}
    members = _members(field.annotation)
    if _core(field.annotation) is bool:
        options |= {"action": _Switch, "nargs": 0}
    elif any(_is_sequence(member) for member in members):
        options |= {"nargs": "*", "metavar": type_name(next(m for m in members if _is_sequence(m)))}
    else:
        options |= {"metavar": type_name(field.annotation)}
    group.add_argument(*field.flags, **options)


def type_name(annotation: Any) -> str:
    """A type in words for people: `float` is a number, `Literal["a", "b"]` is a|b."""
    if len(members := _members(annotation)) > 1:
        return "|".join(type_name(member) for member in members if member is not type(None))
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    if typing.get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in arguments)
    if choices := _enum_values(annotation):
        return "|".join(str(choice) for choice in choices)
    if _is_sequence(annotation):
        return type_name(arguments[0]) if arguments else "text"
    if _is_mapping(annotation):
        return "json"
    names = {int: "integer", float: "number", str: "text", Path: "path", bool: "true|false", type(None): "nothing"}
    return names.get(annotation, "value")


def _title(group: type) -> str:
    title = getattr(group, "title", None)
    if isinstance(title, str) and "title" not in _collect_fields([group]):
        return title
    docstring = (group.__doc__ or "").strip()
    # A dataclass without a docstring gets its signature as one.
    if not docstring or docstring.startswith(f"{group.__name__}("):
        return section_name(group).replace("_", " ").capitalize()
    return docstring.splitlines()[0].rstrip(".")


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return " ".join(_show(item) for item in value) or "none"
    return "none" if value in (None, "") else str(value)


def _underscored(words: Sequence[str]) -> list[str]:
    """Flags with `-` between their words as the field names have them."""
    return [re.sub(r"^--[A-Za-z][\w-]*", lambda flag: "--" + flag[0][2:].replace("-", "_"), word) for word in words]


def _nearest(key: str, allowed: Sequence[str]) -> str:
    matches = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0) if allowed else []
    return f": did you mean {matches[0]!r}?" if matches else ""


# The command line that was typed


def _parent_command() -> list[str]:
    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []


def _launcher_words(parent: Sequence[str], script: str) -> list[str]:
    """`accelerate launch --its flags` or `torchrun --its flags` when the parent launched `script`, else `python`."""
    if script not in parent:
        return ["python"]
    before = list(parent[: list(parent).index(script)])
    for position, word in enumerate(before):
        if word in _LAUNCHER_MODULES:
            return [*_LAUNCHER_MODULES[word].split(), *before[position + 1 :]]
        if Path(word).name in ("accelerate", "torchrun"):
            return [Path(word).name, *before[position + 1 :]]
    return ["python"]


def _relative(word: str) -> str:
    """A path below the working directory, relative to it; `--flag=path` too."""
    flag, separator, value = word.rpartition("=")
    path = Path(value)
    if path.is_absolute() and path.is_relative_to(os.getcwd()):
        return flag + separator + str(path.relative_to(os.getcwd()))
    return word
