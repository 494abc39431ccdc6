"""The paper's Table 3 on one encoder, and its encoder for all tasks as an engine serves it.

The grid computes features with torch. Here the same heads, folded, answer the same test rows
through a bundle: exported graph, session, packing kernels and head kernels.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.accuracy import precisions
from bitheads import Engine
from bitheads.engine.commands.command_line import say
from bitheads.engine.features.codes import code_affine
from bitheads.engine.heads.head_file import write_head
from bitheads.export.config import BuildConfig
from bitheads.export.fold import fold
from bitheads.export.make_bundle import make_bundle
from bitheads.training.config_file import read_config
from bitheads.training.device import choose_device
from bitheads.training.heads.fit import evaluate
from bitheads.training.heads.folded_task_head import FoldedTaskHead
from bitheads.training.multitask.checkpoint import RECORD
from bitheads.training.table3.cells.new_heads import EncoderFeatures, best_head
from bitheads.training.table3.config import Table3Config, as_json
from bitheads.training.table3.encoders import encoder_folder, shared_encoder, train_encoder
from bitheads.training.table3.features.feature_cache import FeatureCache
from bitheads.training.table3.features.recipe import Codes, Recipe
from bitheads.training.table3.make_table import make_table
from bitheads.training.table3.plan import ALL, GridPlan
from bitheads.training.table3.run import SCRATCH
from bitheads.training.table3.work import GridTask, Work, open_work

METHOD = "all_tasks_heads"


def run(options: argparse.Namespace) -> None:
    """Makes the table, going on with what is there, then serves the sign heads for all tasks."""
    config = read_config(options.config, Table3Config)
    where = options.encoder, options.data, options.output, options.device
    table = make_table(config, *where, report_only=options.report_only, say=say)
    result = {
        "encoder": Path(options.encoder).name,
        "config": as_json(config),
        "table": table.to_json(),
        "served": served(config, *where),
    }
    name = f"table3_{options.name}"
    record.write(name, "python -m benchmarks table3 --data DIR --output DIR", result)


def served(
    config: Table3Config, encoder: str, data: Path, output: Path, device: str
) -> dict[str, Any] | None:
    """Test accuracy of the grid's sign heads on the encoder for all tasks, evaluated and served.

    Returns None without such cells or that encoder.
    """
    grid = GridPlan(open_work(config, encoder, data, output, choose_device(device), say))
    signs = [recipe for recipe in grid.all_recipes(METHOD) if recipe.codes is Codes.SIGN]
    plan = shared_encoder(grid.work, ALL)
    if not signs or not (encoder_folder(grid.work, plan) / RECORD).is_file():
        return None
    folder = train_encoder(grid.work, plan)  # which is done, and checks that it is this one
    with tempfile.TemporaryDirectory() as scratch:
        bundle, heads = Path(scratch) / "bundle", Path(scratch) / "heads"
        heads.mkdir()
        build = BuildConfig(
            str(folder),
            precision=precisions.build_precision(),
            layers=",".join(map(str, signs[-1].layers(grid.work.loaded.num_layers))),
            max_length=config.max_length,
            heads=heads,
            output=bundle,
        )
        make_bundle(build, say)
        engines = precisions.engines(bundle)
        cache = FeatureCache(output / SCRATCH, config.scratch_gb * 1e9)
        layers = signs[-1].layers(grid.work.loaded.num_layers)
        features = EncoderFeatures(grid.work, cache, plan, lambda: folder, layers)
        tasks = {}
        for task in grid.work.tasks.values():
            tasks[task.name] = _compare(grid.work, features, task, signs[-1], engines, heads)
            say(f"served {task.name}: {tasks[task.name]}")
    return {"recipe": str(signs[-1]), "tasks": tasks}


def _compare(
    work: Work,
    encoder: EncoderFeatures,
    task: GridTask,
    recipe: Recipe,
    engines: Sequence[Engine],
    heads: Path,
) -> dict[str, Any]:
    """One task's accuracy in percent as the grid has it, and of each engine; equal labels."""
    features = encoder.parts(task, recipe)
    head = best_head(work, features, task, recipe, work.config.seeds[0]).head
    assert isinstance(head, FoldedTaskHead), "it reads texts as the encoder does"
    expected = evaluate(head, features["test"]).argmax(axis=1)
    scale, offset = code_affine(engines[0].spec, engines[0].calibration)
    path = heads / f"{task.name}.safetensors"
    folded = fold(
        head.trained(),
        scale,
        offset,
        task=task.name,
        labels=task.task.classes,
        form=task.task.form,
        spec=engines[0].spec,
        metrics={},
        training={},
    )
    write_head(folded, path)
    truth = task.test.label_ids
    found: dict[str, Any] = {"rows": len(truth), "evaluated": _percent(expected == truth)}
    for engine in engines:
        engine.add_head(path)
        got = engine.predict(task.test.texts, [task.name])[task.name].logits.argmax(axis=1)
        engine.remove_head(task.name)
        found[engine.backend] = {
            "accuracy": _percent(got == truth),
            "same_label": _percent(got == expected),
        }
    return found


def _percent(right: Any) -> float:
    return round(100 * float(np.mean(right)), 4)
