"""What is published: the same bytes from the same sources, and everything that an installation needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild import __version__
from modelbuild.recipe.schema import load_schema
from tests.space import ROOT, Space

pytest.importorskip("hatchling", reason="the build backend is not installed")
from packaging.requirements import Requirement

COMPILER = shutil.which(os.environ.get("CC", "cc"))
CHECKPOINT = ROOT / "examples" / "tinydocs" / "TinyDocs-4M"
#: What a checkout has besides its files.
_OTHERS = shutil.ignore_patterns(
    ".git", ".venv", ".clients", ".demo", ".*_cache", ".hypothesis", "__pycache__", "dist", "build", "site", "*.so"
)


@dataclass(frozen=True, slots=True)
class Distributions:
    """sdists: from two checkouts. wheels: from the first checkout, and from the first sdist unpacked."""

    sdists: tuple[Path, Path]
    wheels: tuple[Path, Path]


def _build(checkout: Path, target: str, place: Path, **environment: str) -> Path:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MODELBUILD_", "PYTHON"))}
    # Optimizing takes most of a minute and changes nothing of what is tested here.
    clean |= {"CFLAGS": "-O0", "MODELBUILD_BUILD_NATIVE": "require" if COMPILER else "skip"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(place)],
        cwd=checkout, env=clean | environment, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (built,) = place.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built in two places, from files of different ages and permissions, in different time zones."""
    place = tmp_path_factory.mktemp("distributions")
    first, second = place / "first", place / "another" / "checkout"
    for checkout in (first, second):
        shutil.copytree(ROOT, checkout, ignore=_OTHERS)
    for path in second.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)  # as with a strict umask
    sdists = (
        _build(first, "sdist", place / "1", TZ="UTC", SOURCE_DATE_EPOCH="1700000000"),
        _build(second, "sdist", place / "2", TZ="Asia/Tokyo", SOURCE_DATE_EPOCH="1700000000"),
    )
    with tarfile.open(sdists[0]) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.0 to 3.11.3 have none
        archive.extractall(place / "unpacked")
    (unpacked,) = (place / "unpacked").iterdir()
    return Distributions(
        sdists,
        (
            _build(first, "wheel", place / "3", TZ="UTC", SOURCE_DATE_EPOCH="1700000000"),
            _build(unpacked, "wheel", place / "4", TZ="Asia/Tokyo", SOURCE_DATE_EPOCH="1700000000"),
        ),
    )


def test_builds_are_reproducible(distributions: Distributions) -> None:
    """Place, age, umask and time zone leave no trace, in compiled kernels neither; a wheel may come from the sdist."""
    for one, other in (distributions.sdists, distributions.wheels):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name


def test_sdist_is_the_checkout(distributions: Distributions) -> None:
    """Every file that is needed to build, test and document; large example weights are left to the repository."""
    with tarfile.open(distributions.sdists[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    wanted = {"pyproject.toml", "hatch_build.py", "Makefile", "LICENSE", "SECURITY.md", "schemas/recipe.schema.json"}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "modelbuild" / "quantize" / "native").rglob("*.[ch]")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert set() == wanted - names
    assert [] == [name for name in names if name.endswith((".so", ".pyc", "TinyDocs-4M/model.safetensors"))]


def test_wheel_has_what_it_needs_and_no_more(distributions: Distributions) -> None:
    """The package with its data, schemas, kernels, licences and manual page; no C sources, no tests."""
    with zipfile.ZipFile(distributions.wheels[0]) as archive:
        names = set(archive.namelist())

    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "modelbuild").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "native" not in path.parts and path.suffix != ".so"
    }
    schemas = {f"modelbuild/schemas/{path.name}" for path in (ROOT / "schemas").iterdir()}
    kernels = {"modelbuild/quantize/_native.abi3.so"} if COMPILER else set()
    assert package | schemas | kernels == {name for name in names if name.startswith("modelbuild/")}
    information = f"modelbuild-{__version__}.dist-info"
    assert {
        f"modelbuild-{__version__}.data/data/share/man/man1/modelbuild.1",
        *(f"{information}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")),
        f"{information}/licenses/LICENSE",
    } == names - package - schemas - kernels  # fmt: skip
    assert re.search("-cp311-abi3-.*" if COMPILER else "-py3-none-any", distributions.wheels[0].name)


# -- installed ---------------------------------------------------------------------------------------------------------


def _required(requirements: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that these requirements need here, by name, all the way down."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        assert requirement.specifier.contains(distribution.version, prereleases=True), requirement
        if distribution.name not in found:
            found[distribution.name] = distribution
            waiting += [Requirement(text) for text in distribution.requires or ()]
    return found


@dataclass(frozen=True, slots=True)
class Installation:
    """An environment with the wheel and what it requires. names: the distributions in it."""

    root: Path
    names: frozenset[str]

    def run(self, space: Space, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the installed command, away from the sources."""
        environment = {key: value for key, value in space.environment().items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [self.root / "bin" / "modelbuild", *map(str, arguments)],
            cwd=space.root, env=environment, check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installation(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an empty environment. Its requirements are links to what runs the tests, so no network is needed."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    root = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(root, with_pip=False)
    python = root / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    subprocess.run(
        [sys.executable, "-m", "pip", "--isolated", "--python", python, "install", "--no-index", "--no-deps",
         "--disable-pip-version-check", "--find-links", distributions.wheels[0].parent, "modelbuild"],
        env=clean, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (packages,) = (root / "lib").glob("python*/site-packages")
    (information,) = packages.glob("modelbuild-*.dist-info")
    required = _required(importlib.metadata.Distribution.at(information).requires or [])
    for distribution in required.values():
        for top in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution.locate_file(top))))
    return Installation(root, frozenset({"modelbuild", *required}))


def test_requirements_are_complete(installation: Installation, space: Space) -> None:
    """With nothing but what the wheel requires, the installed command builds what the sources build."""
    space.recipe(f"model: helper\nfrom: {CHECKPOINT}\nquantize: Q4_K_M\ntemplate: '{{{{ .Prompt }}}}'\n")
    here = Space(space.root / "here")
    here.write("recipe.yaml", (space.root / "recipe.yaml").read_text())

    done = installation.run(space, "--progress", "plain", "build")

    assert 0 == done.returncode, done.stderr
    assert here.build().stdout == done.stdout
    assert here.blobs() == space.blobs()
    assert "nothing to do" in installation.run(space, "build").stderr
    assert 0 == installation.run(space, "verify").returncode


def test_doctor_of_an_installation(installation: Installation, space: Space) -> None:
    """It finds its version and, where there was a compiler, its kernels."""
    done = installation.run(space, "doctor", "--json")

    assert 0 == done.returncode, done.stderr
    facts = json.loads(done.stdout)
    assert __version__ == facts["modelbuild"]
    assert ("numpy" == facts["kernels"]["active"]) is (COMPILER is None)


def test_schemas_are_installed(installation: Installation, space: Space) -> None:
    """They come out of the wheel, not out of a checkout."""
    for name in ("recipe", "create-request", "events"):
        assert load_schema(f"{name}.schema.json") == json.loads(installation.run(space, "schema", name).stdout)


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("serve",), "server"),
        (("pull", "localhost:1/a/b"), "remote"),
        (("render", "--jinja", "--prompt", "x", "./chat"), "render"),
    ],
)
def test_missing_extras_are_named(
    installation: Installation, space: Space, command: tuple[str | Path, ...], extra: str
) -> None:
    """What needs an extra says which; nothing ends in a traceback."""
    space.write("chat/tokenizer_config.json", '{"chat_template": "{{ messages[0].content }}"}')
    shutil.copytree(CHECKPOINT, space.root / "chat", ignore=lambda *_: ["tokenizer_config.json"], dirs_exist_ok=True)

    done = installation.run(space, *command)

    assert done.returncode in (1, 2)
    assert re.search(rf"pip install .*'modelbuild\[{extra}\]'", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_bill_of_materials(installation: Installation) -> None:
    """`make sbom` lists every distribution of an environment, each with its version and its licence."""
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON",
         installation.root / "bin" / "python"],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    parts = {part["name"]: part for part in json.loads(done.stdout)["components"]}
    assert installation.names == set(parts)
    assert all(part["version"] and part["licenses"] for part in parts.values())
    assert f"pkg:pypi/modelbuild@{__version__}" == parts["modelbuild"]["purl"]
