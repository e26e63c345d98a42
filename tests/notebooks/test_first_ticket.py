"""The notebook, executed as a notebook: every cell runs, and what its text says holds for what its cells print."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

SOURCE = Path(__file__).parents[2] / "notebooks/first_ticket.py"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """With its outputs; a cell that fails raises here, and is shown."""
    notebook = jupytext.read(SOURCE)
    folder = tmp_path_factory.mktemp("notebook")
    # A kernel runs for one notebook and ends with it; without a limit a cell that hangs would hang the tests.
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert [path.name for path in folder.iterdir()] == ["first-lottery"]
    assert (folder / "first-lottery" / "report.html").is_file()
    return notebook


def printed(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_tickets_hold_where_random_masks_fall(executed: NotebookNode) -> None:
    rounds = re.findall(r"([\d.]+)% of the weights: ticket ([\d.]+)%, random mask ([\d.]+)%", printed(executed))
    left, tickets, controls = zip(*(map(float, row) for row in rounds), strict=True)
    assert left == pytest.approx((50, 25, 12.5, 6.2), abs=0.1)
    (dense,) = re.findall(r"100.0% of the weights: ticket ([\d.]+)%$", printed(executed), re.MULTILINE)
    assert float(dense) > 90
    assert tickets[0] > float(dense) - 4
    assert tickets[-1] > controls[-1] + 20


def test_the_ticket_of_the_file_trains_to_the_same_accuracy(executed: NotebookNode) -> None:
    ((of_file, before),) = re.findall(r"from the file: ([\d.]+)%, before: ([\d.]+)%", printed(executed))
    assert float(of_file) == pytest.approx(float(before), abs=2)


def test_the_sparse_network_has_the_parameters_of_its_live_weights(executed: NotebookNode) -> None:
    found = dict(re.findall(r"^(masked dense|sparse) +([\d,]+) parameters", printed(executed), re.MULTILINE))
    assert found == {"masked dense": "85,066", "sparse": "5,476"}


def test_there_is_a_plot(executed: NotebookNode) -> None:
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
