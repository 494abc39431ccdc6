"""Head kinds: what a head's logits mean, and the answer that is made of them.

One module per kind. To the kernels a head is logits; of the kinds they know the sequences of spans
alone (`tag_sequences.py`). `host/src/kinds.cpp` has the same rules for C++, and
`training/heads/objectives` what each kind is trained for.
"""

from bitheads.engine.kinds.decision import NO_DECISION, Decision
from bitheads.engine.kinds.kind import Kind
from bitheads.engine.kinds.multi_label import MultiLabel
from bitheads.engine.kinds.ordinal import Ordinal
from bitheads.engine.kinds.regression import Regression
from bitheads.engine.kinds.single_label import SingleLabel
from bitheads.engine.kinds.token_label import TokenLabel

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (SingleLabel(), MultiLabel(), Ordinal(), Regression(), TokenLabel())
}
"""By name."""

SINGLE_LABEL = SingleLabel.name

__all__ = ["KINDS", "NO_DECISION", "SINGLE_LABEL", "Decision", "Kind"]
