"""How the templates of all cards are read."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from .result_tables import escape_cell, escape_text, format_seconds

__all__ = ["card_templates"]


def card_templates() -> Environment:
    """The templates beside this module, with the filters `cell` (text in a table), `said` (the same of what was
    said) and `duration` (of seconds)."""
    templates = Environment(
        loader=PackageLoader("speechzoo.hub_cards"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"cell": escape_cell, "said": escape_text, "duration": format_seconds}
    return templates
