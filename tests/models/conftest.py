"""One pretrained checkpoint per kind of encoder."""

import pytest

from tests.builders import write_pretrained
from tests.models.models import LARGE


@pytest.fixture(scope="module", params=["hubert", "wav2vec2", "wavlm", "pre_ln", "pre_ln_wavlm"])
def checkpoint(request, tmp_path_factory):
    changes = LARGE if request.param.startswith("pre_ln") else {}
    kind = {"pre_ln": "hubert", "pre_ln_wavlm": "wavlm"}.get(request.param, request.param)
    return write_pretrained(tmp_path_factory.mktemp("pretrained") / "w2v.pt", kind, **changes)
