"""Fills in the templates of `templates/`: the one place that knows jinja2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tts_generate.errors import TTSError
from tts_generate.inert import inert


def fill(template: str, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """The text of a template; values are inert, and in HTML escaped too, unless they are `markup`.

    Args:
        template: its file name; by its ending it is HTML or Markdown.
        filters: functions that it may use.
        **values: what it names; to name anything else is an error.

    Raises:
        TTSError: jinja2 is not installed.
    """
    environment = _environment(template.endswith(".html"))
    environment.filters |= filters or {}
    return str(environment.get_template(template).render(text_of=text_of, **values))


@cache
def _environment(escaped: bool) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise TTSError("reports and pages need jinja2: pip install 'tts-generate[report]'.") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tts_generate.report"),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: inert(value) if type(value) is str else value,  # but not `markup`
        trim_blocks=True,
        lstrip_blocks=True,
    )


def markup(text: str) -> Any:
    """HTML or SVG of ours, or an author's own Markdown, which stands as it is.

    Raises:
        TTSError: jinja2 is not installed.
    """
    _environment(True)  # says what is missing
    from markupsafe import Markup

    return Markup(text)


def text_of(name: str) -> Any:
    """A style sheet or script of ours, as it is."""
    return markup((files("tts_generate.report") / "templates" / name).read_text("utf-8"))
