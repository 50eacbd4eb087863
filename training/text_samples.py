"""Sample conversations for the model card, uncut, as Markdown: `python -m training.text_samples`. Greedy."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from training.eval_text import FOLDER
from training.text_answers import Answerer
from training.text_conversation import Conversation, Turn

# What the user says, turn by turn; not to be chosen by the answers.
TALKS: tuple[tuple[str, ...], ...] = (
    ("Good morning!", "Who are you?", "What can you do for me?"),
    ("Please tell me about the red boat on the water, and draw it for me.", "Make it blue."),
    ("Could you draw me a red star above a blue house?", "Thank you, that is lovely!"),
    (
        "Hi, can I get a large latte with oat milk?",
        "And a blueberry muffin.",
        "Actually, make the latte small.",
        "That's all.",
    ),
    ("Sara has 14 shells and finds 8 more. How many shells does Sara have?", "What is 6 times 7?"),
    (
        "The key is in the garage. Anna lives in Oslo. Ben lives in Rome. Where does Anna live?",
        "Where is the key?",
    ),
    ("Name three animals.", "Replace the second one with goats."),
    ("turn off the lights in the kitchen", "play some jazz"),
    ("Tell me about the sea.", "Write me a little poem about the moon."),
    ("Explain how a submarine works.", "Then tell me a story."),
)


def converse(answerer: Answerer, asked: tuple[str, ...]) -> list[Turn]:
    """The conversation that comes of `asked`, each answer given with all before it in view."""
    turns: list[Turn] = []
    for question in asked:
        (answer,) = answerer.answers([Conversation("sample", "sample", (*turns, Turn(question, "")))])
        turns.append(Turn(question, answer.text.strip() + ("" if answer.ended else " ... (did not end)")))
    return turns


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    torch.set_num_threads(1)
    answerer = Answerer(parser.parse_args().folder)
    out = Console(soft_wrap=True, highlight=False, markup=False)
    for number, asked in enumerate(TALKS, start=1):
        out.print(f"{number}.")
        for turn in converse(answerer, asked):
            out.print(f"   - **User:** {turn.user}\n     **Upbeat:** `{turn.assistant}`")


if __name__ == "__main__":
    main()
