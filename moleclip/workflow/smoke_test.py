"""A profile cut to a few steps and the small tower, so that a typo is found in minutes and not after GPU days.

    python -m moleclip.workflow.smoke_test paper

writes the profile `params/rehearsal_paper/`, whose runs go to `runs/rehearsal_paper/`.
"""

import argparse
import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moleclip import checkpoints, config, datasets, encoder
from moleclip.io import downloads, errors, files
from moleclip.workflow import params

# At most this much of each; None stays None.
_LIMITS = {"epochs": 1, "final_epochs": 1, "repeats": 1, "final_repeats": 1, "batch_size": 16, "group_size": 4}
_LIMITS |= {"processes": 2, "workers": 1, "sweep_sample": 300, "chunk": 8, "evaluate_every": 10}
_LIMITS |= {"explained": 3, "shown": 2, "steps": 8, "redrawn": 12, "neighbours": 100, "splits": 2, "advise": 40}
_SAMPLE = 150  # in one tenth of them, ten neighbours can be found
_FIXED: dict[str, Any] = {"validation_fraction": 0.05, "log_every": 5, "checkpoint_every": 10}
_FIXED |= {"image_size": None}  # the small tower's own size
_FIXED |= {"sizes": [20]}  # of the adviser: one
_FIXED |= {"precision": "no"}  # some CPUs take 20 times as long for bf16 as for fp32
_FIXED |= {"split": "random"}  # of so few molecules by scaffold, a part may have one class only
_LAST = {"split_seeds": 1, "head_lr": 2, "augmentation": 1}  # so many of a list's last: of two cells, one is chosen
_SPARED = ("ecfp4_extra_trees", "descriptor_forest")  # two forests are left, each of another kind on other features
_FEWER_CLASSES = 50  # times, as there are fewer molecules
_FEWER_EPOCHS = 200
_STAND_INS = {"chembl_25": "chembl_25_subset"}  # of the same kind, for a corpus that is not on this machine


def write(profile: str) -> Path:
    """Write the rehearsal of a profile, a profile itself.

    Every data set, tower and tag that it names is looked up, and what its runs would write is kept apart from theirs.

    Raises
    ------
    ParameterError
        The profile, or what it names, is wrong; or it writes outside `runs/<profile>`,
        `figures/<profile>` and `figures/studies`.
    """
    source = files.ROOT / "params" / profile
    folder = source.with_name(f"rehearsal_{profile}")
    contents: dict[str, config.Parameters] = {}
    for study in (None, *params.studies(source)):
        parameters, fan_out = params.read_profile(source, study)
        contents |= {params.parameter_file(name): values for name, values in parameters.items()}
        contents[params.fan_out_file(study)] = fan_out
    for file, values in contents.items():
        placed = {"output"} if isinstance(values, config.Finetune) else None  # by the fan-out
        try:
            if isinstance(values, params.Profile):
                _check_sets(values)
            shorter = cut(values.model_dump(exclude=placed), profile)
            if isinstance(values, params.Profile):
                _thin(shorter)
            content = yaml.safe_dump(shorter, sort_keys=False)
        except ValueError as error:
            raise params.ParameterError(f"params/{profile}/{file}: {error}") from None
        text = f"# Of params/{profile}: what `make rehearse PROFILE={profile}` runs.\n{content}"
        if not (folder / file).is_file() or (folder / file).read_text() != text:  # else what is done would run again
            files.write(folder / file, functools.partial(Path.write_text, data=text))
    params.read_profile(folder)
    return folder


def _check_sets(fan_out: params.Profile) -> None:
    for job in params.jobs(fan_out, ""):
        dataset = job.overrides["dataset"]
        if not dataset.endswith(".csv"):
            _known(dataset)
        elif not Path(dataset).is_file():
            raise ValueError(f"{dataset}: no such file")


def _thin(fan_out: dict[str, Any]) -> None:
    """Leave all models on one set of each drawing, one by turns on each other, and several processes to one encoder."""
    sets = [*fan_out["finetune"].values()]
    models = [values.get("models", list(fan_out["models"])) for values in sets]
    whole: dict[str, int] = {}  # the set with most models, of each drawing; of equal ones the first
    for number, values in sorted(enumerate(sets), key=lambda item: -len(models[item[0]])):
        whole.setdefault(values.get("drawing", "plain"), number)
    for number, values in enumerate(sets):
        if number not in whole.values():
            values["models"] = [models[number][number % len(models[number])]]
    for values in fan_out["pretrain"].values():
        values["processes"] = 1


def cut(values: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """Cut the parameters of one notebook, or of the fan-out.

    Parameters
    ----------
    values : mapping
        All parameters, by name.
    profile : str
        Whose they are.
    """
    return {name: _cut(name, value, profile) for name, value in values.items()}


def _cut(name: str, value: Any, profile: str) -> Any:
    if name in ("encoders", "maps"):
        return {own: _small(source, profile) for own, source in value.items()}
    if isinstance(value, Mapping) and name != "checksums":
        return cut(value, profile)
    if name in _FIXED:
        return _FIXED[name]
    if name == "sample":
        return min(value or _SAMPLE, _SAMPLE)  # None: all
    if name == "baselines":
        return [model for model in config.each_forest(value) if model not in _SPARED]
    if name in ("k", "k_sweep", "k_labels"):
        return list(dict.fromkeys(max(2, k // _FEWER_CLASSES) for k in value))
    if name in _LAST and isinstance(value, list):
        return value[-_LAST[name] :]
    if name == "epochs" and isinstance(value, list):
        return [_fewer(epochs) for epochs in value]
    if name in _LIMITS:
        return value if value is None else min(value, _LIMITS[name])
    if name == "encoder":
        return _small(value, profile)
    if name == "datasets":
        return [_present(_known(source)) for source in value]
    if name in ("output", "cache", "runs") and isinstance(value, str) and value == _apart(value, profile):
        raise ValueError(f"{name} {value!r} is not below runs/{profile}, figures/{profile} or figures/studies")
    return _apart(_present(value), profile) if isinstance(value, str) else value


def _fewer(epochs: int) -> int:
    """Cut the epochs of domain-focused pretraining, whose folders are named by them: so that they stay apart."""
    return 1 + epochs // _FEWER_EPOCHS


def _apart(path: str, profile: str) -> str:
    """Keep what a rehearsal writes away from the runs of its profile."""
    for place, apart in (
        (f"runs/{profile}", f"runs/rehearsal_{profile}"),
        (f"figures/{profile}", f"figures/rehearsal_{profile}"),
        ("figures/studies", f"figures/rehearsal_{profile}/studies"),
    ):
        if path == place or path.startswith(f"{place}/"):
            return f"{apart}{path.removeprefix(place)}"
    return path


def _known(name: str) -> str:
    if name not in datasets.names():
        raise ValueError(f"unknown data set {name!r}{errors.nearest(name, datasets.names())}")
    return name


def _present(source: str) -> str:
    """Let a smaller set stand in for a corpus, and for its table, where the corpus is not on this machine."""
    for corpus, stand_in in _STAND_INS.items():
        if Path(source).stem == corpus and not downloads.present(corpus):
            print(f"{corpus} is not on this machine: {stand_in} stands in for it")
            return source.replace(corpus, stand_in)
    return source


def _small(source: str, profile: str) -> str:
    """Take the small tower for a foreign one that exists; an encoder that the profile trains stays."""
    name, _, tag = source.rpartition("/")
    if not source or _apart(source, profile) != source:
        return re.sub(r"(?<=/epochs_)\d+$", lambda found: str(_fewer(int(found[0]))), _apart(source, profile))
    if source in downloads.known():
        if not downloads.present(source):
            print(f"{source} is not on this machine yet; the real run downloads it, or says where to get it")
    elif not Path(source.rpartition("@")[2]).exists():
        encoder.tower(name or encoder.PAPER)
        if tag != "random":
            checkpoints.known(name, tag)
    return "small/random"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="a folder of params/")
    try:
        print(f"rehearsing with {files.relative(write(parser.parse_args().profile))}")
    except params.ParameterError as error:
        print(f"ERROR in {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
