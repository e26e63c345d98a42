"""What the files around the code promise: one version, workflows with no more rights than they need, no pickle.

Their formats are checked by `make lint`, against the published schemas.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import lth_sparse

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SOURCES = sorted(path for folder in ("lth_sparse", "kernels") for path in (ROOT / folder).rglob("*.py"))
OPENS_PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def test_the_version_is_the_same_everywhere() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", lth_sparse.__version__]
    assert read(ROOT / "CITATION.cff")["version"] == lth_sparse.__version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_only_ends_in_time_and_pins_its_actions(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert set(job.get("needs", [])) <= workflow["jobs"].keys()
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action) for action in used), used


def test_continuous_integration_is_what_a_contributor_runs() -> None:
    (job,) = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_only_a_tag_is_published_and_only_that_job_may_ask_for_a_token() -> None:
    jobs = {name: job for path in WORKFLOWS for name, job in read(path)["jobs"].items()}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["if"] == "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_of_ours_opens_a_pickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                imported = {name.name.split(".")[0] for name in names}
            case ast.ImportFrom(module=str(module)):
                imported = {module.split(".")[0]}
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch" | "np" | "numpy"), attr="load")):
                if "weights_only=True" not in map(ast.unparse, node.keywords):
                    pytest.fail(f"line {node.lineno} calls {ast.unparse(node.func)}")
            case _:
                continue
        assert not imported & OPENS_PICKLES
