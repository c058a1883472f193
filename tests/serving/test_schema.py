"""Schemathesis asks a server all that its own OpenAPI schema allows, and much that it forbids."""

import subprocess
import sys
from pathlib import Path

import pytest
import serving
from tiny_model import tiny_model

pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

EXAMPLES = 30
"""Random requests of each kind to each path, after some hundred with values at the bounds of the schema."""
TOKEN = "0123456789abcdef"
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = ["4xx"]
"""
"""A list that is too long is too large a body: 413."""


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, TOKEN])
def test_no_request_fails_the_server_and_every_response_is_of_the_schema(
    tmp_path: Path, token: str | None
) -> None:
    """The seed is fixed. That good requests are accepted is not asked: no schema says what is an image."""
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    given = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    with serving.listening(tiny_model(), token, max_new_tokens=20, max_answers=3, max_labels=5) as (
        host,
        port,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
                *(f"http://{host}:{port}/openapi.json", "--generation-deterministic", "--no-color", *given),
                *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--warnings", "off"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr[-2000:]}"
    paths = serving.make(tiny_model()).openapi()["paths"]
    number = sum(map(len, paths.values()))
    assert f"{number} selected / {number} total" in done.stdout
