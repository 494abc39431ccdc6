"""Which cells a grid has, what each follows from, and in which order they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from statistics import StatisticsError, mean
from typing import Any

from bitheads.training.errors import ConfigError
from bitheads.training.table3.cells.new_heads import head_identity, tuned_recipe
from bitheads.training.table3.cells.own_heads import own_identity, student_identity
from bitheads.training.table3.config import FEATURE_METHODS, as_json
from bitheads.training.table3.encoders import (
    EncoderPlan,
    encoder_identity,
    own_encoder,
    shared_encoder,
)
from bitheads.training.table3.features.recipe import Recipe
from bitheads.training.table3.results import Cell, Results
from bitheads.training.table3.work import GridTask, Work

CELLS = "cells"
"""Folder of the results, in the output."""
ALL = "all"
"""Folder of the encoder that is trained on all tasks."""
AS_IS = "as-is"
"""Name of a cell whose encoder comes with its own head."""


class GridPlan:
    """A grid's cells, and what they need of each other. Reads results, and runs nothing.

    Args:
        replace: whether results of another configuration are as good as none.

    Attributes:
        chosen_layers: method -> how many layers its means pool, once that is chosen.
    """

    def __init__(self, work: Work, replace: bool = False) -> None:
        self.work = work
        self.results = Results(work.output / CELLS, replace)
        self.chosen_layers: dict[str, int] = {}

    def methods(self) -> list[str]:
        """The methods that the grid has, in the order they run in: those that tell most first.

        `single_task` has the cells of `student`, too: a task's two encoders follow each other.
        """
        order = (FEATURE_METHODS[0], "all_tasks", *FEATURE_METHODS[1:], "single_task")
        return [method for method in order if getattr(self.work.config, method)]

    def encoder(self, method: str, task: GridTask) -> EncoderPlan | None:
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
                return self.encoder("leave_one_task_out", task)
            return shared_encoder(work, f"without-type-{kind}", same)
        return None

    def encoders(self, methods: Sequence[str]) -> set[str]:
        """Names of the encoders that are trained for some methods."""
        return {
            plan.name
            for method in methods
            if getattr(self.work.config, method)
            for task in self.tasks(method)
            if (plan := self.encoder(method, task))
        }

    def tasks(self, method: str) -> list[GridTask]:
        """The tasks that a method has cells of.

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

    def phases(self, method: str) -> tuple[list[Recipe], list[Recipe]]:
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

    def all_recipes(self, method: str) -> list[Recipe]:
        """Those of the table's rows: once layers are chosen, the others that were tried, too."""
        first, after = self.phases(method)
        if after and method not in self.chosen_layers:
            with suppress(StatisticsError):  # no cell yet to choose by
                self.choose_layers(method)
        chosen = self.chosen_layers.get(method)
        tuned = [recipe.with_layers(chosen) for recipe in after] if chosen else []
        return list(dict.fromkeys([*first, *tuned]))

    def choose_layers(self, method: str) -> int:
        """How many layers a method's means pool, the best on dev of those that were tried.

        It is kept in `chosen_layers`. Raises StatisticsError if no task has all candidates' cells.
        """
        candidates = self.candidates()
        if len(candidates) == 1:
            self.chosen_layers[method] = candidates[0]
            return candidates[0]
        seed = self.work.config.seeds[0]
        columns = [
            [
                cell
                for count in candidates
                if (cell := self.read_head(method, task, tuned_recipe(count), seed))
            ]
            for task in self.tasks(method)
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
        self.chosen_layers[method] = best
        return best

    def head_cell(
        self, method: str, task: GridTask, recipe: Recipe, seed: int
    ) -> tuple[Cell, dict[str, Any]]:
        """The cell of a new head on an encoder's features, and its identity."""
        identity = head_identity(self.work, self.encoder(method, task), task, recipe, seed)
        return Cell(method, task.name, f"{recipe}.seed-{seed}"), identity

    def read_head(
        self, method: str, task: GridTask, recipe: Recipe, seed: int
    ) -> dict[str, Any] | None:
        """The result of such a cell, if it has one."""
        return self.results.read(*self.head_cell(method, task, recipe, seed))

    def own_cell(self, method: str, task: GridTask) -> tuple[Cell, dict[str, Any]]:
        """The cell of an encoder with its own head, and its identity.

        Args:
            method: `all_tasks`, `single_task` or `student`.
        """
        cell = Cell(method, task.name, AS_IS)
        if method == "all_tasks":
            return cell, own_identity(self.work, shared_encoder(self.work, ALL), task)
        identity_of = student_identity if method == "student" else own_identity
        return cell, identity_of(self.work, own_encoder(self.work, task.name), task)

    def read_own(self, method: str, task: GridTask) -> dict[str, Any] | None:
        """The result of such a cell, if it has one."""
        return self.results.read(*self.own_cell(method, task))

    def sense_cells(self) -> dict[str, tuple[Cell, dict[str, Any]]]:
        """The word-sense probe's cells, if there is a probe: encoder -> cell and identity.

        They are those of the encoder as it is, and of the one for all tasks if that is trained.
        """
        work, probe = self.work, self.work.config.wsd
        if probe.task is None:
            return {}
        settings = {
            "wsd": as_json(probe),
            "quotes": (work.config.quotes or {}).get(probe.task),
            "rows": [work.config.max_dev_rows, work.config.max_test_rows],
            "precision": work.config.precision.value,
            "seed": work.config.seeds[0],
        }
        encoders: dict[str, EncoderPlan | None] = {"frozen": None}
        if work.config.all_tasks:
            encoders["all_tasks"] = shared_encoder(work, ALL)
        return {
            name: (
                Cell("word_senses", probe.task, name),
                {**settings, "encoder": encoder_identity(work, encoder)},
            )
            for name, encoder in encoders.items()
        }

    def count(self) -> Counter[str]:
        """Kind of work -> how many pieces of it the grid has, done or not."""
        config, total = self.work.config, Counter[str]()
        for method in FEATURE_METHODS:
            if getattr(config, method):
                recipes = sum(map(len, self.phases(method)))
                total["heads"] += recipes * len(self.tasks(method)) * len(config.seeds)
        shared = {ALL} if config.all_tasks else set()
        total["encoders"] = len(shared | self.encoders(FEATURE_METHODS))
        total["fine-tuned encoders"] = len(self.work.tasks) * config.single_task
        total["students"] = len(self.work.tasks) * config.student
        return total
