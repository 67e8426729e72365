"""The server: who is answered, what, and what nobody is told."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aevb.explore.explorer import Explorer
from aevb.explore.jobs import Worker
from aevb.explore.server import PAGE, application

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

TOKEN = "a-token"
HERE = {"host": "127.0.0.1:8000"}


@pytest.fixture(name="client")
def fixture_client(explorer: Explorer) -> Iterator[TestClient]:
    worker = Worker()
    app = application(explorer, worker, TOKEN)
    with TestClient(app, headers=HERE, raise_server_exceptions=False) as client:
        client.base_url = client.base_url.join(f"/{TOKEN}/")
        yield client
    worker.close(wait=False)


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while job["state"] == "running" and time.monotonic() < end:
        time.sleep(0.02)
        job = client.get(f"api/jobs/{job['name']}").json()
    return job


FOREIGN = ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "[::1]", "10.0.0.7"]


@pytest.mark.parametrize("host", FOREIGN)
def test_other_hosts_are_refused_even_with_the_token(client: TestClient, host: str) -> None:
    for path in ("", "api/overview", "api/sprite.png", "app.js"):
        assert client.get(path, headers={"host": host}).status_code == 400
    assert client.get("", headers={"host": "localhost:9"}).status_code == 200


WITHOUT = ["/", "/api/overview", "/wrong/", "/a-toke/", "/a-token2/api/overview", "//a-token/"]


@pytest.mark.parametrize("path", [*WITHOUT, "/app.js", "/?token=a-token"])
def test_nothing_is_told_without_the_token(client: TestClient, path: str) -> None:
    answer = client.get(f"http://testserver{path}")
    assert answer.status_code == 403
    assert "digits" not in answer.text


def test_the_page_and_its_files_are_served_with_strict_headers(client: TestClient) -> None:
    for name, kind in PAGE.items():
        answer = client.get(name)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "http://" not in answer.text
        assert "https://" not in answer.text  # nothing comes from elsewhere
    assert client.get("").text == client.get("index.html").text
    assert client.get(f"http://testserver/{TOKEN}").url.path == f"/{TOKEN}/"
    for name in ("server.py", "..%2Fserver.py", "../server.py", "%2e%2e/server.py", "nothing.js"):
        assert client.get(name).status_code in (403, 404)


def test_every_question_has_its_answer(client: TestClient) -> None:
    seen = client.get("api/overview").json()
    assert seen["count"] == len(seen["positions"][0]) == 40
    for picture in ("sprite", "plane"):
        answer = client.get(f"api/{picture}.png")
        assert answer.content.startswith(b"\x89PNG")
    point = client.get("api/datapoint/3").json()
    assert len(point["guide"]["covariance"]) == 2
    decoded = client.post("api/decode", json={"values": point["values"], "base": 3}).json()
    assert decoded["picture"].startswith("data:image/png")
    for source in ("prior", "posteriors"):
        asked = {"columns": [0, 1], "region": [-5, 5, -5, 5], "source": source, "num": 4}
        assert client.post("api/sample", json=asked).json()["found"] == 4


def test_weighing_tells_its_progress_and_only_what_is_new(client: TestClient) -> None:
    job = finished(client, client.post("api/jobs", json={"kind": "weigh"}).json())
    assert (job["state"], job["share"], len(job["figures"]["gap"])) == ("done", 1.0, 40)
    later = client.get("api/jobs/weigh?since=30").json()
    assert later["since"] == 30
    assert later["figures"]["gap"] == job["figures"]["gap"][30:]
    assert client.post("api/jobs", json={"kind": "weigh"}).json()["state"] == "done"  # as it was


def test_a_trial_ends_with_a_verdict(client: TestClient) -> None:
    job = finished(client, client.post("api/jobs", json={"kind": "trial", "index": 5}).json())
    assert job["state"] == "done", job
    assert job["verdict"]["level"] in ("believe", "reweigh", "refuse", "unknown")
    assert [e["estimator"] for e in job["evidence"]] == ["importance sampling", "annealing"]
    assert len(job["draws"][0]) == 2


def test_a_trial_can_be_stopped(client: TestClient) -> None:
    job = client.post("api/jobs", json={"kind": "trial", "index": 6}).json()
    client.delete(f"api/jobs/{job['name']}")
    assert finished(client, job)["state"] == "cancelled"
    assert client.post("api/jobs", json={"kind": "trial", "index": 6}).json()["state"] == "running"
    client.delete(f"api/jobs/{job['name']}")


def test_questions_at_the_same_time_are_answered_like_one_by_one(client: TestClient) -> None:
    paths = [f"api/datapoint/{number % 5}" for number in range(20)]
    alone = [client.get(path).json() for path in paths]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda path: client.get(path).json(), paths))
    assert together == alone


BAD: list[tuple[str, str, Any]] = [
    ("GET", "api/datapoint/40", None),
    ("GET", "api/datapoint/99999999999999999999999", None),
    ("POST", "api/decode", {"values": "all"}),
    ("POST", "api/decode", {"values": [1, None]}),
    ("POST", "api/decode", {"values": [1, True]}),
    ("POST", "api/decode", {"values": [1e999, 0]}),
    ("POST", "api/decode", {"values": [0, 0], "base": "x"}),
    ("POST", "api/decode", {"values": [0, 0], "base": 1000}),
    ("POST", "api/decode", {}),
    ("POST", "api/decode", b"[1, 2"),
    ("POST", "api/decode", b"[" * 60_000),
    ("POST", "api/decode", b"[1, 2]"),
    ("POST", "api/decode", b"\xff\xfe"),
    ("POST", "api/decode", b" " * 100_000),
    ("POST", "api/sample", {"columns": [0, 9], "region": [0, 1, 0, 1]}),
    ("POST", "api/sample", {"columns": [0, 1], "region": [0, 1]}),
    ("POST", "api/sample", {"columns": [0, 1], "region": [0, 1, 0, 1], "num": 10**9}),
    ("POST", "api/sample", {"columns": [0, 1], "region": [0, 1, 0, 1], "source": "/etc"}),
    ("POST", "api/sample", {"columns": [0, 1], "region": [0, 1, 0, 1], "num": [3]}),
    ("POST", "api/jobs", {"kind": "train"}),
    ("POST", "api/jobs", {"kind": "trial"}),
    ("POST", "api/jobs", {"kind": "trial", "index": -1}),
    ("POST", "api/jobs", {"kind": "trial", "index": 1.5}),
    ("GET", "api/jobs/weigh?since=x", None),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD)
def test_bad_questions_are_refused_in_a_line(
    client: TestClient, method: str, path: str, body: Any
) -> None:
    if "since" in path:
        finished(client, client.post("api/jobs", json={"kind": "weigh"}).json())
    given: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {}
    if isinstance(body, dict):
        import json

        given = {"content": json.dumps(body)}  # which writes infinity, as Python reads it
    answer = client.request(method, path, **given)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_what_does_not_exist_is_not_found(client: TestClient) -> None:
    for method, path in (
        ("GET", "api/nothing"),
        ("GET", "api/jobs/none"),
        ("GET", "api/datapoint/x"),
    ):
        assert client.request(method, path).status_code == 404
    assert client.get("api/decode").status_code == 405


def test_no_traceback_leaves_the_process(
    client: TestClient, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("/home/me/secret.py")

    monkeypatch.setattr(explorer, "overview", broken)
    answer = client.get("api/overview")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
