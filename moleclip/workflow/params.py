"""The parameters of each notebook, of each profile, and of the jobs that a profile runs.

A notebook's cell tagged `parameters` is the only place of a default and its comment; a profile's YAML file overrides
defaults. The default also shows the type; `_TYPES` has what it does not show.
"""

import ast
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BeforeValidator, Field, ValidationError, create_model, model_validator

from moleclip import config, datasets
from moleclip.config import Count, Finetune, Float, Names, Parameters, PathText, Pretrain, PretrainDomain
from moleclip.io import downloads, files, molecule_files
from moleclip.io.errors import ParameterError as ParameterError
from moleclip.io.errors import nearest

FINETUNE = "04_finetune"
SMOKE_TEST = "smoke_test"  # params/smoke_test.yaml, and how the profiles that are made with it begin

# Typed by hand: code besides their notebook uses them.
_TYPED: dict[str, type[Parameters]] = {
    "03_pretrain": Pretrain,
    FINETUNE: Finetune,
    "05_pretrain_domain": PretrainDomain,
}

# Parameters that name encoders, and those that name data sets.
ENCODERS = ("encoder", "encoders", "maps")
SETS = ("dataset", "datasets", "labels", "table", "library", "chiral", "overlap")

PageFigure = Literal["gallery", "knee", "loss", "scores", "contrasts", "parity", "baseline", "maps"]

_NotNegative = Annotated[int, Field(ge=0)]
_TwoOrMore = Annotated[int, Field(ge=2)]

# Types of the other notebooks' parameters where the default says too little: by name, or by notebook and name.
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("seed", "workers", "advise"), _NotNegative),
    **dict.fromkeys(("folds", "repeats", "clusters", "explained", "steps", "redrawn"), _TwoOrMore),
    **dict.fromkeys(("k_sweep", "k_labels"), Annotated[list[_TwoOrMore], Field(min_length=1)]),
    **dict.fromkeys(("sample", "sweep_sample"), Count | None),
    "01_depict_molecules.sample": Count | dict[str, Count] | None,
    **dict.fromkeys(
        ("02_cluster_structures.molecules", "08_train_model.molecules"),
        PathText | Annotated[list[PathText], Field(min_length=1)],
    ),
    "08_train_model.methods": Annotated[list[str], BeforeValidator(config.as_list)],
    "08_train_model.repeats": Count | None,
    "07_explore_encoder.sample": Annotated[int, Field(ge=20)] | None,
    "label_columns": Names,
    "jobs": list[str] | None,
    "cache": PathText | None,
    "checksums": dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]],
    "missing": Literal["skip", "fail"],
    "figures": Annotated[list[PageFigure], Field(min_length=1)],
    "contrasts": dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]],
    "maps": dict[str, str],
}


def _labels_are_swept(p: Any) -> Any:
    missing = sorted(set(p.k_labels) - set(p.k_sweep))
    if missing and p.sweep_sample is None:
        raise ValueError(f"k_labels has {missing}, which is missing in k_sweep")
    return p


def _sets_differ(p: Any) -> Any:
    names = [datasets.short_name(source) for source in p.datasets]
    if len(set(names)) < len(names):
        raise ValueError(f"datasets names a set twice: {', '.join(names)}")
    for source in p.sample if isinstance(p.sample, dict) else ():
        if source not in p.datasets:
            raise ValueError(f"sample names {source!r}, which is not in datasets")
    return p


# What parameters of one notebook must have in common.
_TOGETHER: dict[str, Any] = {"01_depict_molecules": _sets_differ, "02_cluster_structures": _labels_are_swept}


def notebooks() -> list[str]:
    """Names of the project's notebooks, in their order."""
    return sorted(path.stem for path in (files.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def _model(notebook: str) -> type[Parameters]:
    """Types and limits of a notebook's parameters."""
    if notebook in _TYPED:
        return _TYPED[notebook]
    fields: dict[str, Any] = {
        name: (_TYPES.get(f"{notebook}.{name}") or _TYPES.get(name) or _type(f"{notebook}, {name}", default), ...)
        for name, default in defaults(notebook).items()
    }
    checks: dict[str, Any] = {"together": model_validator(mode="after")(_TOGETHER.get(notebook, lambda p: p))}
    model: type[Parameters] = create_model(notebook, __base__=Parameters, __validators__=checks, **fields)
    return model


def _type(where: str, default: Any) -> Any:
    """Take the default's type: whole numbers count something, and what is not empty by default must not be empty."""
    match default:
        case bool():
            return bool
        case int():
            return Count
        case float():
            return Float
        case str():
            return PathText if default else str
        case [first, *_]:
            return Annotated[list[_type(where, first)], Field(min_length=1)]  # type: ignore[misc]
        case dict() if default:
            values = _type(where, next(iter(default.values())))
            return Annotated[dict[str, values], Field(min_length=1)]  # type: ignore[valid-type]
    raise ParameterError(
        f"{where}: its default {default!r} does not show its type; add it to _TYPES in moleclip/workflow/params.py"
    )


# A data set of a fan-out, by a name of its own: parameters that are the same for all models, and the split seeds.
Sets = dict[str, dict[str, Any]]


class Profile(Parameters):
    """`profile.yaml` or a study: what the workflow fans out to, one finetuning job per model, set and split seed.

    A set has, besides parameters of the notebook, `split_seeds`, and `models` if not all of them are wanted.

    Attributes
    ----------
    models : dict
        Parameters of notebook 04 that make each model, by its name.
    pretrain, pretrain_domain : dict
        Encoders besides the profile's, by name: parameters of notebooks 03 and 05.
    finetune : dict
        Parameters of notebook 04 that each set has.
    page : str
        The notebook that draws the page.
    draw : dict
        Parameters of that notebook.
    publish : str, optional
        Folder that `make publish` copies the page to; see `published`.
    """

    models: dict[str, dict[str, Any]] = Field(default={})
    pretrain: dict[str, dict[str, Any]] = Field(default={})
    pretrain_domain: dict[str, dict[str, Any]] = Field(default={})
    finetune: Sets = Field(default={})
    page: Literal["06_replace_r_groups", "09_draw_figures", "10_reproduce_paper"] = "09_draw_figures"
    draw: dict[str, Any] = Field(default={})
    publish: Annotated[str, Field(pattern=r"^figures/[\w./-]+$")] | None = None

    @model_validator(mode="after")
    def _the_workflow_says_where(self) -> "Profile":
        if "output" in self.draw:
            raise ValueError(
                "draw cannot set output: pages are drawn below runs/, and `publish` says where they are copied to"
            )
        return self


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
    >>> check("09_draw_figures", defaults("09_draw_figures") | {"runz": "runs/demo"})
    Traceback (most recent call last):
    moleclip.io.errors.ParameterError: 09_draw_figures: unknown parameter 'runz'; did you mean 'runs'?
    """
    checked: Parameters = _check(notebook, _model(notebook), values)
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
    values, given = defaults(notebook), read_yaml(file) if file else {}
    try:
        return check(notebook, values | given | overrides)
    except ParameterError as error:
        if file and (given.keys() - values.keys() or not overrides):  # the file is to blame
            raise ParameterError(f"{files.relative(file)}, {error}") from None
        raise


def from_notebook(notebook: str, namespace: Mapping[str, Any]) -> Any:
    """Check the parameters of the running notebook: call it with `globals()` right after the `parameters` cell.

    papermill injects unknown names without complaint, in a cell that starts with "# Parameters"; they are found there.
    """
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    names = set(defaults(notebook)) | set(_assignments(injected[-1]) if injected else ())
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
        others = sorted(path.parent.name for path in folder.parent.glob("*/profile.yaml"))
        raise ParameterError(f"unknown profile {folder.name!r}{nearest(folder.name, others)}")
    if not (folder / fan_out_file(study)).is_file():
        others = studies(folder)
        raise ParameterError(f"profile {folder.name!r} has no study {study!r}{nearest(str(study), others)}")
    fan_out = folder / fan_out_file(study)
    profile: Profile = _check(f"{folder.name}/{fan_out.name}", Profile, read_yaml(fan_out))
    known = {parameter_file(notebook): notebook for notebook in notebooks()}
    parameters = {}
    for file in sorted(folder.glob("*.yaml")):
        if file.name == "profile.yaml" or file.name.startswith("study_"):
            continue
        if file.name not in known:
            raise ParameterError(f"{file}: no notebook has such a parameter file{nearest(file.name, list(known))}")
        parameters[known[file.name]] = read(known[file.name], file)
    return parameters, profile


def named(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts among values, each with the nearest name above it that says what it is."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from named(value, name if name in ENCODERS else key)
    elif isinstance(values, list):
        for value in values:
            yield from named(value, name)
    elif isinstance(values, str):
        yield name, values


def mistakes(p: Parameters, runs: str, written: Collection[str]) -> list[str]:
    """Find what a notebook's parameters name and is not there: data sets, columns of a file of your own, encoders.

    Parameters
    ----------
    runs : str
        Folder of the workflow's runs: of encoders below it, only those `written` are right, there or not.
    written : collection of str
        Encoders that the workflow writes.
    """
    problems = []
    for name, source in named(p.model_dump()):
        try:
            if name in ENCODERS:
                look_up_encoder(source, runs, written)
            elif name in SETS and source and not source.startswith(f"{runs}/"):
                path = look_up_set(source)
                if path and name in ("dataset", "table") and "smiles_column" in type(p).model_fields:
                    problems += _missing_columns(path, p)
        except ValueError as error:
            problems.append(str(error))
    return problems


def _missing_columns(path: Path, p: Any) -> list[str]:
    known = molecule_files.read(path, p.smiles_column).columns
    labels = p.label_columns if hasattr(p, "label_columns") else [p.label] if p.label else []
    missing = [name for name in labels or [] if name not in known]
    return [f"{path}: has no column {name!r} of labels{nearest(name, known)}" for name in missing]


def look_up_set(name: str) -> Path | None:
    """Refuse a data set that is neither known by name nor a file; return the file."""
    try:
        found = datasets.find(name)
    except FileNotFoundError as error:
        raise ParameterError(str(error)) from None
    if not found and name not in datasets.names():
        raise ParameterError(f"unknown data set {name!r}{nearest(name, datasets.names())}")
    return found


def look_up_encoder(source: str, runs: str, written: Collection[str]) -> None:
    """Refuse an encoder that is neither written nor there, and whose name does not begin with a tower's."""
    if source in written:
        return
    if source.startswith(f"{runs}/"):
        raise ParameterError(f"no notebook writes {source!r}{nearest(source, list(written))}")
    tower, _, tag = source.rpartition("/")
    if source in ("", "random", *config.BUILT_IN, *downloads.table()) or Path(source.rpartition("@")[2]).exists():
        return
    # By the files of open_clip: importing it takes seconds.
    folder = Path(str(metadata.distribution("open_clip_torch").locate_file("open_clip/model_configs")))
    towers = {"small", *(path.stem for path in folder.glob("*.json"))}
    if "@" in source or (tower not in towers and not tower.startswith("timm-")):
        near = [*written, *config.BUILT_IN, f"small/{tag}", *map(str, Path(source).parent.glob("[!.]*"))]
        raise ParameterError(f"no encoder {source!r}: no such folder or file, nor such a tower{nearest(source, near)}")


def profiles() -> list[str]:
    """Names of the project's profiles, without the smoke tests that are made from them."""
    names = sorted(path.parent.name for path in (files.ROOT / "params").glob("*/profile.yaml"))
    return [name for name in names if not name.startswith(SMOKE_TEST)]


def runs_folder(profile: str, study: str | None = None) -> str:
    """Folder of the runs of a profile or a study; the page is drawn into `figures` below it.

    >>> runs_folder("paper", "baseline")
    'runs/paper/baseline'
    """
    return "/".join(filter(None, ("runs", profile, study)))


def published(profile: str, study: str | None, fan_out: Profile) -> str:
    """Folder of the published page: what the fan-out says, or else named as the runs are.

    >>> published("demo", "tasks", Profile())
    'figures/demo/tasks'
    """
    return fan_out.publish or runs_folder(profile, study).replace("runs", "figures", 1)


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
