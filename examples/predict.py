"""Answers every task of a bundle on a few texts: one encoder pass, all heads."""

import sys

from bitheads import Engine

TEXTS = [
    "What a lovely film.",
    "Shares fell 8 percent on Monday.",
    "You won a prize! Reply with your bank details to claim it.",
    # Two texts in one: heads for pairs answer these, and no others.
    ("How do I learn to swim?", "What is the best way to learn swimming?"),
]


def main(bundle: str = "bundles/all-MiniLM-L6-v2") -> None:
    with Engine.load(bundle) as engine:
        print(f"{engine.backend}: {', '.join(engine.tasks)}")
        answers = engine.predict(TEXTS)
    for i, text in enumerate(TEXTS):
        print(text)
        for task, prediction in answers.items():
            label = prediction.top[i]
            if label is not None:  # the head is for texts of this form
                print(f"    {task}: {label} {prediction.probabilities[i].max():.2f}")
    stats = answers.stats
    print(f"{stats.num_tokens} tokens, {1000 * stats.encode_s:.1f} ms in the encoder")


if __name__ == "__main__":
    main(*sys.argv[1:])
