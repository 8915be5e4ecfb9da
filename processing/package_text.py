"""Texts that lie beside the code and belong to it.

The export of code for the Hub finds them by calls of `package_text(__file__, "name.txt")`, so both arguments are
written out as here; it puts a module in place of this one that holds the texts themselves.
"""

from pathlib import Path

__all__ = ["package_text"]


def package_text(module_file: str, name: str) -> str:
    """The text of a file beside the module that asks; `module_file` is its `__file__`."""
    return Path(module_file).with_name(name).read_text(encoding="utf-8")
