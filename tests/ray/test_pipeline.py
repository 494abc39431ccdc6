"""The example of a pipeline, with its input and output in a bucket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import s3fs
from s3_server import environment_of, s3_server
from test_examples import EXAMPLES, PRINTED


def test_a_bucket_is_read_and_written(minilm_bundle: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with s3_server() as url:
        files = s3fs.S3FileSystem(endpoint_url=url, key="a", secret="b", use_listings_cache=False)
        files.mkdir("texts")
        done = subprocess.run(
            [sys.executable, EXAMPLES / "pipeline.py", minilm_bundle, "s3://texts/run"],
            cwd=tmp_path,
            env={**kept, **environment_of(url), "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        for pattern in PRINTED["pipeline"]:
            assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout
        found = {path.split("/")[2] for path in files.find("texts")}
        # pyarrow puts an object for a folder.
        assert found - {""} == {"answers", "features", "reviews"}
    assert list(tmp_path.iterdir()) == []
