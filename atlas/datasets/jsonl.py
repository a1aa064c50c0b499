"""Your own problems in a JSON Lines file."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from atlas.datasets.base import Dataset, Example, Splits, Turn
from atlas.datasets.files import Row, kind, read_rows
from atlas.datasets.rows import BadRow, identity, present, read_examples, text
from atlas.datasets.splits import split
from atlas.spec import LocalPath, Spec

ROLES = ("system", "user", "assistant")


class Columns(Spec):
    """Names of the columns. One that is named here must be in every row."""

    prompt: str | None = Field(None, min_length=1)
    """The question, a string. Default: `prompt`."""
    messages: str | None = Field(None, min_length=1)
    """The question as chat messages; an assistant turn at the end is the solution. Default: `messages`."""
    answer: str | None = Field(None, min_length=1)
    """The gold answer, a string or a number. Default: `answer`."""
    solution: str | None = Field(None, min_length=1)
    """A worked solution; may be null. Default: `solution`, if there is one."""
    id: str | None = Field(None, min_length=1)
    """A name for the row, unique in the file; may be null. Default: `id`, if there is one."""
    group: str | None = Field(None, min_length=1)
    """What rewordings of one question have in common; may be null. Default: `group`, if there is one."""

    @model_validator(mode="after")
    def _one_prompt(self) -> "Columns":
        if self.prompt is not None and self.messages is not None:
            raise ValueError(f"name prompt or messages, not both: got {self.prompt!r} and {self.messages!r}")
        return self


class Jsonl(Dataset):
    """Your own problems, one JSON object a line: `prompt` or `messages`, and `answer`.

    Optional: `solution` (needed to imitate), `id`, and `group` (rows of one group are never split up).
    """

    type: Literal["jsonl"] = "jsonl"
    path: LocalPath
    """The file: JSON Lines; a `.json` list of objects and `.parquet` are read too."""
    columns: Columns = Columns()
    """What the columns are called, where they differ from the defaults."""

    def check(self) -> Splits:
        return self.load()

    def load(self) -> Splits:
        file = Path(self.path)
        ids: set[str] = set()

        def example(row: Row) -> Example:
            read = self._example(row)
            if self._optional(row, "id") is None:
                return read
            if read.id in ids:
                raise BadRow(f"the id {read.id!r} is taken by a row before; ids must be unique")
            ids.add(read.id)
            return read

        return split(read_examples(read_rows(file), example, file.name), self)

    def _example(self, row: Row) -> Example:
        turns, solution = self._prompt_and_solution(row)
        answer = _scalar(present(row, self._column("answer"), self._path("answer")), self._column("answer"))
        if not answer.strip():
            raise BadRow(f"{self._column('answer')} is empty")
        question = "\n".join(turn["content"] for turn in turns)
        return Example(
            id=self._optional(row, "id") or identity(question, answer, solution),
            group=self._optional(row, "group") or question,
            messages=self.prompt(turns),
            answer=answer,
            solution=solution,
        )

    def _prompt_and_solution(self, row: Row) -> tuple[list[Turn], str | None]:
        solution = self._optional(row, "solution")
        if self._asks_in_messages(row):
            column = self._column("messages")
            turns = _messages(present(row, column, self._path("messages")), column)
            if turns[-1]["role"] == "assistant":
                if solution is not None:
                    raise BadRow(f"{column} ends with an assistant turn and there is a solution; keep one of them")
                solution = turns.pop()["content"]
            if not turns or turns[-1]["role"] != "user":
                raise BadRow(f"{column}: no user turn before the solution; expected the question there")
            if turns[0]["role"] == "system" and self.system is not None:
                raise BadRow(
                    f"{column} has a system message of its own; remove it, or dataset.system", "dataset.system"
                )
            return turns, solution
        question = text(row, self._column("prompt"), self._path("prompt"))
        return [{"role": "user", "content": question}], solution

    def _asks_in_messages(self, row: Row) -> bool:
        if self.columns.prompt is not None or self.columns.messages is not None:
            return self.columns.messages is not None
        if "prompt" in row and "messages" in row:
            raise BadRow("has both 'prompt' and 'messages'; name the one to use", "dataset.columns")
        if "prompt" not in row and "messages" not in row:
            raise BadRow(f"column 'prompt' or 'messages' missing; it has: {', '.join(row) or 'nothing'}")
        return "messages" in row

    def _optional(self, row: Row, field: str) -> str | None:
        """The value of a column that may be absent (unless it was named in the spec) or null."""
        column = self._column(field)
        if column not in row and getattr(self.columns, field) is None:
            return None
        value = present(row, column, self._path(field))
        return None if value is None else _scalar(value, column).strip() or None

    def _column(self, field: str) -> str:
        return getattr(self.columns, field) or field

    def _path(self, field: str) -> str:
        """Where to look when a column is missing: at its name, if the spec gives one."""
        return f"dataset.columns.{field}" if getattr(self.columns, field) else "dataset.path"


def _scalar(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(f"{column}: expected a string or a number, got {kind(value)}")
    if not math.isfinite(value):
        raise BadRow(f"{column}: expected a finite number, got {value}")
    return str(value)


def _messages(value: Any, column: str) -> list[Turn]:
    if not isinstance(value, list):
        raise BadRow(f"{column}: expected a list, got {kind(value)}")
    if not value:
        raise BadRow(f"{column}: expected at least one message, got an empty list")
    return [_message(message, f"{column}[{index}]", index) for index, message in enumerate(value)]


def _message(value: Any, place: str, index: int) -> Turn:
    if not isinstance(value, Mapping):
        raise BadRow(f"{place}: expected an object with role and content, got {kind(value)}")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES or (role == "system" and index > 0):
        raise BadRow(f"{place}: expected the role user or assistant (or system, first), got {role!r}")
    if not isinstance(content, str):
        raise BadRow(f"{place}: content: expected a string, got {kind(content)}")
    if not content.strip():
        raise BadRow(f"{place}: {role} content is empty")
    return {"role": role, "content": content}
