"""What each kind of head is trained for, and how its decision is chosen; one module per kind.

`engine/kinds` has what each kind answers.
"""

from __future__ import annotations

from bitheads.training.data.labelled_texts import LabelledTexts
from bitheads.training.heads.decision_options import DecisionOptions
from bitheads.training.heads.objectives.multi_label import MultiLabelObjective
from bitheads.training.heads.objectives.objective import Objective
from bitheads.training.heads.objectives.ordinal import OrdinalObjective
from bitheads.training.heads.objectives.regression import RegressionObjective
from bitheads.training.heads.objectives.single_label import SingleLabelObjective

OBJECTIVES: dict[str, type[Objective]] = {
    objective.kind: objective
    for objective in (
        SingleLabelObjective,
        MultiLabelObjective,
        OrdinalObjective,
        RegressionObjective,
    )
}
"""By the kind's name."""


def objective_of(train: LabelledTexts, options: DecisionOptions) -> Objective:
    """What a head for these texts is trained for.

    Options of other kinds are not looked at. Raises InputError for labels that no head can be
    trained on.
    """
    return OBJECTIVES[train.kind].of(train, options)


__all__ = ["OBJECTIVES", "Objective", "objective_of"]
