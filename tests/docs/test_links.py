"""No relative link of the documents leads nowhere; and one that does is seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    """The extension by which `make docs` checks links; it needs no Sphinx for that."""
    spec = importlib.util.spec_from_file_location("repository_links", ROOT / "docs/extensions/repository_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One whose documents have no links."""
    for name in ("README.md", "CONTRIBUTING.md", "csrc/README.md", "docs/page.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(
            "# A title\n\n## Some `code` & more\n\n## Twice\n\n## Twice\n\n```\n# No title\n```\n"
        )
    return tmp_path


def test_every_link_of_the_documents_leads_somewhere(checker: ModuleType) -> None:
    assert list(checker.broken()) == []


def test_every_document_is_looked_at(checker: ModuleType) -> None:
    names = {str(path.relative_to(ROOT)) for path in checker.documents()}
    assert {"README.md", "CONTRIBUTING.md", "csrc/README.md", "docs/limits.md", "docs/results/README.md"} <= names


@pytest.mark.parametrize(
    "link",
    [
        "[a](docs/page.md)",
        "[a](docs/page.md#some-code--more)",
        "[a](docs/page.md#twice-1)",
        "[a](#a-title)",
        "![a](CONTRIBUTING.md)",
        '<img src="docs/page.md" width="400">',
        "[a](https://example.org/nowhere.md#x)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
    ],
)
def test_a_link_that_leads_somewhere(checker: ModuleType, repository: Path, link: str) -> None:
    (repository / "README.md").write_text(f"# A title\n\n{link}\n")
    assert list(checker.broken(repository)) == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[a](nowhere.md)", "README.md: the link nowhere.md leads to no file"),
        ("[a\nb](docs/nowhere/)", "README.md: the link docs/nowhere/ leads to no file"),
        ("![a](docs/nowhere.svg)", "README.md: the link docs/nowhere.svg leads to no file"),
        ('<img alt="a" src="nowhere.svg">', "README.md: the link nowhere.svg leads to no file"),
        ("[a]: nowhere.md", "README.md: the link nowhere.md leads to no file"),
        ("[a](docs/page.md#twice-2)", "README.md: the link docs/page.md#twice-2 leads to no heading"),
        ("[a](docs/page.md#no-title)", "README.md: the link docs/page.md#no-title leads to no heading"),
        ("[a](#twice)", "README.md: the link #twice leads to no heading"),
    ],
)
def test_a_link_that_leads_nowhere(checker: ModuleType, repository: Path, link: str, said: str) -> None:
    (repository / "README.md").write_text(f"# A title\n\n{link}\n")
    assert list(checker.broken(repository)) == [said]


def test_markdown_outside_the_site_becomes_a_download(checker: ModuleType, repository: Path) -> None:
    site = repository / "docs"
    text = "[a](../README.md#twice) [b](page.md) [c](../csrc/README.md) [d](https://example.org/x.md)"
    expected = "[a](path:../README.md) [b](page.md) [c](path:../csrc/README.md) [d](https://example.org/x.md)"
    assert checker.with_downloads(text, site, site) == expected
