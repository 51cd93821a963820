"""Tables in three formats, and each message about a table that cannot be used."""

import pytest

from fairseq_skd.corpora.records import Kind
from fairseq_skd.corpora.tables import Columns, Record, read_table
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


def test_columns_by_name(table):
    path = table("file;words;set;who;text", '"a;b.wav";"GO ""ON""";dev;ann;x', name="t.txt")
    records, problems = read_table(path, columns=Columns("file", "words", "set", "who"), delimiter=";")
    assert (records, problems) == ([Record("a;b.wav", 'GO "ON"', "dev", "ann", str(path), 2)], [])
    path = table('{"audio": "a.wav", "sentence": "GO", "set": 3}', name="t.jsonl")
    records, problems = read_table(path, columns=Columns("audio", "sentence", "set"))
    assert [problem.fault.detail for problem in problems] == ["set is not a string but 3"]


def test_no_header(table):
    path = table("a.wav|GO|ann", 'b.wav|"ON|bob', "c.wav|NO", "d.wav", "|GO|ann", name="metadata.csv")
    records, problems = read_table(path, "dev", Columns("1", "2", speaker="3"), "|", header=False)
    assert [(r.path, r.text, r.split, r.speaker, r.line) for r in records] == [
        ("a.wav", "GO", "dev", "ann", 1),
        ("b.wav", '"ON', "dev", "bob", 2),
    ]
    assert [problem.fault.detail for problem in problems] == [
        "2 cells under 3 columns",
        "1 cells under 3 columns",
        "no 1",
    ]


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        (
            ["path\ttext", "a\tGO"],
            {"columns": Columns(text="words")},
            "no column words among 'path', 'text'; correct --text-",
        ),
        (
            ["path\ttext", "a\tGO"],
            {"columns": Columns(speaker="who")},
            "no column who among 'path', 'text'; correct --speak",
        ),
        (["a.wav\tGO"], {"header": False}, "without a header, give --path-column and --text-column as numbers from 1"),
        (
            ["a.wav\tGO"],
            {"header": False, "columns": Columns("0", "2")},
            "no column 0 among '1', '2'; correct --path-column (w",
        ),
        (
            ["path\ttext", "a\tGO"],
            {"header": False, "columns": Columns("1", "2")},
            "a header, 'path', 'text'; drop --no-header",
        ),
        (["GO\tx/a.FLAC", "ON\tb"], {}, "is an utterance, add --no-header --path-column 2 --text-column 1"),
        (["path\tsentence", "a\tGO"], {}, "no column text among 'path', 'sentence'; add --text-column sentence"),
        (
            ["client_id\tpath\tsentence", "x\ta\tGO"],
            {},
            "; add --text-column sentence, or choose the source commonvoice",
        ),
        (
            ["file_name\ttranscription", "a\tG"],
            {},
            "--path-column file_name --text-column transcription, or choose the source a",
        ),
        (["audio_filepath\ttext", "a\tGO"], {}, "; add --path-column audio_filepath, or choose the source nemo"),
        (
            ["path\ttext", "a\tGO"],
            {"delimiter": ","},
            "no column path and no column text among 'path\\ttext'; the cells of this table seem to be separated "
            "otherwise: add --delimiter tab",
        ),
        (["audio;satz", "a;GO"], {"columns": Columns("audio", "satz")}, "otherwise: add --delimiter ';'"),
        (["audio\tsatz", "a\tGO"], {}, "; add --path-column audio --text-column NAME"),
        (
            ["file\tfile\ttext", "a\tb\tc"],
            {"columns": Columns("file")},
            "two columns are named file; rename one of them",
        ),
    ],
)
def test_messages_about_columns(table, lines: list[str], options: dict, sentence: str):
    path = table(*lines)
    with pytest.raises(UserError) as caught:
        read_table(path, **options)
    assert str(caught.value).startswith(f"{path}: ") and sentence in str(caught.value)


def test_options_that_contradict_the_format(table):
    with pytest.raises(UserError, match="JSON lines name their columns in each line; drop --delimiter and --no-header"):
        read_table(table('{"path": "a", "text": "GO"}', name="t.jsonl"), header=False)
    with pytest.raises(UserError, match="or give --delimiter, the character between its cells"):
        read_table(table("path|text", "a|b", name="t.txt"))


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


def test_a_column_is_path_or_text(table):
    with pytest.raises(UserError, match="--path-column and --text-column both name '1'; name two columns$"):
        read_table(table("a,b", name="t.csv"), columns=Columns("1", "1"), header=False)


def test_a_spreadsheet_with_semicolons(table):
    with pytest.raises(UserError, match="separated otherwise: add --delimiter ';'$"):
        read_table(table("path;text", "a.wav;GO", name="t.csv"))
