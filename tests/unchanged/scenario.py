"""What is played of a case, and what is compared with what.

Everything that comes out of a run, whole or killed and resumed, has to be what the base's whole run gave:

    new             the new code's run
    base resumed    the base's run, killed, and resumed by the base
    new resumed     the new code's run, killed, and resumed by the new code
    across          the base's run, killed, and resumed by the new code

And a run that the base finished is opened again by either, its page and pictures taken away, its tickets read:

    reopened        --resume has to say the same, and write the same page and pictures of the same record
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.unchanged.cases import Case
from tests.unchanged.comparison import Verdict, compare
from tests.unchanged.errors import CheckError
from tests.unchanged.runs import Code

AT_ONCE = 2
"""Runs in progress at a time, a thread each."""
RESUME = ["--out", "run", "--resume"]
# A resumed run says less on the way.
SAID_ON_THE_WAY = ("said/stderr",)

Comparisons = dict[str, dict[str, Verdict]]
"""Name of the comparison -> file -> verdict."""


@dataclass(frozen=True)
class Scenario:
    """All cases, played under `work` by `base` and by `new`.

    `images`: a folder with train/ and test/. `say` receives a line for each thing that was done.
    """

    work: Path
    images: Path
    base: Code
    new: Code
    say: Callable[[str], None]

    def play(self, cases: Iterable[Case]) -> dict[str, Comparisons]:
        """The comparisons of each case, by its name. Raises CheckError when the base cannot play one itself."""
        cases = list(cases)
        codes = (self.base, self.new)
        for code in codes:
            # Each side decodes the images itself, once: what is decoded is kept beside these links.
            images = self.work / code.name / "images"
            images.mkdir(parents=True)
            for part in ("train", "test"):
                (images / part).symlink_to(self.images / part)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            list(pool.map(self._choose, [case for case in cases if case.choices]))
            jobs = [(case, code) for case in cases for code in codes]
            list(pool.map(self._whole_and_resumed, jobs))
            list(pool.map(self._reopened, jobs))
            return {case.name: self._compared(case) for case in cases}

    def _folder(self, code: Code, what: str, case: Case) -> Path:
        return self.work / code.name / what / case.name

    def _begin(self, code: Code, what: str, case: Case) -> Path:
        folder = self._folder(code, what, case)
        folder.mkdir(parents=True)
        (folder / "images").symlink_to(self.work / code.name / "images")
        return folder

    def _choose(self, case: Case) -> None:
        self.base.run(self._begin(self.base, "choices", case), case.arguments())

    def _arguments(self, case: Case, folder: Path) -> list[str]:
        if not case.choices:
            return case.arguments()
        shutil.copyfile(self._folder(self.base, "choices", case) / "run" / "choices.json", folder / "choices.json")
        return [*case.arguments(), "--choices", "choices.json"]

    def _whole_and_resumed(self, job: tuple[Case, Code]) -> None:
        case, code = job
        began = time.monotonic()
        whole = self._begin(code, "whole", case)
        code.run(whole, self._arguments(case, whole))
        status = (whole / "said" / "status").read_text().strip()
        if status == "0":
            killed = self._begin(code, "killed", case)
            code.run_and_kill(killed, self._arguments(case, killed), case.killed_at)
            self._resume(code, killed, self._folder(code, "resumed", case))
        elif code is self.base:
            raise CheckError(f"{case.name}: the base's own run ends with status {status}")
        self.say(f"{case.name}, {code.name}: run, killed and resumed in {time.monotonic() - began:.0f} s")

    def _reopened(self, job: tuple[Case, Code]) -> None:
        case, code = job
        began = time.monotonic()
        if code is self.new:
            self._resume(code, self._folder(self.base, "killed", case), self._folder(code, "across", case))
        folder = self._folder(code, "reopened", case)
        self._resume(code, self._folder(self.base, "whole", case), folder, without_report=True)
        code.read_tickets(folder)
        self.say(f"{case.name}, {code.name}: the base's runs opened again in {time.monotonic() - began:.0f} s")

    def _resume(self, code: Code, begun: Path, folder: Path, without_report: bool = False) -> None:
        """Goes on in `folder`, a copy of `begun`, with what only this call says."""
        shutil.copytree(begun, folder, symlinks=True, ignore=shutil.ignore_patterns("said", "images"))
        # Where `begun` has the images of the other side, this side has its own.
        (folder / "images").symlink_to(self.work / code.name / "images")
        if without_report:
            (folder / "run" / "report.html").unlink()
            shutil.rmtree(folder / "run" / "plots")
        code.run(folder, RESUME)

    def _compared(self, case: Case) -> Comparisons:
        whole = self._folder(self.base, "whole", case)
        found: Comparisons = {"new": compare(whole, self._folder(self.new, "whole", case))}
        for name, code, what in (
            ("base resumed", self.base, "resumed"),
            ("new resumed", self.new, "resumed"),
            ("across", self.new, "across"),
        ):
            found[name] = compare(whole, self._folder(code, what, case), left_out=SAID_ON_THE_WAY)
        by_base, by_new = (self._folder(code, "reopened", case) for code in (self.base, self.new))
        found["reopened"] = compare(by_base, by_new, times=False)
        return found
