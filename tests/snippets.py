"""The code in the documents: found in their pages, and run as a reader would who pastes one piece after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.command import script

__all__ = ["ROOT", "Block", "Ran", "blocks", "outside_blocks", "pages", "run"]

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^(?P<fence>```+) ?(?P<language>\w+)(?P<title>.*)\n(?P<code>(?s:.*?))^(?P=fence)$", re.MULTILINE)

# What stands before each block, so that a page needs not make it.
_RUNNER = r"""
import contextlib, io, json, os, pathlib, shlex, sys

task = json.loads(sys.stdin.read())
given = {path: path.read_bytes() for path in pathlib.Path().glob("*.jsonl")}
submitted = ""

def command(words):
    global submitted
    words = [submitted if word == "JOB" else word for word in words]
    if words[0] != "costopt":
        return
    from costopt.cli import main
    target = None
    if ">" in words:
        words, target = words[: words.index(">")], words[words.index(">") + 1]
    sys.argv, said = words, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as end:
            assert not end.code, f"{shlex.join(words)} ended with {end.code}: {said.getvalue()}"
    if words[1:3] == ["batch", "submit"]:
        submitted = said.getvalue().split()[0]
    if target:
        pathlib.Path(target).write_text(said.getvalue())
    else:
        print(said.getvalue(), end="")

def shell(code):
    for line in code.splitlines():
        for path, data in given.items():
            path.write_bytes(data)
        if words := shlex.split(line, comments=True):
            command(words)

def forget():
    if "langchain_core.globals" in sys.modules:
        sys.modules["langchain_core.globals"].set_llm_cache(None)
    if "llama_index.core" in sys.modules:
        sys.modules["llama_index.core"].Settings._llm = None

for block in task["blocks"]:
    os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = task["batches" if block["batches"] else "calls"]
    said = io.StringIO()
    print(f"{task['page']}, line {block['line']}", file=sys.stderr)
    with contextlib.redirect_stdout(said):
        if block["language"] == "sh":
            shell(block["code"])
        else:
            code = "\n" * block["line"] + block["code"]
            exec(compile(code, task["page"], "exec"), {"__name__": "__main__"})
    forget()
    block["printed"] = said.getvalue()
json.dump(task["blocks"], sys.stdout)
"""


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page.

    Attributes:
        page: Path of the page from the root of the repository.
        line: Of its fence, from 1.
        language: What the fence says.
        title: What the fence says beside it.
        code: The piece.
    """

    page: str
    line: int
    language: str
    title: str
    code: str

    def side(self, mark: str) -> str:
        """Of a diff: how the code is before ("-") or after ("+") the change."""
        lines = self.code.splitlines()
        return "\n".join(
            line[2:] if line[:1] in f"{mark} " else "" for line in lines if line[:1] in f"{mark} " or not line
        )


@dataclass(frozen=True)
class Ran:
    """A block that ran, and what it printed."""

    block: Block
    printed: str


def pages() -> list[str]:
    """The documents for users, as paths from the root of the repository."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced pieces of a page, in their order; of these languages, if any are given."""
    text = (ROOT / page).read_text("utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["title"].strip(), match["code"])
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def outside_blocks(page: str) -> str:
    """The words of a page, without its fenced pieces."""
    return _FENCE.sub("", (ROOT / page).read_text("utf-8"))


def run(
    chosen: Iterable[Block], folder: Path, *, calls: str, batches: str, env: Mapping[str, str] | None = None
) -> list[Ran]:
    """Run blocks of one page, one after the other in one process, in a folder of theirs.

    Args:
        chosen: Python, or a shell's lines, of which those with `costopt` are run; of a diff the side after the change.
        folder: Where they run, with the files that they take for granted.
        calls: Address of a server that speaks OpenAI's API.
        batches: Address of one that speaks its batch API.
        env: More for their environment.
    """
    todo = [block for block in chosen if block.language in ("python", "sh", "diff")]
    if not todo:
        return []
    codes = [block.side("+") if block.language == "diff" else block.code for block in todo]
    told = [
        asdict(block) | {"code": code, "batches": any(name in code for name in ("BatchRunner", "costopt batch"))}
        for block, code in zip(todo, codes, strict=True)
    ]
    task = {"page": todo[0].page, "blocks": told, "calls": calls, "batches": batches}
    where = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "COSTOPT_CACHE_DIR": str(folder / "cache"), "COLUMNS": "100"}
    keys = {"OPENAI_API_KEY": "sk-none", **(env or {})}
    imported = [name for code in codes for name in re.findall(r"^(?:from|import) ([\w.]+)", code, flags=re.MULTILINE)]
    libraries = " ".join(dict.fromkeys(["torch", *(name for name in imported if "costopt" not in name)]))
    said = script(_RUNNER, libraries=libraries, stdin=json.dumps(task), folder=folder, env={**where, **keys})
    return [Ran(block, each["printed"]) for block, each in zip(todo, json.loads(said), strict=True)]
