"""The guards of the test suite do guard."""

import contextlib
import socket
import urllib.request

import pytest
from huggingface_hub import constants


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.com", 443)])
def test_other_machines_are_out_of_reach(address):
    with pytest.raises(pytest.fail.Exception, match="tried to reach"):
        socket.create_connection(address, timeout=1)
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception, match="tried to reach"):
        connection.connect_ex(address)


def test_a_library_that_copes_with_errors_fails_too():
    with pytest.raises(pytest.fail.Exception, match=r"example\.com"), contextlib.suppress(Exception):
        urllib.request.urlopen("http://example.com/", timeout=1)


def test_this_machine_is_within_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=1).close()


def test_the_libraries_are_offline_and_do_not_touch_the_users_cache():
    assert constants.HF_HUB_OFFLINE
    assert "speechzoo-tests-" in constants.HF_HOME
