"""Files that users name: only regular ones of a sane size are read, and each refusal is one sentence."""

import json
import os

import pytest

from pyroqmri.errors import InputError
from pyroqmri.files import open_regular, read_bytes, read_json, read_table, read_text


def refused(reader, path, words):
    with pytest.raises(InputError, match=words) as error:
        reader(path, "sidecar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", [open_regular, read_bytes, read_text, read_json])
def test_only_regular_files_are_read(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    refused(reader, tmp_path / "pipe", "is a pipe")
    refused(reader, "/dev/zero", "is a device")
    refused(reader, tmp_path, "is a folder")
    refused(reader, tmp_path / "link", "cannot be read")
    refused(reader, tmp_path / "none", "No such file")
    refused(reader, tmp_path / ("x" * 400), "cannot be read")
    refused(reader, f"{tmp_path}/a\0b", "no possible file name")


def test_long_files_and_other_encodings_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b" " * 101)
    with pytest.raises(InputError, match="101 bytes long and the limit is 100"):
        read_text(path, "sidecar", 100)
    for content, words in (
        ("{}".encode("utf-16"), "UTF-16"),
        (b"{\0}", "NUL"),
        (b"\xe4{}", "byte 0 is not UTF-8"),
    ):
        path.write_bytes(content)
        refused(read_text, path, words)
        refused(read_json, path, words)
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(path, "sidecar") == "{}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
        ('{"a": ' + "7" * 400 + "}", "400 digits"),
        ('{"a": ' + "7" * 5000 + "}", "5000 digits"),
        ('{"a": -1e999}', "out of range"),
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_of_no_sane_shape_is_refused(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_text(content)
    refused(read_json, path, words)


def test_what_python_writes_is_read(tmp_path):
    path = tmp_path / "x.json"
    stated = {"a": [1, 2.5, float("inf"), None, True], "b": {"c": "d"}, "seed": 2**64}
    path.write_text(json.dumps(stated))
    assert read_table(path, "sidecar") == stated
    path.write_text("[]")
    refused(read_table, path, "no table")
