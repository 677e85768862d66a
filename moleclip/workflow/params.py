"""The parameters of each notebook: their names, types and limits.

Their defaults stand in one place, the notebook's cell tagged `parameters`; a profile's YAML file overrides them.
"""

import ast
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from moleclip.config import Count, Finetune, Parameters, PathText, Pretrain, PretrainDomain, Seed, Workers
from moleclip.io import files
from moleclip.io.errors import ParameterError as ParameterError
from moleclip.io.errors import nearest

Ks = Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]


class Quickstart(Parameters):
    """Of notebook 00."""

    encoder: str
    molecules: Annotated[list[str], Field(min_length=1)]
    library: str
    neighbours: Annotated[int, Field(ge=5)]
    table: PathText
    smiles_column: str
    label_columns: list[str] | None
    sample: Count | None
    model: str
    folds: Annotated[int, Field(ge=2)]
    splits: Annotated[int, Field(ge=2)]
    advise: Annotated[int, Field(ge=0)]
    sizes: list[Count] | None
    epochs: Count
    output: PathText
    seed: Seed


class DepictMolecules(Parameters):
    """Of notebook 01."""

    datasets: Annotated[list[str], Field(min_length=1)]
    output: PathText
    examples: Count
    checksums: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    sample: Count | None
    cache: PathText | None
    workers: Workers
    seed: Seed


class ClusterStructures(Parameters):
    """Of notebook 02."""

    molecules: PathText
    output: PathText
    unique: bool
    k_sweep: Ks
    k_labels: Ks
    sample: Count | None
    sweep_sample: Count | None
    cache: PathText | None
    workers: Workers
    seed: Seed

    @model_validator(mode="after")
    def _labels_are_swept(self) -> "ClusterStructures":
        missing = sorted(set(self.k_labels) - set(self.k_sweep))
        if missing and self.sweep_sample is None:
            raise ValueError(f"k_labels has {missing}, which k_sweep lacks")
        return self


class ReplaceRGroups(Parameters):
    """Of notebook 06."""

    runs: PathText
    jobs: list[str] | None
    output: PathText
    model: str
    competitor: str
    missing: Literal["skip", "fail"]
    seed: Seed


class ExploreEncoder(Parameters):
    """Of notebook 07."""

    dataset: PathText
    label: str
    encoders: Annotated[dict[str, str], Field(min_length=1)]
    model: str
    output: PathText
    sample: Annotated[int, Field(ge=20)] | None
    clusters: Annotated[int, Field(ge=2)]
    neighbours: Count
    method: Literal["tsne", "umap"]
    explained: Annotated[int, Field(ge=2)]
    shown: Count
    steps: Annotated[int, Field(ge=2)]
    orders: Count
    redrawn: Annotated[int, Field(ge=2)]
    chiral: PathText
    seed: Seed


PageFigure = Literal[
    "gallery",
    "knee",
    "loss",
    "scores",
    "contrasts",
    "parity",
    "baseline",
    "maps",
    "fig_2",
    "fig_3a",
    "fig_3b",
    "fig_4a",
    "fig_4b",
    "fig_s2",
    "ablations",
    "table_2",
    "table_s4",
    "table_s5",
    "table_s6",
    "table_ablations",
]


class ReproducePaper(Parameters):
    """Of notebook 10."""

    output: PathText
    seed: Seed


class DrawFigures(Parameters):
    """Of notebook 09."""

    runs: PathText
    jobs: list[str] | None
    reference: str
    output: PathText
    figures: Annotated[list[PageFigure], Field(min_length=1)]
    contrasts: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]
    maps: dict[str, str]
    caption: str
    missing: Literal["skip", "fail"]
    seed: Seed


FINETUNE = "04_finetune"
EXPLORE = "07_explore_encoder"
CLAIMS = "10_reproduce_paper"

MODELS: dict[str, type[Parameters]] = {
    "00_quickstart": Quickstart,
    "01_depict_molecules": DepictMolecules,
    "02_cluster_structures": ClusterStructures,
    "03_pretrain": Pretrain,
    FINETUNE: Finetune,
    "05_pretrain_domain": PretrainDomain,
    "06_replace_r_groups": ReplaceRGroups,
    EXPLORE: ExploreEncoder,
    CLAIMS: ReproducePaper,
    "09_draw_figures": DrawFigures,
}


# A data set of a fan-out, by a name of its own: parameters that are the same for all models, and the split seeds.
Sets = dict[str, dict[str, Any]]


class Profile(Parameters):
    """`profile.yaml` or a study: what the workflow fans out to, one finetuning job per model, set and split seed.

    A set has, besides parameters of the notebook, `split_seeds`, and `models` if not all of them are wanted.
    """

    models: dict[str, dict[str, Any]] = Field(default={})
    pretrain: dict[str, dict[str, Any]] = Field(
        default={}
    )  # encoders beside the profile's own, by name: parameters of notebook 03
    pretrain_domain: dict[str, dict[str, Any]] = Field(default={})  # and of notebook 05
    finetune: Sets = Field(default={})
    page: Literal["06_replace_r_groups", "09_draw_figures"] = "09_draw_figures"
    draw: dict[str, Any] = Field(default={})  # parameters of the page
    claims: bool = False  # whether notebook 10 is run too


class Job(NamedTuple):
    """One finetuning job of a fan-out: its place (set, model, split seed), and its own parameters."""

    dataset: str
    model: str
    seed: int
    overrides: dict[str, Any]


def jobs(profile: Profile, folder: str) -> list[Job]:
    """List the finetuning jobs of a fan-out.

    Parameters
    ----------
    folder : str
        Below it each job has a folder of its own, `<set>/<model>/split_<seed>`.
    """
    found = []
    for name, values in profile.finetune.items():
        shared = {"dataset": name} | {key: v for key, v in values.items() if key not in ("split_seeds", "models")}
        wanted = values.get("models", list(profile.models))
        for model, seed in itertools.product(wanted, values.get("split_seeds", [1])):
            if model not in profile.models:
                raise ParameterError(f"{name}: unknown model {model!r}{nearest(model, list(profile.models))}")
            own = profile.models[model]
            place = {"name": model, "split_seed": seed, "output": f"{folder}/{name}/{model}/split_{seed}"}
            found.append(Job(name, model, seed, shared | own | place))
    return found


def check(notebook: str, values: Mapping[str, Any]) -> Parameters:
    """Check a notebook's parameters.

    Raises
    ------
    ParameterError
        Every problem on a line of its own; for an unknown name, the nearest right one.

    Examples
    --------
    >>> check("09_draw_figures", {"runz": "runs/demo"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moleclip.workflow.params.ParameterError: 09_draw_figures: unknown parameter 'runz'; did you mean 'runs'?
    ...
    """
    checked: Parameters = _check(notebook, MODELS[notebook], values)
    return checked


def _check(where: str, model: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        # Unknown names first: a misspelt name also shows as a missing one.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        lines = [f"{where}: {_explain(dict(problem), list(model.model_fields))}" for problem in problems]
        raise ParameterError("\n".join(lines)) from None


def _explain(problem: dict[str, Any], known: list[str]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown parameter {name!r}{nearest(name, known)}"
    if problem["type"] == "missing":
        return f"parameter {name!r} is missing"
    if not name:
        return str(problem["msg"])
    return f"parameter {name!r} = {problem['input']!r}: {problem['msg']}"


def defaults(notebook: str) -> dict[str, Any]:
    """Read the literals of a notebook's `parameters` cell."""
    cells = json.loads((files.ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(f"{notebook}: {len(tagged)} cells are tagged 'parameters', expected one")
    return _assignments("".join(tagged[0]["source"]))


def _assignments(source: str) -> dict[str, Any]:
    statements = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {
        target.id: ast.literal_eval(node.value)
        for node in statements
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def read(notebook: str, file: str | Path | None = None, **overrides: Any) -> Parameters:
    """Parameters of a notebook: its defaults, overridden by a YAML file, overridden by `overrides`."""
    values = defaults(notebook)
    if file is not None:
        values |= read_yaml(file)
    return check(notebook, values | overrides)


def from_notebook(notebook: str, namespace: Mapping[str, Any]) -> Any:
    """Check the parameters of the running notebook: call it with `globals()` right after the `parameters` cell.

    papermill injects unknown names without complaint, in a cell that starts with "# Parameters"; they are found there.
    """
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    names = set(MODELS[notebook].model_fields) | set(_assignments(injected[-1]) if injected else ())
    return check(notebook, {name: namespace[name] for name in names if name in namespace})


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Read a flat YAML file of parameters."""
    try:
        content = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise ParameterError(f"{file}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParameterError(f"{file}: expected a mapping of parameter names to values")
    return content


def read_profile(folder: str | Path, study: str | None = None) -> tuple[dict[str, Parameters], Profile]:
    """Check every file of a profile.

    Parameters
    ----------
    study : str, optional
        Name of a study of the profile, whose fan-out takes the place of the profile's own.

    Returns
    -------
    dict of str to Parameters
        By notebook.
    Profile
        The fan-out.

    Raises
    ------
    ParameterError
        A file that belongs to no notebook, or a bad parameter in any of them.
    """
    folder = Path(folder)
    if not (folder / "profile.yaml").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/profile.yaml"))
        raise ParameterError(f"unknown profile {folder.name!r}{nearest(folder.name, known)}")
    if not (folder / fan_out_file(study)).is_file():
        known = studies(folder)
        raise ParameterError(f"profile {folder.name!r} has no study {study!r}{nearest(str(study), known)}")
    fan_out = folder / fan_out_file(study)
    profile: Profile = _check(f"{folder.name}/{fan_out.name}", Profile, read_yaml(fan_out))
    notebooks = {parameter_file(notebook): notebook for notebook in MODELS}
    parameters = {}
    for file in sorted(folder.glob("*.yaml")):
        if file.name == "profile.yaml" or file.name.startswith("study_"):
            continue
        if file.name not in notebooks:
            raise ParameterError(f"{file}: belongs to no notebook{nearest(file.name, list(notebooks))}")
        parameters[notebooks[file.name]] = read(notebooks[file.name], file)
    return parameters, profile


def profiles() -> list[str]:
    """Names of the project's profiles; rehearsals, which are made from them, are none."""
    names = sorted(path.parent.name for path in (files.ROOT / "params").glob("*/profile.yaml"))
    return [name for name in names if not name.startswith("rehearsal_")]


def fan_out_file(study: str | None) -> str:
    """Name of the file with the fan-out of a study, or of the profile itself."""
    return f"study_{study}.yaml" if study else "profile.yaml"


def studies(folder: str | Path) -> list[str]:
    """Names of the studies of a profile."""
    return sorted(path.stem.removeprefix("study_") for path in Path(folder).glob("study_*.yaml"))


def parameter_file(notebook: str) -> str:
    """Name of a notebook's parameter file in a profile.

    >>> parameter_file("03_pretrain")
    'pretrain.yaml'
    """
    return notebook.partition("_")[2] + ".yaml"
