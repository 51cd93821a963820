import pytest

from benchmarks import manifest
from fairseq_skd.errors import UserError


@pytest.mark.slow
def test_both_commands_list_the_same_files(tmp_path):
    found = manifest.measure(tmp_path, {"large": 60}, {"large": 1})
    assert {arm: len(times["wall"]) for arm, times in found["large"].items()} == {"fairseq": 1, "fairseq_skd": 1}
    chapters = sorted(path.parent for path in tmp_path.glob("large/train-clean-100/*/*/*.trans.txt"))
    assert [len(list(chapter.glob("*.flac"))) for chapter in chapters] == [25, 25, 10]


def test_a_command_that_fails_is_told():
    with pytest.raises(
        UserError, match=r"import nothing_of_that_name failed with status 1: (?s:.*)ModuleNotFoundError"
    ):
        manifest.run([manifest.sys.executable, "-c", "import nothing_of_that_name"])


def test_report():
    times = {"wall": [4.0, 8.0, 4.0], "cpu": [4.0, 4.0, 4.0]}
    ours = {"wall": [2.0, 4.0, 3.0], "cpu": [6.0, 6.0, 6.0]}
    found = {"large": {"fairseq": times, "fairseq_skd": ours}, "small": {"fairseq": ours, "fairseq_skd": times}}
    figures, table = manifest.report({"large": 1000, "small": 10}, found)
    assert figures["large_wall"]["ratio"]["median"] == pytest.approx(0.5)
    large, _, small, _ = table.splitlines()[2:]
    assert large.split("|")[5].strip() == "2.00"
    assert large.endswith("0.625: met |")
    assert small.endswith("1.000: missed by 100.0 % |")


@pytest.mark.slow
def test_mp3_files_are_checked_and_converted(tmp_path):
    found = manifest.measure_mp3(tmp_path, 20, 1)
    figures, table = manifest.report_mp3({"checked": {"files": 20, "audio": 240.0, "wall": [2.0], "cpu": [2.0]}})
    assert figures["mp3_checked"]["files_per_second"]["median"] == 10
    assert figures["mp3_checked"]["times_real_time"]["median"] == 120 and "20 MP3 files, checked" in table
    assert set(found) == {"checked", "converted"} and all(len(one["wall"]) == 1 for one in found.values())
    assert all(20 * 8 < one["audio"] < 20 * 16 for one in found.values())


def test_cores_that_are_not_there():
    with pytest.raises(UserError, match="--cores 100000: this machine has"), manifest.cores(100000):
        pass
