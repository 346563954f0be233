"""The seven joint types of the upper limb, in the index order of the published release."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class AnatomyCode(NamedTuple):
    """How MURA, DICOM and SNOMED CT name one joint type."""

    mura: str
    body_part: str
    snomed: str
    meaning: str


class JointType(IntEnum):
    """What a radiograph shows: MURA's study type, DICOM's body part examined.

    The value is the index of the class in the output `pred2`.
    """

    HUMERUS = 0
    WRIST = 1
    FOREARM = 2
    FINGER = 3
    HAND = 4
    ELBOW = 5
    SHOULDER = 6

    @property
    def label(self) -> str:
        """Lower-case English name, as printed in every table."""
        return self.name.lower()

    @property
    def codes(self) -> AnatomyCode:
        """Names of this joint type in MURA, DICOM (0018,0015) and SNOMED CT."""
        return _CODES[self]

    @classmethod
    def from_mura(cls, folder: str) -> JointType:
        """Joint type of a MURA folder name such as `XR_ELBOW`.

        Raises KeyError for any other name.
        """
        return _BY_MURA[folder]

    @classmethod
    def from_body_part(cls, text: str) -> JointType | None:
        """Joint type of a DICOM Body Part Examined value, or None where it names something else."""
        return _BY_BODY_PART.get(text.strip().upper())

    @staticmethod
    def is_other_part(text: str) -> bool:
        """Whether a DICOM Body Part Examined value names a part that is none of the seven, nor may hold one.

        False, too, for what is no term of the standard, and for EXTREMITY, CLAVICLE and SCAPULA, whose radiographs
        may well show one of the seven. Spaces, hyphens and underscores do not count.
        """
        return "".join(character for character in text.upper() if character not in " -_") in _OTHER_PARTS


# DICOM PS3.16 Annex L, Table L-1: Body Part Examined and its SNOMED CT code.
_CODES = {
    JointType.HUMERUS: AnatomyCode("XR_HUMERUS", "HUMERUS", "85050009", "Humerus"),
    JointType.WRIST: AnatomyCode("XR_WRIST", "WRIST", "74670003", "Wrist joint"),
    JointType.FOREARM: AnatomyCode("XR_FOREARM", "FOREARM", "14975008", "Forearm"),
    JointType.FINGER: AnatomyCode("XR_FINGER", "FINGER", "7569003", "Finger"),
    JointType.HAND: AnatomyCode("XR_HAND", "HAND", "85562004", "Hand"),
    JointType.ELBOW: AnatomyCode("XR_ELBOW", "ELBOW", "16953009", "Elbow joint"),
    JointType.SHOULDER: AnatomyCode("XR_SHOULDER", "SHOULDER", "16982005", "Shoulder"),
}
_BY_MURA = {codes.mura: joint for joint, codes in _CODES.items()}
# Values seen in the field beside the defined terms.
_BY_BODY_PART = {codes.body_part: joint for joint, codes in _CODES.items()} | {
    "THUMB": JointType.FINGER,
    "FINGERS": JointType.FINGER,
    "ARM": JointType.HUMERUS,
    "UPPER ARM": JointType.HUMERUS,
    "LOWER ARM": JointType.FOREARM,
}
# Terms of the same table for other parts, and a few that are common in the field: THORAX, LUMBARSPINE, ...
_OTHER = """
ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS CALF CAROTID
CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS COCCYX COLON CORNEA CORONARYARTERY
CSPINE CTSPINE DUODENUM EAR ESOPHAGUS EYE EYELID FACE FEMUR FIBULA FOOT GALLBLADDER HEAD HEADNECK HEART HIP IAC
ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MAXILLA MEDIASTINUM MOUTH NECK
NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX
PROSTATE RECTUM RIB SACRUM SCALP SCLERA SCROTUM SKULL SPINE SPLEEN SSPINE STERNUM STOMACH SUBMANDIBULAR TESTIS
THIGH THYMUS THYROID TIBIA TIBIAFIBULA TLSPINE TMJ TOE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA
ZYGOMA
CERVICALSPINE THORACICSPINE LUMBARSPINE LUMBOSACRALSPINE LOWERLEG UPPERLEG MANDIBLE RIBS THORAX TOES
"""
_OTHER_PARTS = frozenset(_OTHER.split())

JOINT_LABELS: tuple[str, ...] = tuple(joint.label for joint in JointType)
ABNORMALITY_LABELS: tuple[str, ...] = ("normal", "abnormal")
NOT_FOR_DIAGNOSIS = "research use, not for diagnosis"
