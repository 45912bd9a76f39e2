"""The notebook of the Python API runs as a user runs it: in a kernel of its own."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.processes import ROOT

NOTEBOOK = ROOT / "docs" / "python.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}})
        client.execute()
    return notebook, folder


def output_of(notebook, start: str) -> str:
    """What the cell that begins with `start` printed and gave back."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and c.source.startswith(start)]
    parts = [out.get("text") or out["data"].get("text/plain", "") for out in cell.outputs]
    return "\n".join(parts)


def test_the_notebook_is_committed_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")


def test_training_prints_its_plan_and_reaches_more_than_chance(executed):
    notebook, folder = executed
    printed = output_of(notebook, "run = train(")
    assert "160 to train, 40 to validate (20% of every class, seed 42)" in printed
    assert "1/1 head epoch  2/2" in printed
    assert "Finished after" in (folder / "outputs" / "first" / "train.log").read_text()
    accuracy, n_val = re.findall(r"[\d.]+", output_of(notebook, 'run.metrics["val_accuracy"]'))
    assert int(n_val) == 40
    assert float(accuracy) > 0.15


def test_its_tables_have_a_row_a_photo(executed):
    notebook, folder = executed
    history = pd.read_csv(folder / "outputs" / "first" / "history.csv")
    assert history.stage.tolist() == ["head", "head"]
    assert str(history.loss[0])[:6] in output_of(notebook, "run.history")
    assert len(output_of(notebook, "import numpy as np").splitlines()) == 1 + 3
    submission = pd.read_csv(folder / "submission.csv")
    sample = pd.read_csv(folder / "photos" / "sample-submission.csv")
    assert submission.Id.tolist() == sample.Id.tolist()


def test_a_mistake_is_printed_without_a_traceback(executed):
    notebook, _ = executed
    printed = output_of(notebook, "from carcls.errors import UserError")
    assert printed.startswith("Expected image_size to be at least 32 px for efficientnetb3")


def test_its_folders_are_where_it_ran(executed):
    _, folder = executed
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        "outputs", "photos", "submission.csv", "submission_probabilities.csv",
    ]  # fmt: skip
