"""The lock check sees what it should."""

from check_lock import problems

PYPROJECT = """
[project]
requires-python = ">=3.11,<3.14"
dependencies = ["numpy>=2.0"]
optional-dependencies.dev = ["pytest>=8"]
"""
LOCK = "numpy==2.4.6 \\\n    --hash=sha256:ab\npytest==9.0 \\\n    --hash=sha256:cd\n"
ENVIRONMENT = "dependencies: [python=3.11, pip, {pip: [-r requirements.lock]}]"


def test_a_fitting_lock():
    assert problems(PYPROJECT, LOCK, ENVIRONMENT) == []


def test_what_does_not_fit_is_named():
    assert "wants >=2.0" in problems(PYPROJECT, LOCK.replace("2.4.6", "1.26"), ENVIRONMENT)[0]
    assert "lacks pytest" in problems(PYPROJECT, LOCK.split("pytest")[0], ENVIRONMENT)[0]
    assert "no hash: pytest==9.0" in problems(PYPROJECT, LOCK.replace("--hash=sha256:cd", ""), ENVIRONMENT)[0]
    assert "holds an address" in problems(PYPROJECT, "--index-url https://x\n" + LOCK, ENVIRONMENT)[-1]
    assert "does not install" in problems(PYPROJECT, LOCK, ENVIRONMENT.replace("requirements.lock", "a.txt"))[0]
    assert "python=3.9" in problems(PYPROJECT, LOCK, ENVIRONMENT.replace("3.11", "3.9"))[0]
