"""The server is an extra; without it there is nothing to test here."""

import pytest

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")
