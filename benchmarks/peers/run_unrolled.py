"""Our own decoding, from text to text: job `{"run": FOLDER, "wishes": {…}, …}`, candidates `{"batch_tokens": …}`."""

from __future__ import annotations

from typing import Any

from timing import Output, Translate, read_job, time_decoding

import unrolled
from unrolled.tasks.translation_request import TranslationRequest


def main() -> None:
    """Load, then time."""
    job = read_job()
    run = unrolled.load(job["run"])
    translator = run.translator()

    def ready(candidate: dict[str, Any]) -> Translate:
        request = TranslationRequest(**job["wishes"], **candidate)

        def translate(lines: list[str]) -> list[Output]:
            best = [found[0] for found in translator.translate(lines, request)]
            return [(one.text, len(one.symbols) - one.ended) for one in best]

        return translate

    time_decoding(job, ready, parameters=sum(weight.numel() for weight in run.model.parameters()))


if __name__ == "__main__":
    main()
