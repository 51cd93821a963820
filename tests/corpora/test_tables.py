"""Tables in three formats, and each message about a table that cannot be used."""

import pytest

from fairseq_skd.corpora.records import Kind
from fairseq_skd.corpora.tables import Record, read_table
from fairseq_skd.errors import UserError


def test_tsv_finds_columns_by_name_and_ignores_others(table):
    path = table("text\tage\tpath\tspeaker\tsplit", "GO ON\t7\ta.wav\ts1\ttest", '"YES"\t8\tb.wav\t\ttrain')
    records, problems = read_table(path)
    assert problems == []
    assert records == [
        Record("a.wav", "GO ON", "test", "s1", str(path), 2),
        Record("b.wav", '"YES"', "train", "", str(path), 3),  # no quoting in TSV
    ]


def test_csv_quotes_and_line_numbers(table):
    path = table("path,text", '"a,b.wav","GO"', "", '"c\nd.wav",ON', "e.wav,ON", name="table.csv")
    records, _ = read_table(path)
    assert [(record.path, record.line) for record in records] == [("a,b.wav", 2), ("c\nd.wav", 4), ("e.wav", 6)]


def test_json_lines(table):
    path = table('{"path": "a.wav", "text": "GO", "speaker": 7}', "", '{"text": null, "path": "b.wav"}', name="t.jsonl")
    records, problems = read_table(path, "dev")
    assert problems == []
    assert records == [Record("a.wav", "GO", "dev", "7", str(path), 1), Record("b.wav", "", "dev", "", str(path), 3)]


def test_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffpath,text\r\na.wav,GO\r\n".encode())
    records, _ = read_table(path)
    assert [(record.path, record.text, record.split) for record in records] == [("a.wav", "GO", "train")]


def test_all_malformed_rows_are_found(table):
    path = table(
        "path\ttext\tsplit", "a.wav\tGO", "\tGO\ttrain", "b.wav\tGO\t", "c.wav\tGO\ttrain\tmore", "d.wav\tGO\tx"
    )
    records, problems = read_table(path)
    assert [record.path for record in records] == ["d.wav"]
    assert [(problem.line, problem.fault.kind, problem.fault.detail) for problem in problems] == [
        (2, Kind.ROW, "2 cells under 3 columns"),
        (3, Kind.ROW, "no path"),
        (4, Kind.ROW, "no split"),
        (5, Kind.ROW, "4 cells under 3 columns"),
    ]


def test_json_values_that_are_not_strings(table):
    path = table('{"path": 3, "text": "GO"}', '{"path": "a.wav", "text": ["GO"]}', '{"text": "GO"}', name="t.jsonl")
    _, problems = read_table(path)
    assert [problem.fault.detail for problem in problems] == [
        "path is not a string but 3",
        'text is not a string but ["GO"]',
        "no path",
    ]


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("t.txt", ["path\ttext"], "must end in one of .tsv, .csv, .jsonl; rename or convert it"),
        ("t.tsv", [], "holds no utterances; write one line per utterance"),
        ("t.tsv", ["path\ttext"], "holds no utterances"),
        ("t.jsonl", [""], "holds no utterances"),
        ("t.tsv", ["a.wav\tGO"], "no column path and no column text among 'a.wav', 'GO'; name the columns"),
        (
            "t.tsv",
            ["a.wav\tGO", "b.wav\tON"],
            "no column path and no column text among 'a.wav', 'GO'; name the columns",
        ),
        ("t.csv", ["path,Text", "a.wav,GO"], "no column text among 'path', 'Text'; name the columns"),
        ("t.jsonl", ['{"path": "a.wav"}'], "no column text among 'path'; name the columns"),
        ("t.csv", ["path,text,text", "a.wav,GO,ON"], "two columns are named text; rename one of them"),
        ("t.csv", ["path,text", 'a.wav,"GO'], "line 2 cannot be read (unexpected end of data); correct the line"),
        ("t.tsv", ["path\ttext", "a.wav\tG\rO"], "line 2 cannot be read (new-line character seen in unquoted field);"),
        ("t.jsonl", ['{"path": "a.wav", "text": "GO"}', "{"], "line 2 is not JSON"),
        ("t.jsonl", ["[" * 100000], "line 1 is not JSON"),
        ("t.jsonl", ["[1]"], "line 1 is not a JSON object"),
    ],
)
def test_messages_about_a_table(table, name: str, lines: list[str], sentence: str):
    path = table(*lines, name=name)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ") and sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_split_option_beside_a_split_column(table):
    with pytest.raises(UserError, match="has a column split, so --split cannot be given; drop one of the two"):
        read_table(table("path\ttext\tsplit", "a.wav\tGO\ttrain"), "dev")


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="none.tsv: cannot be read \\(No such file or directory\\)"):
        read_table(tmp_path / "none.tsv")


def test_table_that_is_not_utf8(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"path\ttext\na.wav\tGO\nb.wav\t\xe9T\xe9\n")
    with pytest.raises(UserError, match="line 3 is not UTF-8; convert the file to UTF-8"):
        read_table(tmp_path / "t.tsv")
