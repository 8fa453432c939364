"""What MkDocs is told beside mkdocs.yml: README.md is the home page, and files that pages link to are pages, too.

So every document is written once, its links work where the repository is read, and the site needs no address of it.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

__all__ = ["linked", "on_files", "on_page_markdown", "on_post_page", "on_post_template"]

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_CODE = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".jsonl": "json"}
_PICTURES = (".svg", ".png")
_ELSEWHERE = "repository/"
_FETCHED = re.compile(r"https://[\w.]+/iframe-worker/shim")


def on_files(files: Files, config: Any) -> Files:
    """Add the home page, and what the pages lead to outside of docs/, as far as that goes on."""
    waiting = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    known = set(waiting)
    files.append(_page(config, "README.md"))
    while waiting:
        page = waiting.pop()
        for target in linked(page):
            if target in known or target.startswith("docs/"):
                continue
            known.add(target)
            files.append(_page(config, target))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to their pages."""
    here = _path(page.file.src_uri)

    def rewritten(link: re.Match[str]) -> str:
        target = _target(here, link[1])
        if target is None:
            return link[0]
        return f"]({posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or '.')}{link[2] or ''})"

    return _LINK.sub(rewritten, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """What the theme would fetch from elsewhere for its search is a file of ours."""
    return _FETCHED.sub(posixpath.relpath("assets/worker.js", posixpath.dirname(page.url) or "."), output)


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The same for the page of addresses that are not there; it is served from any folder."""
    return _FETCHED.sub("/assets/worker.js", output_content)


def linked(page: str) -> list[str]:
    """The files of the repository that a page links to, as paths from its root."""
    targets = (_target(page, link[1]) for link in _LINK.finditer((ROOT / page).read_text("utf-8")))
    return [target for target in targets if target is not None]


def _target(page: str, link: str) -> str | None:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if (ROOT / target / "README.md").is_file():
        return f"{target}/README.md"
    return target if (ROOT / target).is_file() else None


def _uri(path: str) -> str:
    """Where a file of the repository is in the site's sources."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _ELSEWHERE + path + ("" if path.endswith((".md", *_PICTURES)) else ".md")


def _path(uri: str) -> str:
    """The other way round."""
    if uri == "index.md":
        return "README.md"
    return uri.removeprefix(_ELSEWHERE) if uri.startswith(_ELSEWHERE) else f"docs/{uri}"


def _page(config: Any, path: str) -> File:
    file = ROOT / path
    if path.endswith(_PICTURES):
        return File.generated(config, _uri(path), abs_src_path=str(file))
    text = file.read_text("utf-8")
    if path.endswith(".ipynb"):
        text = f"# {path}\n\n" + "\n\n".join(_cell(cell) for cell in json.loads(text)["cells"])
    elif not path.endswith(".md"):
        text = f"# {path}\n\n````{_CODE.get(file.suffix, 'text')}\n{text}````\n"
    return File.generated(config, _uri(path), content=text)


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    # The page has a heading of its own.
    return f"````python\n{text}\n````" if cell["cell_type"] == "code" else re.sub(r"^#", "##", text, flags=re.MULTILINE)
