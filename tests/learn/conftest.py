import pytest

from tests.learn import toy


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A tiny random Llama with its tokenizer."""
    return toy.save_base(tmp_path_factory.mktemp("base"))
