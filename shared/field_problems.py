"""pydantic's findings in a caller's words: the field's path as they wrote it, and what would be right there. No I/O.

pydantic reports a value that fits no branch of a union once for each branch, and names the branch in the path
(`content.list[…][0].text.text`). Here each field has one line, and its path is the one in the JSON.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.errors import FieldProblem

MOST_PROBLEMS: Final = 20
"""More say nothing new: a body of megabytes can be wrong in a hundred thousand places."""

_LONGEST_NAME: Final = 80
"""Characters of a field's name that are repeated; the caller chose it."""

_TYPES: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
"""pydantic's error for a wrong type, and the type's name in JSON's words."""

_UNION_BRANCHES: Final = ("list[", "dict[")
_UNION_TAGS: Final = ("text", "image_url")


def problems_of(error: ValidationError) -> tuple[FieldProblem, ...]:
    """One problem a field, in the fields' order."""
    found: dict[str, list[str]] = {}
    types: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        path = _path(item)
        if item["type"] in _TYPES:
            types.setdefault(path, []).append(_TYPES[item["type"]])
            found.setdefault(path, [])
        else:
            found.setdefault(path, []).append(_sentence(item))
    problems = [
        FieldProblem(path, "; ".join([*_must_be(path, types.get(path, [])), *sentences]))
        for path, sentences in found.items()
        if sentences or not _has_deeper(path, found)
    ]
    return tuple(problems[:MOST_PROBLEMS])


def summary_of(problems: tuple[FieldProblem, ...]) -> str:
    """One sentence: the problem itself where there is one, else the fields' names."""
    if len(problems) == 1:
        [problem] = problems
        said = f"{problem.field}: {problem.message}" if problem.field else problem.message
        return f"The request is not valid: {said}."
    names = ", ".join(problem.field or "the body" for problem in problems)
    return f"The request is not valid: see {names}."


def _has_deeper(path: str, paths: Mapping[str, object]) -> bool:
    """Whether another branch of the union took the value and found the fault inside: then "must be a string" misleads."""
    return path != "" and any(other.startswith((f"{path}.", f"{path}[")) for other in paths)


def _must_be(path: str, types: list[str]) -> list[str]:
    subject = "" if path else "the body "
    return [f"{subject}must be {' or '.join(types)}"] if types else []


def _path(item: ErrorDetails) -> str:
    """The location without the union branches that pydantic mixes in."""
    loc = item["loc"]
    path = ""
    for i, step in enumerate(loc):
        if isinstance(step, int):
            path += f"[{step}]"
        elif not _is_branch(loc, i, is_name=item["type"] == "extra_forbidden" and i + 1 == len(loc)):
            name = step if len(step) <= _LONGEST_NAME else step[:_LONGEST_NAME] + "…"
            path += f".{name}" if path else name
    return _field_of_tag(path, item["type"])


def _is_branch(loc: tuple[int | str, ...], i: int, is_name: bool) -> bool:
    """Whether the step is no field: a union's branch, a tagged union's tag, or the mark of a dictionary's key.

    `is_name`: the step is a field that the caller made up, whatever it looks like. So are the names in `metadata`.
    """
    step = str(loc[i])
    if i == 0 or is_name:
        return False
    if loc[0] == "metadata":
        return step == "[key]" and i + 1 == len(loc) and i > 1
    is_tag = step in _UNION_TAGS and i > 1 and isinstance(loc[i - 1], int) and str(loc[i - 2]).startswith(_UNION_BRANCHES)
    return is_tag or step == "str" or step.startswith(_UNION_BRANCHES)


def _field_of_tag(path: str, kind: str) -> str:
    return f"{path}.type" if kind.startswith("union_tag_") else path


def _sentence(item: ErrorDetails) -> str:
    ctx: Mapping[str, Any] = item.get("ctx", {})
    match item["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field of this request"
        case "json_invalid":
            return f"the body is not JSON: {ctx['error']}"
        case "literal_error":
            return f"must be {ctx['expected']}"
        case "union_tag_invalid":
            return f"must be one of {ctx['expected_tags']}"
        case "union_tag_not_found":
            return "is required"
        case "value_error":
            return str(ctx["error"])
    return _bound(item["type"], ctx, of_key=item["loc"][-1:] == ("[key]",)) or item["msg"]


def _bound(kind: str, ctx: Mapping[str, Any], of_key: bool) -> str | None:
    """The sentence of a bound that was passed; None for an error of another kind."""
    subject = "its name must" if of_key else "must"
    match kind:
        case "greater_than":
            return f"{subject} be more than {_number(ctx['gt'])}"
        case "greater_than_equal":
            return f"{subject} be at least {_number(ctx['ge'])}"
        case "less_than_equal":
            return f"{subject} be at most {_number(ctx['le'])}"
        case "finite_number":
            return f"{subject} be a finite number"
        case "string_too_short" | "too_short":
            return f"{subject} not be empty"  # no bound in the request is above one
        case "string_too_long":
            return f"{subject} have at most {ctx['max_length']} characters"
        case "too_long":
            return f"{subject} have at most {ctx['max_length']} items"
        case "string_pattern_mismatch":
            return f"{subject} be provider/model, as openai/gpt-4o-mini"  # the one pattern of the request
    return None


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
