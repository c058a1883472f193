"""Who may ask: tokens, other hosts and pages; how many at once."""

import threading
from typing import Any

import pytest
import serving
from tiny_model import tiny_model

pytest.importorskip("fastapi")
TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"]
)
def test_a_wrong_token(header):
    headers = {} if header is None else {"authorization": header.encode()}
    with serving.client(tiny_model(), TOKEN) as client:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            response = client.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert TOKEN not in response.text
        assert client.post("/v1/answer", content=b"{", headers=headers).status_code == 401


def test_the_token_and_the_open_pages():
    with serving.client(tiny_model(), TOKEN) as client:
        good = {"authorization": f"Bearer {TOKEN}", "host": "example.org", "origin": "https://example.org"}
        assert (
            client.post("/v1/answer", json={"segments": "x", "max_new_tokens": 3}, headers=good).status_code
            == 200
        )
        for path in ("/health", "/", "/openapi.json"):
            assert client.get(path, headers={"host": "example.org"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "example.org"}, 403),
        ({"host": "localhost.example.org"}, 403),
        ({"host": "[:1"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_without_a_token_only_pages_of_this_machine_may_ask(headers, status):
    with serving.client(tiny_model()) as client:
        response = client.get("/v1/models", headers=headers)
        assert response.status_code == status
        if status == 403:
            assert response.json()["error"]["code"] == "forbidden"


def test_more_than_the_places_get_429_and_places_come_back(monkeypatch):
    model = tiny_model()
    entered, gate = threading.Event(), threading.Event()
    classify = model.classify

    def wait(*given: Any) -> Any:
        entered.set()
        assert gate.wait(60)
        return classify(*given)

    monkeypatch.setattr(model, "classify", wait)
    body = {"segments": "x", "labels": ["a", "b"]}
    statuses: list[int] = []
    with serving.client(model, max_requests=1) as client:
        ask = threading.Thread(
            target=lambda: statuses.append(client.post("/v1/answer", json=body).status_code)
        )
        ask.start()
        assert entered.wait(60)
        refused = client.post("/v1/answer", json=body)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert "kebyt5_xm_requests_in_server 1" in client.get("/metrics").text
        assert client.get("/health").status_code == 200
        gate.set()
        ask.join(60)
        assert statuses == [200]
        assert client.post("/v1/answer", json=body).status_code == 200
        page = client.get("/metrics").text
    assert "kebyt5_xm_requests_in_server 0" in page
    assert 'kebyt5_xm_requests_total{route="/v1/answer",status="429"} 1' in page
    assert 'kebyt5_xm_requests_total{route="/v1/answer",status="200"} 2' in page
    assert "kebyt5_xm_request_seconds_count 2" in page
