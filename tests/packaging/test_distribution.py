"""The wheel and the sdist hold the package and its recipes, and what is installed is what is tested."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """A folder with a wheel and an sdist, built from a copy of the checkout with the tools that are installed."""
    import shutil

    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "source"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_tested_package_is_the_installed_one():
    import autoseg.plans

    names = {path.name for path in Path(autoseg.plans.__file__).parent.glob("*.json")}
    assert {"auto.json", "covid19-ct.json", "covid19-ct-sides.json", "nnunet.json"} <= names
    assert not (Path(autoseg.__file__).parent / "plans.py").exists()
    probe = "import autoseg, sys; print(autoseg.__file__)"
    elsewhere = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=Path(sys.prefix)).stdout.strip()
    assert Path(elsewhere) == Path(autoseg.__file__), "the checkout shadows the installed package"


def test_wheel_and_sdist_list_code_and_recipes(distributions):
    wheel = zipfile.ZipFile(next(distributions.glob("autoseg3d-*.whl"))).namelist()
    needed = {"autoseg/__init__.py", "autoseg/pipeline/__init__.py", "autoseg/plans/__init__.py", "autoseg/plans/covid19-ct.json"}
    assert needed <= set(wheel)
    assert not [name for name in wheel if name.startswith(("tests", "docs", "plans"))]
    with tarfile.open(next(distributions.glob("autoseg3d-*.tar.gz"))) as archive:
        sdist = [name.partition("/")[2] for name in archive.getnames()]
    assert {"setup.py", "plans/covid19-ct.json", "autoseg/pipeline/__init__.py", "LICENSE", "constraints.txt"} <= set(sdist)


def test_the_wheel_alone_serves_recipe_and_help_from_another_directory(distributions, tmp_path):
    target = tmp_path / "site"
    wheel = next(distributions.glob("autoseg3d-*.whl"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)], check=True)
    probe = (
        "import sys; sys.path.insert(0, sys.argv[1]); import autoseg; assert autoseg.__file__.startswith(sys.argv[1]), autoseg.__file__\n"
        "from autoseg.planning.recipes import load_recipe; print(load_recipe('covid19-ct').name)"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(target)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "covid19-ct", done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("pattern", ["autoseg3d-*.whl", "autoseg3d-*.tar.gz"])
def test_installs_in_a_new_environment_and_plans_by_recipe(distributions, make_dataset, tmp_path, pattern):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    package = next(distributions.glob(pattern))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(package)], check=True)
    dataset = make_dataset(cases=5, channels=("CT",))
    command = [
        environment / "bin" / "autoseg",
        "plan-and-preprocess",
        dataset,
        tmp_path / "work",
        "--recipe",
        "covid19-ct",
        "--set",
        "spacing=[4,2,2]",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "work" / "plan.json").is_file()
