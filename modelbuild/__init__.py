"""Build local language models from version-controlled recipes.

The functions below are documented in `modelbuild.api`; they are loaded when first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelbuild.api import (
        BuildOptions,
        BuildResult,
        BuiltModel,
        build,
        compare,
        copy,
        create,
        export_archive,
        import_archive,
        list_models,
        preview,
        remove,
        show,
        verify,
        watch_recipe,
    )

__version__ = "0.1.0"

__all__ = [
    "BuildOptions",
    "BuildResult",
    "BuiltModel",
    "__version__",
    "build",
    "compare",
    "copy",
    "create",
    "export_archive",
    "import_archive",
    "list_models",
    "preview",
    "remove",
    "show",
    "verify",
    "watch_recipe",
]


def __getattr__(name: str) -> object:
    """The API's functions, loaded on first use: `--version` and a build with nothing to do stay cheap."""
    if name in __all__:
        from modelbuild import api

        return getattr(api, name)
    message = f"module 'modelbuild' has no attribute {name!r}"
    raise AttributeError(message)
