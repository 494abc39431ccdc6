"""Asks every head of a bundle about a few texts, in one encoder pass; most refuse most texts."""

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
            # Not those for texts of another form, nor of which the text is none of their business.
            if prediction.accepted[i]:
                print(f"    {task}: {', '.join(prediction.selected[i])}")
    stats = answers.stats
    print(f"{stats.num_tokens} tokens, {1000 * stats.encode_s:.1f} ms in the encoder")


if __name__ == "__main__":
    main(*sys.argv[1:])
