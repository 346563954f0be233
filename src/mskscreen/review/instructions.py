"""What a pack tells in words: its readers what to do, and whoever runs the study what to hand out."""

from __future__ import annotations

from collections.abc import Sequence

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.review.protocol import AIDED, CALLS, FORMS, IMAGES, JUDGEMENTS, PAUSE, UNAIDED


def instructions(phase: str) -> str:
    """What readers of a phase do; nothing of the other one."""
    lines = [
        "A reading study of radiographs of the upper limb",
        f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
        "",
        f"Fill in your own form from top to bottom; it lies in {FORMS}/. A row is one case.",
        f"CODE-1.png, CODE-2.png, ... in {IMAGES}/ are its radiographs.",
        "",
        f"call        {' or '.join(CALLS)}",
        "confidence  1 (a guess) to 5 (certain)",
        "box         optional: where you see the abnormality, as VIEW LEFT TOP RIGHT BOTTOM in pixels of the",
        "            radiograph, for example 1 120 340 180 400; several boxes with ; between them",
    ]
    if phase == AIDED:
        lines += [
            "map         do the maps in CODE-1-map.png, CODE-2-map.png, ... mark what makes the case abnormal?",
            f"            {', '.join(JUDGEMENTS)}; leave it empty for a case without a map:",
            "            an image that the model calls normal has none",
            "",
            "The map shows what the model used, not where the lesion is.",
        ]
    return "\n".join(
        [*lines, "", "Read alone, in the order of the form, and do not go back to change an answer.", ""]
    )


def handing_out(phases: Sequence[str]) -> str:
    """What whoever runs the study does."""
    lines = ["For whoever runs the reading study; readers do not get this folder but one of those in it.", ""]
    if AIDED in phases:
        lines += [
            f"{UNAIDED}/ and {AIDED}/ are each whole in themselves. Hand out {UNAIDED}/ alone, and {AIDED}/,",
            f"which shows scores and maps, to a reader whose form of the {UNAIDED} phase is back, {PAUSE}",
            "after he filled it in.",
        ]
    else:
        lines += [f"Hand out {UNAIDED}/. The model has no map: there is no {AIDED} phase."]
    return "\n".join([*lines, "Look through the pictures for names first. review score reads this folder.", ""])
