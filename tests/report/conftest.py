from collections.abc import Iterator

import pytest

from tests.report.chromium import CHROMIUM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium, shared by the tests; they are skipped where none is installed."""
    if not CHROMIUM:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()
