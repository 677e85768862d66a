"""Run notebooks so that a failure cannot go unnoticed; check their structure.

python -m moleclip.workflow.notebooks run NOTEBOOK OUTPUT [-f FILE] [-y YAML]
python -m moleclip.workflow.notebooks lint
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# An optional part of jsonschema, which nbformat imports: it would compile a grammar for 3 s at the start of every job.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from moleclip.io import files
from moleclip.workflow import params

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
MAX_CODE_LINES = 120
WIDGET = "application/vnd.jupyter.widget-view+json"  # kind of output


class NotebookError(RuntimeError):
    """A notebook did not run to its end."""


def run(
    notebook: str | Path, output: str | Path, file: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Path:
    """Execute a notebook with papermill; its output appears only when every cell has run.

    Parameters
    ----------
    notebook, output : str or Path
        While it runs, the executed notebook lies beside `output` as `<name>.running.ipynb`. It is then renamed: to
        `output`, or after a failure to `<name>.failed.ipynb`, to look at.
    file : str or Path, optional
        YAML file of parameters.
    overrides : mapping, optional
        Parameters that win over the file's.

    Raises
    ------
    ParameterError
        Before anything runs.
    NotebookError
        Names the notebook, the step (the nearest heading) and the cause.
    """
    notebook, output = Path(notebook), Path(output)
    values = (params.read_yaml(file) if file else {}) | dict(overrides or {})
    if notebook.stem in params.notebooks():
        params.read(notebook.stem, None, **values)
    output.parent.mkdir(parents=True, exist_ok=True)
    running, failed = output.with_suffix(".running.ipynb"), output.with_suffix(".failed.ipynb")
    for earlier in (output, failed):
        earlier.unlink(missing_ok=True)
    # One notebook may run many times side by side, told apart by where its output goes.
    name = notebook.stem
    if output.stem != name:
        below = output.parts.index(name) + 1 if name in output.parts else -2
        name = f"{name} {Path(*output.parts[below:]).with_suffix('')}"
    print(f"{name}: started", flush=True)
    try:
        _execute(notebook, running, values, name)
    except (PapermillExecutionError, DeadKernelError, KeyboardInterrupt) as error:
        if not running.is_file():
            raise
        running.rename(failed)
        if isinstance(error, PapermillExecutionError):
            cell, cause = error.cell_index, f"{error.ename}: {error.evalue}"
        else:
            died = isinstance(error, DeadKernelError)
            cell, cause = _last_started(failed), "the kernel died (out of memory?)" if died else "interrupted"
        raise NotebookError(f"{name}, {_step(failed, cell)}: {cause}\nlook at {failed}") from None
    _keep_pictures(running)
    os.replace(running, output)
    print(f"{name}: finished", flush=True)
    return output


def _execute(notebook: Path, output: Path, values: Mapping[str, Any], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in the file system: no port is open to other users, and no network is needed, not even loopback.
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        # A kernel is interrupted before it is shut down, and would call that an error.
        sockets.NotebookClient.extra_arguments = ["--log-level=CRITICAL"]
        papermill.execute_notebook(
            notebook,
            output,
            values,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=_Prefixed(name, sys.stdout),
            stderr_file=_Prefixed(name, sys.stderr),
            config=sockets,
        )


def _keep_pictures(executed: Path) -> None:
    """Of a widget that comes with a picture, keep the picture: without its kernel nothing would follow the controls.

    A web page made of the notebook would, moreover, load scripts from elsewhere to show them.
    """
    notebook = nbformat.read(executed, 4)
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    for data in shown:
        if "image/png" in data:
            data.pop(WIDGET, None)
    if not any(WIDGET in data for data in shown):
        notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, executed)


class _Prefixed:
    """Names the notebook on each line of its output, for logs of several running side by side."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name, self.stream = name, stream

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if line.strip():
                self.stream.write(f"  {self.name} | {line}\n")

    def flush(self) -> None:
        self.stream.flush()


def _step(executed: Path, cell: int) -> str:
    """Step of a cell: the nearest heading above it."""
    headings = [
        line.lstrip("# ")
        for above in nbformat.read(executed, 4).cells[: cell + 1]
        if above.cell_type == "markdown" and "papermill-error-cell-tag" not in above.metadata.get("tags", [])
        for line in above.source.splitlines()
        if re.match(r"#+ ", line)
    ]
    return f"step '{headings[-1] if headings else 'start'}' (cell {cell + 1})"


def _last_started(executed: Path) -> int:
    cells = nbformat.read(executed, 4).cells
    started = [i for i, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    return max(started, default=0)


def lint(path: Path) -> list[str]:
    """Problems with a notebook's shape: none if the list is empty."""
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    lines = sum(len(cell.source.splitlines()) for cell in code)
    first = notebook.cells[0]
    checks = {
        "does not start with a title": first.cell_type != "markdown" or not first.source.startswith("# "),
        "has outputs or execution counts": any(cell.outputs or cell.execution_count for cell in code),
        "has an empty code cell": any(not cell.source.strip() for cell in code),
        f"kernelspec is not {KERNEL}": dict(notebook.metadata.get("kernelspec", {})) != KERNEL,
        f"has {len(tagged)} cells tagged 'parameters', expected one": len(tagged) != 1,
        f"has {lines} lines of code, at most {MAX_CODE_LINES}": lines > MAX_CODE_LINES,
        "defines a class or loops over training steps": any(
            re.search(r"^class |backward\(", cell.source, re.MULTILINE) for cell in code
        ),
        "the first cell does not state question, inputs, outputs and cost": not all(
            word in first.source for word in ("Question", "Inputs", "Outputs", "Cost")
        ),
        "the cell after the parameters does not check them": len(tagged) == 1
        and "params.from_notebook" not in code[code.index(tagged[0]) + 1].source,
        "the last cell does not record what was written": "run.finish(" not in code[-1].source,
        "a parameter lacks a comment": any(
            "=" in line and "#" not in line for cell in tagged for line in cell.source.splitlines()
        ),
    }
    problems = [f"{path.name}: {problem}" for problem, found in checks.items() if found]
    try:
        if len(tagged) == 1:
            params.read(path.stem)
    except params.ParameterError as error:
        problems.append(str(error))
    return problems


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 0 only when everything went well."""
    parser = argparse.ArgumentParser(prog="python -m moleclip.workflow.notebooks", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="execute one notebook")
    runner.add_argument("notebook", type=Path)
    runner.add_argument("output", type=Path)
    runner.add_argument("-f", "--file", type=Path, help="YAML file of parameters")
    runner.add_argument("-y", "--yaml", default="{}", help="parameters that override those of the file, as YAML")
    commands.add_parser("lint", help="check the structure of notebooks/*.ipynb")
    chosen = parser.parse_args(arguments)
    if chosen.command == "lint":
        problems = [line for path in sorted((files.ROOT / "notebooks").glob("*.ipynb")) for line in lint(path)]
        print("\n".join(problems) or "notebooks: no problems")
        return bool(problems)
    try:
        run(chosen.notebook, chosen.output, chosen.file, yaml.safe_load(chosen.yaml))
    except (params.ParameterError, NotebookError) as error:
        print(f"ERROR in {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
