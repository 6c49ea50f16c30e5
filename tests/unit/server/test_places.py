"""What of this machine's directories texts of the server still say."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.server.places import Places
from modelbuild.server.settings import ServerSettings

MISSING = "open /srv/models/blobs/sha256-00: no such file or directory"


@pytest.fixture
def places() -> Places:
    return Places(ServerSettings(Path("/srv/models"), Path("/var/cache/mb"), allow_paths=(Path("/srv"),)))


@pytest.fixture
def open_places() -> Places:
    return Places(ServerSettings(Path("/srv/models"), Path("/var/cache/mb"), host="0.0.0.0"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot use /srv/models: File exists", "cannot use models: File exists"),
        ("cannot use '/var/cache/mb'", "cannot use 'mb'"),
        ("/srv/models/blobs/x is damaged", "blobs/x is damaged"),
        ("/srv/other/a.gguf, /srv/b.gguf", "other/a.gguf, b.gguf"),
        ("/srvs/x and a/srv/x", "/srvs/x and a/srv/x"),
        ("a.gguf:3:4: no such field", "a.gguf:3:4: no such field"),
    ],
)
def test_directories_are_left_out(places: Places, text: str, shown: str) -> None:
    """The longest directory that fits is left out, and nothing that only looks like one."""
    assert shown == places.strip(text) == places.hide(text)
    assert [{"a": shown, "b": 1}] == places.strip_all([{"a": text, "b": 1}])


def test_known_texts_stay_on_this_machine(places: Places, open_places: Places) -> None:
    """Clients on this machine get the path of a missing blob and of a model's weights, others do not."""
    blob = Path("/srv/models/blobs/sha256-00")

    assert (MISSING, str(blob)) == (places.hide(MISSING), places.blob(blob))
    assert "open blobs/sha256-00: no such file or directory" == open_places.hide(MISSING) == places.strip(MISSING)
    assert "blobs/sha256-00" == open_places.blob(blob)
