"""Folders read by Spark in a process of its own: types and rows, as JSON to a file.

python read_with_spark.py OUT FOLDER ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import Row, SparkSession

LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def plain(value: Any) -> Any:
    """As JSON has it; bytes in hexadecimal."""
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, Row):
        return {name: plain(part) for name, part in value.asDict().items()}
    return [*map(plain, value)] if isinstance(value, list) else value


def main(out: Path, page: Path) -> None:
    """In the folder of `features` and `answers`. Runs what the page shows of Spark, too."""
    builder = SparkSession.builder.master("local[1]")
    for name, value in LOCAL.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    found = {}
    for folder in sorted(path for path in Path().iterdir() if path.name != "bundle"):
        if folder.is_dir():
            frame = spark.read.option("mergeSchema", "true").parquet(str(folder))
            types = {field.name: field.dataType.simpleString() for field in frame.schema}
            found[folder.name] = {"types": types, "rows": [*map(plain, frame.collect())]}
    names: dict[str, Any] = {}
    for example in page.read_text(encoding="utf-8").split("```python\n")[1:]:
        if "spark" in example:
            exec(compile(example.partition("```")[0], page.name, "exec"), names)
    found["shown"] = {"rows": [*map(plain, names["features"].collect())]}
    out.write_text(json.dumps(found), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
