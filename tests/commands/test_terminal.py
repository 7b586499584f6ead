"""What happens at a terminal: odd names, few characters, Ctrl-C, a reader of a pipe who leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len

import rankseg
from rankseg import cli
from rankseg._commands import _terminal, app
from rankseg._commands.tables import PlainConsole
from rankseg._common import interrupts as _interrupts
from rankseg.evaluation import CaseFolder
from support.command_line import assert_no_traceback, run

COMMANDS = [one.name or one.callback.__name__ for one in app.registered_commands]

BYTE_OF_ANOTHER_ENCODING = "\udcff"
"""How Python writes a byte of a file name that is not UTF-8."""

NOTHING_DONE = (
    "Interrupted before the end, comparing: 0 of 6 done; run the same command again to start anew\n"
)

ODD = f"=a [-b] [red]x :smile: $\\frac$ 结果 é\x1b[31m{BYTE_OF_ANOTHER_ENCODING}"
ODD_CLASSES = ["bg [/dashed]", f"$\\foo$ 背景{BYTE_OF_ANOTHER_ENCODING}", "_:smile:"]


def shown(name, encoding):
    """How a name is to be printed."""
    escaped = name.replace("\x1b", "\\x1b").encode("utf-8", "backslashreplace").decode()
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


@pytest.fixture
def main(monkeypatch):
    """Return what runs the command line on streams of an encoding: status, output, errors."""
    handler = signal.getsignal(signal.SIGINT)

    def run_main(*arguments, encoding="utf-8", stdout=None):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        streams[0] = stdout or streams[0]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["rankseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        for stream in streams:
            stream.flush()
        texts = (
            "" if stream is stdout else stream.buffer.getvalue().decode(encoding)
            for stream in streams
        )
        return end.value.code, *texts

    yield run_main
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def odd(folder, tmp_path):
    """A folder of labelled maps, maps alone, predictions and truth, all with odd names."""
    home = tmp_path / ODD
    maps, alone, predicted, truth = (home / name for name in ("maps", "alone", ODD, "truth"))
    for place in (maps, alone, predicted, truth):
        place.mkdir(parents=True)
    original = CaseFolder.open(folder)
    for number, name in enumerate(original.names):
        case = original.read(name)
        np.savez(maps / f"{ODD}{number}.npz", probs=case.probs, label=case.label)
        np.save(alone / f"{ODD}{number}.npy", case.probs)
        np.save(predicted / f"{ODD}{number}.npy", case.probs.argmax(0))
        np.save(truth / f"{ODD}{number}.npy", case.label)
    (maps / "meta.json").write_text(json.dumps({"classes": ODD_CLASSES, "ignore_index": 255}))
    return home


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "latin-1"])
class TestNames:
    def test_evaluate(self, odd, main, encoding):
        status, output, _ = main(
            "evaluate", odd / ODD, odd / "truth", odd / "truth", "--classes", ",".join(ODD_CLASSES),
            "-o", odd / "out", "--details", encoding=encoding,
        )  # fmt: skip
        assert status == 0
        for name in (ODD, *ODD_CLASSES):
            assert shown(name, encoding) in output
        assert f"Written to {shown(str(odd / 'out'), encoding)}" in output

    def test_compare(self, odd, main, encoding):
        (odd / "maps" / f"broken {ODD}.npz").write_bytes(b"nothing")
        status, output, errors = main(
            "compare", odd / "maps", "--correlation", 0, "--output", odd / "out", "--details",
            "--report", odd / "report.html", encoding=encoding,
        )  # fmt: skip
        assert status == 1
        for name in ODD_CLASSES:
            assert shown(name, encoding) in output
        broken = shown(f"broken {ODD}", encoding)
        assert errors.startswith(f"Not compared: {broken}: ")
        assert f"{broken}.npz cannot be read as .npz" in errors
        assert (odd / "out" / "example.png").is_file()
        assert "&lt;" not in (page := (odd / "report.html").read_text(encoding="utf-8"))
        assert f"{shown(ODD_CLASSES[1], 'utf-8')}</td>" in page

    def test_a_table_stays_aligned(self, odd, main, encoding):
        _, output, _ = main(
            "compare", odd / "maps", "--correlation", 0, "--details", encoding=encoding
        )
        lines = output[: output.index("Per image")].splitlines()
        (heading,) = (number for number, line in enumerate(lines) if line.startswith("class"))
        rows = [line.rstrip() for line in lines[heading + 2 :] if line.strip()]
        assert len(rows) == len(ODD_CLASSES)
        assert len({cell_len(row) for row in rows}) == 1

    def test_calibrate_and_tune(self, odd, main, encoding):
        status, output, errors = main(
            "calibrate", odd / "maps", "-o", odd / "c.json", "--kind", "vector", "--folds", 2,
            "--diagram", odd / "d.png", encoding=encoding,
        )  # fmt: skip
        assert (status, errors) == (0, "")
        assert f"volume of {shown(ODD_CLASSES[1], encoding)}" in output
        status, output, errors = main(
            "tune", odd / "maps", "-o", odd / "t.json", "--folds", 3, encoding=encoding
        )
        assert (status, errors) == (0, "")
        assert shown(str(odd / "t.json"), encoding) in output

    def test_predict(self, odd, main, encoding):
        np.save(odd / "alone" / f"bad {ODD}.npy", np.zeros(3))
        status, output, errors = main(
            "predict", odd / "alone", "-o", odd / "new", "--format", "npy", encoding=encoding
        )
        assert status == 1
        assert f"6 written to {shown(str(odd / 'new'), encoding)}" in output
        assert errors.startswith(f"Not decided: {shown(f'bad {ODD}', encoding)}: ")
        assert "maps must be floating" in errors
        assert (odd / "new" / f"{ODD}0.npy").is_file()

    def test_errors(self, main, encoding):
        status, _, errors = main("compare", f"nowhere {ODD}", encoding=encoding)
        assert status == 1
        assert errors == f"Error: nowhere {shown(ODD, encoding)} is not a folder\n"
        name = f"[red]x[/b]:smile:{BYTE_OF_ANOTHER_ENCODING}"
        for arguments in ([name], ["compare", ".", "--metric", name], ["compare", ".", name]):
            status, output, errors = main(*arguments, encoding=encoding)
            assert (status, output) == (2, "")
            assert shown(name, encoding) in errors or (encoding == "ascii" and "smile:?" in errors)

    @pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
    def test_help(self, main, encoding, command):
        status, output, errors = main(*command, "--help", encoding=encoding)
        assert (status, errors) == (0, "")
        assert "--help" in output


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_option_has_one_line_of_80_columns(self, monkeypatch, command):
        monkeypatch.setenv("COLUMNS", "80")
        shown = run(command, "--help").stdout
        options = re.findall(r"^ +(?:-o, )?--.*$", shown, re.M)
        sections = re.split(r"^\S.*:\n", shown, flags=re.M)[1:]
        lines = [line for section in sections for line in section.split("\n\n")[0].splitlines()]
        assert len(options) > 0
        assert [line for line in lines if re.match("  [^ ]", line)] == lines
        assert max(map(len, lines)) <= 80

    def test_options_are_in_groups(self):
        shown = run("compare", "--help").stdout
        assert re.findall(r"^(\w+):$", shown, re.M) == [
            *("Arguments", "Input", "Methods", "Score", "Output", "Options")
        ]

    @pytest.mark.parametrize("arguments", [["--version"], *([one, "--help"] for one in COMMANDS)])
    def test_imports_nothing_that_takes_long(self, arguments):
        code = (
            f"import sys; sys.argv = ['rankseg', *{arguments}]\n"
            "from rankseg.cli import main\n"
            "try: main()\n"
            "except SystemExit: print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        loaded = set(done.stderr.split())
        assert "rankseg._commands" in loaded
        assert loaded.isdisjoint({"torch", "numpy", "rich", "matplotlib"})

    def test_misspelt_names_are_told(self):
        assert "'compare'" in run("comprae").stderr
        assert "--solver" in run("compare", ".", "--solvr", "RMA").stderr


class TestProgress:
    def test_tells_rate_and_end_at_a_terminal(self, monkeypatch):
        shown = io.StringIO()
        monkeypatch.setattr(
            _terminal, "_errors", lambda: PlainConsole(file=shown, force_terminal=True, width=90)
        )
        track = _terminal.tracker("Deciding")
        for done, _ in enumerate(track([0.3] * 4)):
            time.sleep(0.3)
            assert str(_terminal._begun[-1]) == f"deciding: {done} of 4 done"
        plain = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue())
        assert re.search(r"Deciding .* 3/4 +\d\.\d/s +\d:\d\d:\d\d", plain)

    def test_is_shown_each_time_and_not_in_a_pipe(self, capsys):
        cases = _terminal.tracker("Reading", 2)(iter("ab"))
        assert (len(cases), [*cases], [*cases]) == (2, ["a", "b"], [])
        assert [str(one) for one in _terminal._begun[-2:]] == ["reading: 2 of 2 done"] * 2
        assert capsys.readouterr() == ("", "")


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [ImportError("a b"), MemoryError("a b"), OSError("a\n  b"), TypeError("a\nb"),
         ValueError("a b")],
    )  # fmt: skip
    def test_what_is_expected_is_told_in_one_line(self, monkeypatch, error):
        fail_with(monkeypatch, error)
        result = run("predict", "maps", "-o", "labels")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert result.stderr == "Error: a b\n"

    def test_an_error_without_words_has_its_name(self, monkeypatch):
        fail_with(monkeypatch, MemoryError())
        assert run("predict", "maps", "-o", "labels").stderr == "Error: MemoryError\n"

    def test_what_is_not_expected_is_no_error_of_the_user(self, monkeypatch):
        fail_with(monkeypatch, ZeroDivisionError())
        result = run("predict", "maps", "-o", "labels")
        assert isinstance(result.exception, ZeroDivisionError)


def fail_with(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("rankseg.prediction.predict_files", fail)


class TestInterrupts:
    def test_says_what_is_done_and_how_to_go_on(self, monkeypatch):
        fail_with(monkeypatch, KeyboardInterrupt("interrupted: 2 written;\nrun it again"))
        result = run("predict", "maps", "-o", "labels")
        assert result.exit_code == 130
        assert_no_traceback(result)
        assert result.stderr == "Interrupted: 2 written; run it again\n"

    def test_of_a_command_that_writes_at_its_end(self, folder, monkeypatch):
        monkeypatch.setattr(
            rankseg.RankSEG, "forward", lambda *_: os.kill(os.getpid(), signal.SIGINT)
        )
        result = run("compare", folder)
        assert result.exit_code == 130
        assert_no_traceback(result)
        assert result.stderr == NOTHING_DONE

    def test_ends_at_once_whatever_threads_are_at(self, folder):
        code = (
            "import os, signal, sys, threading, time, rankseg\n"
            "from rankseg import cli\n"
            "def stop(*_):\n"
            "    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "rankseg.RankSEG.forward = stop\n"
            f"sys.argv = ['rankseg', 'compare', {str(folder)!r}]\n"
            "cli.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 130
        assert done.stderr == NOTHING_DONE

    def test_gives_the_cursor_back(self, folder):
        pty = pytest.importorskip("pty")
        code = (
            "import os, signal, sys, rankseg\n"
            "from rankseg import cli\n"
            "rankseg.RankSEG.forward = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
            f"sys.argv = ['rankseg', 'compare', {str(folder)!r}]\n"
            "cli.main()"
        )
        terminal, end = pty.openpty()
        environment = {**os.environ, "TERM": "xterm"}
        with ThreadPoolExecutor() as pool:  # a terminal holds 4 KB: who writes more waits
            read = pool.submit(read_all, terminal)
            done = subprocess.run([sys.executable, "-c", code], stderr=end, env=environment)
            os.close(end)
            shown = read.result()
        os.close(terminal)
        assert done.returncode == 130
        bar, message = shown.rsplit("\x1b[?25h", 1)  # the cursor is shown
        assert "Comparing" in bar
        assert message.endswith(f"{NOTHING_DONE.strip()}\r\n")

    def test_while_packages_are_imported(self, tmp_path):
        (tmp_path / "torch.py").write_text(
            "import os, signal\n"
            "try:\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "except BaseException as error:\n"  # as modules do that report what failed
            "    raise ImportError from error\n"
        )
        paths = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, "-m", "rankseg", "info"],
            env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 130
        assert done.stdout == ""
        assert done.stderr == ("Interrupted before the work began; run the same command again\n")

    def test_nothing_happens_once_the_work_is_done(self, main):
        assert main("info")[0] == 0
        os.kill(os.getpid(), signal.SIGINT)

    def test_a_process_that_is_to_ignore_them_does(self, main):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _interrupts.leave_at_interrupt("never")
        _interrupts.raise_at_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def read_all(terminal):
    """Read what is written to a terminal until its other end is closed."""
    read = b""
    with contextlib.suppress(OSError):  # Linux says so that it is closed
        while part := os.read(terminal, 1 << 16):
            read += part
    return read.decode()


class TestApp:
    @pytest.mark.parametrize("port", [0, -1, 65536, 99999])
    def test_a_port_that_is_none(self, port):
        result = run("app", "--port", port)
        assert result.exit_code == 2
        assert_no_traceback(result)
        assert "--port" in result.stderr

    def test_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            result = run("app", "--port", port)
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert result.stderr.startswith(
            f"Error: cannot serve at --host 127.0.0.1 --port {port}: Address already in use"
        )

    def test_a_host_that_is_none(self):
        result = run("app", "--host", "300.1.2.3")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert result.stderr.startswith("Error: cannot serve at --host 300.1.2.3: ")

    @pytest.mark.parametrize("place", [None, "uploads"])
    def test_what_was_uploaded_is_removed(self, tmp_path, monkeypatch, place):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        if place is not None:
            (tmp_path / place).mkdir()
            monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / place))
        made = []

        class Page:
            def __init__(self, **_):
                pass

            def close(self, **_):
                made.append("closed")

        def launch(*_):
            made.append(Path(tempfile.mkdtemp()))
            assert "GRADIO_TEMP_DIR" not in os.environ
            return "http://127.0.0.1:1/"

        def stop(_):
            raise KeyboardInterrupt

        command = sys.modules["rankseg._commands.app"]  # `app` of the package is all the commands
        monkeypatch.setattr("rankseg.app.build", Page)
        monkeypatch.setattr("rankseg.app.page.launch", launch)
        monkeypatch.setattr(command, "time", SimpleNamespace(sleep=stop))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        result = run("app")
        assert result.exit_code == 130
        assert result.stderr == "Stopped; uploads are removed.\n"
        assert made[1] == "closed"
        assert made[0].is_relative_to(tmp_path / (place or ""))
        assert [one.name for one in tmp_path.rglob("*")] == ([place] if place else [])


class TestPipes:
    def test_the_work_goes_on_where_the_reader_leaves(self, folder, tmp_path, main):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stdout:
            status, _, errors = main(
                "compare", folder, "--correlation", 0, "--output", tmp_path / "out", stdout=stdout
            )
        assert (status, errors) == (0, "")
        assert (tmp_path / "out" / "summary.json").is_file()
