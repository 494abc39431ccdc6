"""Runs a grid cell by cell, those that tell most first; done cells are read, not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import StatisticsError, mean
from typing import Any

from bitheads.export.encoder import load_encoder
from bitheads.training.errors import ConfigError
from bitheads.training.multitask.model import MultitaskModel
from bitheads.training.multitask.step import logits_of
from bitheads.training.multitask.task_batches import all_batches, text_tokenizer
from bitheads.training.table3.cell_metrics import cell_metrics
from bitheads.training.table3.clock import Clock
from bitheads.training.table3.config import FEATURE_METHODS, as_json
from bitheads.training.table3.encoders import (
    EncoderPlan,
    encoder_identity,
    own_encoder,
    remove_encoder,
    shared_encoder,
    train_encoder,
)
from bitheads.training.table3.feature_cache import FeatureCache
from bitheads.training.table3.heads import (
    EncoderFeatures,
    head_identity,
    needed_layers,
    train_cell,
    tuned_recipe,
)
from bitheads.training.table3.recipe import Recipe
from bitheads.training.table3.results import Cell, Results
from bitheads.training.table3.student import cut_encoder, train_student
from bitheads.training.table3.work import GridTask, Work
from bitheads.training.tasks import Examples
from bitheads.training.trained_model import load_trained

CELLS, SCRATCH = "cells", "scratch"
AS_IS = "as-is"
ALL = "all"
"""The folder of the encoder that is trained on all tasks."""


class Grid:
    """A grid's cells, and what they need of each other.

    Attributes:
        chosen_layers: method -> how many layers its means pool.
    """

    def __init__(self, work: Work, force: bool = False) -> None:
        self.work = work
        self.results = Results(work.output / CELLS, replace=force)
        self.chosen_layers: dict[str, int] = {}
        self._force = force
        self._counted: set[str] = set()  # encoders that the clock has had
        self._cache = FeatureCache(work.output / SCRATCH, work.config.scratch_gb * 1e9)
        self._clock = Clock(self._count(), work.say)

    def run(self) -> dict[str, float]:
        """Runs what is not done; kind of work -> mean seconds of what was done now."""
        config = self.work.config
        if config.frozen:
            self._feature_method("frozen")
        if config.all_tasks:
            self._all_tasks()
        for method in FEATURE_METHODS[1:]:
            if getattr(config, method):
                self._feature_method(method)
        for task in self.work.tasks.values():
            if config.single_task:
                self._own_cells(task)
        return self._clock.seconds_each()

    def plan(self, method: str, task: GridTask) -> EncoderPlan | None:
        """The encoder whose features a method reads; None for the one as it is."""
        work, name, kind = self.work, task.name, task.task.type
        if method == "all_tasks_heads":
            return shared_encoder(work, ALL)
        if method == "leave_one_task_out":
            return shared_encoder(work, f"without-{name}", [name])
        if method == "leave_one_task_out_signs":
            return shared_encoder(work, f"signs-without-{name}", [name], signs=True)
        if method == "leave_one_type_out":
            same = [other.name for other in work.tasks.values() if other.task.type == kind]
            if same == [name]:  # the same encoder as without the task alone
                return self.plan("leave_one_task_out", task)
            return shared_encoder(work, f"without-type-{kind}", same)
        return None

    def method_tasks(self, method: str) -> list[GridTask]:
        """The tasks a method has cells of.

        Raises ConfigError where leaving out a task, or its type, would leave nothing.
        """
        tasks = list(self.work.tasks.values())
        if method == "leave_one_type_out":
            wanted = self.work.config.types
            types = Counter(task.task.type or "" for task in tasks)
            if "" in types:
                raise ConfigError(
                    "leave_one_type_out: got tasks without a type, expected one for each in "
                    "index.tsv. Add them there."
                )
            if unknown := sorted(set(wanted) - set(types)):
                raise ConfigError(f"types: got {unknown}, expected some of {sorted(types)}.")
            if len(types) < 2:
                raise ConfigError(f"leave_one_type_out: all tasks are {types}. Add others.")
            return [task for task in tasks if not wanted or task.task.type in wanted]
        if method.startswith("leave_one") and len(tasks) < 2:
            raise ConfigError(f"{method}: got one task, expected at least two. Add another.")
        return tasks

    def candidates(self) -> tuple[int, ...]:
        """How many layers a `mean` may pool."""
        two_thirds = max(1, round(self.work.loaded.num_layers * 2 / 3))
        return self.work.config.mean_layers or (two_thirds,)

    def head_cell(self, method: str, task: GridTask, recipe: Recipe, seed: int) -> Cell:
        return Cell(method, task.name, f"{recipe}.seed-{seed}")

    def read_head(
        self, method: str, task: GridTask, recipe: Recipe, seed: int
    ) -> dict[str, Any] | None:
        """The result of such a cell, if it has one."""
        identity = head_identity(self.work, self.plan(method, task), task, recipe, seed)
        return self.results.read(self.head_cell(method, task, recipe, seed), identity)

    def all_recipes(self, method: str) -> list[Recipe]:
        """Those of the table's rows: once layers are chosen, the others that were tried, too."""
        first, after = self._phases(method)
        if after and method not in self.chosen_layers:
            with suppress(StatisticsError):  # no cell yet to choose by
                self.chosen_layers[method] = self._choose_layers(method, self.method_tasks(method))
        chosen = self.chosen_layers.get(method)
        tuned = [recipe.with_layers(chosen) for recipe in after] if chosen else []
        return list(dict.fromkeys([*first, *tuned]))

    def _phases(self, method: str) -> tuple[list[Recipe], list[Recipe]]:
        """Recipes that can run at once, and those that wait for how many layers are pooled."""
        recipes = self.work.config.recipes(method)
        waiting = [recipe for recipe in recipes if recipe.is_tuned]
        if not waiting:
            return recipes, []
        candidates = self.candidates()
        if len(candidates) == 1:
            return list(dict.fromkeys(r.with_layers(candidates[0]) for r in recipes)), []
        tuning = [tuned_recipe(count) for count in candidates]
        fixed = [recipe for recipe in recipes if not recipe.is_tuned]
        # The one that is chosen is among those that were run.
        after = [r for r in waiting if r.with_layers(candidates[0]) != tuning[0]]
        return list(dict.fromkeys([*tuning, *fixed])), after

    def _count(self) -> Counter[str]:
        config, total = self.work.config, Counter[str]()
        encoders = {ALL} if config.all_tasks else set()
        for method in FEATURE_METHODS:
            if getattr(config, method):
                recipes = sum(map(len, self._phases(method)))
                total["heads"] += recipes * len(self.method_tasks(method)) * len(config.seeds)
        total["encoders"] = len(encoders | self._encoders(FEATURE_METHODS))
        total["fine-tuned encoders"] = len(self.work.tasks) * config.single_task
        total["students"] = len(self.work.tasks) * config.student
        return total

    def _encoders(self, methods: Sequence[str]) -> set[str]:
        """Names of those that are trained for some methods."""
        return {
            plan.name
            for method in methods
            if getattr(self.work.config, method)
            for task in self.method_tasks(method)
            if (plan := self.plan(method, task))
        }

    def _feature_method(self, method: str) -> None:
        first, after = self._phases(method)
        tasks = self.method_tasks(method)
        reads = [*first, *(tuned_recipe(count) for count in self.candidates())]
        layers = needed_layers(reads, self.work.loaded.num_layers)
        for task in tasks:
            self._task_cells(method, task, first, layers)
        if any(recipe.is_tuned for recipe in self.work.config.recipes(method)):
            self.chosen_layers[method] = self._choose_layers(method, tasks)
            tuned = [recipe.with_layers(self.chosen_layers[method]) for recipe in after]
            for task in tasks:
                self._task_cells(method, task, tuned, layers)
        if not self.work.config.keep_encoders:
            kept = {ALL} | self._encoders(FEATURE_METHODS[FEATURE_METHODS.index(method) + 1 :])
            for task in tasks:
                if (plan := self.plan(method, task)) and plan.name not in kept:
                    remove_encoder(self.work, plan)

    def _choose_layers(self, method: str, tasks: list[GridTask]) -> int:
        candidates = self.candidates()
        if len(candidates) == 1:
            return candidates[0]
        seed = self.work.config.seeds[0]
        columns = [
            [
                cell
                for count in candidates
                if (cell := self.read_head(method, task, tuned_recipe(count), seed))
            ]
            for task in tasks
        ]
        whole = [column for column in columns if len(column) == len(candidates)]  # part of a run
        accuracies = {
            count: mean(column[i]["dev"]["accuracy"] for column in whole)
            for i, count in enumerate(candidates)
        }
        best = max(candidates, key=lambda count: accuracies[count])
        shown = ", ".join(f"{count}: {100 * x:.2f}" for count, x in accuracies.items())
        if self.chosen_layers.get(method) != best:
            self.work.say(f"{method}: mean of the last {best} layers is best on dev ({shown})")
        return best

    def _task_cells(
        self,
        method: str,
        task: GridTask,
        recipes: list[Recipe],
        layers: tuple[int, ...],
    ) -> None:
        """Runs a task's cells that are not done; trains the encoder if one of them is not."""
        work, plan = self.work, self.plan(method, task)
        wanted = [(recipe, seed) for recipe in recipes for seed in work.config.seeds]
        missing = [
            (recipe, seed)
            for recipe, seed in wanted
            if self.read_head(method, task, recipe, seed) is None
        ]
        self._clock.skip("heads", len(wanted) - len(missing))
        if not missing:
            if plan is not None:
                self._skip(plan)
            return

        def prepare() -> Path | None:
            return None if plan is None else self._encoder(plan)

        features = EncoderFeatures(work, self._cache, plan, prepare, layers)
        for recipe, seed in missing:
            cell = self.head_cell(method, task, recipe, seed)
            identity = head_identity(work, plan, task, recipe, seed)
            with self._clock.timing("heads") as seconds:
                result = train_cell(work, features.parts(task, recipe), task, recipe, seed)
                self._write(cell, identity, {**result, "seconds": seconds()})
            self._say_result(cell, result)

    def _encoder(self, plan: EncoderPlan) -> Path:
        if plan.name in self._counted:
            return train_encoder(self.work, plan, self._force)
        self._counted.add(plan.name)
        with self._clock.timing("encoders"):
            return train_encoder(self.work, plan, self._force)

    def _skip(self, plan: EncoderPlan) -> None:
        if plan.name not in self._counted:
            self._counted.add(plan.name)
            self._clock.skip("encoders")

    def _all_tasks(self) -> None:
        plan = shared_encoder(self.work, ALL)
        tasks = self.work.tasks.values()
        identities = {task.name: self.own_identity(task, plan) for task in tasks}
        missing = [
            task
            for task in tasks
            if self.results.read(Cell("all_tasks", task.name, AS_IS), identities[task.name]) is None
        ]
        if not missing:
            self._skip(plan)
            return
        folder = self._encoder(plan)
        for task in missing:
            result = self._as_is(folder, task)
            cell = Cell("all_tasks", task.name, AS_IS)
            self._write(cell, identities[task.name], result)
            self._say_result(cell, result)

    def _own_cells(self, task: GridTask) -> None:
        """The fine-tuned encoder of a task, and the student distilled from it."""
        work, plan = self.work, own_encoder(self.work, task.name)
        cell, identity = Cell("single_task", task.name, AS_IS), self.own_identity(task, plan)
        if self.results.read(cell, identity) is not None:
            self._clock.skip("fine-tuned encoders")
        else:
            with self._clock.timing("fine-tuned encoders") as seconds:
                folder = train_encoder(work, plan, self._force)
                result = self._as_is(folder, task)
                self._write(cell, identity, {**result, "seconds": seconds()})
            self._say_result(cell, result)
        if work.config.student:
            self._student(task, plan)
        if not work.config.keep_encoders:
            remove_encoder(work, plan)

    def _student(self, task: GridTask, plan: EncoderPlan) -> None:
        work, student = self.work, self.work.config.distil
        cell = Cell("student", task.name, AS_IS)
        identity = {**self.own_identity(task, plan), "distil": as_json(student)}
        if self.results.read(cell, identity) is not None:
            self._clock.skip("students")
            return
        with self._clock.timing("students") as seconds:
            teacher = load_trained(train_encoder(work, plan, self._force), work.device)
            logits = logits_of(
                teacher.model,
                task.name,
                self._batches(teacher.model, task.task.train),
                teacher.config,
            )
            # Loaded again: it is changed and trained in place.
            encoder = cut_encoder(load_encoder(student.encoder or work.encoder), student.layers)
            config = replace(
                plan.config,
                position_pooling=student.position_pooling,
                steps=student.steps,
                batch_size=student.batch_size,
                accumulation=1,
                learning_rate=student.learning_rate,
                head_learning_rate=student.head_learning_rate,
            )
            model = train_student(
                encoder,
                task.task,
                logits,
                student,
                config,
                work.device,
                lambda line: work.say(f"student {task.name}: {line}"),
            )
            result = self._measure(model, task, config)
            result["shape"] = {"layers": encoder.num_layers, "dim": encoder.dim}
            self._write(cell, identity, {**result, "seconds": seconds()})
        self._say_result(cell, result)

    def own_identity(self, task: GridTask, plan: EncoderPlan) -> dict[str, Any]:
        """Of a cell whose encoder comes with the task's own head."""
        return {"encoder": encoder_identity(self.work, plan), "data": task.to_json()}

    def _as_is(self, folder: Path, task: GridTask) -> dict[str, Any]:
        trained = load_trained(folder, self.work.device)
        return self._measure(trained.model, task, trained.config)

    def _measure(self, model: MultitaskModel, task: GridTask, config: Any) -> dict[str, Any]:
        result = {}
        for part in ("dev", "test"):
            examples = task.parts()[part]
            logits = logits_of(model, task.name, self._batches(model, examples), config)
            result[part] = cell_metrics(examples.label_ids, logits, task.task.classes)
        return result

    def _batches(self, model: MultitaskModel, examples: Examples) -> Any:
        encoder = model.encoder
        tokenizer = text_tokenizer(encoder, self.work.config.max_length)
        return all_batches(examples, tokenizer, encoder.pad_id)

    def _write(self, cell: Cell, identity: dict[str, Any], result: dict[str, Any]) -> None:
        self.results.write(cell, identity, result, self.work.made_with())

    def _say_result(self, cell: Cell, result: dict[str, Any]) -> None:
        accuracies = [f"{part} {100 * result[part]['accuracy']:.2f}" for part in ("dev", "test")]
        self._clock.say(f"{cell}: {', '.join(accuracies)}")
