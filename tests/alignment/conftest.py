"""The corpus and the checkpoint of the decoding tests."""

from tests.decoding.conftest import corpus, here, hubert

__all__ = ["corpus", "here", "hubert"]
