"""`aevb explore`: a page that is served, or written."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from command_runs import strict


def test_a_page_is_written(run: Path, aevb: Any) -> None:
    words = ["explore", run, "--export", "page", "--limit", 12, "--num_samples", 30]
    result = aevb(*words, "--posteriors", 0, "--json")
    assert result.code == 0, result.err
    found = strict(result.out)
    assert (found["datapoints"], found["posteriors"]) == (12, 0)
    text = Path("page/data.js").read_text()
    assert '"classes": ["' in text  # the digits have labels of their own
    assert Path(found["page"]).is_file()


def test_labels_are_read_from_a_file(run: Path, aevb: Any) -> None:
    Path("labels.txt").write_text("cat\ndog\n" * 6)
    words = ["explore", run, "--export", "page", "--limit", 12, "--posteriors", 0]
    assert aevb(*words, "--labels", "labels.txt").code == 0
    assert '"classes": ["cat", "dog"]' in Path("page/data.js").read_text()
    Path("labels.txt").write_text("cat\n")
    failed = aevb(*words, "--labels", "labels.txt")
    assert failed.code == 2
    assert "a label for each row of the split" in failed.err


def test_a_missing_server_is_named_with_the_extra(
    run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["aevb.cli.explore"], "find_spec", lambda name: None)
    failed = aevb("explore", run)
    assert failed.code == 1
    assert "pip install 'aevb[explore]'" in failed.err
    assert "--export" in failed.err


@pytest.mark.slow
def test_it_is_served_to_this_machine_until_ctrl_c(run: Path) -> None:
    pytest.importorskip("uvicorn")
    words = [sys.executable, "-m", "aevb", "explore", str(run), "--limit", "12", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/[\w-]{32}/", line)
        assert found, line
        with urllib.request.urlopen(found[0] + "api/overview", timeout=60) as answer:
            assert json.load(answer)["count"] == 12
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(found[1] + "/", timeout=30)
        elsewhere = urllib.request.Request(found[0], headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(elsewhere, timeout=30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert strict(out)["address"] == found[0]
    assert "Traceback" not in err
