"""Makes the site self-contained: links that lead out of docs/ are served from it, too.

The rule for a link out of docs/: one to a file of `PAGES` leads to the page made of that file, any
other leads to a copy of the file under `files/` on the site. So a link that works on GitHub works
on the site, and one that leads nowhere fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = "docs"

PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "benchmarks/LOG.md": "log.md",
    "examples/README.md": "examples.md",
    "kernels/SPEC.md": "spec.md",
}
"""File outside docs/ -> the page that is made of it."""

CODE = re.compile(r"(```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//""")

log = get_plugin_logger("site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and files that are outside docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    pages = [file for file in files.documentation_pages() if file.abs_src_path is not None]
    linked = {
        target
        for page in pages
        for target in _targets(Path(str(page.abs_src_path)).read_text("utf-8"), page.src_uri)
    }
    for target in sorted(linked):
        files.append(File.generated(config, _copy(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links where the site has what they lead to on GitHub."""
    folder = posixpath.dirname(page.file.src_uri)

    def lead(match: re.Match[str]) -> str:
        found = _resolve(match[2], page.file.src_uri)
        if found is None:
            return match[0]
        if not (ROOT / found).is_file():
            log.warning("%s: the link %s leads to no file", page.file.src_uri, match[2])
        site = _on_site(found)
        return f"{match[1]}{posixpath.relpath(site, folder or '.')}{match[3]}"

    parts = CODE.split(markdown)
    return "".join(part if i % 2 else LINK.sub(lead, part) for i, part in enumerate(parts))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises PluginError for a page that has a browser fetch something from another host."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri}: fetches from another host: {found[0]}")
    return output


def _targets(markdown: str, src_uri: str) -> set[str]:
    """The files outside docs/ that a page links to, and that no page is made of."""
    text = "".join(CODE.split(markdown)[::2])
    resolved = {_resolve(match[2], src_uri) for match in LINK.finditer(text)}
    return {
        path
        for path in resolved
        if path is not None
        and path not in PAGES
        and not path.startswith(f"{DOCS}/")
        and (ROOT / path).is_file()
    }


def _resolve(link: str, src_uri: str) -> str | None:
    """The file that a link leads to, from the root; None for other links."""
    if "://" in link or link.startswith("mailto:"):
        return None
    sources = {page: path for path, page in PAGES.items()}
    source = sources.get(src_uri, f"{DOCS}/{src_uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _on_site(path: str) -> str:
    """The address that a file has on the site, as mkdocs counts: from docs/."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else _copy(path)


def _copy(path: str) -> str:
    """Not rendered: a file that ends in .md would become a page."""
    return f"files/{path}.txt" if path.endswith(".md") else f"files/{path}"
