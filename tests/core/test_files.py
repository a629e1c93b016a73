"""A reader meets a whole file or none, and an error says which file, line and field."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pasture.core.errors import DataError, RecordError, RunFolderError
from pasture.core.files import (
    atomic_file,
    fingerprint,
    read_json_lines,
    read_records,
    remove_drafts,
    weights_fingerprint,
    write_json_lines,
    write_records,
    write_text,
)
from pasture.core.records import Comparison, Completion, Instruction
from tests.crashes import survives_kill_at
from tests.disks import mounted

GOOD = b'{"id":"i1","instruction":"Say hi.","source":"greet","split":"sft"}\n'
OLD, NEW = "old\n" * 50_000, "new\n" * 60_000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def instruction(number: int, text: str = "Say hi.") -> Instruction:
    return Instruction(id=f"i{number}", instruction=text, source="greet", split="sft")


def reading_error(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_records(path, Instruction)
    return str(caught.value).removeprefix(str(tmp_path) + "/")


def test_records_are_written_one_a_line_and_come_back(tmp_path: Path) -> None:
    rows = [instruction(number, text) for number, text in enumerate(["a\nb", "\u2028 \x85 \x1e", "naïve 🐑", "\r\n\\"])]
    path = tmp_path / "new" / "folder" / "rows.jsonl"
    assert write_records(path, rows) == 4
    assert path.read_bytes().count(b"\n") == 4
    assert path.read_bytes().endswith(b"\n")
    assert read_records(path, Instruction) == rows
    # The standard library reads the same: what is written is JSON and UTF-8, not something only this reader takes.
    assert [json.loads(line)["instruction"] for line in path.read_bytes().split(b"\n")[:-1]] == [
        row.instruction for row in rows
    ]


def test_a_file_is_named_by_a_path_or_by_a_text(tmp_path: Path) -> None:
    name = str(tmp_path / "new" / "instructions.jsonl")
    asked = [Instruction(id="i1", instruction="say hi", source="s", split="sft")]
    assert write_records(name, asked) == 1
    assert read_records(name, Instruction) == read_records(Path(name), Instruction) == asked
    with pytest.raises(DataError, match="no such file"):
        read_records(str(tmp_path / "absent.jsonl"), Instruction)


def test_no_records_are_an_empty_file(tmp_path: Path) -> None:
    assert write_records(tmp_path / "none.jsonl", []) == 0
    assert read_records(tmp_path / "none.jsonl", Instruction) == []


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        (b'{"id":"i2","instruction":"x","source":"s","split":"t","colour":1}', "Instruction, colour", "Extra inputs"),
        (b'{"id":"i2","source":"s","split":"t"}', "Instruction, instruction", "Field required"),
        (b'{"id":2,"instruction":"x","source":"s","split":"t"}', "Instruction, id", "valid string"),
        (b'{"id":"i2","instruction":" ","source":"s","split":"t"}', "Instruction, instruction", "should match"),
        (b'{"id":"i2","instruction":"","source":"s","split":"t"}', "Instruction, instruction", "at least 1 character"),
        (b'{"id":"i2","instruction":"\\ud83d","source":"s","split":"t"}', "Instruction, instruction", "lone surrogate"),
        (b'{"id":"i2","instruction":"x","source":"\\udc11!","split":"t"}', "Instruction, source", "lone surrogate"),
        (b'{"id":"i2","instruction":"\xed\xa0\xbd","source":"s","split":"t"}', "Instruction, instruction", "UTF-8"),
        (b'{"id":"i2","instruction":"caf\xe9","source":"s","split":"t"}', "Instruction, instruction", "no UTF-8"),
        (b'{"id":"i2","instruction":"x","source":"s","split":"t","\xff":1}', "Instruction, '\\udcff'", "no UTF-8"),
        (b'{"id":"i2","instruction":"Say h', "Instruction, the line", "EOF while parsing a string at column 31"),
        (b'{"id":"i2","instruction":"x" "source":"s"}', "Instruction, the line", "expected `,` or `}` at column 30"),
        (b"", "Instruction, the line", "EOF while parsing a value"),
        (b"[1, 2]", "Instruction, the line", "object"),
        (b"null", "Instruction, the line", "object"),
        (b"[" * 100_000, "Instruction, the line", "recursion"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
def test_a_bad_line_is_named_with_its_file_number_and_field(tmp_path: Path, line: bytes, place: str, said: str) -> None:
    message = reading_error(tmp_path, GOOD + line + b"\n" + GOOD)
    assert message.startswith(f"rows.jsonl:2: {place}: ")
    assert said in message
    assert message.endswith("Mend or remove the line.")
    assert "line 1 " not in message  # the parser's own count of lines would contradict the file's


def test_a_file_cut_in_half_by_a_crash_is_named_at_its_last_line(tmp_path: Path) -> None:
    whole = GOOD * 3
    for length in range(2 * len(GOOD) + 1, len(whole) - 1):
        assert reading_error(tmp_path, whole[:length]).startswith("rows.jsonl:3: Instruction, the line: ")


def test_a_last_line_without_its_line_feed_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(GOOD.rstrip())
    assert read_records(tmp_path / "rows.jsonl", Instruction) == [instruction(1)]


def test_an_unknown_field_brings_the_list_of_the_known_ones(tmp_path: Path) -> None:
    message = reading_error(tmp_path, GOOD.replace(b'"source"', b'"sorce"'))
    assert "Fields of Instruction: id, instruction, input, source, split." in message
    assert "(1 more in this line.)" in message  # `source` is missing as well


def test_a_fault_deep_inside_a_line_has_a_dotted_name(tmp_path: Path) -> None:
    row = '{"id":"c","instruction":%s,"first":{"instruction_id":"i1","text":%s,"system":"s","seed":0}}'
    path = tmp_path / "rows.jsonl"
    for text, field in (("5", "first.text"), ('"\\udead"', "first.text")):
        path.write_text(row % (GOOD.decode().strip(), text))
        with pytest.raises(RecordError, match=rf":1: Comparison, {field}: "):
            read_records(path, Comparison)


def test_a_missing_file_and_a_folder_are_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file\. Check the path, or run the step"):
        read_records(tmp_path / "none.jsonl", Instruction)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_json_lines(tmp_path)


def test_tables_that_are_no_records_come_back_and_hold_only_numbers_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[dict[str, object]] = [{"step": 1, "reward": 0.1}, {"step": 2, "reward": -1e-300, "note": "naïve\n"}]
    write_json_lines(path, rows)
    assert read_json_lines(path) == rows
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_lines(path, [{"reward": float("nan")}])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"reward": NaN}', "NaN is no number of JSON"),
        (b'{"reward": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"reward": 1', "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[1]", "expected a JSON object, got list"),
    ],
)
def test_a_bad_line_of_a_table_is_named_with_its_file_and_number(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"reward": 1}\n' + line + b"\n")
    with pytest.raises(RecordError, match=r"metrics\.jsonl:2: ") as caught:
        read_json_lines(path)
    assert said in str(caught.value)


def test_an_error_amid_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_text(path, OLD)

    def rows() -> Iterator[Instruction]:
        yield instruction(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_records(path, rows())
    assert path.read_text() == OLD
    assert names(tmp_path) == ["rows.jsonl"]


def test_a_kill_at_any_file_operation_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    outcomes = []
    for number in range(1, 100):
        write_text(path, OLD)
        done = survives_kill_at(number, lambda: write_text(path, NEW))
        outcomes.append(path.read_text())
        assert outcomes[-1] in (OLD, NEW)
        remove_drafts(tmp_path)
        assert names(tmp_path) == ["file.txt"]
        if done:
            break
    assert len(outcomes) >= 4  # making the draft, writing it, flushing it, renaming it
    assert outcomes[0] == OLD
    assert outcomes[-1] == NEW


WRITER = """
import itertools, sys
from pathlib import Path
from pasture.core.files import write_text
print("ready", flush=True)
for number in itertools.count():
    write_text(Path(sys.argv[1]), f"{number % 10}" * 3_000_000)
"""


def test_a_kill_at_a_random_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    wait = random.Random(0)
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(wait.uniform(0.02, 0.12))
            process.send_signal(signal.SIGKILL)
        if path.exists():
            text = path.read_text()
            assert text == text[0] * 3_000_000
    assert path.exists()


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / f"{mask:o}", "x")
        finally:
            os.umask(before)
        assert (tmp_path / f"{mask:o}").stat().st_mode & 0o777 == mode


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_file(path) as first:
        first.write_text("first")
        with atomic_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file.txt"]


def test_removing_drafts_removes_nothing_else(tmp_path: Path) -> None:
    for name in (".checkpoint.safetensors.12ab34cd.draft", ".key", "a.draft", "rows.jsonl", ".hidden"):
        (tmp_path / name).write_text("x")
    remove_drafts(tmp_path)
    assert names(tmp_path) == [".hidden", ".key", "a.draft", "rows.jsonl"]


def test_an_error_that_has_nothing_to_do_with_writing_comes_out_as_it_is(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Instruction]:
        yield instruction(1)
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        write_records(tmp_path / "rows.jsonl", interrupted())
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "rows.jsonl"):
        (tmp_path / "input.jsonl").read_text()
    assert names(tmp_path) == []


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64k") as disk:
        path = disk.path / "rows.jsonl"
        write_records(path, [instruction(1)])
        with pytest.raises(RunFolderError, match=r"cannot write .*rows\.jsonl: No space left on device\. Finished"):
            write_records(path, (instruction(number, "x" * 1000) for number in range(1000)))
        assert read_records(path, Instruction) == [instruction(1)]
        assert names(disk.path) == ["rows.jsonl"]


def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64k") as disk:
        write_text(disk.path / "old.txt", OLD[:100])
        disk.remount("ro")
        for name in ("old.txt", "new.txt", "folder/new.txt"):
            with pytest.raises(RunFolderError, match=rf"cannot write .*{name}: Read-only file system"):
                write_text(disk.path / name, NEW)
        assert (disk.path / "old.txt").read_text() == OLD[:100]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in any folder, whatever its permissions")
def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunFolderError, match="Permission denied"):
            write_text(tmp_path / "new.txt", NEW)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_where_a_folder_is_needed_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot write"):
        write_text(tmp_path / "file" / "new.txt", NEW)


def test_a_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(tmp_path / "file") == expected


def test_a_fingerprint_sees_one_byte_of_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    seen = set()
    for changed in (None, 71 * 2**20 + 5, 131 * 2**20 + 7):
        with path.open("wb") as file:
            file.truncate(200 * 2**20)
            if changed is not None:
                file.seek(changed)
                file.write(b"2")
        # Of weights these bytes would lie between what is read: 69.5 to 70.5, 72.7 to 73.7 MiB and so on.
        seen.add((fingerprint(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    assert len({one for one, _ in seen}) == 3
    assert all(one == expected for one, expected in seen)


def test_a_fingerprint_of_huge_weights_sees_its_ends_its_size_and_places_between(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    size = 200 * 2**20
    seen = set()
    for position in (None, 0, 2**20 - 1, size - 2**20, size - 1, 100 * 2**20):
        with path.open("wb") as file:
            file.truncate(size)  # a sparse file: it takes no room on the disk
            if position is not None:
                # The middle is covered to one MiB in every three or so: change four in a row.
                file.seek(position)
                file.write(b"\1" * (4 * 2**20 if position == 100 * 2**20 else 1))
        seen.add(weights_fingerprint(path))
    with path.open("r+b") as file:
        file.truncate(size + 1)
    seen.add(weights_fingerprint(path))
    assert len(seen) == 7


def test_huge_weights_are_read_at_sixty_four_places(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    size = 130 * 2**20
    generator = random.Random(0)
    content = b"".join(generator.randbytes(2**20) for _ in range(130))
    path.write_bytes(content)
    # By hand from the definition: places (size - 1 MiB) * k / 63, rounded down.
    starts = [129 * 2**20 * k // 63 for k in range(64)]
    pieces = b"".join(content[start : start + 2**20] for start in starts)
    assert weights_fingerprint(path) == hashlib.sha256(f"{size};".encode() + pieces).hexdigest()


def test_a_completion_without_words_is_kept(tmp_path: Path) -> None:
    silent = Completion(instruction_id="i1", text="", system="sft", seed=0)
    write_records(tmp_path / "rows.jsonl", [silent])
    assert read_records(tmp_path / "rows.jsonl", Completion) == [silent]
