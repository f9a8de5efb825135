"""The benchmarks run. How fast anything is does not matter here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.workloads import WORKLOADS

from .processes import PROJECT

OURS = ("ours-trio", "ours-asyncio")
TINY = ("rtt-64", "recv-json", "tls-rtt-64")


@pytest.mark.skipif(sys.platform != "linux", reason="the server of the benchmarks needs epoll")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the server of the benchmarks needs a C compiler")
def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    files = {form: tmp_path / f"results.{form}" for form in ("json", "markdown", "svg")}
    options = [option for form, file in files.items() for option in (f"--{form}", str(file))]
    command = [sys.executable, "-m", "benchmarks", "--workloads", *TINY, "--clients", *OURS, *options]
    completed = subprocess.run(
        [*command, "--rounds", "1", "--seconds", "0.001"], cwd=PROJECT, capture_output=True, encoding="utf-8"
    )
    assert completed.returncode == 0, completed.stderr
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    without_tls = {
        "tls-rtt-64": dict.fromkeys(OURS, "the server was built without TLS: the headers of OpenSSL are missing")
    }
    assert document["left out"] in ({}, without_tls)
    expected = {(workload, client, 0) for workload in TINY if workload not in document["left out"] for client in OURS}
    assert {(sample["workload"], sample["client"], sample["round"]) for sample in document["samples"]} == expected
    for sample in document["samples"]:
        assert sample["count"] >= WORKLOADS[sample["workload"]].batch
        assert sample["cpu"] > 0
        assert 0 < sample["server_cpu"] <= sample["wall"]
    assert WORKLOADS["recv-json"].title in completed.stdout
    tables = files["markdown"].read_text(encoding="utf-8")
    assert "rounds (1)" in tables
    assert ElementTree.fromstring(files["svg"].read_text(encoding="utf-8")).tag.endswith("svg")
