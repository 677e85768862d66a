"""Is requirements.lock in step with pyproject.toml and environment.yml? No network needed."""

import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def problems(pyproject: str, lock: str, environment: str) -> list[str]:
    """What does not fit together; empty if all does."""
    project = tomllib.loads(pyproject)["project"]
    installed = [project["optional-dependencies"].get(extra, []) for extra in ("notebooks", "docs", "dev")]
    wanted = [Requirement(text) for part in (project["dependencies"], *installed) for text in part]
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE)
    found: dict[str, list[str]] = {}
    for name, version in pins:
        found.setdefault(canonicalize_name(name), []).append(version)
    lines = []
    for requirement in wanted:
        versions = found.get(canonicalize_name(requirement.name), [])
        if not versions:
            lines.append(f"requirements.lock lacks {requirement.name}: run `make lock`")
        lines += [
            f"requirements.lock pins {requirement.name} {version}, pyproject.toml wants {requirement.specifier}"
            for version in versions
            if version not in requirement.specifier
        ]
    entries = re.split(r"\n(?=\S)", lock.strip())
    lines += [f"no hash: {entry.split()[0]}" for entry in entries if "--hash=sha256:" not in entry]
    if re.search(r"https?://|--(extra-)?index-url|--find-links", lock):
        lines.append("requirements.lock holds an address")
    conda = yaml.safe_load(environment)["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    if "-r requirements.lock" not in pip:
        lines.append("environment.yml does not install requirements.lock")
    python = next(entry for entry in conda if isinstance(entry, str) and entry.startswith("python="))
    if f"{python.removeprefix('python=')}.0" not in Requirement(f"python{project['requires-python']}").specifier:
        lines.append(f"environment.yml wants {python}, pyproject.toml {project['requires-python']}")
    return lines


def main() -> int:
    """Print the problems of this checkout."""
    texts = ((ROOT / name).read_text() for name in ("pyproject.toml", "requirements.lock", "environment.yml"))
    found = problems(*texts)
    print("\n".join(found) or "requirements.lock: in step with pyproject.toml and environment.yml")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
