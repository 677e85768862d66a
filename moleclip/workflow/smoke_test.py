"""Cut a profile to a few steps, so that mistakes are found in minutes and not after days of GPU time.

    python -m moleclip.workflow.smoke_test paper

writes the profile `params/smoke_test_paper/`: `params/paper/` with `params/smoke_test.yaml` laid over it.
"""

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moleclip import checkpoints, config, encoder
from moleclip.io import downloads, files
from moleclip.workflow import params

# Parameters that say where results go.
_PLACES = ("output", "cache", "runs")
_SMALL = "small/random"


def write(profile: str) -> Path:
    """Write the smoke test of a profile, a profile itself, whose runs are kept apart.

    Every data set, tower and tag that the profile names is looked up. Every foreign encoder becomes the small tower.
    All models stay on one set of each drawing, one of them on each other set; of split seeds, the last.

    Raises
    ------
    ParameterError
        The profile, or what it names, is wrong; or it writes outside `runs/<profile>`.
    """
    source = files.ROOT / "params" / profile
    folder = source.with_name(f"{params.SMOKE_TEST}_{profile}")
    overlay = params.read_yaml(source.with_name(f"{params.SMOKE_TEST}.yaml"))
    seen: set[str] = set()
    for study in (None, *params.studies(source)):
        parameters, fan_out = params.read_profile(source, study)
        notebooks = {} if study else parameters
        for notebook, values in notebooks.items():
            file = params.parameter_file(notebook)
            cut = params.read_yaml(source / file) | overlay.get(notebook, {})
            _look_up(f"params/{profile}/{file}", values.model_dump(include=set(cut)), profile, seen)
            _write(folder / file, cut, profile, overlay)
        file = params.fan_out_file(study)
        jobs = [job.overrides for job in params.jobs(fan_out, "")]
        _look_up(f"params/{profile}/{file}", {**fan_out.model_dump(exclude={"finetune"}), "jobs": jobs}, profile, seen)
        _write(folder / file, _cut(fan_out, overlay), profile, overlay)
        params.read_profile(folder, study)
    return folder


def _look_up(file: str, values: Mapping[str, Any], profile: str, seen: set[str]) -> None:
    """Refuse sets and encoders that do not exist; each is looked up once."""
    for name, value in params.named(values):
        if not value or value in seen or _is_run(value, profile):
            continue
        try:
            if name in params.SETS:
                params.look_up_set(value)
                seen.add(value)
            elif name in params.ENCODERS:
                _look_up_encoder(value)
                seen.add(value)
        except ValueError as error:
            raise params.ParameterError(f"{file}: {error}") from None


def _write(file: Path, values: Mapping[str, Any], profile: str, overlay: Mapping[str, Any]) -> None:
    try:
        text = yaml.safe_dump(_moved("", values, profile, overlay), sort_keys=False)
    except ValueError as error:
        raise params.ParameterError(f"params/{profile}/{file.name}: {error}") from None
    header = f"# Written by `make smoke-test PROFILE={profile}`.\n"
    files.write(file, functools.partial(Path.write_text, data=header + text))


def _cut(fan_out: params.Profile, overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Fewer jobs, and each of them shorter."""
    found = fan_out.model_dump(exclude={"publish"})
    sections = {"models": params.FINETUNE, "finetune": params.FINETUNE}
    sections |= {"pretrain": "03_pretrain", "pretrain_domain": "05_pretrain_domain"}
    for section, notebook in sections.items():
        for values in found[section].values():
            values |= {name: new for name, new in overlay[notebook].items() if values.get(name)}
            values |= overlay.get(section, {})
    models = {name: values.get("models", list(found["models"])) for name, values in found["finetune"].items()}
    whole: dict[str, str] = {}  # by drawing, the first of the sets with most models
    for name in sorted(models, key=lambda name: -len(models[name])):
        whole.setdefault(found["finetune"][name].get("drawing", "plain"), name)
    for number, (name, values) in enumerate(found["finetune"].items()):
        values["split_seeds"] = values.get("split_seeds", [1])[-1:]
        if name not in whole.values():
            values["models"] = [models[name][number % len(models[name])]]
    return found


def _moved(name: str, value: Any, profile: str, overlay: Mapping[str, Any]) -> Any:
    """Take the runs of the smoke test for those of the profile, small towers and sets for large ones."""
    if isinstance(value, Mapping):
        inside = {key: name if name in params.ENCODERS else key for key in value}
        found = {key: _moved(inside[key], inner, profile, overlay) for key, inner in value.items()}
        # The small tower that stands in for a foreign encoder has no moments of Adam.
        foreign = value.get("moments") and not _is_run(str(value.get("encoder")), profile)
        return {**found, "moments": False} if foreign else found
    if isinstance(value, list):
        return [_moved(name, inner, profile, overlay) for inner in value]
    if not isinstance(value, str):
        return value
    if name in _PLACES and not _is_run(value, profile):
        raise ValueError(f"{name} {value!r} is not below runs/{profile}")
    if name in params.ENCODERS and value and not _is_run(value, profile):
        return _SMALL
    for corpus, stand_in in overlay["stand_ins"].items():
        # An encoder's folder may be named after its corpus, and keeps its name.
        if name not in params.ENCODERS and Path(value).stem == corpus and not downloads.present(corpus):
            print(f"{corpus} is not on this machine; {stand_in} is used instead")
            value = value.replace(corpus, stand_in)
    if not _is_run(value, profile):
        return value
    path = Path("runs", f"{params.SMOKE_TEST}_{profile}", *Path(value).parts[2:])
    return str(path.with_name(overlay["folders"].get(path.name, path.name)))


def _is_run(path: str, profile: str) -> bool:
    return Path(path).parts[:2] == ("runs", profile)


def _look_up_encoder(source: str) -> None:
    name, _, tag = source.rpartition("/")
    if source in config.BUILT_IN:
        return
    if source in downloads.known():
        if not downloads.present(source):
            print(f"{source} is not on this machine yet; the real run downloads it or says where to get it")
    elif not Path(source.rpartition("@")[2]).exists():
        encoder.tower(name or encoder.PAPER)
        if tag != "random":
            checkpoints.known(name, tag)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", help="a folder of params/")
    try:
        print(f"smoke test: {files.relative(write(parser.parse_args().profile))}")
    except params.ParameterError as error:
        print(f"ERROR in {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
