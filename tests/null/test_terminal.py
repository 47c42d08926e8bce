"""What is drawn on a terminal, what is not, and what the Tab key offers."""

import io
import re
import subprocess
import sys

import pytest

from hios_tvm.cli.main import VERBS, main
from hios_tvm.cli.terminal import progress_bar


class Terminal(io.StringIO):
    """Standard error as a terminal would be."""

    def isatty(self) -> bool:
        return True


class TestProgress:
    def drawn(self, monkeypatch: pytest.MonkeyPatch, is_quiet: bool = False) -> str:
        """Return what is drawn on a terminal while something is done."""
        terminal = Terminal()
        monkeypatch.setenv("TERM", "xterm-256color")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            self.work(is_quiet)
        return terminal.getvalue()

    def work(self, is_quiet: bool = False) -> None:
        with progress_bar("measure", is_quiet) as report:
            report("operator [3]", 0.25)
            report("operator [4]", 0.5)

    def test_tells_phase_share_and_time_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        told = self.drawn(monkeypatch)
        for word in ("measure", "operator [4]", "50 %", "left"):
            assert word in told
        assert re.search(r"\d:\d\d:\d\d", told)
        assert "\x1b[3" in told  # colour

    def test_no_colour(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        told = self.drawn(monkeypatch)
        assert "measure" in told
        assert not re.search(r"\x1b\[(3|4|9)\d", told)

    def test_quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.drawn(monkeypatch, is_quiet=True) == ""

    def test_nothing_in_a_pipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.work()
        assert capsys.readouterr().err == ""


class TestCompletion:
    def offered(
        self, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> list[str]:
        """Return what bash is offered at the end of `line`."""
        words = line.split(" ")
        monkeypatch.setenv("_HIOS_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        assert main([]) == 0
        return capsys.readouterr().out.splitlines()

    def test_offers(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        verbs = self.offered("hios ", monkeypatch, capsys)
        assert verbs == [f"plain,{verb}" for verb in VERBS]
        for line, expected in (
            ("hios schedule --scheduler hios-l", ["plain,hios-lp", "plain,hios-lp-inter"]),
            ("hios report --rivals-b", ["plain,--rivals-budget"]),
            ("hios compile --costs pro", ["plain,profile"]),
            ("hios compile zoo:inception", ["plain,zoo:inception_v3"]),
            ("hios compile mod", ["file,mod"]),
        ):
            assert self.offered(line, monkeypatch, capsys) == expected

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts(self, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert f"_HIOS_COMPLETE={shell}_complete" in script
        if shell == "bash":
            ran = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
            assert (ran.returncode, ran.stderr) == (0, "")

    def test_unknown_shell_is_a_mistake(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["completion", "tcsh"]) == 2
        assert "tcsh" in capsys.readouterr().err
