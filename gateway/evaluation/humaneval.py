"""HumanEval (Chen et al., 2021): functions to complete, judged by running their tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gateway.evaluation.question import Question, read_rows
from gateway.evaluation.sandbox import run_program

_BLOCK = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


class HumanEval:
    """Right is what passes the task's tests in the sandbox."""

    name = "humaneval"
    max_tokens = 400

    def read(self, path: Path) -> list[Question]:
        return [
            Question(
                id=f"humaneval/{row['task_id'].rpartition('/')[2]}",
                unit=f"humaneval/{row['task_id']}",
                prompt=(
                    "Complete this Python function. Answer with the whole function in one code "
                    f"block, without examples.\n```python\n{row['prompt'].strip()}\n```"
                ),
                expected=f"{row['test']}\n\ncheck({row['entry_point']})\n",
                facts={"stub": row["prompt"], "entry_point": row["entry_point"]},
            )
            for row in read_rows(path, ("task_id", "prompt", "entry_point", "test"))
        ]

    def extract(self, question: Question, text: str) -> str | None:
        """The code of the first block that defines the function, else of a text that is code."""
        blocks = _BLOCK.findall(text)
        defines = re.compile(rf"^\s*def\s+{re.escape(question.facts['entry_point'])}\b", re.M)
        for code in [*blocks, text]:
            if defines.search(code):
                return str(code).strip("\n")
        return None

    def right(self, question: Question, answer: str) -> bool:
        """The stub comes first, for its imports and helpers; the answer then defines it anew."""
        program = f"{question.facts['stub']}\n    pass\n\n{answer}\n\n{question.expected}"
        return run_program(program).passed

    def ballot(self, answer: str) -> str:
        """The same for code that differs in layout and comments only."""
        try:
            return ast.unparse(ast.parse(answer))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return answer
