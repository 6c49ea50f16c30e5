"""Registries are an extra; without it there is nothing to test here."""

import pytest

pytest.importorskip("httpx", reason="the extra `remote` is not installed")
