"""Texts in a bucket become answers in it: encoded on Ray, two tasks answered, then counted."""

import subprocess
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FileSystem

TEXTS = ["What a lovely film.", "The plot makes no sense.", "Shares fell 8 percent."]


def bitheads(*arguments: str) -> None:
    """Both commands go on where they were stopped, if they are given again."""
    subprocess.run([sys.executable, "-m", "bitheads", *arguments], check=True)


def main(bundle: str = "bundles/all-MiniLM-L6-v2", place: str | None = None) -> None:
    """place: of input and output, such as s3://bucket/folder, with credentials as AWS has them."""
    with tempfile.TemporaryDirectory() as folder:
        place = folder if place is None else place.rstrip("/")
        files, path = FileSystem.from_uri(place)
        reviews = pa.table({"id": [f"r{i}" for i in range(300)], "text": TEXTS * 100})
        ds.write_dataset(
            reviews, f"{path}/reviews", filesystem=files, format="parquet", max_rows_per_file=100,
            max_rows_per_group=100,
        )  # fmt: skip
        features = ["--bundle", bundle, "--store", f"{place}/features"]
        bitheads("encode", *features, "--input", f"{place}/reviews", "--runner", "ray")
        tasks = ["--tasks", "sentiment", "topic", "--runner", "ray"]
        bitheads("backfill", *features, "--output", f"{place}/answers", *tasks)
        answers = ds.dataset(f"{path}/answers", filesystem=files).to_table()
        query = "SELECT task, label, count(*) FROM answers GROUP BY ALL ORDER BY ALL"
        for task, label, count in duckdb.sql(query).fetchall():
            print(f"{task}: {label} {count}")
        assert len(answers) == 2 * len(reviews)


if __name__ == "__main__":
    main(*sys.argv[1:])
