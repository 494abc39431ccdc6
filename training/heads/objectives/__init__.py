"""What each kind of head is trained for, and how its decision is chosen; one module per kind.

`engine/kinds` has what each kind answers.
"""

from __future__ import annotations

from dataclasses import fields

from bitheads.engine.errors import InputError
from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives.multi_label import MultiLabelObjective
from bitheads.training.heads.objectives.objective import Objective
from bitheads.training.heads.objectives.ordinal import OrdinalObjective
from bitheads.training.heads.objectives.regression import RegressionObjective
from bitheads.training.heads.objectives.single_label import SingleLabelObjective
from bitheads.training.heads.objectives.token_label import TokenLabelObjective

OBJECTIVES: dict[str, type[Objective]] = {
    objective.kind: objective
    for objective in (
        SingleLabelObjective,
        MultiLabelObjective,
        OrdinalObjective,
        RegressionObjective,
        TokenLabelObjective,
    )
}
"""By the kind's name."""


def objective_of(train: LabelledTexts, options: DecisionOptions) -> Objective:
    """What a head for these texts is trained for.

    Raises InputError for labels that no head can be trained on, and for options that mean nothing
    for their kind.
    """
    objective = OBJECTIVES[train.kind]
    for field in fields(DecisionOptions):
        value = getattr(options, field.name)
        if field.name in objective.own_options | {"keep"} or value == field.default:
            continue
        others = [name for name, other in OBJECTIVES.items() if field.name in other.own_options]
        raise InputError(
            f"{train.path}: got {field.name} {value!r} for a {train.kind} head, expected it for "
            f"{' and '.join(others)} heads alone. Leave it out, or say another kind (--kind)."
        )
    return objective.of(train, options)


__all__ = ["OBJECTIVES", "Objective", "objective_of"]
