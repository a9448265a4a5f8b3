"""The pages on the library are sessions that run as they stand."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import condvae
from condvae.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "library.md"
TASK_PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))

pytestmark = pytest.mark.usefixtures("no_log_lines")


@pytest.fixture(autouse=True)
def forget_tasks():
    """Tasks that a page registers are no tasks of other tests."""
    known = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(known)


class FencedParser(doctest.DocTestParser):
    """Takes the fences of code blocks for blank lines, which end the expected output."""

    def parse(self, string, name="<string>"):
        return super().parse(re.sub(r"^```.*$", "", string, flags=re.MULTILINE), name)


def run_page(path):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.testfile(
        str(path), module_relative=False, parser=FencedParser(), optionflags=options
    )


@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("attributes.md")], ids=lambda p: p.stem)
def test_page_prints_what_it_says(tmp_path, monkeypatch, capsys, page):
    monkeypatch.chdir(tmp_path)
    failed, attempted = run_page(page)
    assert not failed, capsys.readouterr().out
    assert attempted > 40
    sessions = re.findall(r"```pycon\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert sum(session.count(">>> ") for session in sessions) == attempted


@pytest.mark.parametrize("page", TASK_PAGES, ids=lambda page: page.stem)
def test_page_of_a_task_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed, attempted = run_page(page)
    assert not failed, capsys.readouterr().out
    assert attempted > 0


def test_every_task_has_a_page():
    own_pages = {"inpainting", "outpainting", "super_resolution", "colourisation", "edges"}
    own_pages |= {"class_label", "attributes", "glimpses", "your_own", "control"}
    assert {page.stem for page in TASK_PAGES} == own_pages
    # A combination of tasks is on the page of the class label.
    bundled = {name for name, task in TASKS.items() if task.__module__.startswith("condvae.")}
    assert bundled - {"combination"} <= own_pages
    for page in TASK_PAGES:
        text = page.read_text()
        assert "](../images/" in text
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_a_wrong_line_would_be_noticed(tmp_path, capsys):
    (tmp_path / "page.md").write_text("```pycon\n>>> 1 + 1\n3\n```\n")
    assert tuple(run_page(tmp_path / "page.md")) == (1, 1)
    assert "Expected:\n    3\nGot:\n    2" in capsys.readouterr().out


def test_every_name_of_the_package_is_explained():
    text = PAGE.read_text()
    assert [name for name in condvae.__all__ if name not in text] == []
    for method in ("observe", "sample", "stream", "summarise", "bound"):
        assert f"posterior.{method}(" in text


def test_pages_are_in_the_navigation():
    listed: list[str] = []
    for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]:
        for pages in entry.values():
            nested = (
                [pages] if isinstance(pages, str) else [p for part in pages for p in part.values()]
            )
            listed += nested
    docs = ROOT / "docs"
    assert sorted(listed) == sorted(str(p.relative_to(docs)) for p in docs.rglob("*.md"))


@pytest.mark.parametrize("package", ["condvae", "pipelines"])
def test_types_are_shipped(package):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"][package]
    assert (ROOT / "src" / package / "py.typed").is_file()
