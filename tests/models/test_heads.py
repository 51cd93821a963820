"""Valid student layers, and valid exits to decode."""

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.models.heads import check_exit, check_student_layers

VALID = "students of this 12-layer encoder have 1 to 11 layers, each given once"


@pytest.mark.parametrize("layers", [[], [6], [1], [11], [3, 6, 9], [9, 3]])
def test_valid_students_keep_their_order(layers: list[int]) -> None:
    assert check_student_layers(layers, 12) == tuple(layers)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([0], "there is no student of 0 layers"),
        ([-1], "there is no student of -1 layers"),
        ([13], "there is no student of 13 layers"),
        ([6, 40], "there is no student of 40 layers"),
        ([12], "12 layers are the full model itself"),
        ([6, 12], "12 layers are the full model itself"),
    ],
)
def test_refused_students(layers: list[int], reason: str) -> None:
    with pytest.raises(UserError) as refused:
        check_student_layers(layers, 12)
    assert str(refused.value) == f"model.student_layers={layers}: {reason}; {VALID}"


def test_refuses_a_student_given_twice() -> None:
    with pytest.raises(UserError) as refused:
        check_student_layers([6, 3, 6], 12)
    assert str(refused.value) == f"model.student_layers=[6, 3, 6] names a layer twice; {VALID}"


def test_an_encoder_of_one_layer_has_no_students() -> None:
    assert check_student_layers([], 1) == ()
    with pytest.raises(UserError) as refused:
        check_student_layers([1], 1)
    assert str(refused.value) == (
        "model.student_layers=[1]: 1 layers are the full model itself; "
        "an encoder of one layer has no students, set it to []"
    )


@pytest.mark.parametrize(("layer", "exit_layer"), [(0, 12), (12, 12), (6, 6), (3, 3)])
def test_exit_to_decode(layer: int, exit_layer: int) -> None:
    assert check_exit(layer, [6, 3], 12) == exit_layer


@pytest.mark.parametrize("layer", [-1, 1, 5, 13])
def test_refused_exits_name_the_trained_ones(layer: int) -> None:
    with pytest.raises(UserError) as refused:
        check_exit(layer, [6, 3], 12)
    assert str(refused.value) == (
        f"the checkpoint has no exit at layer {layer}: use 0 for the full model of 12 layers, or a student's layer "
        f"count (3 or 6)"
    )


def test_refused_exit_of_a_model_without_students() -> None:
    with pytest.raises(UserError, match=r"\(none: it was trained without a student\)$"):
        check_exit(6, [], 12)
