"""The benchmarks run, and what they compare exists. How fast anything is does not matter here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import docs
from benchmarks.clients import CLIENTS
from benchmarks.targets import MEMORY, targets
from benchmarks.workloads import QUICK, WORKLOADS, corpus, deflated_corpus

from .processes import PROJECT

OURS = ("ours-trio", "ours-asyncio")
TINY = ("rtt-64", "recv-json", "send-64", "tls-rtt-64")


@pytest.mark.skipif(sys.platform != "linux", reason="the server of the benchmarks needs epoll")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the server of the benchmarks needs a C compiler")
def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    files = {form: tmp_path / f"results.{form}" for form in ("json", "markdown", "svg")}
    options = [option for form, file in files.items() for option in (f"--{form}", str(file))]
    command = [sys.executable, "-m", "benchmarks", "--workloads", *TINY, "--clients", *OURS, *options]
    completed = subprocess.run(
        [*command, "--rounds", "2", "--seconds", "0.001"], cwd=PROJECT, capture_output=True, encoding="utf-8"
    )
    assert completed.returncode == 0, completed.stderr
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    without_tls = {
        "tls-rtt-64": dict.fromkeys(OURS, "the server was built without TLS: the headers of OpenSSL are missing")
    }
    assert document["left out"] in ({}, without_tls)
    expected = {
        (workload, client, number)
        for workload in TINY
        if workload not in document["left out"]
        for client in OURS
        for number in range(2)
    }
    assert {(sample["workload"], sample["client"], sample["round"]) for sample in document["samples"]} == expected
    for sample in document["samples"]:
        assert sample["count"] >= WORKLOADS[sample["workload"]].batch
        assert sample["cpu"] > 0
        assert 0 < sample["server_cpu"] <= sample["wall"]
    assert WORKLOADS["recv-json"].title in completed.stdout
    tables = files["markdown"].read_text(encoding="utf-8")
    assert "Median of 2 rounds" in tables
    assert ElementTree.fromstring(files["svg"].read_text(encoding="utf-8")).tag.endswith("svg")


def test_each_target_is_about_clients_and_workloads_that_exist() -> None:
    for target in targets():
        assert target.own in CLIENTS
        assert target.peer in CLIENTS or target.peer == MEMORY
        for pattern in target.workloads.split(","):
            assert pattern == "*" or "*" in pattern or pattern.removeprefix("!") in WORKLOADS
        assert any(map(target.holds_for, WORKLOADS))


def test_the_quick_workloads_exist() -> None:
    assert set(QUICK) <= set(WORKLOADS)


def test_the_corpus_is_what_it_says_and_the_same_each_time() -> None:
    assert corpus() == corpus()
    assert all(900 < len(text) < 1300 for text in corpus())
    assert len({*corpus()}) == len(corpus())
    assert len(deflated_corpus()) < sum(map(len, corpus())) / 2


def test_the_page_has_the_marks_that_the_tables_stand_between() -> None:
    page = docs.PAGE.read_text(encoding="utf-8")
    assert page.index(docs.BEGIN) < page.index(docs.END)
