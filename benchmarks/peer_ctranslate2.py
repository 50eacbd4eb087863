"""CTranslate2 as a peer, in a process and an environment of its own: `python benchmarks/peer_ctranslate2.py`.

Reads one JSON object a line: first {"folder", "dtype", "threads"}, then {"prompts": [[ids]], "tokens": n};
answers each with one line: "ready", or {"times": [[seconds after the start of each token]]}.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import ctranslate2  # type: ignore[import-not-found,unused-ignore]
from ctranslate2.converters import TransformersConverter  # type: ignore[import-not-found,unused-ignore]


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as work:
        TransformersConverter(setup["folder"]).convert(f"{work}/model", force=True)
        generator = ctranslate2.Generator(
            f"{work}/model", compute_type=setup["dtype"], intra_threads=setup["threads"], inter_threads=1
        )
        names = json.loads(Path(f"{work}/model/vocabulary.json").read_text(encoding="utf-8"))
        print('"ready"', flush=True)
        for line in sys.stdin:
            ask = json.loads(line)
            times: list[list[float]] = [[] for _ in ask["prompts"]]
            began = time.perf_counter()

            def note(result: object, times: list[list[float]] = times, began: float = began) -> bool:
                times[result.batch_id].append(time.perf_counter() - began)  # type: ignore[attr-defined]
                return False

            generator.generate_batch(
                [[names[token] for token in prompt] for prompt in ask["prompts"]],
                max_length=ask["tokens"],
                min_length=ask["tokens"],
                sampling_topk=1,
                include_prompt_in_result=False,
                end_token=[],
                callback=note,
            )
            print(json.dumps({"times": times}), flush=True)


if __name__ == "__main__":
    main()
