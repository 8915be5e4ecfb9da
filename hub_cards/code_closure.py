"""The modules that a class needs, rewritten so that they work beside each other in one folder.

transformers loads code from a checkpoint's folder by rules of its own: it follows `from .module import name` alone, as
text at the start of a line; and before it runs a module it imports every library that the module names outside `try`.
So packages are left out of relative imports here, and libraries that only a function imports are imported in `try`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_imports

from ..processing.package_text import package_text

__all__ = ["CodeClosure", "CodeExportError", "check_flat", "close_over", "parsed_module"]

_TEXTS_MODULE = package_text.__module__
_READS_TEXT = package_text.__name__


class CodeExportError(ValueError):
    """Code cannot be exported, or does not work where it was exported to."""


@dataclass
class Module:
    """One module of the package, as it is there."""

    name: str
    path: Path
    source: str
    tree: ast.Module = field(repr=False)

    @property
    def package(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def flat_name(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def root(self) -> str:
        return self.name.partition(".")[0]

    def fault(self, node: ast.AST, text: str) -> CodeExportError:
        return CodeExportError(f"{self.path.name}:{getattr(node, 'lineno', 1)}: {text}")

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *accumulate(map(len, self.source.encode().splitlines(keepends=True)))]

    def span(self, node: ast.stmt) -> tuple[int, int]:
        """Where a statement begins and ends, in bytes, as `ast` counts its columns."""
        begin = self._line_starts[node.lineno - 1] + node.col_offset
        return begin, self._line_starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    @cached_property
    def contexts(self) -> dict[ast.AST, frozenset[str]]:
        """In what each node lies: of "function", "try" and "type checking", where nothing runs."""
        found: dict[ast.AST, frozenset[str]] = {self.tree: frozenset()}
        for parent in ast.walk(self.tree):
            inside = found[parent] | _opens(parent)
            skipped = set(parent.body) if isinstance(parent, ast.If) and _is_type_checking(parent.test) else set()
            for child in ast.iter_child_nodes(parent):
                found[child] = inside | ({"type checking"} if child in skipped else frozenset())
        return found

    @cached_property
    def relative_imports(self) -> list[tuple[ast.ImportFrom, str]]:
        """Every relative import that runs, with the full name of what it imports from."""
        return [
            (node, importlib.util.resolve_name("." * node.level + (node.module or ""), self.package))
            for node, inside in self.contexts.items()
            if isinstance(node, ast.ImportFrom) and node.level and "type checking" not in inside
        ]

    @cached_property
    def libraries(self) -> list[tuple[ast.AST, str, bool]]:
        """Every import of something that is neither this package nor Python's: node, name, whether it may fail.

        Raises `CodeExportError` for imports that cannot be followed.
        """
        found: list[tuple[ast.AST, str, bool]] = []
        for node, inside in self.contexts.items():
            for name in _absolute_imports(node):
                first = name.partition(".")[0]
                if first in ("", self.root):
                    raise self.fault(node, f"'{name}' cannot be followed; write from .module import name")
                if first not in sys.stdlib_module_names and "type checking" not in inside:
                    found.append((node, first, bool(inside) or isinstance(node, ast.Call)))
        return found

    def texts(self) -> dict[str, Path]:
        """Texts beside the module that it reads. Raises `CodeExportError` for reading that is not declared."""
        if self.name == _TEXTS_MODULE:
            return {}
        names: dict[str, Path] = {}
        places = {node for node in self.contexts if isinstance(node, ast.Name) and node.id == "__file__"}
        for call in self.contexts:
            if isinstance(call, ast.Call) and _called(call) == _READS_TEXT:
                match call.args:
                    case [ast.Name() as place, ast.Constant(value=str(name))] if place in places:
                        places.remove(place)
                        names[name] = self.path.with_name(name)
                    case _:
                        raise self.fault(call, f"write {_READS_TEXT}(__file__, 'name.txt'), the name in full")
        for place in places:
            raise self.fault(place, f"files beside a module are read by {_READS_TEXT}(__file__, 'name.txt') alone")
        return names


@lru_cache(maxsize=256)
def parsed_module(name: str, path: Path, source: str) -> Module:
    """A module with this source; the same one again for the same source, which cards and exports often ask for."""
    return Module(name, path, source, ast.parse(source))


@dataclass
class CodeClosure:
    """Modules that need nothing of their package but each other.

    Attributes:
        sources: name in the folder, without `.py` -> what is to stand there.
        requirements: top-level names of the libraries that the code cannot be loaded without.
        optional: of those that some of its functions import when they run.
    """

    sources: dict[str, str]
    requirements: list[str]
    optional: list[str]


def close_over(modules: Iterable[str]) -> CodeClosure:
    """The modules of these names and all that they import of their package, laid flat.

    Raises `CodeExportError` for what cannot be laid flat: two modules or texts of one name, names that are imported
    from a package which does not import them itself, files that are read but not declared.
    """
    found = _follow(modules)
    flat: dict[str, Module] = {}
    for module in found.values():
        other = flat.setdefault(module.flat_name, module)
        if other is not module:
            raise CodeExportError(f"{other.name} and {module.name} would both be {module.path.name}; rename one")
    wanted = [library for module in found.values() for library in module.libraries]
    required = {name for _, name, may_fail in wanted if not may_fail}
    optional = {name for _, name, may_fail in wanted if may_fail} - required
    contents = _texts(found.values())
    sources = {
        name: _source_of_texts(contents) if module.name == _TEXTS_MODULE else _rewritten(module, optional)
        for name, module in sorted(flat.items())
    }
    return CodeClosure(sources, sorted(required), sorted(optional))


def check_flat(folder: Path, names: Iterable[str]) -> None:
    """Raises `CodeExportError` where transformers would miss a module, or look for one that is not there."""
    for name in names:
        path = folder / f"{name}.py"
        module = parsed_module(name, Path(path.name), path.read_text(encoding="utf-8"))
        meant = {node.module for node in module.contexts if isinstance(node, ast.ImportFrom) and node.level}
        if meant != (seen := set(get_relative_imports(path))):
            odd = sorted(str(module) for module in meant ^ seen)[0]
            raise CodeExportError(
                f"{path.name}: transformers misreads the import of '{odd}'; write each import on a line of its own, "
                f"and none at the start of a line of text"
            )


# ---- following ---------------------------------------------------------------------------------------------------


def _follow(names: Iterable[str]) -> dict[str, Module]:
    found: dict[str, Module] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = module = _read(name)
            waiting += [
                target for node, source in module.relative_imports for target in _targets(module, node, source)
            ]
    return found


def _read(name: str) -> Module:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise CodeExportError(f"there is no source file of {name}")
    source = Path(spec.origin).read_text(encoding="utf-8")
    return parsed_module(name, Path(spec.origin), source)


def _targets(module: Module, node: ast.ImportFrom, source: str) -> dict[str, list[ast.alias]]:
    """Full names of the modules that an import is of, and what it takes from each; a package passes names on."""
    if not _is_package(source):
        return {source: node.names}
    found: dict[str, list[ast.alias]] = {}
    for alias in node.names:
        target, original = _passed_on(module, node, source, alias.name)
        bound = alias.asname or alias.name
        found.setdefault(target, []).append(ast.alias(original, None if bound == original else bound))
    return found


def _passed_on(module: Module, node: ast.ImportFrom, package: str, name: str) -> tuple[str, str]:
    """Where a package has a name from: the module, and what it is called there."""
    for imported, source in _read_package(package).relative_imports:
        for alias in imported.names:
            if source != package and (alias.asname or alias.name) == name:
                return _passed_on(module, node, source, alias.name) if _is_package(source) else (source, alias.name)
    raise module.fault(
        node, f"'{name}' cannot be followed through the package {package}; write from .module import name"
    )


def _read_package(name: str) -> Module:
    """Its `__init__`, named so that its relative imports resolve."""
    module = _read(name)
    return parsed_module(f"{name}.__init__", module.path, module.source)


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _opens(node: ast.AST) -> frozenset[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return frozenset({"function"})
    return frozenset({"try"}) if isinstance(node, ast.Try) else frozenset()


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _absolute_imports(node: ast.AST) -> list[str]:
    """Names of modules that a node imports by their full name; a relative name given to a function is "."."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
        return [str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant)] or ["."]
    return []


# ---- rewriting ---------------------------------------------------------------------------------------------------


def _rewritten(module: Module, optional: set[str]) -> str:
    """The source of a module with imports that work in a flat folder; all else is as it was."""
    changes: dict[ast.stmt, str] = {}
    for node, source in module.relative_imports:
        changes[node] = _flat_import(module, node, source)
    for statement, inside in module.contexts.items():
        if isinstance(statement, ast.ImportFrom) and statement.level and "type checking" in inside:
            changes[statement] = "pass"
    for imported, name, _ in module.libraries:
        if isinstance(imported, ast.stmt) and name in optional and module.contexts[imported] == {"function"}:
            changes[imported] = _guarded(imported, name)
    return _replaced(module, changes)


def _flat_import(module: Module, node: ast.ImportFrom, source: str) -> str:
    if not _is_package(source):
        name = source.rpartition(".")[2]
        begin, end = module.span(node)
        written = module.source.encode()[begin:end].decode()
        return re.sub(r"^from\s+[.\w]+\s+import\b", f"from .{name} import", written)
    indent = "\n" + " " * node.col_offset
    targets = _targets(module, node, source)
    return indent.join(
        ast.unparse(ast.ImportFrom(target.rpartition(".")[2], names, 1)) for target, names in targets.items()
    )


def _guarded(node: ast.stmt, library: str) -> str:
    """An import that transformers does not ask for in advance."""
    indent = "\n" + " " * node.col_offset
    needs = f'raise ImportError("this needs the library {library}; install it") from error'
    return indent.join(["try:", f"    {ast.unparse(node)}", "except ImportError as error:", f"    {needs}"])


def _replaced(module: Module, changes: dict[ast.stmt, str]) -> str:
    text = module.source.encode()
    for node in sorted(changes, key=module.span, reverse=True):
        begin, end = module.span(node)
        text = text[:begin] + changes[node].encode() + text[end:]
    return text.decode()


def _texts(modules: Iterable[Module]) -> dict[str, str]:
    """Name -> content of all texts. Raises `CodeExportError` for two of one name, and for one that is not there."""
    paths: dict[str, Path] = {}
    for module in modules:
        for name, path in module.texts().items():
            if paths.setdefault(name, path) != path:
                raise CodeExportError(f"two modules read different texts of the name {name}; rename one")
            if not path.is_file():
                raise CodeExportError(f"{module.path.name} reads {name}, which is not there")
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(paths.items())}


def _source_of_texts(contents: dict[str, str]) -> str:
    """A module with the interface of `package_text` that has the texts in it."""
    entries = []
    for name, content in contents.items():
        lines = "".join(f"        {line!r}\n" for line in content.splitlines(keepends=True)) or '        ""\n'
        entries.append(f"    {name!r}: (\n{lines}    ),\n")
    return (
        '"""Texts that belong to the code beside: transformers loads Python files alone, so one holds them."""\n\n'
        f'__all__ = ["{_READS_TEXT}"]\n\n'
        f"_TEXTS = {{\n{''.join(entries)}}}\n\n\n"
        f"def {_READS_TEXT}(module_file: str, name: str) -> str:\n"
        f'    """The text of that name, wherever the module lies that asks."""\n'
        f"    return _TEXTS[name]\n"
    )
