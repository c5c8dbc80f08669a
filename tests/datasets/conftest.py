import socket
from pathlib import Path

import numpy as np
import pytest

# Real recordings live beside the project, which ships none of them.
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_root():
    if not (SHARED / "NMNIST" / "Test").is_dir():
        pytest.skip("no real N-MNIST recordings in ../shared/data beside the project")
    return SHARED


@pytest.fixture(scope="session")
def speech_root():
    if not (SHARED / "speech" / "SHD" / "shd_test.h5").is_file():
        pytest.skip("no spoken digits in ../shared/data beside the project")
    return SHARED / "speech"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    # The constructor, not the class: what is imported meanwhile may inherit from it.
    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory):
    from suspike_datasets import digits_as_nmnist

    return digits_as_nmnist(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def make_events():
    def make(t, x=0, y=0, p=0, dtype=(("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8"))):
        events = np.zeros(len(t), list(dtype))
        for name, value in zip("txyp", (t, x, y, p), strict=True):
            events[name] = value
        return events

    return make
