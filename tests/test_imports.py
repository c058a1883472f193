"""The core imports and its commands start without the libraries of the extras."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# Pillow and torchvision are missing here: torchmetrics imports them where they are installed.
EXTRAS = (
    "timm",
    "torchaudio",
    "soundfile",
    "deepspeed",
    "datasets",
    "datatrove",
    "peft",
    "pytest",
    "sklearn",
)

PROGRAM = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it raises ImportError
import importlib
for name in {modules!r}:
    importlib.import_module(name)
print(sorted(sys.modules.keys() & {{"torch", "transformers", "lightning"}}))
"""


def heavy_imports(modules: tuple[str, ...], blocked: tuple[str, ...] = EXTRAS) -> str:
    """Import `modules` in a new process; return the heavy libraries that were imported with them."""
    program = PROGRAM.format(blocked=blocked, modules=modules)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_the_core_imports_without_the_extras() -> None:
    heavy_imports(
        (
            "kebyt5_xm.auto",
            "kebyt5_xm.training.cli",
            "kebyt5_xm.commands.export.export",
            "kebyt5_xm.model.cross_modal",
            "kebyt5_xm.model.processor",
            "encoders.stems",
        )
    )


def test_preparing_a_corpus_imports_no_heavy_library() -> None:
    assert (
        heavy_imports(
            (
                "kebyt5_xm.commands.cli",
                "kebyt5_xm.commands.prepare",
                "kebyt5_xm.commands.inspect",
                "kebyt5_xm.data.text.denoising",
            )
        )
        == "[]"
    )


def test_linting_files_imports_neither_lightning_nor_transformers() -> None:
    """Data workers import the same modules of sources."""
    modules = ("kebyt5_xm.commands.lint.report", "kebyt5_xm.commands.lint.subjects")
    assert heavy_imports(modules) == "['torch']"


def test_the_package_itself_imports_no_heavy_library() -> None:
    """`kebyt5_xm.auto` imports transformers; the package does not import it."""
    assert heavy_imports(("kebyt5_xm",)) == "[]"


def test_pages_and_cards_are_written_without_torch() -> None:
    modules = (
        "kebyt5_xm.commands.export.card",
        "kebyt5_xm.commands.compare",
        "kebyt5_xm.evaluation.report.draw",
    )
    assert heavy_imports(modules) == "[]"


def test_metrics_import_their_libraries_when_they_are_computed() -> None:
    """Recipes and data workers import metrics long before there are answers."""
    libraries = ("rapidfuzz", "sacrebleu", "scipy", "torchmetrics")
    assert heavy_imports(("kebyt5_xm.metrics",), (*EXTRAS, *libraries)) == "[]"


def test_the_command_is_a_module_too() -> None:
    words = [sys.executable, "-m", "kebyt5_xm", "inspct"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "did you mean 'inspect'" in done.stderr) == (2, True)


def test_every_file_of_the_package_is_installed() -> None:
    """An editable install finds files that an ordinary install would miss."""
    root = Path(__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    installed = {
        file
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for file in (root / package.replace(".", "/")).glob(pattern)
    }
    present = {
        file for file in (root / "kebyt5_xm").rglob("*") if file.is_file() and "__pycache__" not in file.parts
    }
    assert {file for file in present if file.suffix != ".py"} <= installed
    assert any(file.suffix == ".po" for file in installed)
