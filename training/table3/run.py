"""Runs a grid's cells that are not done, in the plan's order; done cells are read, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitheads.export.source.encoder import load_encoder
from bitheads.training.table3.cells.new_heads import (
    EncoderFeatures,
    needed_layers,
    train_cell,
    tuned_recipe,
)
from bitheads.training.table3.cells.own_heads import as_is_cell, student_cell
from bitheads.training.table3.cells.word_sense_probe import probe
from bitheads.training.table3.clock import Clock
from bitheads.training.table3.config import FEATURE_METHODS
from bitheads.training.table3.encoders import (
    EncoderPlan,
    own_encoder,
    remove_encoder,
    shared_encoder,
    train_encoder,
)
from bitheads.training.table3.features.feature_cache import FeatureCache
from bitheads.training.table3.features.recipe import Recipe
from bitheads.training.table3.plan import ALL, GridPlan
from bitheads.training.table3.results import Cell
from bitheads.training.table3.work import GridTask

SCRATCH = "scratch"
"""Folder of features that are kept for further cells, in the output."""


class GridRun:
    """One run of a grid.

    Args:
        force: whether encoders of another configuration are trained again.
    """

    def __init__(self, plan: GridPlan, force: bool = False) -> None:
        self._plan, self._work = plan, plan.work
        self._force = force
        self._counted: set[str] = set()  # encoders that the clock has had
        self._cache = FeatureCache(plan.work.output / SCRATCH, plan.work.config.scratch_gb * 1e9)
        self._clock = Clock(plan.count(), plan.work.say)

    def run(self) -> dict[str, float]:
        """Runs what is not done; kind of work -> mean seconds of what was done now."""
        for method in self._plan.methods():
            if method in FEATURE_METHODS:
                self._feature_method(method)
            elif method == "all_tasks":
                self._all_tasks()
            else:
                for task in self._work.tasks.values():
                    self._own_cells(task)
        self._word_senses()
        return self._clock.seconds_each()

    def _feature_method(self, method: str) -> None:
        plan, config = self._plan, self._work.config
        first, after = plan.phases(method)
        tasks = plan.tasks(method)
        reads = [*first, *(tuned_recipe(count) for count in plan.candidates())]
        layers = needed_layers(reads, self._work.loaded.num_layers)
        for task in tasks:
            self._task_cells(method, task, first, layers)
        if any(recipe.is_tuned for recipe in config.recipes(method)):
            chosen = plan.choose_layers(method)
            tuned = [recipe.with_layers(chosen) for recipe in after]
            for task in tasks:
                self._task_cells(method, task, tuned, layers)
        if not config.keep_encoders:
            still_read = FEATURE_METHODS[FEATURE_METHODS.index(method) + 1 :]
            kept = {ALL} | plan.encoders(still_read)
            for task in tasks:
                if (encoder := plan.encoder(method, task)) and encoder.name not in kept:
                    remove_encoder(self._work, encoder)

    def _task_cells(
        self,
        method: str,
        task: GridTask,
        recipes: list[Recipe],
        layers: tuple[int, ...],
    ) -> None:
        """Runs a task's cells that are not done; trains the encoder if one of them is not."""
        work, encoder = self._work, self._plan.encoder(method, task)
        wanted = [(recipe, seed) for recipe in recipes for seed in work.config.seeds]
        missing = [
            (recipe, seed)
            for recipe, seed in wanted
            if self._plan.read_head(method, task, recipe, seed) is None
        ]
        self._clock.skip("heads", len(wanted) - len(missing))
        if not missing:
            if encoder is not None:
                self._skip(encoder)
            return

        def prepare() -> Path | None:
            return None if encoder is None else self._train(encoder)

        features = EncoderFeatures(work, self._cache, encoder, prepare, layers)
        for recipe, seed in missing:
            cell, identity = self._plan.head_cell(method, task, recipe, seed)
            with self._clock.timing("heads") as seconds:
                result = train_cell(work, features.parts(task, recipe), task, recipe, seed)
                self._write(cell, identity, {**result, "seconds": seconds()})
            self._say_result(cell, result)

    def _train(self, encoder: EncoderPlan) -> Path:
        if encoder.name in self._counted:
            return train_encoder(self._work, encoder, self._force)
        self._counted.add(encoder.name)
        with self._clock.timing("encoders"):
            return train_encoder(self._work, encoder, self._force)

    def _skip(self, encoder: EncoderPlan) -> None:
        if encoder.name not in self._counted:
            self._counted.add(encoder.name)
            self._clock.skip("encoders")

    def _all_tasks(self) -> None:
        encoder = shared_encoder(self._work, ALL)
        missing = [
            task
            for task in self._work.tasks.values()
            if self._plan.read_own("all_tasks", task) is None
        ]
        if not missing:
            self._skip(encoder)
            return
        folder = self._train(encoder)
        for task in missing:
            cell, identity = self._plan.own_cell("all_tasks", task)
            result = as_is_cell(self._work, folder, task)
            self._write(cell, identity, result)
            self._say_result(cell, result)

    def _own_cells(self, task: GridTask) -> None:
        """The fine-tuned encoder of a task, and the student distilled from it."""
        work, encoder = self._work, own_encoder(self._work, task.name)

        def train() -> Path:
            return train_encoder(work, encoder, self._force)

        if self._plan.read_own("single_task", task) is not None:
            self._clock.skip("fine-tuned encoders")
        else:
            cell, identity = self._plan.own_cell("single_task", task)
            with self._clock.timing("fine-tuned encoders") as seconds:
                result = as_is_cell(work, train(), task)
                self._write(cell, identity, {**result, "seconds": seconds()})
            self._say_result(cell, result)
        if work.config.student:
            if self._plan.read_own("student", task) is not None:
                self._clock.skip("students")
            else:
                cell, identity = self._plan.own_cell("student", task)
                with self._clock.timing("students") as seconds:
                    result = student_cell(work, encoder, train, task)
                    self._write(cell, identity, {**result, "seconds": seconds()})
                self._say_result(cell, result)
        if not work.config.keep_encoders:
            remove_encoder(work, encoder)

    def _word_senses(self) -> None:
        """The probe's cells."""
        work = self._work
        for name, (cell, identity) in self._plan.sense_cells().items():
            if self._plan.results.read(cell, identity) is not None:
                continue
            work.say(f"word senses: {name}")
            encoder = work.loaded
            if name == "all_tasks":
                encoder = load_encoder(str(train_encoder(work, shared_encoder(work, ALL))))
            result = probe(work, encoder)
            self._write(cell, identity, result)
            shown = ", ".join(f"{form} {100 * f1:.1f}" for form, f1 in result["test"].items())
            work.say(f"word senses, {name}, layer {result['layer']}: F1 {shown}")

    def _write(self, cell: Cell, identity: dict[str, Any], result: dict[str, Any]) -> None:
        self._plan.results.write(cell, identity, result, self._work.made_with())

    def _say_result(self, cell: Cell, result: dict[str, Any]) -> None:
        accuracies = [f"{part} {100 * result[part]['accuracy']:.2f}" for part in ("dev", "test")]
        self._clock.say(f"{cell}: {', '.join(accuracies)}")
