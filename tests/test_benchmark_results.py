"""What the benchmarks make of their readings, and that what they compare exists."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import docs
from benchmarks.__main__ import main
from benchmarks.chart import svg
from benchmarks.clients import CLIENTS
from benchmarks.meter import Reading
from benchmarks.report import markdown, screen
from benchmarks.results import Results, Spread, cpu, load, memory, wall
from benchmarks.targets import MEMORY, check, targets
from benchmarks.workloads import QUICK, WORKLOADS, corpus, deflated_corpus


def reading(cost: float, *, server_cpu: float = 0.1, memory: float | None = None) -> Reading:
    """One of ten messages in one second."""
    return Reading(10, cost * 10, 1.0, server_cpu, memory)


@pytest.fixture
def results() -> Results:
    """Three rounds, in which the machine becomes slower and slower."""
    results = Results({"processor": "a quick one"}, {"Python": "3"})
    for number, slow in enumerate((1, 2, 10)):
        results.add("rtt-64", "ours-trio", number, reading(0.001 * slow))
        results.add("rtt-64", "websockets-trio", number, reading(0.003 * slow))
    return results


def test_a_ratio_is_formed_within_its_round(results: Results) -> None:
    ratio = results.ratio(cpu, "rtt-64", "websockets-trio", "ours-trio")
    assert ratio is not None
    assert astuple(ratio) == pytest.approx((3, 3, 3))


def test_a_round_that_one_of_the_two_misses_does_not_count(results: Results) -> None:
    results.add("rtt-64", "ours-trio", 3, reading(1.0))
    ratio = results.ratio(cpu, "rtt-64", "websockets-trio", "ours-trio")
    assert ratio is not None
    assert ratio.high == pytest.approx(3)


def test_the_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5, 1, 2, 3, 4]) == Spread(3, 2, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_what_was_not_measured_has_no_ratio(results: Results) -> None:
    assert results.ratio(cpu, "rtt-64", "aiohttp-asyncio", "ours-trio") is None
    assert results.cost(memory, "rtt-64", "ours-trio") is None


def test_idle_connections_have_no_rate() -> None:
    results = Results({}, {})
    for client in ("ours-trio", "websockets-trio"):
        results.add("idle-1000", client, 0, reading(0.001))
    assert results.ratio(wall, "idle-1000", "websockets-trio", "ours-trio") is None


def test_a_server_that_is_busier_than_its_client_is_named() -> None:
    results = Results({}, {})
    results.add("recv-64", "ours-trio", 0, reading(0.05, server_cpu=0.95))
    results.add("recv-1k", "ours-trio", 0, reading(0.099, server_cpu=0.95))
    assert results.held_up() == ["ours-trio in recv-64"]


def test_several_files_are_rounds_of_one_result(results: Results, tmp_path: Path) -> None:
    results.leave_out("rtt-64", "picows-asyncio", "not installed")
    results.save(tmp_path / "one.json")
    again = load([tmp_path / "one.json"])
    assert again == results
    twice = load([tmp_path / "one.json", tmp_path / "one.json"])
    assert twice.rounds == 6
    results.versions["Python"] = "4"
    results.save(tmp_path / "other.json")
    with pytest.raises(ValueError, match="other versions"):
        load([tmp_path / "one.json", tmp_path / "other.json"])


def test_a_target_is_met_or_missed(results: Results) -> None:
    results.add("idle-1000", "ours-trio", 0, reading(0.001, memory=26 * 1024))
    results.leave_out("rtt-64", "ours-asyncio", "it broke")
    outcomes = dict.fromkeys(met for met, _ in check(results))
    lines = [line for _, line in check(results)]
    assert outcomes.keys() == {True, False}
    assert any("websockets-trio" in line and line.endswith("measured 3.00 (3.00 to 3.00)") for line in lines)
    assert any(line.startswith("MISSED  idle-1000") and "at most 25.0" in line for line in lines)
    assert any("ours-asyncio" in line and "not measured: it broke" in line for line in lines)


def test_what_is_asked_of_the_frames_in_c_is_not_asked_of_those_in_python(results: Results) -> None:
    results.add("rtt-64", "ours-trio-pure", 0, reading(0.001))
    assert any(" ours-trio " in line for _, line in check(results))
    results.machine["frames"] = "pure"
    lines = [line for _, line in check(results)]
    assert lines
    assert all(" ours-trio-pure " in line for line in lines)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """What the command ends with."""
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    return main()


def test_a_check_that_compares_nothing_has_not_passed(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = str(tmp_path / "kept.json")
    results.save(Path(kept))
    assert run(monkeypatch, "--load", kept, "--check") == 0
    assert "0 of 1 missed" in capsys.readouterr().out
    results.readings["rtt-64"].pop("websockets-trio")
    results.save(Path(kept))
    assert run(monkeypatch, "--load", kept, "--check") == 1
    assert "nothing was measured" in capsys.readouterr().out
    assert run(monkeypatch, "--load", kept) == 0


def test_what_the_command_cannot_do_it_says(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.json"
    results.save(kept)
    with pytest.raises(SystemExit, match="takes a whole run: there is nothing of connect, "):
        run(monkeypatch, "--load", str(kept), "--docs")
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="takes what --json wrote"):
        run(monkeypatch, "--load", str(kept))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--rounds", "0")
    assert "invalid number above 0" in capsys.readouterr().err


def test_tables_and_chart_show_the_peers(results: Results) -> None:
    assert "| round trip 64 B | 2000 | 3.00 (3.00 to 3.00) |" in markdown(results)
    assert any("websockets-trio" in line for line in screen(results, "rtt-64"))
    titles = [element.text or "" for element in ElementTree.fromstring(svg(results)).iter() if "title" in element.tag]
    assert "websockets: 3.00 (3.00 to 3.00)" in titles


def test_the_page_takes_tables_and_chart_between_its_marks(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(docs.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(docs, "CHART", page.with_suffix(".svg"))
    docs.write(results)
    once = page.read_text(encoding="utf-8")
    assert markdown(results) in once
    assert once.startswith("# Performance")
    docs.write(results)
    assert page.read_text(encoding="utf-8") == once
    assert (tmp_path / "performance.svg").exists()
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="marks"):
        docs.write(results)


def test_each_target_is_about_clients_and_workloads_that_exist() -> None:
    for target in targets():
        assert target.own in CLIENTS
        assert target.peer in CLIENTS or target.peer == MEMORY
        for pattern in target.workloads.split(","):
            assert "*" in pattern or pattern.removeprefix("!") in WORKLOADS
        assert any(map(target.holds_for, WORKLOADS))


def test_the_quick_workloads_exist() -> None:
    assert set(QUICK) <= set(WORKLOADS)


def test_the_corpus_is_what_it_says_and_the_same_each_time() -> None:
    assert corpus() == corpus()
    assert all(900 < len(text) < 1300 for text in corpus())
    assert len({*corpus()}) == len(corpus())
    assert len(deflated_corpus()) < sum(map(len, corpus())) / 2
