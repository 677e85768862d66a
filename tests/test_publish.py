"""Publishing: a finished page is copied whole, and nothing that is published is lost."""

import json
import shutil
import subprocess

import pytest

from moleclip.io import files
from moleclip.workflow import params, provenance, publish


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project under git with the demo's notebooks and profile, and no runs."""
    for name in ("notebooks", "params/demo"):
        shutil.copytree(files.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".ipynb_*"))
    (tmp_path / "moleclip").mkdir()
    (tmp_path / "moleclip" / "code.py").write_text("1")
    (tmp_path / ".gitignore").write_text("runs/\n")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def draw(root, folder="runs/demo/figures", notebook="09_draw_figures", **contents):
    """Write files as a notebook does, and its record."""
    page = root / folder
    page.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (page / f"{name}.csv").write_text(text)
    p = params.read(notebook, None, output=folder)
    provenance.Run(notebook, p).finish(page, [page / f"{name}.csv" for name in contents])


def published(root, folder="figures/demo"):
    return {
        str(path.relative_to(root / folder)): path.read_text()
        for path in (root / folder).rglob("*.csv")
        if path.is_file()
    }


def test_a_page_is_copied_whole_and_takes_the_place_of_the_one_before(root):
    draw(root, scores="1", knee="1")
    draw(root, "runs/demo/figures/explore", "07_explore_encoder", neighbours="1")
    draw(root, "runs/demo/tasks/figures", maps="1")
    publish.publish("demo", "tasks")
    assert publish.publish("demo") == root / "figures" / "demo"
    tasks = {"tasks/maps.csv": "1"}  # another page in the same folder stays
    assert published(root) == {"scores.csv": "1", "knee.csv": "1", "explore/neighbours.csv": "1"} | tasks
    draw(root, scores="2")
    publish.publish("demo")
    assert published(root) == {"scores.csv": "2", "explore/neighbours.csv": "1"} | tasks
    assert [path.name for path in (root / "figures").iterdir()] == ["demo"]


def test_a_notebook_with_another_number_is_the_same(root):
    draw(root, scores="1", knee="1")
    publish.publish("demo")
    (root / "figures/demo/09_draw_figures.json").rename(root / "figures/demo/10_draw_figures.json")
    draw(root, scores="2")
    publish.publish("demo")
    assert published(root) == {"scores.csv": "2"}
    assert [path.name for path in (root / "figures/demo").glob("*.json")] == ["09_draw_figures.json"]


@pytest.mark.parametrize("damage", ["missing", "changed", "no record"])
def test_a_page_that_is_not_whole_is_refused(root, damage):
    draw(root, scores="1", knee="1")
    publish.publish("demo")
    draw(root, scores="2", knee="2")
    page = root / "runs/demo/figures"
    if damage == "missing":
        (page / "knee.csv").unlink()
    elif damage == "changed":
        (page / "knee.csv").write_text("3")
    else:
        (page / "09_draw_figures.json").unlink()
    with pytest.raises(ValueError, match=r"draw.* make page PROFILE=demo"):
        publish.publish("demo")
    assert published(root) == {"scores.csv": "1", "knee.csv": "1"}


def test_a_failure_leaves_what_is_published(root, monkeypatch):
    draw(root, scores="1")
    publish.publish("demo")
    draw(root, scores="2")

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", full)
        with pytest.raises(OSError, match="no space"):
            publish.publish("demo")
    assert published(root) == {"scores.csv": "1"}
    # A process that was killed between its last two steps.
    (root / "figures/demo").rename(root / "figures/.demo.old")
    publish.publish("demo")
    assert published(root) == {"scores.csv": "2"}
    assert [path.name for path in (root / "figures").iterdir()] == ["demo"]


def test_uncommitted_code_is_not_published(root):
    (root / "moleclip/code.py").write_text("2")
    draw(root, scores="1")
    with pytest.raises(
        ValueError, match=r"uncommitted changes .*: moleclip/code\.py\. Commit them first, or add DIRTY=1"
    ):
        publish.publish("demo")
    git(root, "commit", "-qam", "edited")
    with pytest.raises(ValueError, match=r"drawn by code that was not committed, as 09_draw_figures\.json says"):
        publish.publish("demo")
    publish.publish("demo", dirty=True)
    draw(root, scores="2")
    publish.publish("demo")
    assert published(root) == {"scores.csv": "2"}


def test_of_notebooks_only_the_code_of_those_that_draw_counts(root):
    draw(root, scores="1")

    def edit(name, cell_type, **change):
        path = root / "notebooks" / f"{name}.ipynb"
        notebook = json.loads(path.read_text())
        [cell for cell in notebook["cells"] if cell["cell_type"] == cell_type][-1].update(change)
        path.write_text(json.dumps(notebook))

    edit("09_draw_figures", "markdown", source="# Another title")
    edit("09_draw_figures", "code", outputs=[{"output_type": "stream", "name": "stdout", "text": "run"}])
    edit("03_pretrain", "code", source="1")
    (root / "params/demo/draw_figures.yaml").write_text("seed: 1\n")
    publish.publish("demo")
    edit("09_draw_figures", "code", source="1")
    with pytest.raises(ValueError, match=r"notebooks/09_draw_figures\.ipynb"):
        publish.publish("demo")


def test_outside_git_there_is_nothing_to_compare_with(root):
    shutil.rmtree(root / ".git")
    draw(root, scores="1")
    publish.publish("demo")
    assert published(root) == {"scores.csv": "1"}


def test_the_command(root, monkeypatch, capsys):
    draw(root, "runs/demo/tasks/figures", maps="1")
    monkeypatch.setattr("sys.argv", ["publish", "demo", "tasks"])
    assert publish.main() == 0
    assert capsys.readouterr().out == "published: figures/demo/tasks\n"
    monkeypatch.setattr("sys.argv", ["publish", "demo"])
    assert publish.main() == 1
    assert "runs/demo/figures: no finished page" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["publish", "dmo"])
    assert publish.main() == 1
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_a_study_says_where_its_page_is_published(root):
    study = root / "params/demo/study_elsewhere.yaml"
    study.write_text("publish: figures/studies/elsewhere\n")
    draw(root, "runs/demo/elsewhere/figures", maps="1")
    assert publish.publish("demo", "elsewhere") == root / "figures/studies/elsewhere"
    study.write_text("publish: somewhere\n")
    with pytest.raises(params.ParameterError, match="'publish' = 'somewhere'"):
        publish.publish("demo", "elsewhere")
    study.write_text("draw: {output: figures/here}\n")
    with pytest.raises(params.ParameterError, match="`publish` says where"):
        publish.publish("demo", "elsewhere")
