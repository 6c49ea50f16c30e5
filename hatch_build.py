"""Build hook: compiles the kernels where a C compiler is there, and installs without them where none is.

MODELBUILD_BUILD_NATIVE says what to do: `auto` (default), `require` (fail without a compiler: for published wheels),
`skip` (a pure wheel).
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_CHOICES = ("auto", "require", "skip")


class KernelBuildHook(BuildHookInterface[Any]):
    """Adds the compiled kernels to wheels and puts them into the tree for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; for a wheel also set its tag: any CPython from 3.11 on, this platform."""
        choice = os.environ.get("MODELBUILD_BUILD_NATIVE", "auto")
        if choice not in _CHOICES:
            raise ValueError(f"MODELBUILD_BUILD_NATIVE is one of {', '.join(_CHOICES)}, not {choice!r}")
        if choice == "skip":
            return
        build = _load_build(Path(self.root))
        package = Path(self.root, "modelbuild", "quantize")
        try:
            if version == "editable":
                build.compile_extension(package)
                return
            self._scratch = tempfile.TemporaryDirectory()
            extension = build.compile_extension(Path(self._scratch.name))
        except build.NotBuiltError as error:
            if choice == "require":
                raise
            self.app.display_warning(f"modelbuild is built without native kernels and will pack with numpy: {error}")
            return
        build_data["force_include"][str(extension)] = f"modelbuild/quantize/{extension.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{_platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch directory once the wheel is written."""
        del version, build_data, artifact_path
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def _load_build(root: Path) -> ModuleType:
    """modelbuild/quantize/native/build.py by path: importing modelbuild would need its dependencies."""
    path = root / "modelbuild" / "quantize" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("modelbuild_native_build", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
