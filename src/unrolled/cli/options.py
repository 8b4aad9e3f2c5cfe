"""A verb whose arguments and options are the fields of a named tuple, so that they are stated once and handed on as one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from inspect import Parameter, Signature
from typing import Any, get_type_hints


def command(
    run: Callable[[Any], None], given: type[Any], what: str, *, leave_out: Collection[str] = (), **other: Any
) -> Callable[..., None]:
    """What typer makes a verb of: a function with a parameter for each field.

    Args:
        run: is handed what was said.
        given: a named tuple whose fields are annotated as typer wants its parameters; those with a default may be left away.
        what: the help of the verb.
        leave_out: fields that this verb has not; they keep their defaults.
        **other: annotations of this verb in place of the fields' own.

    Returns:
        The function.
    """

    def verb(**said: Any) -> None:
        run(given(**said))

    hints = {**get_type_hints(given, include_extras=True), **other}
    kept = {field: hint for field, hint in hints.items() if field not in leave_out}
    defaults = given._field_defaults
    parameters = [
        Parameter(field, Parameter.KEYWORD_ONLY, default=defaults.get(field, Parameter.empty), annotation=hint)
        for field, hint in kept.items()
    ]
    verb.__signature__, verb.__annotations__, verb.__doc__ = Signature(parameters), kept, what  # type: ignore[attr-defined]
    return verb
