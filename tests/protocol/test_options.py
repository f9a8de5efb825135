"""What a caller can ask of a connection: every limit, and every value that is none."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf, nan

import pytest

from zapros_websocket._protocol.options import Options, PerMessageDeflateExtension

SECONDS = ["ping_interval", "ping_timeout", "open_timeout", "close_timeout"]


def options(name: str, value: object) -> Options:
    return Options(**{name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def extension(name: str, value: object) -> PerMessageDeflateExtension:
    return PerMessageDeflateExtension(**{name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_defaults() -> None:
    assert Options() == Options(
        max_message_size=16 * 1024 * 1024, ping_interval=20.0, ping_timeout=20.0, open_timeout=10.0, close_timeout=10.0
    )
    assert PerMessageDeflateExtension() == PerMessageDeflateExtension(
        client_no_context_takeover=False,
        server_no_context_takeover=False,
        client_max_window_bits=15,
        server_max_window_bits=15,
    )


@pytest.mark.parametrize("value", [Options(), PerMessageDeflateExtension()], ids=["Options", "Extension"])
def test_they_are_frozen_and_slotted(value: Options | PerMessageDeflateExtension) -> None:
    assert not hasattr(value, "__dict__")
    assert hash(value) == hash(value)
    name = "close_timeout" if isinstance(value, Options) else "client_max_window_bits"
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, 9)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.5, 3600, inf])
def test_seconds_are_taken(name: str, value: float) -> None:
    assert getattr(options(name, value), name) == value


@pytest.mark.parametrize("name", ["ping_timeout", "open_timeout", "close_timeout"])
def test_no_time_at_all_is_taken(name: str) -> None:
    assert getattr(options(name, 0), name) == 0


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "open_timeout"])
def test_none_switches_off(name: str) -> None:
    assert getattr(options(name, None), name) is None


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [-1, -0.001, -inf, nan])
def test_a_negative_timeout_raises_value_error(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must not be under 0"):
        options(name, value)


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_ping_interval_of_0_raises_value_error(value: float) -> None:
    with pytest.raises(ValueError, match="ping_interval must be more than 0"):
        Options(ping_interval=value)


@pytest.mark.parametrize("name", [*SECONDS, "max_message_size"])
@pytest.mark.parametrize("value", ["10", b"10", [10], True, 1j, object], ids=repr)
def test_what_is_no_number_raises_type_error(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        options(name, value)


@pytest.mark.parametrize("name", ["close_timeout", "max_message_size"])
def test_what_cannot_be_switched_off_is_not_none(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        options(name, None)


@pytest.mark.parametrize("value", [1, 125, 1 << 40])
def test_a_size_in_bytes_is_taken(value: int) -> None:
    assert Options(max_message_size=value).max_message_size == value


@pytest.mark.parametrize("value", [0, -1])
def test_a_size_under_1_raises_value_error(value: int) -> None:
    with pytest.raises(ValueError, match="max_message_size must not be under 1"):
        Options(max_message_size=value)


@pytest.mark.parametrize("value", [1.0, inf])
def test_a_size_is_a_whole_number(value: float) -> None:
    with pytest.raises(TypeError, match="max_message_size must be a number"):
        options("max_message_size", value)


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("bits", range(8, 16))
def test_a_window_of_8_to_15_bits_is_taken(side: str, bits: int) -> None:
    name = f"{side}_max_window_bits"
    assert getattr(extension(name, bits), name) == bits


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("flag", [0, 1, None, "yes"], ids=repr)
def test_a_flag_that_is_no_bool_raises_type_error(side: str, flag: object) -> None:
    with pytest.raises(TypeError, match=f"{side}_no_context_takeover is a bool"):
        extension(f"{side}_no_context_takeover", flag)


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("bits", [7, 16, 0, -15, True, 9.0, "15", None], ids=repr)
def test_any_other_window_raises_value_error(side: str, bits: object) -> None:
    with pytest.raises(ValueError, match=f"{side}_max_window_bits must be a whole number from 8 to 15"):
        extension(f"{side}_max_window_bits", bits)


@pytest.mark.parametrize(("name", "value"), [("level", 10), ("level", -2), ("memory_level", 0), ("memory_level", 10)])
def test_a_level_out_of_its_range_raises_value_error(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number from"):
        extension(name, value)


@pytest.mark.parametrize("value", [-1, 1.5, True, "1"])
def test_a_threshold_that_is_no_number_of_bytes_raises_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="threshold must be a whole number from 0 on"):
        extension("threshold", value)
