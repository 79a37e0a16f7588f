"""Puts the manual pages into a wheel, made of the same table as --help (`epoch_oci/cli/help.py`)."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface[Any]):
    """Writes them into a directory that is there while the wheel is built, and names them to the builder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; an editable install has none."""
        self._folder = TemporaryDirectory(prefix="epoch-oci-man-")
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # nothing but the standard library is needed for it
        from epoch_oci.cli.app import VERBS
        from epoch_oci.cli.help import man_pages

        for name, text in man_pages(VERBS).items():
            path = Path(self._folder.name) / name
            path.write_text(text, "utf-8")
            build_data["shared_data"][str(path)] = f"share/man/man1/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when it is built."""
        self._folder.cleanup()
